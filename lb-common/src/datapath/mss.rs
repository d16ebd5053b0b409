//! Clamping the maximum segment size of SYN segments (RFC 9293 section 3.7.1; RFC 4459 for tunnels).

use super::scratch::Packet;
use super::{Env, frame};
use crate::abi::Be16;
use crate::packet::{Tcp, get, put, unknown_zero};

/// Option kinds.
const END: u8 = 0;
const PADDING: u8 = 1;
const MSS: u8 = 2;
/// Bytes of options at most.
const MAX_OPTIONS: u32 = 40;

/// Lowers the MSS option to `limit` where it holds more.
#[inline(never)]
pub(crate) fn clamp<E: Env>(env: &E, packet: &Packet, limit: u16) {
    let l4 = packet.l4 as usize;
    let Some(p) = frame::at(env, l4, Tcp::LEN) else { return };
    // SAFETY: checked for the fixed header.
    let end = unsafe { Tcp::new(p) }.header_len();
    let mut offset = Tcp::LEN;
    env.repeat(MAX_OPTIONS, |_| {
        if offset + 2 > end {
            return true;
        }
        let Some(p) = frame::at(env, l4 + offset, 2) else { return true };
        // SAFETY: checked for two bytes.
        let (kind, len): (u8, u8) = unsafe { (get(p), get(p.add(1))) };
        let len = if kind == PADDING { 1 } else { len as usize };
        if kind == END || offset + len > end || (len < 2 && kind != PADDING) {
            return true;
        }
        if kind == MSS && len == 4 {
            lower(env, l4, offset, limit);
            return true;
        }
        // Inside the header, so below 64.
        offset = (offset + len + unknown_zero(kind)) & 0x3f;
        false
    });
}

#[inline(always)]
fn lower<E: Env>(env: &E, l4: usize, offset: usize, limit: u16) {
    let Some(p) = frame::at(env, l4 + offset, 4) else { return };
    // SAFETY: checked for four bytes.
    let old = unsafe { Be16(get(p.add(2))) };
    if old.host() <= limit {
        return;
    }
    let new = Be16::new(limit);
    // SAFETY: checked for four bytes.
    unsafe { put(p.add(2), new.raw()) };
    let Some(p) = frame::at(env, l4, Tcp::LEN) else { return };
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    // The checksum adds words at even offsets; a value at an odd one adds with its bytes swapped.
    if offset & 1 == 0 {
        tcp.replaced16(old.raw(), new.raw());
    } else {
        tcp.replaced16(old.raw().swap_bytes(), new.raw().swap_bytes());
    }
}
