//! Reconciliation: what a record becomes when another one of its key is told.

use super::super::body::{Body, Key};
use super::super::time::{Tick, Time};
use super::super::wheel::NONE;
use super::{FETCHED, FREE, GRACE, LATE, LEAD, QUEUED, Record, SKEW, Store, UNCOVERED};
use core::cmp::Ordering;

/// What telling a record did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merged {
    /// It has ended: discarded.
    Expired,
    /// Nothing of its key was there.
    Inserted,
    /// It was there, ends later now.
    Extended,
    /// It was there, or what is there holds against it.
    Kept,
    /// It holds against what was there.
    Replaced,
    /// One of the two holds, with the other one's later end: nobody told it so, and this node must.
    Joined(Body, Tick),
}

impl Store {
    /// Reconciles one record with what is kept (row A5).
    ///
    /// Of the bindings that no tombstone deletes the highest rank holds, with the latest end that was told of any of them; of tombstones
    /// the highest generation, with the latest end of any of them and of what they deleted. `is_local`: the data plane has it already.
    pub fn merge(&mut self, body: &Body, expires: Tick, now: Time, is_local: bool) -> Merged {
        if expires.left(now) == 0 {
            return Merged::Expired;
        }
        let deleted = if body.is_tombstone() { self.unbind(body) } else { Tick(0) };
        match self.reconcile(body, expires.max(deleted), now, is_local) {
            Merged::Inserted | Merged::Replaced if deleted > expires.after(SKEW) => {
                Merged::Joined(*body, deleted)
            }
            merged => merged,
        }
    }

    /// Takes out the binding that a tombstone deletes; until when others take it to live.
    fn unbind(&mut self, tombstone: &Body) -> Tick {
        let is_deleted = |&slot: &u32| self.records[slot as usize].generation() <= tombstone.generation;
        let Some(slot) = self.slot(tombstone.key).filter(is_deleted) else { return Tick(0) };
        let told = self.records[slot as usize].told;
        self.hide(slot);
        self.end(slot);
        told
    }

    /// Reconciles a record with its like, or a binding with the tombstone that deletes it.
    fn reconcile(&mut self, body: &Body, expires: Tick, now: Time, is_local: bool) -> Merged {
        let is_deleted = self.deletes(body.key, body.generation, now);
        let other = if is_deleted { self.tombstone(body.key) } else { self.like(body) };
        let Some(slot) = other else {
            let slot = self.insert(body, expires, now);
            if !is_local {
                self.hear(slot);
            }
            return Merged::Inserted;
        };
        if !self.records[slot as usize].lives(now) {
            self.replace(slot, body, expires, expires);
            if !is_local {
                self.hear(slot);
            }
            return Merged::Inserted;
        }
        let (told, used) = (self.records[slot as usize].told, self.records[slot as usize].expires);
        let merged = match body.cmp_rank(&self.body(slot)) {
            Ordering::Equal if expires > told.after(SKEW) => {
                self.extend(slot, expires);
                Merged::Extended
            }
            Ordering::Less if expires > told.after(SKEW) => {
                self.extend(slot, expires);
                self.queue(slot);
                return Merged::Joined(self.body(slot), expires);
            }
            Ordering::Equal | Ordering::Less => return Merged::Kept,
            Ordering::Greater => {
                let until = if body.is_tombstone() { expires.max(told) } else { expires.max(used) };
                self.replace(slot, body, expires.max(told), until);
                if until > expires {
                    // The data plane, which told it, knows the earlier end only.
                    self.queue(slot);
                }
                if told > expires.after(SKEW) { Merged::Joined(*body, told) } else { Merged::Replaced }
            }
        };
        if !is_local {
            self.hear(slot);
        }
        merged
    }

    /// Others told it: the data plane has to hear of it.
    fn hear(&mut self, slot: u32) {
        if slot >= self.unwritten {
            self.records[slot as usize].set(LATE, true);
        }
        self.queue(slot);
    }

    /// Reconciles a record of a snapshot; until that is complete, no vector covers it. `is_uncovered`: not even then.
    pub fn merge_fetched(&mut self, body: &Body, expires: Tick, now: Time, is_uncovered: bool) -> Merged {
        let body = body.sane();
        let merged = self.merge(&body, expires, now, false);
        if let Some(slot) = self.like(&body)
            && self.body(slot) == body
        {
            let record = &mut self.records[slot as usize];
            let is_news = !matches!(merged, Merged::Kept | Merged::Expired);
            if is_news && is_uncovered {
                record.set(UNCOVERED, true);
            } else if is_news || record.has(UNCOVERED) && !is_uncovered && record.told <= expires.after(SKEW)
            {
                record.set(UNCOVERED, false);
                record.set(FETCHED, true);
            }
        }
        merged
    }

    /// The snapshot that was being fetched is complete, or given up.
    pub fn end_fetching(&mut self, is_complete: bool) {
        for record in &mut self.records {
            if record.has(FETCHED) {
                record.set(FETCHED, false);
                record.set(UNCOVERED, !is_complete || record.has(UNCOVERED));
            }
        }
    }

    /// The living records that no vector covers, which the node must tell itself; from here on it does.
    pub fn take_uncovered(&mut self, now: Time) -> Vec<(Body, Tick)> {
        let mut found = Vec::new();
        for slot in 0..self.places() {
            if self.records[slot as usize].has(UNCOVERED) {
                self.records[slot as usize].set(UNCOVERED, false);
                found.extend(self.at(slot, now));
            }
        }
        found
    }

    /// Notes that a binding was used, without telling anyone yet.
    pub fn use_until(&mut self, key: Key, expires: Tick) {
        if let Some(slot) = self.slot(key) {
            let record = &mut self.records[slot as usize];
            record.expires = expires.max(record.expires);
        }
    }

    /// Has the data plane hear of a key, because it may hold something else.
    pub fn tell_again(&mut self, key: Key) {
        for slot in [self.slot(key), self.tombstone(key)].into_iter().flatten() {
            self.queue(slot);
        }
    }

    /// Has the data plane hear of all that are with a server now.
    pub fn tell_again_of(&mut self, service: u32, server: u64) {
        let mut next = self.members.find(service, server).map_or(NONE, |at| self.members.at(at).head);
        while let Some(record) = self.records.get(next as usize) {
            let slot = core::mem::replace(&mut next, record.next);
            self.queue(slot);
        }
    }

    /// Where the binding of a body's key is, or the tombstone if the body is one.
    fn like(&self, body: &Body) -> Option<u32> {
        if body.is_tombstone() { self.tombstone(body.key) } else { self.slot(body.key) }
    }

    fn extend(&mut self, slot: u32, expires: Tick) {
        let record = &mut self.records[slot as usize];
        record.told = expires.max(record.told);
        record.expires = expires.max(record.expires);
    }

    fn insert(&mut self, body: &Body, told: Tick, now: Time) -> u32 {
        let record = Record {
            session: body.key.session,
            service: body.key.service,
            generation: body.generation | u32::from(body.flags.0) << 24,
            failover: body.failover,
            base: NONE,
            server: NONE,
            expires: told,
            told,
            later: NONE,
            next: NONE,
            previous: NONE,
        };
        let slot = self.free;
        let slot = if slot == NONE {
            self.records.push(record);
            (self.records.len() - 1) as u32
        } else {
            let place = &mut self.records[slot as usize];
            self.free = place.later;
            let queued = place.has(QUEUED);
            *place = record;
            place.set(QUEUED, queued);
            slot
        };
        let hash = self.hash(body.key);
        let table = if body.is_tombstone() { &mut self.tombstones } else { &mut self.index };
        table.insert(hash, slot);
        let member = self.members.find_or_add(body.key.service, body.server);
        self.set_base(slot, member);
        self.link(slot, member);
        self.place(slot);
        self.schedule(slot, now);
        slot
    }

    fn replace(&mut self, slot: u32, body: &Body, told: Tick, expires: Tick) {
        let record = &mut self.records[slot as usize];
        let own = record.flags() & (QUEUED | FREE);
        record.generation = body.generation | u32::from(body.flags.0 | own) << 24;
        record.failover = body.failover;
        record.told = told;
        record.expires = expires;
        let member = self.members.find_or_add(body.key.service, body.server);
        self.set_base(slot, member);
        self.place(slot);
    }

    /// Writes failovers into what a record says.
    pub(super) fn settle(&mut self, slot: u32) {
        let body = self.settled(&self.body(slot));
        let record = &self.records[slot as usize];
        let (told, expires) = (record.told, record.expires);
        let cover = record.flags() & (LATE | FETCHED | UNCOVERED);
        self.replace(slot, &body, told, expires);
        self.records[slot as usize].set(cover, true);
    }

    /// Puts a record on the list of the second in which it must be looked at.
    pub(super) fn schedule(&mut self, slot: u32, now: Time) {
        let record = &mut self.records[slot as usize];
        let before_end = Time(record.told.time().0.saturating_sub(LEAD.as_millis() as u64));
        let due = if before_end > now { before_end } else { record.expires.time().after(GRACE) };
        let list = self.wheel.list(due);
        record.later = core::mem::replace(list, slot);
    }
}
