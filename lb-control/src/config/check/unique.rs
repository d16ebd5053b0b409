//! Finds what is there twice.

use core::hash::Hash;
use core::ops::Range;
use std::collections::HashMap;

/// Keys and the places where each was first.
pub(super) struct Unique<K>(HashMap<K, Range<usize>>);

impl<K: Eq + Hash> Unique<K> {
    /// Adds a key; gives the place of an equal one that came before.
    pub(super) fn insert(&mut self, key: K, span: &Range<usize>) -> Option<Range<usize>> {
        match self.0.get(&key) {
            Some(first) => Some(first.clone()),
            None => {
                self.0.insert(key, span.clone());
                None
            }
        }
    }
}

impl<K: Eq + Hash + Copy + Into<u64> + TryFrom<u64>> Unique<K> {
    /// A number near `taken` that is not there yet.
    pub(super) fn free(&self, taken: K) -> u64 {
        let mut candidate: u64 = taken.into();
        loop {
            candidate = candidate.wrapping_add(1);
            match K::try_from(candidate) {
                Ok(key) if candidate != 0 && !self.0.contains_key(&key) => return candidate,
                Ok(_) => {}
                Err(_) => candidate = 0,
            }
        }
    }
}

impl<K> Default for Unique<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}
