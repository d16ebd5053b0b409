//! Bounds-checked access to the frame.

use super::Env;
use crate::packet::{opaque, opaque_offset};

/// Largest offset that is looked at; frames are shorter (no multi-buffer).
const FARTHEST: usize = 0x0fff;

/// The head of the frame, `len` bytes of it.
#[inline(always)]
pub(crate) fn head<E: Env>(env: &E, len: usize) -> Option<*mut u8> {
    let start = env.data();
    if start.wrapping_add(len) as usize > env.data_end() as usize { None } else { Some(start) }
}

/// `len` bytes at a variable offset.
#[inline(always)]
pub(crate) fn at<E: Env>(env: &E, offset: usize, len: usize) -> Option<*mut u8> {
    // One register is both compared and added, so that the verifier knows the bound of what is added.
    let offset = opaque_offset(offset);
    if offset > FARTHEST {
        return None;
    }
    let start = opaque(env.data().wrapping_add(offset));
    if start.wrapping_add(len) as usize > env.data_end() as usize { None } else { Some(start) }
}

/// Length of the frame.
#[inline(always)]
pub(crate) fn len<E: Env>(env: &E) -> usize {
    // Copies: the difference is taken in 32 bits, and what is a number from then on must not be the pointer itself.
    (opaque(env.data_end()) as usize).wrapping_sub(opaque(env.data()) as usize)
}
