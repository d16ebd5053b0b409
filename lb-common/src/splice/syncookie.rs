//! SYN cookies: a handshake in the sequence number of the SYN-ACK (RFC 4987 section 3.6).
//!
//! ```text
//!  31   29 28        22 21           13 12            0
//! | epoch | offer      | tag of tuple  | tag of ISN    |
//! ```
//! With H = SipHash-2-4 under the epoch's key over addresses, ports and the cookie's own upper ten bits, the tag of the
//! tuple is the upper 9 bits of H, and the tag of the client's initial sequence number N is the lower 13 bits of
//! A N + H, where A is H / 2^13 with its lowest bit set. Who forges a cookie hits both tags with one of 2^22 tries, whatever N.
//! Told apart, they show a segment that came ahead of the connection's first one: its tuple is right and its number is not.
//! A is odd, so of 8,192 numbers in a row each has another tag: more than the window that a client is offered before it is
//! answered, so that none of its segments passes for the first.
//!
//! 2-4 rather than 1-3: with so few bits to hit, the hash must not be what gives way, and the difference is 10 ns.

use super::options::Offer;
use crate::abi::{Addr, EPOCH_SHIFT, SYN_KEYS, Secrets};
use crate::affinity::siphash;

/// Bits of the ISN's tag.
const TAG: u32 = 13;
/// Bits of the tuple's tag.
const TUPLE_TAG: u32 = 9;
/// Place of the offer.
const OFFER: u32 = TUPLE_TAG + TAG;
/// Place of the epoch.
const EPOCH: u32 = OFFER + Offer::BITS;
/// Epochs a cookie's may be away from now: handshakes may be hours old, clocks may differ.
const FAR: u32 = 2;

/// What a cookie proves of a segment's sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It got the SYN-ACK, and the segment follows its SYN.
    First,
    /// It most likely got the SYN-ACK, but the segment does not follow its SYN.
    Early,
    /// Nothing.
    Wrong,
}

/// A SYN cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynCookie(pub u32);

/// The epoch at a time of the monotonic clock.
#[inline(always)]
pub const fn epoch(secrets: &Secrets, now: u64) -> u32 {
    (now.wrapping_add(secrets.since_1970) >> EPOCH_SHIFT) as u32
}

impl SynCookie {
    /// The cookie for a SYN from `source` to `destination` with initial sequence number `isn`.
    ///
    /// `ports` are source and destination port as they stand in the packet.
    #[inline(always)]
    pub fn new(
        secrets: &Secrets,
        epoch: u32,
        (source, destination, ports): (&Addr, &Addr, u32),
        offer: Offer,
        isn: u32,
    ) -> Self {
        let upper = (epoch & 7) << Offer::BITS | offer.0 as u32;
        let hash = hash(secrets, epoch, source, destination, ports, upper);
        Self(upper << OFFER | tuple_tag(hash) << TAG | isn_tag(hash, isn))
    }

    /// What it says that the client offered; nothing is checked.
    #[inline(always)]
    pub const fn offer(self) -> Offer {
        Offer((self.0 >> OFFER) as u8 & ((1 << Offer::BITS) - 1))
    }

    /// What it proves of a segment from `source` to `destination` that claims to follow a SYN numbered `isn`.
    #[inline(always)]
    pub fn judge(
        self,
        secrets: &Secrets,
        now: u64,
        (source, destination, ports): (&Addr, &Addr, u32),
        isn: u32,
    ) -> Proof {
        let current = epoch(secrets, now);
        // From -4 to 3: the epoch near now that its three bits mean.
        let away = ((self.0 >> EPOCH).wrapping_sub(current).wrapping_add(4) & 7).wrapping_sub(4);
        let epoch = current.wrapping_add(away);
        let near = away.wrapping_add(FAR) <= 2 * FAR;
        if !near || epoch < secrets.first_epoch || epoch > secrets.last_epoch {
            return Proof::Wrong;
        }
        let hash = hash(secrets, epoch, source, destination, ports, self.0 >> OFFER);
        if (self.0 >> TAG) & ((1 << TUPLE_TAG) - 1) != tuple_tag(hash) {
            Proof::Wrong
        } else if self.0 & ((1 << TAG) - 1) != isn_tag(hash, isn) {
            Proof::Early
        } else {
            Proof::First
        }
    }
}

#[inline(always)]
const fn tuple_tag(hash: u64) -> u32 {
    (hash >> (64 - TUPLE_TAG)) as u32
}

#[inline(always)]
const fn isn_tag(hash: u64, isn: u32) -> u32 {
    let factor = (hash >> TAG) as u32 | 1;
    isn.wrapping_mul(factor).wrapping_add(hash as u32) & ((1 << TAG) - 1)
}

/// Source, destination (4 bytes each for IPv4), ports as in the packet, then the cookie's upper ten bits, little-endian.
#[inline(always)]
fn hash(secrets: &Secrets, epoch: u32, source: &Addr, destination: &Addr, ports: u32, upper: u32) -> u64 {
    // SAFETY: the remainder is below the length.
    let key = unsafe { secrets.syn.get_unchecked(epoch as usize % SYN_KEYS) };
    let tail = ports as u64 | (upper as u64) << 32;
    let pair = |first: u32, second: u32| first as u64 | (second as u64) << 32;
    if source.is_v4() {
        return siphash(key, &[pair(source.v4_word(), destination.v4_word())], tail, 14);
    }
    let (s, d) = (&source.0, &destination.0);
    siphash(key, &[pair(s[0], s[1]), pair(s[2], s[3]), pair(d[0], d[1]), pair(d[2], d[3])], tail, 38)
}

const _: () = assert!(EPOCH + 3 == u32::BITS && SYN_KEYS.is_power_of_two());

#[cfg(test)]
mod tests;
