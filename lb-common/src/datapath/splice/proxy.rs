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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Be16;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn written(packet: &Packet) -> Vec<u8> {
        let mut hold = Hold::default();
        write(packet, &mut hold);
        hold.head[HOLD_FRONT - hold.front as usize..].to_vec()
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        let ports = (Be16::new(40_000), Be16::new(80));
        let v4 = Packet {
            source: Ipv4Addr::new(10, 1, 0, 2).into(),
            destination: Ipv4Addr::new(10, 99, 0, 1).into(),
            source_port: ports.0,
            destination_port: ports.1,
            ..Packet::default()
        };
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([10, 1, 0, 2, 10, 99, 0, 1, 0x9c, 0x40, 0, 80]);
        assert_eq!(written(&v4), expected);
        let (source, destination) =
            (Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
        let v6 = Packet { source: source.into(), destination: destination.into(), ..v4 };
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        expected.extend(source.octets());
        expected.extend(destination.octets());
        expected.extend([0x9c, 0x40, 0, 80]);
        assert_eq!(written(&v6), expected);
    }
}
