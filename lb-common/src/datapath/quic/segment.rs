//! The session key that stands at a fixed place of a datagram's payload.

use super::super::Env;
use super::super::scratch::Scratch;
use super::payload;
use crate::abi::{AffinityRules, MAX_PAYLOAD_SEGMENT, Settings};
use crate::affinity;
use crate::packet::opaque_offset;

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
    let segment = &mut scratch.segment;
    let mut i = 0;
    while i < segment.len() {
        // Volatile, or it becomes the kernel's memset, a loop over bytes.
        // SAFETY: below the length.
        unsafe { segment.as_mut_ptr().add(i).write_volatile(0) };
        i += 1;
    }
    // SAFETY: as many bytes as the segment has at most.
    if !unsafe { env.load((start + offset) as u32, segment.as_mut_ptr().cast(), wanted as u32) } {
        return None;
    }
    let mask: *const u64 = rules.mask.as_ptr().cast();
    let mut i = 0;
    while i < segment.len() {
        // SAFETY: the mask has as many bytes as the segment; what lies behind the length is zero whatever the mask says.
        unsafe { *segment.get_unchecked_mut(i) &= mask.add(i).read_unaligned() };
        i += 1;
    }
    Some(affinity::payload_segment(segment, wanted as u32, &settings.session_secret))
}
