//! Which pool a request's path chooses.
//!
//! A rule's prefix is compared byte by byte with the path as the client wrote it: nothing is decoded and no `..` is
//! resolved, so a rule says where a request is served, never who may ask. A prefix holds no `?` and no `#`, so it cannot reach
//! into the query, which stands behind the path. Of an absolute target (`http://host/path`) the path counts; a target without a
//! path (`*`, CONNECT, `http://host`) meets no rule.

use super::bytes::{Bytes, Span, forgotten, low_bytes};
use crate::abi::{MAX_PATH_PREFIX, MAX_PATH_RULES, PathRule};
use crate::packet::get;

/// Place of the rule with the longest prefix that `path` begins with, with or without its query; of equal ones the first.
///
/// `rule` answers rule 0, 1, … below `count`, in any order of their lengths.
#[inline(always)]
pub fn longest<'r, B: Bytes>(
    bytes: &B,
    path: Span,
    count: u32,
    rule: impl Fn(u32) -> Option<&'r PathRule>,
) -> Option<u32> {
    let (mut length, mut place) = (0, 0);
    bytes.repeat(count.min(MAX_PATH_RULES), |i| {
        let Some(rule) = rule(i) else { return true };
        let this = rule.len as u32;
        if this > length && begins(bytes, path, rule) {
            length = forgotten(this, bytes.word(path.start));
            place = i;
        }
        false
    });
    if length == 0 { None } else { Some(place) }
}

/// Whether `path` begins with the rule's prefix.
#[inline(always)]
fn begins<B: Bytes>(bytes: &B, path: Span, rule: &PathRule) -> bool {
    let length = rule.len as u32;
    if length > path.len || length > MAX_PATH_PREFIX as u32 {
        return false;
    }
    let prefix = rule.prefix.as_ptr();
    let mut i = 0;
    while i < MAX_PATH_PREFIX as u32 {
        let mask = low_bytes(length.saturating_sub(i));
        if mask == 0 {
            break;
        }
        // SAFETY: the prefix has so many bytes.
        let wanted = unsafe { get::<u64>(prefix.add(i as usize)) };
        if (bytes.word(path.start.wrapping_add(i)) ^ wanted) & mask != 0 {
            return false;
        }
        i += 8;
    }
    true
}

#[cfg(test)]
mod tests;
