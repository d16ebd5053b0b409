//! The part of a cookie's value that says whose the session is.

use super::bytes::{Bytes, Span, all, forgotten, lowest, zeros};

/// Bytes that one round of the search looks at.
const CHUNK: u32 = 32;

/// The part of `value` with that number, counted from 0; all of it when the delimiter is 0.
///
/// Of length 0 when the value has no such part, or an empty one.
#[inline(always)]
pub fn part<B: Bytes>(bytes: &B, value: Span, delimiter: u8, index: u8) -> Span {
    if delimiter == 0 {
        return value;
    }
    let end = value.end();
    let pattern = all(delimiter);
    // Parts still to skip, the part's first byte, and how far the search has come.
    let mut left = index as u32;
    let mut start = value.start;
    let mut at = value.start;
    let mut stop = end;
    bytes.repeat(value.len, |_| {
        let mut i = 0;
        let mut word = 0;
        let mut hit = 0;
        while i < CHUNK {
            word = bytes.word(at.wrapping_add(i));
            hit = zeros(word ^ pattern);
            if hit != 0 {
                break;
            }
            i += 8;
        }
        at = forgotten(at.wrapping_add(i), word);
        if hit == 0 {
            return at >= end;
        }
        let found = at.wrapping_add(lowest(hit));
        if found >= end {
            return true;
        }
        if left == 0 {
            stop = found;
            return true;
        }
        left = forgotten(left - 1, word);
        at = found.wrapping_add(1);
        start = at;
        false
    });
    if left != 0 { Span::default() } else { Span::new(start, stop.saturating_sub(start)) }
}

#[cfg(test)]
mod tests;
