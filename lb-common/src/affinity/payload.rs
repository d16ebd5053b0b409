//! A session key at a fixed place of the payload.

use super::bytes::{Bytes, low_bytes};
use super::siphash::State;
use crate::abi::{AffinityRules, MAX_PAYLOAD_SEGMENT};
use crate::packet::get;

/// The payload segment in the `len` bytes of `bytes`, as a session key; `None` when they end before it does.
///
/// At most eight bytes stand as they are, as a big-endian number, so that a switch can match them; longer ones
/// are hashed: SipHash-2-4 of the masked bytes under the cluster's secret.
#[inline(always)]
pub fn key<B: Bytes>(bytes: &B, len: u32, rules: &AffinityRules, secret: &[u64; 2]) -> Option<u64> {
    let (offset, length) = (rules.offset as u32, rules.length as u32);
    if length == 0 || length > MAX_PAYLOAD_SEGMENT as u32 || offset + length > len {
        return None;
    }
    let mask = rules.mask.as_ptr();
    let word = |i: u32| {
        // SAFETY: the mask has 64 bytes.
        let mask = unsafe { get::<u64>(mask.add((8 * (i & 7)) as usize)) };
        bytes.word(offset + 8 * i) & mask & low_bytes(length.saturating_sub(8 * i))
    };
    if length <= 8 {
        return Some(word(0).swap_bytes() >> (64 - 8 * length));
    }
    let mut state = State::new(secret);
    bytes.repeat(length / 8, |i| {
        state.absorb(word(i));
        false
    });
    let tail = if length & 7 == 0 { 0 } else { word(length / 8) };
    Some(state.finish(tail, length as u8))
}

#[cfg(test)]
mod tests;
