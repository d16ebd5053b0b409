//! Backends' numbers in the timestamps of TCP (RFC 7323), so that a switch which knows nothing of a connection knows its backend.
//!
//! A backend's clock is ahead of the wall clock by something. The switch takes that off what the backend sends, and puts the backend's number
//! above it: `value' = value - base + (number << 24)`. That neither falls nor runs otherwise than the backend's clock does, so the client notices nothing,
//! and what comes back is exactly what the backend sent when the same is taken off again. Whose it is, is what stands above the wall
//! clock: `(echo' - now + age) >> 24`. All of it is modulo 2^32, in milliseconds.

mod clock;
mod marks;

pub use clock::{Clock, Reading, agree};
pub use marks::{Claim, Marks, Owner};

use core::num::NonZero;
use lb_common::abi::switch::STAMP_AGE;

/// Bits below the number.
const BITS: u32 = 24;
/// Clocks are told apart by steps of this, so that two who look at one mostly say the same: 17 minutes.
const STEP: u32 = 1 << 20;
/// A clock that is further than this from where it was taken to be is another one: its host has started again.
const SLACK: u32 = 1 << 20;

/// Most backends of a service whose timestamps carry numbers.
pub const MOST: usize = 255;

/// What a backend's timestamps carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    number: NonZero<u8>,
    base: u32,
}

impl Mark {
    /// The mark of the backend with that number, whose clock is ahead of the wall clock by `ahead`.
    pub const fn new(number: NonZero<u8>, ahead: u32) -> Self {
        Self { number, base: ahead.wrapping_add(STEP / 2) & !(STEP - 1) }
    }

    /// The mark of that number by which this is added to timestamps.
    pub const fn read(number: NonZero<u8>, stamp: u32) -> Self {
        Self { number, base: ((number.get() as u32) << BITS).wrapping_sub(stamp) }
    }

    /// The backend's number.
    pub const fn number(self) -> NonZero<u8> {
        self.number
    }

    /// What is added to what the backend sends, and taken off what comes back.
    pub const fn stamp(self) -> u32 {
        ((self.number.get() as u32) << BITS).wrapping_sub(self.base)
    }

    /// Whether it holds as well for a clock that is ahead by this.
    pub const fn fits(self, ahead: u32) -> bool {
        apart(self.base, ahead) <= SLACK
    }
}

/// The number that a timestamp names which comes back now; 0 is nobody's.
pub const fn number(echo: u32, now: u32) -> u8 {
    (echo.wrapping_sub(now).wrapping_add(STAMP_AGE) >> BITS) as u8
}

/// How far apart two clocks are, whichever is ahead.
const fn apart(a: u32, b: u32) -> u32 {
    (a.wrapping_sub(b) as i32).unsigned_abs()
}

#[cfg(test)]
mod tests;
