//! A node's own clock, and lifetimes in it.

use core::time::Duration;

/// Milliseconds of a node's own clock, since it or its machine started (at most 4.3 years ago); it never steps back. Clocks
/// of nodes need not agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// Later by so much.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(by)))
    }

    /// What is left until `self`, zero when it is past.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole milliseconds, at most `u64::MAX` of them.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A [`Time`] in four bytes: 32 ms each, 4.3 years of uptime.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick that a time lies in or, between two, the later one: nothing ends early.
    pub fn of(time: Time) -> Self {
        Self(u32::try_from(time.0.div_ceil(32)).unwrap_or(u32::MAX))
    }

    /// The tick that a time lies in.
    pub fn now(time: Time) -> Self {
        Self(u32::try_from(time.0 / 32).unwrap_or(u32::MAX))
    }

    /// Its time.
    pub const fn time(self) -> Time {
        Time(self.0 as u64 * 32)
    }

    /// Later by so much.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let ticks = u32::try_from(milliseconds(by).div_ceil(32)).unwrap_or(u32::MAX);
        Self(self.0.saturating_add(ticks))
    }

    /// Milliseconds that are left of it at a time.
    pub const fn left(self, now: Time) -> u64 {
        self.time().0.saturating_sub(now.0)
    }
}
