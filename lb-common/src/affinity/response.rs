//! The session cookie that a response sets.

use super::bytes::Bytes;
use super::head::{self, Head, Progress};
use crate::abi::AffinityRules;

/// Goes on reading a response head of which `len` bytes are there, at the start of `bytes`.
///
/// The value is that of the last `Set-Cookie` for the name: a browser would keep that one, whatever attributes it
/// has. Interim responses (1xx but 101) before the final one belong to the head. Otherwise as for requests.
#[inline(always)]
pub fn scan<B: Bytes>(bytes: &B, len: u32, progress: &mut Progress, rules: &AffinityRules) -> Head {
    head::scan::<B, true>(bytes, len, progress, rules)
}
