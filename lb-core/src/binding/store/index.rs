//! Places of records by the hash of their keys.
//!
//! One table that doubles at half a million places stops its node for as long as it takes to read that many records, 140 ms
//! on a slow machine, and whatever is to go to others waits. So there are many small tables. Chance fills them unevenly enough
//! that they double one after the other.

use hashbrown::HashTable;

/// Tables; a power of two.
const PARTS: usize = 256;

pub(super) struct Index {
    parts: Box<[HashTable<u32>]>,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0 }
    }

    /// Places kept.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes in use, with what tables have in reserve.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| size_of_val(part) + part.allocation_size()).sum()
    }

    /// The place under a hash that is the one looked for.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[part(hash)].find(hash, |&slot| is_it(slot)).copied()
    }

    /// Adds a place that is not there. A table that grows asks for the hashes of its places.
    pub(super) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        self.parts[part(hash)].insert_unique(hash, slot, |&slot| hash_of(slot));
        self.len += 1;
    }

    /// Forgets a place.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        if let Ok(entry) = self.parts[part(hash)].find_entry(hash, |&other| other == slot) {
            entry.remove();
            self.len -= 1;
        }
    }
}

/// The table of a hash; a table itself goes by the lowest bits and the highest seven.
const fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::identity::mix;

    #[test]
    fn finds_what_was_added_and_not_what_was_removed() {
        let mut index = Index::new();
        let hash = |slot: u32| mix(u64::from(slot) / 2);
        for slot in 0..10_000 {
            index.insert(hash(slot), slot, hash);
        }
        for slot in (0..10_000).step_by(3) {
            index.remove(hash(slot), slot);
            index.remove(hash(slot), slot);
        }
        assert_eq!(index.len(), 10_000 - 3_334);
        for slot in 0..10_000 {
            let found = index.find(hash(slot), |other| other == slot);
            assert_eq!(found, (slot % 3 != 0).then_some(slot));
        }
    }

    #[test]
    fn no_insertion_reads_more_than_a_small_part_of_all() {
        let mut index = Index::new();
        let hash = |slot: u32| mix(u64::from(slot));
        let mut most = 0;
        for slot in 0..500_000 {
            let read = core::cell::Cell::new(0);
            index.insert(hash(slot), slot, |slot| {
                read.set(read.get() + 1);
                hash(slot)
            });
            most = most.max(read.get());
        }
        assert!(most <= 500_000 / 100, "{most} hashes were asked for at once");
    }
}
