//! The session cookie of a request.

use super::bytes::Bytes;
use super::head::{self, Head, Progress};
use crate::abi::AffinityRules;

/// Goes on reading a request head of which `len` bytes are there, at the start of `bytes`.
///
/// Cookie name and limit come from `rules`; `progress` is zeroed before the first call and left alone between calls, and bytes that have been there
/// stay as they are.
#[inline(always)]
pub fn scan<B: Bytes>(bytes: &B, len: u32, progress: &mut Progress, rules: &AffinityRules) -> Head {
    head::scan::<B, false>(bytes, len, progress, rules)
}
