//! Where a record's session is: what it says, and the failovers since.

use super::super::body::{Body, MAX_GENERATION};
use super::super::failover::{Mark, Ordered, View};
use super::super::member::Marked;
use super::super::time::{Tick, Time};
use super::super::wheel::NONE;
use super::{FREE, Store};

/// More steps than that are not followed: each needs the failure of another server within one lifetime.
const MOST_STEPS: usize = 16;

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effective {
    /// Server number.
    pub server: u64,
    /// The body's generation and the steps since.
    pub generation: u32,
    /// Failovers of that server that count as known.
    pub failover: u32,
}

impl Store {
    /// Where failovers have moved a body's session.
    pub fn resolve(&self, body: &Body) -> Effective {
        let mut at = Effective { server: body.server, generation: body.generation, failover: body.failover };
        if body.is_tombstone() {
            return at;
        }
        let mut taken = [(0, 0); MOST_STEPS];
        for step in 0..MOST_STEPS {
            let Some(member) = self.members.find(body.key.service, at.server) else { return at };
            // Without the view it stays where it was until the view comes; one that nobody has hides no later failover.
            let mut marks = self.members.at(member).marks_after(at.failover);
            let Some(mark) = marks.find(|mark| !self.lost_views.contains(&mark.digest)) else { return at };
            let Some(ordered) = self.views.get(&mark.digest) else { return at };
            taken[step] = (at.server, mark.epoch);
            let is_taken =
                |server, known| taken[..=step].iter().any(|&(other, epoch)| other == server && epoch > known);
            let heir = ordered.heir(body.key.session, |heir| !is_taken(heir.number, heir.failover));
            at = match heir {
                Some(heir) => Effective {
                    server: heir.number,
                    generation: (at.generation + 1).min(MAX_GENERATION),
                    failover: heir.failover,
                },
                // Nobody was live; perhaps somebody was when it failed again.
                None => Effective { failover: mark.epoch, ..at },
            };
        }
        at
    }

    pub(super) fn effective(&self, slot: u32) -> Effective {
        let record = &self.records[slot as usize];
        if record.base == record.server {
            // Steps may lead back to where they began, but then there is a mark.
            let member = self.members.at(record.base);
            if member.failover() <= record.failover {
                return Effective {
                    server: member.server,
                    generation: record.generation(),
                    failover: record.failover,
                };
            }
        }
        self.resolve(&self.body(slot))
    }

    /// What a record says, with failovers written into it.
    pub fn settled(&self, body: &Body) -> Body {
        let at = self.resolve(body);
        Body { server: at.server, generation: at.generation, failover: at.failover, ..*body }
    }

    /// Brings the list by server in line with what the record says.
    pub(super) fn place(&mut self, slot: u32) {
        let record = &self.records[slot as usize];
        let (service, old, base) = (record.service, record.server, record.base);
        let moved = self.members.at(base).failover() > record.failover && !record.is_tombstone();
        let new = if moved {
            let at = self.resolve(&self.body(slot));
            self.members.find_or_add(service, at.server)
        } else {
            base
        };
        if new != old {
            self.unlink(slot);
            self.link(slot, new);
        }
    }

    pub(super) fn link(&mut self, slot: u32, member: u32) {
        self.members.hold(member);
        let at = self.members.at_mut(member);
        let head = core::mem::replace(&mut at.head, slot);
        at.count += 1;
        if head != NONE {
            self.records[head as usize].previous = slot;
        }
        let record = &mut self.records[slot as usize];
        (record.server, record.next, record.previous) = (member, head, NONE);
    }

    pub(super) fn unlink(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        let (member, next, previous) = (record.server, record.next, record.previous);
        record.server = NONE;
        if next != NONE {
            self.records[next as usize].previous = previous;
        }
        let at = self.members.at_mut(member);
        at.count -= 1;
        if previous == NONE {
            at.head = next;
        } else {
            self.records[previous as usize].next = next;
        }
        self.members.release(member);
    }

    /// Changes which server a record says.
    pub(super) fn set_base(&mut self, slot: u32, member: u32) {
        self.members.hold(member);
        let old = core::mem::replace(&mut self.records[slot as usize].base, member);
        if old != NONE {
            self.members.release(old);
        }
    }

    /// Takes a failover in; whether it was new.
    pub fn mark(&mut self, mark: Mark, expires: Tick, now: Time) -> bool {
        if expires.left(now) == 0 || mark.epoch == 0 {
            return false;
        }
        let (member, marked) = self.members.mark(mark, expires);
        match marked {
            Marked::Known => return false,
            Marked::Newest => self.place_all_of(member),
            Marked::Between => self.place_everyone(),
        }
        true
    }

    /// Takes a view in that marks name; others are not kept.
    pub fn add_view(&mut self, view: View) -> bool {
        let digest = view.digest();
        let named = self.members.iter().any(|m| m.marks.iter().any(|(mark, _)| mark.digest == digest));
        if !named || self.views.contains_key(&digest) {
            return false;
        }
        let service = view.service();
        let Some(ordered) = Ordered::new(view) else { return false };
        self.views.insert(digest, ordered);
        if self.lost_views.remove(&digest) {
            // A later failover may have moved its sessions elsewhere.
            self.place_everyone();
            return true;
        }
        let of_it =
            |m: &&super::Member| m.service == service && m.marks.iter().any(|(k, _)| k.digest == digest);
        let servers: Vec<u64> = self.members.iter().filter(of_it).map(|m| m.server).collect();
        for server in servers {
            if let Some(member) = self.members.find(service, server) {
                self.place_all_of(member);
            }
        }
        true
    }

    /// Nobody seems to have a view any more: until it comes all the same, its failover moves nobody.
    pub fn lose_view(&mut self, digest: u64) {
        if !self.views.contains_key(&digest) && self.lost_views.insert(digest) {
            self.place_everyone();
        }
    }

    fn place_all_of(&mut self, member: u32) {
        // What moves away is linked elsewhere, so the list is read first.
        let mut slots = Vec::new();
        let mut next = self.members.at(member).head;
        while next != NONE {
            slots.push(next);
            next = self.records[next as usize].next;
        }
        slots.into_iter().for_each(|slot| self.place_anew(slot));
    }

    fn place_everyone(&mut self) {
        (0..self.places())
            .filter(|&slot| !self.records[slot as usize].has(FREE))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|slot| self.place_anew(slot));
    }

    /// The data plane hears of it: the server may be another one, the generation is.
    fn place_anew(&mut self, slot: u32) {
        self.place(slot);
        let record = &self.records[slot as usize];
        if self.members.at(record.base).failover() > record.failover && !record.is_tombstone() {
            self.queue(slot);
        }
    }
}
