//! What a SYN offers (RFC 9293 section 3.2, RFC 7323, RFC 2018), in seven bits.

use crate::abi::Flow;

/// The window scale that clients are promised. What their windows mean is thus the same whichever backend is chosen later.
pub const SCALE: u8 = 7;
/// Segment sizes that are told apart over IPv4: what a client announces counts as the largest that is not above it.
const SIZES_V4: [u16; 4] = [536, 1_300, 1_440, 1_460];
/// The same over IPv6.
const SIZES_V6: [u16; 4] = [536, 1_220, 1_420, 1_440];
/// What a client that announces none takes (RFC 9293 section 3.7.1).
const DEFAULT_V4: u16 = 536;
/// The same over IPv6.
const DEFAULT_V6: u16 = 1_220;

/// What a client's SYN offered: its segment size, its window scale, and whether it takes selective acknowledgements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer(pub u8);

impl Offer {
    /// Bits of it.
    pub const BITS: u32 = 7;

    /// From the options of a SYN; a segment size of 0 is none, a scale of [`Flow::NO_SCALE`] is none.
    #[inline(always)]
    pub const fn new(v4: bool, mss: u16, scale: u8, sack: bool) -> Self {
        let sizes = sizes(v4);
        let mss = if mss != 0 {
            mss
        } else if v4 {
            DEFAULT_V4
        } else {
            DEFAULT_V6
        };
        let index = (mss >= sizes[1]) as u8 + (mss >= sizes[2]) as u8 + (mss >= sizes[3]) as u8;
        Self(index << 5 | (scale & 15) << 1 | sack as u8)
    }

    /// The largest segment that the client takes, or a little less.
    #[inline(always)]
    pub const fn mss(self, v4: bool) -> u16 {
        let sizes = sizes(v4);
        match self.0 >> 5 & 3 {
            0 => sizes[0],
            1 => sizes[1],
            2 => sizes[2],
            _ => sizes[3],
        }
    }

    /// Its window scale, [`Flow::NO_SCALE`] without.
    #[inline(always)]
    pub const fn scale(self) -> u8 {
        self.0 >> 1 & 15
    }

    /// Whether it scales its window.
    #[inline(always)]
    pub const fn scales(self) -> bool {
        self.scale() != Flow::NO_SCALE
    }

    /// Whether it takes selective acknowledgements.
    #[inline(always)]
    pub const fn sack(self) -> bool {
        self.0 & 1 != 0
    }
}

#[inline(always)]
const fn sizes(v4: bool) -> [u16; 4] {
    if v4 { SIZES_V4 } else { SIZES_V6 }
}

/// Bytes of options in the balancer's SYN: three words of four.
pub const OPTIONS: usize = 12;

/// Options of SYN segments as words, to be written in network order; each fills its word with padding in front.
pub mod option {
    /// Padding only.
    pub const PADDING: u32 = 0x0101_0101;
    /// Selective acknowledgements permitted.
    pub const SACK_PERMITTED: u32 = 0x0101_0402;

    /// Maximum segment size.
    #[inline(always)]
    pub const fn mss(size: u16) -> u32 {
        0x0204_0000 | size as u32
    }

    /// Window scale.
    #[inline(always)]
    pub const fn scale(scale: u8) -> u32 {
        0x0103_0300 | scale as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_offer_keeps_what_was_offered(v4: bool, mss in 1_u16.., scale in 0_u8..=15, sack: bool) {
            let offer = Offer::new(v4, mss, scale, sack);
            prop_assert!(offer.0 < 1 << Offer::BITS);
            prop_assert_eq!((offer.scale(), offer.sack()), (scale, sack));
            let kept = offer.mss(v4);
            prop_assert!(kept <= mss || kept == 536, "{} from {}", kept, mss);
            let next = sizes(v4).into_iter().find(|size| *size > kept);
            prop_assert!(next.is_none_or(|next| next > mss), "{} from {}", kept, mss);
        }
    }

    #[test]
    fn a_client_without_a_size_takes_the_default() {
        assert_eq!(Offer::new(true, 0, 7, true).mss(true), 536);
        assert_eq!(Offer::new(false, 0, 7, true).mss(false), 1_220);
    }
}
