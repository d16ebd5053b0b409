//! The servers that records name: their marks, and who is bound to them.

use super::failover::Mark;
use super::time::Tick;
use super::wheel::NONE;
use crate::pool::identity::mix;
use hashbrown::HashTable;

/// Marks of one server that are kept; more failovers than that within the longest lifetime drop the oldest.
const MOST_MARKS: usize = 32;

/// A server of a service.
#[derive(Clone, Debug)]
pub struct Member {
    /// Service id.
    pub service: u32,
    /// Server number.
    pub server: u64,
    /// Its failovers by epoch, each with its end.
    pub marks: Vec<(Mark, Tick)>,
    /// Bindings that are with it now, expired and deleted ones that are still kept included.
    pub count: u32,
    /// First of them.
    pub(super) head: u32,
    /// How many records name it, as what they say or as where they are now.
    references: u32,
}

/// What a mark changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Marked {
    /// Known already.
    Known,
    /// The newest one: concerns who is with the server now.
    Newest,
    /// Between others, or in place of another: may concern anyone who was with it.
    Between,
}

impl Member {
    /// How many failovers of it are known.
    pub fn failover(&self) -> u32 {
        self.marks.last().map_or(0, |(mark, _)| mark.epoch)
    }

    /// The failovers that may move a record which knew so many, the first one first.
    pub(super) fn marks_after(&self, known: u32) -> impl Iterator<Item = &Mark> {
        self.marks.iter().map(|(mark, _)| mark).filter(move |mark| mark.epoch > known)
    }

    /// Of two marks of one epoch the one with the higher digest holds.
    fn add(&mut self, mark: Mark, expires: Tick) -> Marked {
        let place = self.marks.partition_point(|(known, _)| known.epoch < mark.epoch);
        let is_last = place == self.marks.len();
        match self.marks.get_mut(place) {
            Some((known, until)) if known.epoch == mark.epoch => {
                *until = expires.max(*until);
                if known.digest >= mark.digest {
                    return Marked::Known;
                }
                *known = mark;
            }
            Some(_) | None => self.marks.insert(place, (mark, expires)),
        }
        if is_last { Marked::Newest } else { Marked::Between }
    }
}

/// All servers that records or marks name; four bytes name one of them.
#[derive(Default)]
pub(super) struct Members {
    all: Vec<Member>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

const fn hash(service: u32, server: u64) -> u64 {
    mix(server ^ (service as u64).rotate_left(32))
}

impl Members {
    pub(super) fn find(&self, service: u32, server: u64) -> Option<u32> {
        let is_it = |&at: &u32| {
            let member = &self.all[at as usize];
            member.server == server && member.service == service
        };
        self.index.find(hash(service, server), is_it).copied()
    }

    pub(super) fn find_or_add(&mut self, service: u32, server: u64) -> u32 {
        if let Some(found) = self.find(service, server) {
            return found;
        }
        let member = Member { service, server, marks: Vec::new(), count: 0, head: NONE, references: 0 };
        let at = match self.free.pop() {
            Some(at) => {
                self.all[at as usize] = member;
                at
            }
            None => {
                self.all.push(member);
                (self.all.len() - 1) as u32
            }
        };
        let all = &self.all;
        self.index.insert_unique(hash(service, server), at, |&at| {
            let member = &all[at as usize];
            hash(member.service, member.server)
        });
        at
    }

    pub(super) fn at(&self, at: u32) -> &Member {
        &self.all[at as usize]
    }

    pub(super) fn at_mut(&mut self, at: u32) -> &mut Member {
        &mut self.all[at as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        // A free place is not in the index.
        self.index.iter().map(|&at| &self.all[at as usize])
    }

    pub(super) fn hold(&mut self, at: u32) {
        self.all[at as usize].references += 1;
    }

    /// The counterpart of `hold`; what nothing names is forgotten.
    pub(super) fn release(&mut self, at: u32) {
        self.all[at as usize].references -= 1;
        self.forget_unused(at);
    }

    fn forget_unused(&mut self, at: u32) {
        let member = &self.all[at as usize];
        if member.references > 0 || !member.marks.is_empty() {
            return;
        }
        let hash = hash(member.service, member.server);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == at) {
            entry.remove();
            self.free.push(at);
        }
    }

    pub(super) fn mark(&mut self, mark: Mark, expires: Tick) -> (u32, Marked) {
        let at = self.find_or_add(mark.service, mark.server);
        (at, self.all[at as usize].add(mark, expires))
    }

    /// Servers with a mark that has ended, or with too many.
    pub(super) fn with_ended_marks(&self, now: Tick) -> Vec<u32> {
        let is_ended = |member: &Member| {
            member.marks.len() > MOST_MARKS || member.marks.iter().any(|&(_, until)| until <= now)
        };
        self.index.iter().copied().filter(|&at| is_ended(self.at(at))).collect()
    }

    /// Forgets ended marks of a server; records must not need them any more.
    pub(super) fn drop_ended_marks(&mut self, at: u32, now: Tick) {
        let marks = &mut self.all[at as usize].marks;
        marks.retain(|&(_, until)| until > now);
        let over = marks.len().saturating_sub(MOST_MARKS);
        marks.drain(..over);
        self.forget_unused(at);
    }

    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Member>() + self.index.allocation_size()
    }
}
