//! Application bytes, wherever they are kept.

use crate::datapath::Env;
use crate::packet::get;

/// Application bytes that stand one behind the other, and a loop that the verifier accepts.
///
/// Reading is total: behind the end stand zeros or what was there before, so whoever reads compares places with
/// the length it was given.
pub trait Bytes {
    /// The byte at a place.
    fn byte(&self, at: u32) -> u8;
    /// Eight bytes from a place on, the first one lowest.
    fn word(&self, at: u32) -> u64;
    /// 32 bytes from a place on, as four words.
    #[inline(always)]
    fn words(&self, at: u32) -> [u64; 4] {
        let word = |i: u32| self.word(at.wrapping_add(8 * i));
        [word(0), word(1), word(2), word(3)]
    }
    /// Calls `step` with 0, 1, … below `count` until it answers `true`.
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F);
}

/// A run of bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Span {
    /// Place of its first byte.
    pub start: u32,
    /// Its length.
    pub len: u32,
}

impl Span {
    /// `len` bytes from `start` on.
    #[inline(always)]
    pub const fn new(start: u32, len: u32) -> Self {
        Self { start, len }
    }
    /// Place behind its last byte.
    #[inline(always)]
    pub const fn end(self) -> u32 {
        self.start.wrapping_add(self.len)
    }
}

/// Bytes on the host.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(pub &'a [u8]);

impl Bytes for Slice<'_> {
    fn byte(&self, at: u32) -> u8 {
        self.0.get(at as usize).copied().unwrap_or(0)
    }
    fn word(&self, at: u32) -> u64 {
        let mut word = [0; 8];
        let rest = self.0.get(at as usize..).unwrap_or(&[]);
        let n = rest.len().min(8);
        word[..n].copy_from_slice(&rest[..n]);
        u64::from_le_bytes(word)
    }
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        let _ = (0..count).any(&mut step);
    }
}

/// Bytes of a [`Held`] that can be reached; a power of two. The memory has to go on for 32 more.
pub const HELD: u32 = 8_192;

/// Bytes in map memory, with the loop of the environment.
pub struct Held<'e, E> {
    env: &'e E,
    start: *const u8,
}

impl<'e, E: Env> Held<'e, E> {
    /// The bytes from `start` on.
    ///
    /// # Safety
    /// [`HELD`] + 32 bytes can be read from `start` on for as long as this lives.
    #[inline(always)]
    pub const unsafe fn new(env: &'e E, start: *const u8) -> Self {
        Self { env, start }
    }
}

impl<E: Env> Bytes for Held<'_, E> {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        // SAFETY: the mask keeps the place inside the memory that `new` was promised.
        unsafe { *self.start.add((at & (HELD - 1)) as usize) }
    }
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        // SAFETY: as above; 32 bytes more are promised.
        unsafe { get(self.start.add((at & (HELD - 1)) as usize)) }
    }
    #[inline(always)]
    fn words(&self, at: u32) -> [u64; 4] {
        // SAFETY: as above.
        unsafe {
            let start = self.start.add((at & (HELD - 1)) as usize);
            [get(start), get(start.add(8)), get(start.add(16)), get(start.add(24))]
        }
    }
    #[inline(always)]
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F) {
        self.env.repeat(count, step);
    }
}

/// A word with `byte` in every place.
#[inline(always)]
pub(super) const fn all(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// The top bit of every byte.
pub(super) const TOPS: u64 = all(0x80);

/// Top bits of bytes that are zero; above the lowest zero byte there may be false ones.
#[inline(always)]
pub(super) const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(all(1)) & !word & TOPS
}

/// Whether perhaps a byte of the words is `byte`: `true` also for some bytes that are not ASCII; `byte` is.
#[inline(always)]
pub(super) const fn may_hold(words: &[u64; 4], byte: u8) -> bool {
    let (pattern, one) = (all(byte), all(1));
    let rough = (words[0] ^ pattern).wrapping_sub(one)
        | (words[1] ^ pattern).wrapping_sub(one)
        | (words[2] ^ pattern).wrapping_sub(one)
        | (words[3] ^ pattern).wrapping_sub(one);
    rough & TOPS != 0
}

/// Top bits of bytes below `bound` (at most 0x80); above the lowest such byte there may be false ones.
#[inline(always)]
pub(super) const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(all(bound)) & !word & TOPS
}

/// Number of the lowest byte whose top bit is set in `tops`, which is not zero.
///
/// A multiplication: the target cannot count trailing zeros.
#[inline(always)]
pub(super) const fn lowest(tops: u64) -> u32 {
    let bit = (tops & tops.wrapping_neg()) >> 7;
    (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// A mask of the `len` lowest bytes, all of them from eight on.
#[inline(always)]
pub(super) const fn low_bytes(len: u32) -> u64 {
    if len >= 8 { u64::MAX } else { (1_u64 << (8 * (len & 7))) - 1 }
}

/// The same number, of which the verifier knows nothing any more; `unknown` is something that was read.
///
/// For what a closure of [`Bytes::repeat`] changes and compares: as long as the verifier follows its values, no two rounds look
/// alike, and it walks through all of them.
#[inline(always)]
pub(super) fn forgotten(number: u32, unknown: u64) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number as u64;
        // SAFETY: arithmetic on two registers.
        unsafe {
            core::arch::asm!(
                "{n} += {x}",
                "{n} -= {x}",
                n = inlateout(reg) number,
                x = in(reg) unknown,
                options(nomem, nostack, preserves_flags)
            );
        }
        number as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        number
    }
}
