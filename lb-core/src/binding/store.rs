//! Where records are kept: found by key, by server, and by the second in which they end.
//!
//! A record is 48 bytes in one vector; the index by key holds its place and half of the key's hash in eight, the lists by server and by
//! second run through the records themselves. At a million bindings that is about 65 bytes each.
//!
//! A key has one binding at most and, beside it, one tombstone at most: what is bound over a tombstone has an end of its own.

mod expire;
mod index;
mod merge;
mod place;

pub use merge::Merged;
pub use place::Effective;

use super::body::{Body, Flags, Key};
use super::failover::{Mark, Ordered, View};
use super::member::{Member, Members};
use super::time::{Tick, Time};
use super::wheel::{NONE, Wheel};
use crate::pool::identity::mix;
use core::time::Duration;
use index::Index;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Expiries nearer than this, rounded up to ticks, count as equal: clocks run apart, messages take time.
pub const SKEW: Duration = Duration::from_millis(500);
/// An ended record is remembered so long, so that what is bound anew beats it where it has not ended yet.
pub const GRACE: Duration = Duration::from_secs(5);
/// So long before its told end a record that was used since is told again.
pub const LEAD: Duration = Duration::from_secs(1);

/// A binding as a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Whose.
    pub key: Key,
    /// The server that serves it now.
    pub server: u64,
    /// Its generation, steps of failovers included.
    pub generation: u32,
    /// Whether an administrator set it.
    pub is_pinned: bool,
    /// What is left of its life.
    pub left: Duration,
}

/// What is kept under a key, with failovers written into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing.
    Absent,
    /// A record that ended a moment ago.
    Ended(Body),
    /// A tombstone.
    Deleted(Body),
    /// A living binding.
    Bound(Body),
}

/// 48 bytes.
struct Record {
    session: u64,
    service: u32,
    /// Generation in the lower 24 bits, flags above.
    generation: u32,
    failover: u32,
    /// The server of the body.
    base: u32,
    /// Where failovers since have moved it.
    server: u32,
    /// When it ends.
    expires: Tick,
    /// When the others think it ends.
    told: Tick,
    /// Next one of the same second, or free place.
    later: u32,
    /// Neighbours at the same server.
    next: u32,
    previous: u32,
}

/// Flags of a record besides those of its body.
/// Others told it since the checkpoint that is being written began: its vector does not cover it.
const LATE: u8 = 0x08;
/// Came with the snapshot that is being fetched.
const FETCHED: u8 = 0x10;
/// Came with a snapshot that was not completed: no vector covers it.
const UNCOVERED: u8 = 0x20;
const QUEUED: u8 = 0x40;
const FREE: u8 = 0x80;

impl Record {
    const fn generation(&self) -> u32 {
        self.generation & 0x00ff_ffff
    }

    const fn flags(&self) -> u8 {
        (self.generation >> 24) as u8
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    const fn set(&mut self, flag: u8, on: bool) {
        let bit = (flag as u32) << 24;
        self.generation = if on { self.generation | bit } else { self.generation & !bit };
    }

    const fn key(&self) -> Key {
        Key { service: self.service, session: self.session }
    }

    const fn is_tombstone(&self) -> bool {
        self.has(Flags::TOMBSTONE.0)
    }

    const fn lives(&self, now: Time) -> bool {
        self.expires.left(now) > 0
    }
}

/// All records of a node.
pub struct Store {
    records: Vec<Record>,
    /// First free place.
    free: u32,
    /// Bindings by key.
    index: Index,
    /// Tombstones by key.
    tombstones: Index,
    members: Members,
    views: BTreeMap<u64, Ordered>,
    /// Views that nobody had who was asked.
    lost_views: BTreeSet<u64>,
    wheel: Wheel,
    /// Makes places in the index unpredictable.
    seed: u64,
    /// Places whose binding changed for the data plane.
    changed: VecDeque<u32>,
    /// When marks are next looked over.
    marks_due: Time,
    /// Places from here on are still to be written into a checkpoint; `NONE` = none is being written.
    unwritten: u32,
}

impl Store {
    /// Without records. `seed` is random.
    pub fn new(seed: u64, now: Time) -> Self {
        Self {
            records: Vec::new(),
            free: NONE,
            index: Index::new(),
            tombstones: Index::new(),
            members: Members::default(),
            views: BTreeMap::new(),
            lost_views: BTreeSet::new(),
            wheel: Wheel::new(now),
            seed,
            changed: VecDeque::new(),
            marks_due: now,
            unwritten: NONE,
        }
    }

    /// Records kept: bindings, tombstones, and those that ended a few seconds ago.
    pub fn len(&self) -> usize {
        self.index.len() + self.tombstones.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places that records were ever at; the end of [`Self::write`].
    pub fn places(&self) -> u32 {
        self.records.len() as u32
    }

    /// The binding of a key, if it lives.
    pub fn find(&self, key: Key, now: Time) -> Option<Binding> {
        self.slot(key).and_then(|slot| self.binding(slot, now))
    }

    /// What is kept under a key, to decide what a new record must say.
    pub fn look(&self, key: Key, now: Time) -> Look {
        let lives = |slot: u32| self.records[slot as usize].lives(now);
        let deletion = self.tombstone(key);
        match (self.slot(key), deletion) {
            (None, None) => Look::Absent,
            (None, Some(slot)) if lives(slot) => Look::Deleted(self.body(slot)),
            (None, Some(slot)) => Look::Ended(self.body(slot)),
            (Some(slot), _) if lives(slot) => Look::Bound(self.settled(&self.body(slot))),
            (Some(slot), _) => {
                let body = self.settled(&self.body(slot));
                let deleted = deletion.map_or(0, |slot| self.records[slot as usize].generation());
                Look::Ended(Body { generation: body.generation.max(deleted), ..body })
            }
        }
    }

    /// The binding of a key, with the end that was told; ended ones too.
    pub fn record(&self, key: Key) -> Option<(Body, Tick)> {
        self.slot(key).map(|slot| (self.body(slot), self.records[slot as usize].told))
    }

    /// The tombstone of a key, with its end; ended ones too.
    pub fn deletion(&self, key: Key) -> Option<(Body, Tick)> {
        self.tombstone(key).map(|slot| (self.body(slot), self.records[slot as usize].told))
    }

    /// Has the places of keys near by when they are told next: far away they are waited for one after the other, here all at once.
    pub fn approach(&self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            self.index.approach(self.hash(key));
        }
    }

    /// Whether a living tombstone deletes a key's bindings of this generation.
    pub fn deletes(&self, key: Key, generation: u32, now: Time) -> bool {
        let holds = |slot: u32| {
            let record = &self.records[slot as usize];
            record.lives(now) && record.generation() >= generation
        };
        self.tombstone(key).is_some_and(holds)
    }

    /// A checkpoint begins: what is in the store now, its vector covers.
    pub const fn begin_writing(&mut self) {
        self.unwritten = 0;
    }

    /// The living records at `most` places from `from` on, tombstones too, with their ends, and whether the checkpoint's vector covers them.
    ///
    /// A record keeps its place for life, so whoever writes all places while the store changes misses none that lives throughout.
    pub fn write(&mut self, from: u32, most: u32, now: Time) -> Vec<(Body, Tick, bool)> {
        let end = from.saturating_add(most).min(self.places());
        let mut written = Vec::new();
        for slot in from.min(end)..end {
            let is_covered = self.is_covered(slot) && !self.records[slot as usize].has(LATE);
            self.records[slot as usize].set(LATE, false);
            written.extend(self.at(slot, now).map(|(body, expires)| (body, expires, is_covered)));
        }
        self.unwritten = if end < self.places() { end } else { NONE };
        written
    }

    /// Whether the own vector covers the record at a place.
    pub fn is_covered(&self, slot: u32) -> bool {
        self.records.get(slot as usize).is_none_or(|record| !record.has(FETCHED) && !record.has(UNCOVERED))
    }

    /// The living record at a place.
    pub fn at(&self, slot: u32, now: Time) -> Option<(Body, Tick)> {
        let record = self.records.get(slot as usize)?;
        let is_there = !record.has(FREE) && record.told.left(now) > 0;
        is_there.then(|| (self.body(slot), record.told))
    }

    /// All living bindings.
    pub fn bindings(&self, now: Time) -> impl Iterator<Item = Binding> {
        (0..self.places()).filter_map(move |slot| self.binding(slot, now))
    }

    /// The living bindings that are with a server now.
    pub fn bindings_of(&self, service: u32, server: u64, now: Time) -> impl Iterator<Item = Binding> {
        let mut next = self.members.find(service, server).map_or(NONE, |at| self.members.at(at).head);
        core::iter::from_fn(move || {
            let slot = next;
            next = self.records.get(slot as usize)?.next;
            Some(slot)
        })
        .filter_map(move |slot| self.binding(slot, now))
    }

    /// Servers that records or marks name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// How many failovers of a server are known.
    pub fn failover_of(&self, service: u32, server: u64) -> u32 {
        self.members.find(service, server).map_or(0, |at| self.members.at(at).failover())
    }

    /// All marks that hold, with their ends.
    pub fn marks(&self) -> impl Iterator<Item = (Mark, Tick)> {
        self.members.iter().flat_map(|member| member.marks.iter().copied())
    }

    /// A view by its digest.
    pub fn view(&self, digest: u64) -> Option<&View> {
        self.views.get(&digest).map(|ordered| &ordered.view)
    }

    /// Digests that marks name and that are not here.
    pub fn missing_views(&self) -> Vec<u64> {
        let named = self.marks().map(|(mark, _)| mark.digest);
        named.filter(|digest| !self.views.contains_key(digest)).collect()
    }

    /// The next binding that the data plane must hold, or must not (`Err`).
    ///
    /// Ended ones are left out: the data plane sees to its own.
    pub fn poll_changed(&mut self, now: Time) -> Option<Result<Binding, Key>> {
        loop {
            let slot = self.changed.pop_front()?;
            let record = &mut self.records[slot as usize];
            record.set(QUEUED, false);
            if record.has(FREE) || !record.lives(now) {
                continue;
            }
            let (key, is_tombstone) = (record.key(), record.is_tombstone());
            if is_tombstone && self.find(key, now).is_some() {
                // Bound anew, which is told by itself.
                continue;
            }
            return Some(self.binding(slot, now).ok_or(key));
        }
    }

    /// Whether the data plane has something to hear.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Bytes in use, with what vectors have in reserve.
    pub fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
            + self.index.bytes()
            + self.tombstones.bytes()
            + self.changed.capacity() * size_of::<u32>()
            + self.members.bytes()
            + self.wheel.bytes()
    }

    const fn hash(&self, key: Key) -> u64 {
        mix(key.session ^ (key.service as u64).rotate_left(32) ^ self.seed)
    }

    /// Where the binding of a key is.
    fn slot(&self, key: Key) -> Option<u32> {
        self.find_in(&self.index, key)
    }

    /// Where the tombstone of a key is.
    fn tombstone(&self, key: Key) -> Option<u32> {
        if self.tombstones.len() == 0 { None } else { self.find_in(&self.tombstones, key) }
    }

    fn find_in(&self, table: &Index, key: Key) -> Option<u32> {
        let is_it = |slot: u32| {
            let record = &self.records[slot as usize];
            record.session == key.session && record.service == key.service
        };
        table.find(self.hash(key), is_it)
    }

    fn body(&self, slot: u32) -> Body {
        let record = &self.records[slot as usize];
        Body {
            key: record.key(),
            server: self.members.at(record.base).server,
            generation: record.generation(),
            flags: Flags(record.flags()).known(),
            failover: record.failover,
        }
    }

    fn binding(&self, slot: u32, now: Time) -> Option<Binding> {
        let record = &self.records[slot as usize];
        if record.has(FREE) || record.is_tombstone() || !record.lives(now) {
            return None;
        }
        let effective = self.effective(slot);
        Some(Binding {
            key: record.key(),
            server: effective.server,
            generation: effective.generation,
            is_pinned: record.has(Flags::PINNED.0),
            left: Duration::from_millis(record.expires.left(now)),
        })
    }

    fn queue(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        if !record.has(QUEUED) {
            record.set(QUEUED, true);
            self.changed.push_back(slot);
        }
    }
}

const _: () = assert!(size_of::<Record>() == 48);

#[cfg(test)]
mod tests;
