//! Places of records by the hash of their keys.
//!
//! One table that doubles at half a million places stops its node for as long as that takes, and whatever is to go to others
//! waits. So there are many small tables. Chance fills them unevenly enough that they double one after the other. Half of the hash is
//! kept, so that no record has to be read meanwhile, each from another place in memory.

use hashbrown::HashTable;

/// Tables; a power of two.
const PARTS: usize = 256;

pub(super) struct Index {
    parts: Box<[HashTable<Entry>]>,
    len: usize,
}

/// 8 bytes.
struct Entry {
    /// Lower half of the key's hash.
    half: u32,
    slot: u32,
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
        let half = half(hash);
        let found =
            self.parts[part(hash)].find(spread(half), |entry| entry.half == half && is_it(entry.slot));
        found.map(|entry| entry.slot)
    }

    /// Looks where a hash would be, so that it is near when it is looked for.
    pub(super) fn approach(&self, hash: u64) {
        let half = half(hash);
        core::hint::black_box(self.parts[part(hash)].find(spread(half), |entry| entry.half == half));
    }

    /// Adds a place that is not there.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let half = half(hash);
        self.parts[part(hash)].insert_unique(spread(half), Entry { half, slot }, |entry| spread(entry.half));
        self.len += 1;
    }

    /// Forgets a place.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let entry = self.parts[part(hash)].find_entry(spread(half(hash)), |entry| entry.slot == slot);
        if let Ok(entry) = entry {
            entry.remove();
            self.len -= 1;
        }
    }
}

/// The table of a hash; its bits are none of the half that is kept.
const fn part(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

const fn half(hash: u64) -> u32 {
    hash as u32
}

/// What a table goes by: its lowest bits and the highest seven.
const fn spread(half: u32) -> u64 {
    (half as u64) | (half as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::identity::mix;

    #[test]
    fn finds_what_was_added_and_not_what_was_removed() {
        let mut index = Index::new();
        // Two places have one hash.
        let hash = |slot: u32| mix(u64::from(slot) / 2);
        for slot in 0..10_000 {
            index.insert(hash(slot), slot);
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
    fn no_insertion_moves_more_than_a_small_part_of_all() {
        let mut index = Index::new();
        let room = |index: &Index| index.parts.iter().map(HashTable::capacity).collect::<Vec<_>>();
        let mut before = room(&index);
        let mut most = 0;
        for slot in 0..100_000 {
            index.insert(mix(u64::from(slot)), slot);
            let after = room(&index);
            let grown = before.iter().zip(&after).filter(|(before, after)| before != after);
            most = most.max(grown.map(|(before, _)| *before).sum());
            before = after;
        }
        assert!((1..=100_000 / 100).contains(&most), "{most} places were moved at once");
    }
}
