//! How often to probe, and how much counts.

use crate::pool::identity::mix;
use core::num::NonZero;
use core::time::Duration;

/// How often a backend is probed, and how many results it takes to believe them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// From the start of a probe to the next while all is well.
    pub interval: Duration,
    /// The same while results do not agree with the state yet.
    pub fast: Duration,
    /// The same while the backend is down.
    pub slow: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Probes in a row that a backend which is down must pass.
    pub rise: NonZero<u16>,
    /// Failures in a row until a backend is down.
    pub fall: NonZero<u16>,
    /// By how many hundredths a pause may be shorter or longer, so that probes spread; at most 50.
    pub jitter: u8,
}

/// When the state of single backends gives way to that of the pool, in hundredths of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Thresholds {
    /// With a smaller share of healthy backends than this, all are used; 0 = never.
    pub minimum_healthy: u8,
    /// Largest share that traffic alone, without a failed probe, may throw out; one backend always.
    pub ejected: u8,
}

impl Policy {
    /// `pause` made longer or shorter by chance; `dice` is any number.
    pub fn jittered(&self, pause: Duration, dice: u64) -> Duration {
        let width = u32::from(self.jitter.min(50));
        // 0..=2 * width, in hundredths of hundredths.
        let share = (mix(dice) % (u64::from(width) * 200 + 1)) as u32;
        pause.saturating_mul(10_000 - width * 100 + share) / 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_hundredths_and_uses_them() {
        let policy = Policy { jitter: 10, ..crate::health::monitor::tests::POLICY };
        let pauses: Vec<_> =
            (0..10_000).map(|dice| policy.jittered(Duration::from_secs(1), dice).as_millis()).collect();
        assert_eq!((pauses.iter().min(), pauses.iter().max()), (Some(&900), Some(&1_100)));
        let mean = pauses.iter().sum::<u128>() / 10_000;
        assert!((990..=1_010).contains(&mean), "{mean}");
        let none = Policy { jitter: 0, ..policy };
        assert_eq!(none.jittered(Duration::from_secs(1), 7), Duration::from_secs(1));
    }
}
