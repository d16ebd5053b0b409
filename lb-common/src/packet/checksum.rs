//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Words are added as they lie in memory: the one's-complement sum does not depend on byte order.

/// A running one's-complement sum, folded when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// An empty sum.
    pub(crate) const ZERO: Self = Self(0);

    /// The sum that a checksum field stands for.
    #[inline(always)]
    pub(crate) const fn of_field(checksum: u16) -> Self {
        Self(!checksum as u64)
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    pub(crate) const fn add16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word.
    #[inline(always)]
    pub(crate) const fn add32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds an address: one word for IPv4, four for IPv6.
    #[inline(always)]
    pub(crate) const fn add_words(self, words: &[u32; 4]) -> Self {
        Self(self.0 + words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64)
    }

    /// Replaces a 16-bit word.
    #[inline(always)]
    pub(crate) const fn replace16(self, old: u16, new: u16) -> Self {
        self.add16(!old).add16(new)
    }

    /// Replaces a 32-bit word.
    #[inline(always)]
    pub(crate) const fn replace32(self, old: u32, new: u32) -> Self {
        self.add32(!old).add32(new)
    }

    /// Adds another sum.
    #[inline(always)]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The same words with the bytes of each swapped (RFC 1071 section 2(B)): they stand at odd places.
    #[inline(always)]
    pub(crate) const fn swapped(self) -> Self {
        Self(self.folded().swap_bytes() as u64)
    }

    /// Folds to 16 bits.
    #[inline(always)]
    pub(crate) const fn folded(self) -> u16 {
        let mut s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        s = (s & 0xffff) + (s >> 16);
        s = (s & 0xffff) + (s >> 16);
        s = (s & 0xffff) + (s >> 16);
        s as u16
    }

    /// The checksum field for this sum.
    #[inline(always)]
    pub(crate) const fn field(self) -> u16 {
        !self.folded()
    }

    /// The checksum field with 0 written as 0xffff.
    ///
    /// In UDP 0 means "none". In ICMP an update cannot tell the two zeros of one's-complement apart, and 0xffff is right for
    /// either: over nothing but zeros (an echo answer may be that) 0 would be wrong.
    #[inline(always)]
    pub(crate) const fn nonzero_field(self) -> u16 {
        let field = self.field();
        if field == 0 { 0xffff } else { field }
    }
}

/// The sum that takes `words` away again.
#[inline(always)]
pub(crate) const fn complement(words: &[u32; 4]) -> Sum {
    Sum::ZERO.add32(!words[0]).add32(!words[1]).add32(!words[2]).add32(!words[3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(words: &[u16]) -> u16 {
        let mut sum = 0_u32;
        for word in words {
            sum += u32::from(*word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn incremental_update_equals_full_sum(mut words in proptest::collection::vec(any::<u16>(), 2..40), new: u16, at: prop::sample::Index) {
            // An all-zero packet has two encodings of the same sum; real headers never are.
            words[0] |= 1;
            let before = full(&words);
            let place = at.index(words.len() - 1) + 1;
            let updated = Sum::of_field(before).replace16(words[place], new).field();
            words[place] = new;
            prop_assert_eq!(updated, full(&words));
        }
    }
}
