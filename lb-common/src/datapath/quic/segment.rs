//! The session key that stands at a fixed place of a datagram's payload.

use super::super::Env;
use super::super::scratch::Scratch;
use super::payload;
use crate::abi::{AffinityRules, MAX_PAYLOAD_SEGMENT, Settings};
use crate::affinity::{self, Bytes};
use crate::packet::opaque_offset;

/// Words of the longest segment.
const WORDS: usize = MAX_PAYLOAD_SEGMENT / 8;

/// A payload of which the segment alone is at hand.
struct Loaded<'e> {
    words: &'e [u64; WORDS],
    /// Where the segment stands in the payload.
    offset: u32,
}

impl Bytes for Loaded<'_> {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        let at = at.wrapping_sub(self.offset);
        (u64::from_le(self.words[at as usize / 8 % WORDS]) >> (8 * (at & 7))) as u8
    }
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        u64::from_le(self.words[at.wrapping_sub(self.offset) as usize / 8 % WORDS])
    }
    /// So few rounds need no helper, whose closure would not fit on the stack.
    #[inline(always)]
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        let mut i = 0;
        while i < WORDS as u32 {
            if i >= count || step(i) {
                break;
            }
            i += 1;
        }
    }
}

/// The session of a datagram, when its payload reaches to the end of the segment.
#[inline(always)]
pub(super) fn session<E: Env>(
    env: &E,
    settings: &Settings,
    rules: &AffinityRules,
    scratch: &mut Scratch,
) -> Option<u64> {
    let (start, len) = payload(env, &scratch.packet)?;
    let (offset, wanted) = (rules.offset as usize, opaque_offset(rules.length as usize));
    if wanted == 0 || wanted > MAX_PAYLOAD_SEGMENT || offset + wanted > len {
        return None;
    }
    // What stands behind a shorter segment from another packet is cut off where the key is read.
    // SAFETY: as many bytes as the segment has at most.
    if !unsafe { env.load((start + offset) as u32, scratch.segment.as_mut_ptr().cast(), wanted as u32) } {
        return None;
    }
    let loaded = Loaded { words: &scratch.segment, offset: offset as u32 };
    affinity::payload::key(&loaded, len as u32, rules, settings.session_secret())
}

/// The key that the other secret makes of the segment which [`session`] has read. Out of line, for size counts more than a call.
#[inline(never)]
pub(super) fn other_session(settings: &Settings, rules: &AffinityRules, scratch: &Scratch) -> u64 {
    let offset = rules.offset as u32;
    let loaded = Loaded { words: &scratch.segment, offset };
    let len = offset + rules.length as u32;
    // The segment was all there.
    affinity::payload::key(&loaded, len, rules, settings.other_secret()).unwrap_or_default()
}
