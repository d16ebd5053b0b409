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

#[cfg(test)]
mod tests {
    use super::super::model::{Dice, Model, ones_sum};
    use super::*;

    /// What the documentation says, byte by byte.
    fn clamped(segment: &[u8], end: usize, limit: u16) -> Vec<u8> {
        let (mut out, mut at) = (segment.to_vec(), Tcp::LEN);
        while at < end && segment[at] != END {
            if segment[at] == PADDING {
                at += 1;
                continue;
            }
            let len = if at + 1 < end { segment[at + 1] as usize } else { 0 };
            if len < 2 || at + len > end {
                break;
            }
            if segment[at] == MSS && len == 4 {
                let mss = u16::from_be_bytes([segment[at + 2], segment[at + 3]]).min(limit);
                out[at + 2..at + 4].copy_from_slice(&mss.to_be_bytes());
                break;
            }
            at += len;
        }
        out
    }

    #[test]
    fn any_options_are_clamped_as_documented() {
        const L4: usize = 34;
        const PIECES: [&[u8]; 8] =
            [&[1], &[2, 4, 0x05, 0xb4], &[2, 4, 0xff, 0xff], &[3, 3, 7], &[4, 2], &[0], &[2, 3, 9], &[8, 10]];
        let mut dice = Dice(3);
        let model = Model::new(0, 0);
        let mut lowered = 0;
        for _ in 0..50_000 {
            let end = Tcp::LEN + dice.below(11) * 4;
            let mut options = Vec::new();
            while options.len() < end - Tcp::LEN {
                match dice.below(4) {
                    0 => options.extend(dice.bytes(1)),
                    _ => options.extend(PIECES[dice.below(PIECES.len())]),
                }
            }
            let mut segment = dice.bytes(Tcp::LEN);
            segment[12] = (end as u8 / 4) << 4;
            segment.extend(&options[..end - Tcp::LEN]);
            segment.extend(dice.bytes(7));
            let limit = [536, 1220, 1460, 65_535][dice.below(4)];
            model.set_frame(&[vec![0; L4], segment.clone()].concat());
            clamp(&model, &Packet { l4: L4 as u16, ..Packet::default() }, limit);
            let out = model.frame().split_off(L4);
            let mut expected = clamped(&segment, end, limit);
            lowered += (expected != segment) as u32;
            assert_eq!(ones_sum(&out), ones_sum(&segment), "the checksum follows: {segment:x?} to {limit}");
            expected[Tcp::CHECKSUM..Tcp::CHECKSUM + 2]
                .copy_from_slice(&out[Tcp::CHECKSUM..Tcp::CHECKSUM + 2]);
            assert_eq!(out, expected, "{segment:x?} to {limit}");
        }
        assert!(lowered > 1_000, "{lowered}");
    }
}
