//! Numbers of services and backends on the switch: a function of who they are.
//!
//! The tables of `lbd` number services and backends in the order in which they came. Of two `lbd`s of one switch, and of one before and after a restart, each
//! has seen another order; what they write must be the same all the same. So on the switch a number is a hash of the service's id, or of that
//! and the server's number, and the next free one where two meet.

use lb_common::abi::{MAX_BACKENDS, MAX_SERVICES};
use lb_core::pool::identity::mix;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A backend on the switch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Tag {
    /// Its slot there.
    pub(super) slot: u16,
    /// Whose the slot is: another backend that gets it is told apart by this.
    pub(super) generation: u16,
}

impl Tag {
    /// Both, as entries have them.
    pub(super) const fn values(self) -> [u128; 2] {
        [self.slot as u128, self.generation as u128]
    }

    /// From an entry.
    pub(super) fn read(values: &[u128]) -> Option<Self> {
        let [slot, generation] = *values else { return None };
        Some(Self { slot: u16::try_from(slot).ok()?, generation: u16::try_from(generation).ok()? })
    }
}

/// From slots of `lbd`'s tables to those of the switch, and back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Numbers {
    services: HashMap<u16, u16>,
    backends: HashMap<u16, Tag>,
    owners: HashMap<Tag, u16>,
}

impl Numbers {
    /// Numbers for services, by slot and id, and for backends, by slot, service's id and server number.
    pub(super) fn of(
        services: impl IntoIterator<Item = (u16, u32)>,
        backends: impl IntoIterator<Item = (u16, (u32, u64))>,
    ) -> Self {
        let mut numbers = Self::default();
        let by_id: BTreeMap<u32, u16> = services.into_iter().map(|(slot, id)| (id, slot)).collect();
        let mut taken = HashSet::new();
        for (id, slot) in by_id {
            if let Some(number) = free(&mut taken, mix(id.into()), MAX_SERVICES) {
                numbers.services.insert(slot, number);
            }
        }
        let by_owner: BTreeMap<(u32, u64), u16> =
            backends.into_iter().map(|(slot, owner)| (owner, slot)).collect();
        let mut taken = HashSet::new();
        for ((service, server), slot) in by_owner {
            let hash = mix(mix(service.into()) ^ server);
            if let Some(number) = free(&mut taken, hash, MAX_BACKENDS) {
                let tag = Tag { slot: number, generation: (hash >> 48) as u16 };
                numbers.backends.insert(slot, tag);
                numbers.owners.insert(tag, slot);
            }
        }
        numbers
    }

    /// A service's slot on the switch.
    pub(super) fn service(&self, slot: u16) -> Option<u16> {
        self.services.get(&slot).copied()
    }

    /// A backend's on the switch.
    pub(super) fn backend(&self, slot: u16) -> Option<Tag> {
        self.backends.get(&slot).copied()
    }

    /// The slot of the backend that the switch calls this.
    pub(super) fn owner(&self, tag: Tag) -> Option<u16> {
        self.owners.get(&tag).copied()
    }

    /// Whether a backend has another number now.
    pub(super) fn has_moved(&self, before: &Self) -> bool {
        self.backends.iter().any(|(slot, tag)| before.backend(*slot).is_some_and(|was| was != *tag))
    }
}

/// The first number from a hash on that nobody has.
fn free(taken: &mut HashSet<u16>, hash: u64, count: u32) -> Option<u16> {
    let start = (hash % u64::from(count)) as u32;
    (0..count).filter_map(|step| u16::try_from((start + step) % count).ok()).find(|slot| taken.insert(*slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(of: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (u16, (u32, u64))> {
        (0..).zip(of.into_iter().map(|server| (7, server)))
    }

    #[test]
    fn numbers_do_not_depend_on_the_order_in_which_somebody_came() {
        let here = Numbers::of([(0, 5), (1, 9)], backends(0..2_000));
        let there = Numbers::of([(3, 9), (0, 5)], backends((0..2_000).rev()));
        assert_eq!(here.service(1), there.service(3));
        assert_ne!(here.service(0), here.service(1));
        let mut slots = HashSet::new();
        for slot in 0..2_000 {
            let tag = here.backend(slot).expect("numbered");
            assert_eq!(Some(tag), there.backend(1_999 - slot));
            assert_eq!(here.owner(tag), Some(slot));
            assert!(slots.insert(tag.slot), "two backends have slot {}", tag.slot);
        }
    }

    #[test]
    fn every_number_can_be_given() {
        let services = (0..MAX_SERVICES as u16).map(|slot| (slot, u32::from(slot) * 3 + 1));
        let numbers = Numbers::of(services, []);
        let given: HashSet<u16> = (0..MAX_SERVICES as u16).filter_map(|slot| numbers.service(slot)).collect();
        assert_eq!(given.len(), MAX_SERVICES as usize);
        assert!(given.iter().all(|number| u32::from(*number) < MAX_SERVICES));
    }

    #[test]
    fn a_backend_that_is_pushed_aside_is_seen() {
        // Two servers whose hashes meet in one slot.
        let start = |server: u64| mix(mix(7) ^ server) % u64::from(MAX_BACKENDS);
        let mut seen = HashMap::new();
        let (first, second) = (0..)
            .find_map(|server: u64| seen.insert(start(server), server).map(|earlier| (earlier, server)))
            .expect("sixteen bits run out");
        let alone = Numbers::of([], [(0, (7, second))]);
        let both = Numbers::of([], [(0, (7, second)), (1, (7, first))]);
        assert!(both.has_moved(&alone));
        assert!(!alone.has_moved(&alone));
        let (was, is) = (alone.backend(0).expect("numbered"), both.backend(0).expect("numbered"));
        assert_eq!((was.slot.wrapping_add(1), was.generation), (is.slot, is.generation));
        assert_eq!(both.owner(was), None);
    }
}
