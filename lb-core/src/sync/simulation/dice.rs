//! Randomness from a seed.

use crate::pool::identity::mix;

/// A generator.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5eed))
    }

    pub(super) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From `low` to below `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low).max(1)
    }

    /// Whether something of so many in a thousand happens.
    pub(super) const fn chance(&mut self, in_thousand: u64) -> bool {
        self.roll() % 1000 < in_thousand
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.roll()).unwrap_or(0).checked_rem(from.len())?;
        from.get(at).copied()
    }
}
