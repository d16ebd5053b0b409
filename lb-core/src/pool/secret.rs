//! Keys of SYN cookies and sealed segments, as the data plane has them.
//!
//! Every node of a cluster has the same configured secrets and makes the same keys of them, so each accepts what
//! another one issued. A SYN cookie's key belongs to an epoch of about 73 minutes; more than a day's keys are at
//! hand, so that nothing depends on `lbd`. Key of epoch `e`: two words, SipHash-2-4 of `e` and 0 and of `e`
//! and 1 (each eight bytes, little-endian) under the configured secret.

use lb_common::abi::{EPOCH_SHIFT, SYN_KEYS, Secrets, SegmentKey};
use lb_common::affinity::siphash;

/// Epochs before the present one whose keys stay: a client may send its request long after the handshake.
pub const PAST_EPOCHS: u32 = 4;

/// Secrets that every node of a cluster has.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct NodeSecrets {
    /// What the keys of SYN cookies are made of.
    pub syn_cookie: [u8; 16],
    /// What they are made of from later epochs on, in the order of the epochs.
    pub syn_cookie_later: Vec<SynCookieSecret>,
    /// Keys of sealed segments: the one in use, and one that is still, or already, accepted.
    pub segment: Vec<SegmentSecret>,
}

/// What the keys of SYN cookies are made of from an epoch on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SynCookieSecret {
    /// The first epoch.
    pub from: u32,
    /// The secret.
    pub secret: [u8; 16],
}

/// A secret of the session-key hash that follows another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionSecret {
    /// When it is in use from, in seconds since 1970.
    pub from: u64,
    /// The secret.
    pub secret: [u8; 16],
}

/// A key of sealed segments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSecret {
    /// Its id, as it stands in what was sealed with it; at most 127.
    pub id: u8,
    /// The key.
    pub key: [u8; 16],
}

/// What the clocks say, coarsely: it changes when an epoch ends or the wall clock was set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Clocks {
    /// What is added to the monotonic clock to get nanoseconds since 1970.
    pub since_1970: u64,
    /// The present epoch.
    pub epoch: u32,
}

impl Clocks {
    /// Further apart than this, the clocks have been set; what they drift in an hour is less.
    const TOLERANCE: u64 = 1_000_000_000;

    /// A reading of both clocks, in nanoseconds.
    pub const fn new(monotonic: u64, since_1970: u64) -> Self {
        Self { since_1970: since_1970.wrapping_sub(monotonic), epoch: (since_1970 >> EPOCH_SHIFT) as u32 }
    }

    /// This reading, or `before` where that still says enough: the same epoch, and nobody set a clock.
    pub const fn after(self, before: Self) -> Self {
        let apart = self.since_1970.wrapping_sub(before.since_1970) as i64;
        if self.epoch == before.epoch && apart.unsigned_abs() <= Self::TOLERANCE { before } else { self }
    }
}

impl NodeSecrets {
    /// The keys that the data plane gets at that time.
    pub fn keys(&self, clocks: Clocks) -> Secrets {
        let first = clocks.epoch.saturating_sub(PAST_EPOCHS);
        let last = first + SYN_KEYS as u32 - 1;
        let mut keys = Secrets {
            since_1970: clocks.since_1970,
            first_epoch: first,
            last_epoch: last,
            ..Secrets::default()
        };
        for epoch in first..=last {
            let later = self.syn_cookie_later.iter().rev().find(|later| later.from <= epoch);
            let secret = words(later.map_or(&self.syn_cookie, |later| &later.secret));
            keys.syn[epoch as usize % SYN_KEYS] =
                [0, 1].map(|half| siphash(&secret, &[u64::from(epoch), half], 0, 16));
        }
        for (place, secret) in keys.segment.iter_mut().zip(&self.segment) {
            *place = SegmentKey { key: words(&secret.key), id: secret.id.into(), valid: 1 };
        }
        keys
    }
}

impl core::fmt::Debug for NodeSecrets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeSecrets").field("segment", &self.segment).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for SynCookieSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SynCookieSecret(from epoch {})", self.from)
    }
}

impl core::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SessionSecret(from {})", self.from)
    }
}

impl core::fmt::Debug for SegmentSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SegmentSecret({})", self.id)
    }
}

/// A secret as the hash takes it.
pub fn words(secret: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(*secret);
    [number as u64, (number >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const NOW: u64 = 1_800_000_000_000_000_000;

    fn secrets() -> NodeSecrets {
        let segment = vec![SegmentSecret { id: 5, key: [1; 16] }];
        NodeSecrets { syn_cookie: [7; 16], syn_cookie_later: Vec::new(), segment }
    }

    #[test]
    fn a_day_of_keys_is_at_hand_and_nodes_agree_on_them() {
        let here = secrets().keys(Clocks::new(HOUR, NOW));
        let there = secrets().keys(Clocks::new(99 * HOUR, NOW + 3 * HOUR));
        let present = (NOW >> EPOCH_SHIFT) as u32;
        assert!(here.first_epoch <= present - 2);
        assert!(here.last_epoch >= ((NOW + 25 * HOUR) >> EPOCH_SHIFT) as u32);
        let shared = here.first_epoch.max(there.first_epoch)..=here.last_epoch.min(there.last_epoch);
        assert!(shared.clone().count() > 24);
        for epoch in shared {
            assert_eq!(here.syn[epoch as usize % SYN_KEYS], there.syn[epoch as usize % SYN_KEYS]);
        }
        let mut all: Vec<_> = here.syn.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), SYN_KEYS, "every epoch has a key of its own");
        assert_eq!((here.segment[0].id, here.segment[0].valid, here.segment[1].valid), (5, 1, 0));
        assert_eq!(here.since_1970, NOW - HOUR);
    }

    #[test]
    fn a_secret_for_later_changes_no_key_of_before() {
        let clocks = Clocks::new(HOUR, NOW);
        let before = secrets().keys(clocks);
        let from = clocks.epoch + 2;
        let later = SynCookieSecret { from, secret: [8; 16] };
        let after = NodeSecrets { syn_cookie_later: vec![later], ..secrets() }.keys(clocks);
        for epoch in before.first_epoch..=before.last_epoch {
            let place = epoch as usize % SYN_KEYS;
            assert_eq!(before.syn[place] == after.syn[place], epoch < from, "{epoch}");
        }
    }

    #[test]
    fn a_clock_that_was_set_shows_and_one_that_drifts_does_not() {
        let before = Clocks::new(HOUR, NOW);
        assert_eq!(Clocks::new(HOUR + 5, NOW + 1_000).after(before), before);
        let set = Clocks::new(HOUR + 5, NOW + 5_000_000_000);
        assert_eq!(set.after(before), set);
        let back = Clocks::new(HOUR + 5, NOW - 5_000_000_000);
        assert_eq!(back.after(before), back);
        let later = Clocks::new(HOUR + 2 * HOUR, NOW + 2 * HOUR);
        assert_eq!(later.after(before), later, "an epoch has ended");
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", secrets());
        assert!(!text.contains('7') && !text.contains("1,"), "{text}");
    }
}
