//! What the timestamps of a backend say of its clock.

use super::apart;
use core::time::Duration;

/// Times that a clock is looked at differ by as much, in milliseconds, beside what two clocks differ in an hour.
const JITTER: u32 = 250;
/// A clock that gains or loses more than one part of so many does not count milliseconds.
const RATE: u32 = 8;

/// A backend's clock, as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    ahead: u32,
    at: Duration,
    is_steady: bool,
}

/// What one look at a clock says together with the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// It runs as it should.
    Steady,
    /// It does not stand where it should by now: it was set to another time, or does not count milliseconds.
    Moved,
}

impl Clock {
    /// A clock that was ahead of the wall clock by `ahead` milliseconds when it was seen first.
    pub const fn new(ahead: u32, at: Duration) -> Self {
        Self { ahead, at, is_steady: true }
    }

    /// It is ahead by this now.
    pub fn see(&mut self, ahead: u32, at: Duration) -> Reading {
        let passed = u32::try_from(at.saturating_sub(self.at).as_millis()).unwrap_or(u32::MAX);
        self.is_steady = apart(ahead, self.ahead) <= (passed / RATE).saturating_add(JITTER);
        (self.ahead, self.at) = (ahead, at);
        if self.is_steady { Reading::Steady } else { Reading::Moved }
    }

    /// By how much it is ahead of the wall clock; `None` while that is not sure.
    pub fn ahead(&self) -> Option<u32> {
        self.is_steady.then_some(self.ahead)
    }
}

/// Whether two looks at one host, made together, saw one clock.
pub const fn agree(one: u32, other: u32) -> bool {
    apart(one, other) <= JITTER * 4
}
