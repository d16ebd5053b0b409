//! Slots of backends and of services.
//!
//! Slots are handed out first freed, first used again, those never used before all others: a slot rests as long
//! as possible, because bindings and packets on their way may still speak of its old owner.

use super::FoundBackend;
use lb_common::abi::MAX_SERVICES;
use std::collections::{BTreeMap, VecDeque};

/// Who owns which backend slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BackendSlots {
    /// Slots by service id and server number.
    owners: BTreeMap<(u32, u64), u16>,
    /// Slots found with an owner that has another slot; freed by the next plan.
    surplus: Vec<(u16, (u32, u64))>,
    /// By slot; 0 = never used.
    generations: Vec<u16>,
    free: VecDeque<u16>,
}

/// The generation after this one; never 0, which means "never used".
const fn raised(generation: u16) -> u16 {
    match generation.checked_add(1) {
        Some(next) => next,
        None => 1,
    }
}

impl BackendSlots {
    /// `count` slots, of which these were used.
    pub(super) fn recover(found: impl IntoIterator<Item = FoundBackend>, count: u32) -> Self {
        let mut owners = BTreeMap::new();
        let mut surplus = Vec::new();
        let mut generations = vec![0; count as usize];
        let mut taken = vec![false; count as usize];
        for FoundBackend { slot, generation, owner } in found {
            let index = usize::from(slot);
            if taken.get(index).is_none_or(|&taken| taken) {
                continue;
            }
            generations[index] = generation;
            let Some(owner) = owner else { continue };
            taken[index] = true;
            if *owners.entry(owner).or_insert(slot) != slot {
                surplus.push((slot, owner));
            }
        }
        let mut free: Vec<u16> =
            (0..=u16::MAX).zip(taken).filter(|(_, taken)| !taken).map(|(slot, _)| slot).collect();
        free.sort_by_key(|&slot| generations[usize::from(slot)] > 0);
        Self { owners, surplus, generations, free: free.into() }
    }

    pub(super) fn find(&self, service: u32, number: u64) -> Option<(u16, u16)> {
        let slot = *self.owners.get(&(service, number))?;
        Some((slot, self.generations[usize::from(slot)]))
    }

    /// Backends that stand, by service and number.
    pub(super) fn owners(&self) -> impl Iterator<Item = (u32, u64)> {
        self.owners.keys().copied()
    }

    /// Slot and generation for a new backend.
    pub(super) fn take(&mut self, service: u32, number: u64) -> Option<(u16, u16)> {
        let slot = self.free.pop_front()?;
        let generation = &mut self.generations[usize::from(slot)];
        *generation = raised(*generation);
        self.owners.insert((service, number), slot);
        Some((slot, *generation))
    }

    /// Frees the slot of a backend and answers slot and generation.
    pub(super) fn free(&mut self, service: u32, number: u64) -> Option<(u16, u16)> {
        let slot = self.owners.remove(&(service, number))?;
        self.free.push_back(slot);
        Some((slot, self.generations[usize::from(slot)]))
    }

    /// Frees surplus slots and answers them with their generation and false owner.
    pub(super) fn free_surplus(&mut self) -> Vec<(u16, u16, (u32, u64))> {
        let surplus = core::mem::take(&mut self.surplus);
        self.free.extend(surplus.iter().map(|&(slot, _)| slot));
        surplus.into_iter().map(|(slot, owner)| (slot, self.generations[usize::from(slot)], owner)).collect()
    }

    /// Puts a free slot that was used up to `generation` at the end of the queue.
    pub(super) fn skip(&mut self, slot: u16, generation: u16) {
        if let Some(index) = self.free.iter().position(|&free| free == slot) {
            self.free.remove(index);
            self.free.push_back(slot);
            self.generations[usize::from(slot)] = generation;
        }
    }
}

/// Free service slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServiceSlots {
    free: VecDeque<u16>,
}

impl ServiceSlots {
    pub(super) fn new() -> Self {
        Self { free: (0..MAX_SERVICES as u16).collect() }
    }

    /// Takes a certain slot; `false` when it is not free.
    pub(super) fn take(&mut self, slot: u16) -> bool {
        let index = self.free.iter().position(|&free| free == slot);
        index.is_some_and(|index| self.free.remove(index).is_some())
    }

    pub(super) fn take_any(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    pub(super) fn free(&mut self, slot: u16) {
        self.free.push_back(slot);
    }
}
