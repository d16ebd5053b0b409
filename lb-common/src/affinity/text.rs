//! The session key of a text: a cookie's value or a segment of it.

use super::bytes::{Bytes, Span, low_bytes};
use super::siphash::State;

/// Bytes of a text that its key is made of; of longer ones it is these and the length.
pub const LONGEST: u32 = 1_024;

/// Words that are taken without a loop, whose rounds are calls: most session ids are no longer.
const FEW: u32 = 4;

/// SipHash-2-4 of a text under the cluster's secret.
///
/// Of a text longer than [`LONGEST`]: of its first [`LONGEST`] bytes and then its length as eight bytes, little-endian.
/// Texts are hashed however short they are, so that whoever chooses a cookie's value does not choose the key.
#[inline(always)]
pub fn key<B: Bytes>(bytes: &B, text: Span, secret: &[u64; 2]) -> u64 {
    let mut state = State::new(secret);
    let taken = text.len.min(LONGEST);
    let words = taken / 8;
    let mut i = 0;
    while i < FEW {
        if i >= words {
            break;
        }
        state.absorb(bytes.word(text.start.wrapping_add(8 * i)));
        i += 1;
    }
    bytes.repeat(words.saturating_sub(FEW), |i| {
        state.absorb(bytes.word(text.start.wrapping_add(8 * (FEW + i))));
        false
    });
    if text.len > LONGEST {
        state.absorb(text.len as u64);
        return state.finish(0, (LONGEST + 8) as u8);
    }
    let tail = bytes.word(text.start.wrapping_add(taken & !7)) & low_bytes(taken & 7);
    state.finish(tail, taken as u8)
}

#[cfg(test)]
mod tests;
