//! Which backend has which mark.

use super::Mark;
use crate::pool::identity::mix;
use core::num::NonZero;
use std::collections::{BTreeMap, BTreeSet};

/// A backend by its service's id and its server number.
pub type Owner = (u32, u64);

/// A backend that should have a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Which.
    pub owner: Owner,
    /// By how much its clock is ahead of the wall clock; `None` = not known now.
    pub ahead: Option<u32>,
}

/// The marks of all backends.
///
/// A connection lives as long as its backend's mark is the same, so what is given stays: numbers in any case, and clocks as long as they are near. A new
/// number is a function of who it is for, as far as it is free.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Marks {
    of: BTreeMap<Owner, Mark>,
}

impl Marks {
    /// The mark of a backend; none before its clock was seen.
    pub fn of(&self, owner: Owner) -> Option<Mark> {
        self.of.get(&owner).copied()
    }

    /// Gives each of these a mark whose clock is known, and takes those of all others away.
    pub fn settle(&mut self, claims: &[Claim]) {
        let owners: BTreeSet<Owner> = claims.iter().map(|claim| claim.owner).collect();
        self.of.retain(|owner, _| owners.contains(owner));
        let known: BTreeMap<Owner, u32> =
            claims.iter().filter_map(|claim| Some((claim.owner, claim.ahead?))).collect();
        for (owner, ahead) in known {
            let mark = match self.of(owner) {
                Some(mark) if mark.fits(ahead) => continue,
                Some(mark) => Some(Mark::new(mark.number(), ahead)),
                None => self.free(owner).map(|number| Mark::new(number, ahead)),
            };
            self.of.extend(mark.map(|mark| (owner, mark)));
        }
    }

    /// Takes over marks that a switch works with: connections have them. Whoever has one of their numbers gets another one.
    pub fn adopt(&mut self, found: impl IntoIterator<Item = (Owner, Mark)>) {
        for (owner, mark) in found {
            self.of.retain(|other, has| other.0 != owner.0 || has.number() != mark.number());
            self.of.insert(owner, mark);
        }
    }

    /// A number that nobody else in the service has. As long as there are even ones it is even: an echo that is older than it may be names the number
    /// below, and that is then nobody's.
    fn free(&self, owner: Owner) -> Option<NonZero<u8>> {
        let service = (owner.0, 0)..=(owner.0, u64::MAX);
        let taken: BTreeSet<u8> = self.of.range(service).map(|(_, mark)| mark.number().get()).collect();
        let hash = mix(mix(owner.0.into()) ^ owner.1);
        let all = |first: u8| {
            let numbers: Vec<u8> = (first..=u8::MAX).step_by(2).collect();
            let start = (hash % numbers.len() as u64) as usize;
            (0..numbers.len()).map(move |step| numbers[(start + step) % numbers.len()])
        };
        let mut numbers = all(2).chain(all(1)).filter(|number| !taken.contains(number));
        numbers.next().and_then(NonZero::new)
    }
}
