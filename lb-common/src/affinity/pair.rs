//! Cookies that carry the sum of two server numbers, the primary's and the secondary's.
//!
//! Numbers are random and as large as the word, and sums wrap, so the sum tells nothing about the servers. The
//! balancer, which knows all numbers in order, finds the two by walking towards each other from both ends. Two
//! pairs may have one sum: with 4,096 servers there is such a coincidence in one set of 500,000. Then [`issue`]
//! refuses, and the caller takes another secondary; should a server added later bring such a coincidence about, [`find`] says so, and the
//! cookie is treated like one whose servers are unknown. So a sum never means the wrong pair.

use super::bytes::{Bytes, Slice, forgotten};
use super::route::{SERVERS, first_from};
use super::ticket::{self, Kind};
use core::fmt;

/// The two servers of a sum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pair {
    /// How many pairs have this sum: 0, 1, or 2 for more than one. Only with 1 the places mean something.
    pub matches: u32,
    /// Place of the smaller number.
    pub smaller: u32,
    /// Place of the larger number.
    pub larger: u32,
}

impl Pair {
    /// Places of the primary and the secondary, as the ticket has them.
    #[inline(always)]
    pub const fn ordered(&self, larger_first: bool) -> (u32, u32) {
        if larger_first { (self.larger, self.smaller) } else { (self.smaller, self.larger) }
    }
}

/// The pair with that sum among `count` servers sorted by number, all numbers different.
///
/// `number` answers the number of server 0, 1, … below `count`. `bytes` lends its loop.
#[inline(always)]
pub fn find<B: Bytes>(bytes: &B, sum: u64, count: u32, number: impl Fn(u32) -> Option<u64>) -> Pair {
    let count = count.min(SERVERS);
    // Numbers up to the sum can only be paired among themselves, and so can those above it, whose sum wraps.
    let split = match sum.checked_add(1) {
        Some(above) => first_from(bytes, above, count, &number),
        None => count,
    };
    let mut pair = Pair::default();
    let (mut low, mut behind, mut upper) = (0, split, 0_u32);
    bytes.repeat(SERVERS + 2, |_| {
        if behind <= low + 1 {
            // The first half is walked through.
            if upper != 0 {
                return true;
            }
            upper = 1;
            low = split;
            behind = count;
            return false;
        }
        let (Some(small), Some(large)) = (number(low), number(behind - 1)) else { return true };
        let wanted = sum.wrapping_sub(large);
        if small > wanted {
            behind = forgotten(behind - 1, large);
            return false;
        }
        if small == wanted {
            if pair.matches != 0 {
                pair.matches = 2;
                return true;
            }
            pair = Pair { matches: 1, smaller: low, larger: behind - 1 };
        }
        low = forgotten(low + 1, small);
        false
    });
    pair
}

/// Why no cookie was made for a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// This number is not among the service's.
    Unknown(u64),
    /// Both are the same server.
    Same(u64),
    /// Another pair has the same sum.
    Ambiguous {
        /// The primary's number.
        primary: u64,
        /// The secondary's.
        secondary: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => {
                write!(
                    f,
                    "server number {number} is not one of the service's: take numbers from its configuration"
                )
            }
            Self::Same(number) => {
                write!(f, "server number {number} stands on both sides of the pair: take another secondary")
            }
            Self::Ambiguous { primary, secondary } => write!(
                f,
                "server numbers {primary} and {secondary} have the sum of another pair: take another secondary"
            ),
        }
    }
}

impl core::error::Error for Refused {}

/// The cookie segment of a pair for a service (its id), under a key.
///
/// `numbers` are those of all servers of the service, sorted.
pub fn issue(
    numbers: &[u64],
    [primary, secondary]: [u64; 2],
    service: u32,
    key: u8,
    secret: &[u64; 2],
) -> Result<[u8; ticket::LENGTH], Refused> {
    for number in [primary, secondary] {
        numbers.binary_search(&number).map_err(|_| Refused::Unknown(number))?;
    }
    if primary == secondary {
        return Err(Refused::Same(primary));
    }
    let sum = primary.wrapping_add(secondary);
    let found = find(&Slice(&[]), sum, numbers.len() as u32, |i| numbers.get(i as usize).copied());
    if found.matches != 1 {
        return Err(Refused::Ambiguous { primary, secondary });
    }
    Ok(ticket::issue(Kind::Pair, sum, primary > secondary, service, key, secret))
}

#[cfg(test)]
mod tests;
