//! Ends: what is told again shortly before, and what is forgotten.

use super::super::body::Body;
use super::super::time::{Tick, Time};
use super::super::wheel::NONE;
use super::{FREE, GRACE, LEAD, Store};
use core::time::Duration;

/// Marks are looked over so often.
const MARKS_EVERY: Duration = Duration::from_secs(10);

impl Store {
    /// Forgets what ended; into `used` go the bindings that were used since the others were told of their end,
    /// because that end is near, with the new one.
    ///
    /// Who is told, must hear of them with [`Self::merge`] again.
    pub fn advance(&mut self, now: Time, used: &mut Vec<(Body, Tick)>) {
        while let Some(mut slot) = self.wheel.take(now) {
            while slot != NONE {
                let next = self.records[slot as usize].later;
                self.look_at(slot, now, used);
                slot = next;
            }
        }
        if now >= self.marks_due {
            self.marks_due = now.after(MARKS_EVERY);
            self.drop_ended_marks(now);
        }
    }

    /// When [`Self::advance`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        (!self.is_empty()).then(|| self.wheel.deadline())
    }

    fn look_at(&mut self, slot: u32, now: Time, used: &mut Vec<(Body, Tick)>) {
        let record = &self.records[slot as usize];
        if record.expires.time().after(GRACE) <= now {
            self.forget(slot);
            return;
        }
        if record.lives(now)
            && record.expires > record.told
            && record.told.left(now) <= LEAD.as_millis() as u64 + 1000
        {
            let expires = record.expires;
            used.push((self.settled(&self.body(slot)), expires));
            // So that it is not told twice: from here on the others know.
            self.records[slot as usize].told = expires;
        }
        self.schedule(slot, now);
    }

    /// Takes a record out as if it had never been: only for bugs on purpose.
    pub(crate) fn erase(&mut self, key: super::Key) {
        for slot in [self.slot(key), self.tombstone(key)].into_iter().flatten() {
            self.end(slot);
        }
    }

    /// Ends a record, whatever was told. The wheel still leads to it: its place is free when that second comes.
    pub(super) fn end(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        (record.expires, record.told) = (Tick(0), Tick(0));
    }

    fn forget(&mut self, slot: u32) {
        self.hide(slot);
        self.unlink(slot);
        let record = &mut self.records[slot as usize];
        let base = core::mem::replace(&mut record.base, NONE);
        record.set(FREE, true);
        record.later = core::mem::replace(&mut self.free, slot);
        self.members.release(base);
    }

    /// Has nobody find a record by its key any more.
    pub(super) fn hide(&mut self, slot: u32) {
        let record = &self.records[slot as usize];
        let hash = self.hash(record.key());
        let table = if record.is_tombstone() { &mut self.tombstones } else { &mut self.index };
        table.remove(hash, slot);
    }

    /// Records that a mark had moved say so themselves before it goes.
    fn drop_ended_marks(&mut self, now: Time) {
        let ended = self.members.with_ended_marks(Tick::now(now));
        if ended.is_empty() {
            return;
        }
        for slot in 0..self.places() {
            let record = &self.records[slot as usize];
            if !record.has(FREE)
                && !record.is_tombstone()
                && self.members.at(record.base).failover() > record.failover
            {
                self.settle(slot);
            }
        }
        for member in ended {
            self.members.drop_ended_marks(member, Tick::now(now));
        }
        let named: std::collections::BTreeSet<u64> = self.marks().map(|(mark, _)| mark.digest).collect();
        self.views.retain(|digest, _| named.contains(digest));
        self.lost_views.retain(|digest| named.contains(digest));
    }
}
