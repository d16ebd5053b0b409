//! The four-pass form (section 5.4.2 of the draft): a Feistel network with AES as its round function.
//!
//! The halves have equally many bits. With an odd number of bytes the middle one belongs to both: its upper four bits
//! end the left half, its lower four begin the right one.

use super::aes::{self, RoundKeys};
use super::words::{Words, and, down, mask, or, up, xor};

/// Left and right half, from their first byte on; what is not theirs is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Halves {
    pub(super) left: Words,
    pub(super) right: Words,
}

/// Geometry of a block of `len` bytes, 4 to 19.
#[derive(Clone, Copy)]
struct Shape {
    len: u32,
    left: Words,
    right: Words,
}

impl Shape {
    #[inline(always)]
    const fn of(len: u32) -> Self {
        let whole = mask(half(len));
        // Lower four bits of the left half's last byte, upper four of the right half's first.
        let odd = (len & 1) as u64;
        let ends = up([0x0f * odd, 0], half(len) - 1);
        Self {
            len,
            left: [whole[0] & !ends[0], whole[1] & !ends[1]],
            right: [whole[0] & !(0xf0 * odd), whole[1]],
        }
    }

    /// One pass: what the other half is XORed with, before it is cut to that half's bits.
    #[inline(always)]
    fn pass(self, keys: &RoundKeys, pass: u8, input: Words) -> Words {
        let ends = (self.len as u64) << 48 | (pass as u64) << 56;
        aes::encrypt(keys, [input[0], input[1] | ends])
    }
}

/// Bytes of a half.
#[inline(always)]
pub(super) const fn half(len: u32) -> u32 {
    len.div_ceil(2)
}

impl Halves {
    /// The halves of `len` bytes, of the sixteen bytes that end with the left half and those that end with the block.
    #[inline(always)]
    pub(super) const fn ending(len: u32, left: Words, right: Words) -> Self {
        let shape = Shape::of(len);
        let spare = 16 - half(len);
        Self { left: and(down(left, spare), shape.left), right: and(down(right, spare), shape.right) }
    }

    /// The block's first sixteen bytes.
    #[inline(always)]
    pub(super) const fn block(self, len: u32) -> Words {
        or(self.left, up(self.right, len / 2))
    }

    /// Encrypts.
    pub(super) fn seal(self, keys: &RoundKeys, len: u32) -> Self {
        let shape = Shape::of(len);
        let Self { left, right } = self;
        let right = xor(right, and(shape.pass(keys, 1, left), shape.right));
        let left = xor(left, and(shape.pass(keys, 2, right), shape.left));
        let right = xor(right, and(shape.pass(keys, 3, left), shape.right));
        let left = xor(left, and(shape.pass(keys, 4, right), shape.left));
        Self { left, right }
    }

    /// Decrypts the left half, and with `all` the right one too.
    #[inline(always)]
    pub(super) fn open(self, keys: &RoundKeys, len: u32, all: bool) -> Self {
        let shape = Shape::of(len);
        // One loop over the passes, the halves changing places: the cipher is in the program once.
        let (mut known, mut sealed) = (self.right, self.left);
        let (mut sealed_mask, mut known_mask) = (shape.left, shape.right);
        let mut pass = 4;
        while pass > 1 {
            let opened = xor(sealed, and(shape.pass(keys, pass, known), sealed_mask));
            (known, sealed) = (opened, known);
            (known_mask, sealed_mask) = (sealed_mask, known_mask);
            pass -= 1;
        }
        let right = if all { xor(sealed, and(shape.pass(keys, 1, known), sealed_mask)) } else { sealed };
        Self { left: known, right }
    }
}
