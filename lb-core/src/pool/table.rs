//! Selection tables: which server owns which slot, from configured servers and weights alone.
//!
//! After Maglev (Eisenbud et al., NSDI 2016, section 3.4): each server has a permutation of the slots of its own,
//! servers take turns, and a turn takes the next slot of the permutation if that is free. What is different, and why:
//!
//! - Sizes are powers of two, so that `hash & mask` finds the slot; an odd skip makes the permutation.
//!   The skip grows by a constant, so that no two servers run side by side through the whole table.
//! - A turn that meets a taken slot is lost instead of repeated. So the slots that a server gets do not depend on
//!   how its neighbours fared, and a server more or less moves few slots of others.
//! - Turns come in proportion to weight x what the server has not visited yet, which is what makes the
//!   *first* visits come in proportion to weight. Exact shares come from quotas.
//! - Neighbouring slots of the hash are claimed together, in *units*, and the number of units grows with the servers
//!   as buckets do in linear hashing (Litwin, VLDB 1980): a table that doubles its size starts with every old
//!   slot's owner in both of its successors.
//!
//! `docs/order.md` has the exact definition, `docs/decisions/0001-order-function.md` the figures.

mod fill;

use core::num::NonZero;
use lb_common::abi::MAX_BACKENDS_PER_SERVICE;
use lb_common::select;
use thiserror::Error;

/// Smallest table of a pool that has a server.
pub const MIN_SLOTS: u32 = 16_384;
/// Largest table; with it the least share is 1/2^19 of the pool.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Slots for each server, at least.
pub const SLOTS_PER_SERVER: u32 = 100;
/// Slots for the server with the least weight, at least (below [`MAX_SLOTS`]).
pub const SLOTS_OF_THE_LEAST: u32 = 50;
/// Units for each server, at least.
pub const UNITS_PER_SERVER: u32 = 24;
/// Rounds that an average server saves for a turn: whose turn comes first must not hang on what the average is.
pub const ROUNDS_PER_TURN: u64 = 8;

/// A configured server of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Share {
    /// Server number.
    pub number: u64,
    /// Weight, any unit; 0 = owns no slot but is a member.
    pub weight: u32,
}

/// Why there is no table.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TableError {
    /// More servers than a pool can hold.
    #[error("the pool has {configured} servers, at most {MAX_BACKENDS_PER_SERVICE} are possible")]
    TooManyServers {
        /// Servers given.
        configured: usize,
    },
    /// The same server twice.
    #[error("two servers of the pool have the number {number:#018x}; give one of them another number")]
    SameNumber {
        /// The number.
        number: u64,
    },
}

/// The selection table and member list of one pool.
///
/// Servers are named by their place among the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// Members by server number.
    members: Vec<Share>,
    /// Owner of each slot; empty only when there are no members.
    slots: Vec<u16>,
}

impl Selection {
    /// The table of these servers; their order does not matter.
    ///
    /// When every weight is 0, the servers count as equal: there still must be an order for sessions that are
    /// served in need.
    pub fn new(servers: impl IntoIterator<Item = Share>) -> Result<Self, TableError> {
        let mut members: Vec<Share> = servers.into_iter().collect();
        members.sort_unstable();
        if members.len() > MAX_BACKENDS_PER_SERVICE as usize {
            return Err(TableError::TooManyServers { configured: members.len() });
        }
        if let Some(twin) = members.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(TableError::SameNumber { number: twin[0].number });
        }
        let slots = fill::slots(&members);
        Ok(Self { members, slots })
    }

    /// Configured servers by number, those with weight 0 too.
    pub fn members(&self) -> &[Share] {
        &self.members
    }

    /// Owner of each slot, as a place in [`Self::members`]; a power of two of them, or none without members.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// Places of all members in the order in which the session tries them, each once.
    pub fn order(&self, session: u64) -> Vec<u16> {
        let mut seen = vec![false; self.members.len()];
        select::order(self, session)
            .filter(|&place| !core::mem::replace(&mut seen[usize::from(place)], true))
            .collect()
    }
}

impl select::Table for Selection {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.slots.get(slot as usize).copied()
    }

    fn member(&self, place: u32) -> Option<u16> {
        u16::try_from(place).ok().filter(|&place| usize::from(place) < self.members.len())
    }

    fn mask(&self) -> u32 {
        (self.slots.len() as u32).saturating_sub(1)
    }

    fn member_count(&self) -> u32 {
        self.members.len() as u32
    }
}

/// Slots of the table of servers with these weights; 0 without servers.
pub fn size(weights: impl IntoIterator<Item = u32>) -> u32 {
    fill::Shape::new(&fill::effective(weights)).map_or(0, |shape| shape.slots)
}

/// Divides all by their greatest common divisor, so that only ratios matter.
fn reduce(weights: &mut [u64]) {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b));
    if let Some(divisor) = NonZero::new(divisor) {
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
