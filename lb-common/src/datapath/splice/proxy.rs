//! The header that tells the backend who the client is: version 2 of HAProxy's PROXY protocol.

use crate::abi::{HOLD_FRONT, Hold};
use crate::datapath::scratch::Packet;
use crate::packet::put;

/// What every header begins with, as two words in memory order and the first half of a third.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection made on someone's behalf.
const VERSION_PROXY: u8 = 0x21;
/// TCP over IPv4.
const TCP4: u8 = 0x11;
/// TCP over IPv6.
const TCP6: u8 = 0x21;
/// Length over IPv4.
pub(crate) const LEN_V4: u32 = 28;
/// Length over IPv6.
pub(crate) const LEN_V6: u32 = 52;

/// Writes the header for a packet's client in front of the held bytes.
#[inline(always)]
pub(crate) fn write(packet: &Packet, hold: &mut Hold) {
    let v4 = packet.is_v4();
    let front = if v4 { LEN_V4 } else { LEN_V6 };
    hold.front = front;
    let addresses = front - 16;
    let ports = packet.source_port.raw() as u32 | (packet.destination_port.raw() as u32) << 16;
    let (s, d) = (&packet.source.0, &packet.destination.0);
    let head = (&raw mut hold.head).cast::<u8>();
    // SAFETY: both lengths are constants below the room for it, and what is written fits the length.
    unsafe {
        let p = head.add(HOLD_FRONT - if v4 { LEN_V4 } else { LEN_V6 } as usize);
        put(p, word(0));
        put(p.add(4), word(4));
        put(p.add(8), word(8));
        put(p.add(12), u32::from_ne_bytes([VERSION_PROXY, if v4 { TCP4 } else { TCP6 }, 0, addresses as u8]));
        if v4 {
            put(p.add(16), s[3]);
            put(p.add(20), d[3]);
            put(p.add(24), ports);
        } else {
            let mut i = 0;
            while i < 4 {
                put(p.add(16 + 4 * i), s[i]);
                put(p.add(32 + 4 * i), d[i]);
                i += 1;
            }
            put(p.add(48), ports);
        }
    }
}

/// Four bytes of the signature.
const fn word(at: usize) -> u32 {
    u32::from_ne_bytes([SIGNATURE[at], SIGNATURE[at + 1], SIGNATURE[at + 2], SIGNATURE[at + 3]])
}
