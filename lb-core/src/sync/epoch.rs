//! Whose numbers count: beginning, going on, and beginning anew.
//!
//! A node that starts asks all members what they know of it. If all of them answer and none knows more than the
//! journal held, it goes on in its epoch. If one knows more (the journal lost its end, or an old image of the machine came back), if one
//! does not answer in time, or if there was no journal, it opens an epoch: `max(clock, highest seen + 1)`, with 16 random bits
//! below, so that two lives from the same image cannot meet in one. Events made meanwhile wait for their numbers.
//!
//! An answer must stay true. A member that answered could still hear more of it in a late message of somebody's former life;
//! so all must see all others in the same lives when they answer. Of a life that is over nobody takes anything any more.

use super::wire::Lives;
use super::{Event, Node, Sabotage, Stream};
use crate::binding::{Entry, Log, NodeId, StreamId, Time};

/// Where the numbering stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The members are being asked; `former` is the epoch of the journal.
    Asking { until: Time, former: Option<u64> },
    /// Events are numbered. `base` is the last number that this life did not give itself.
    Numbering { epoch: u64, base: u64 },
}

impl Standing {
    pub(super) const fn epoch(&self) -> Option<u64> {
        match self {
            Self::Asking { .. } => None,
            Self::Numbering { epoch, .. } => Some(*epoch),
        }
    }
}

impl Node {
    fn own_stream(&self, epoch: u64) -> StreamId {
        StreamId { node: self.config.id, epoch }
    }

    /// A member says what it knows of this node, and in which lives it sees the others; `None`: its version does not say that.
    pub(super) fn take_answer(&mut self, from: NodeId, lives: Option<Lives>) {
        let lives = lives.unwrap_or_else(|| self.lives_beside(from));
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.answer = Some(lives);
        }
    }

    /// Whether a member answered, and sees all others in the lives in which this node sees them.
    pub(super) fn agrees(&self, peer: NodeId) -> bool {
        let answer = self.peers.get(&peer).and_then(|peer| peer.answer.as_ref());
        answer.is_some_and(|lives| *lives == self.lives_beside(peer))
    }

    /// The lives of all members but one.
    fn lives_beside(&self, one: NodeId) -> Lives {
        let mut lives = self.lives();
        lives.insert(self.config.id, self.incarnation);
        lives.remove(&one);
        lives
    }

    /// The lives in which this node sees the other members.
    pub(super) fn lives(&self) -> Lives {
        self.peers.iter().map(|(&id, peer)| (id, peer.incarnation.unwrap_or(0))).collect()
    }

    /// The highest epoch of this node that anyone has mentioned.
    fn highest_epoch(&self) -> Option<u64> {
        let id = self.config.id;
        let own = self.vector().newest_epoch(id);
        let dropped = self.dropped.keys().filter(|stream| stream.node == id).map(|stream| stream.epoch).max();
        let told = self.peers.values().filter_map(|peer| peer.told.newest_epoch(id)).max();
        own.max(dropped).max(told)
    }

    /// Looks whether the question who we are is settled, or must be put again.
    pub(super) fn look_at_standing(&mut self, now: Time) {
        match self.standing.clone() {
            Standing::Asking { until, former } => {
                let all_answered = self.peers.values().all(|peer| peer.answer.is_some());
                let may_go_on = |epoch: &u64| {
                    let stream = self.own_stream(*epoch);
                    let last = self.streams.get(&stream).map_or(0, |own| own.log.last());
                    self.highest_epoch().is_none_or(|highest| highest <= *epoch)
                        && self.peers.values().all(|peer| peer.told.event(stream) <= last)
                };
                let forces = self.breaks(Sabotage::NumberReused);
                let going_on = former.filter(|epoch| forces || may_go_on(epoch));
                let all_agree = forces || self.peers.keys().all(|&peer| self.agrees(peer));
                if !(all_answered && (all_agree || going_on.is_none())) && now < until {
                    return;
                }
                match going_on.filter(|_| forces || all_answered && all_agree) {
                    Some(epoch) => {
                        let stream = self.own_stream(epoch);
                        let base = self.streams.get(&stream).map_or(0, |own| own.log.last());
                        self.standing = Standing::Numbering { epoch, base };
                        self.events.push_back(Event::Epoch(epoch));
                        self.streams.entry(stream).or_insert_with(|| Stream::own(Log::default()));
                    }
                    None => {
                        if let Some(epoch) = former {
                            // What others know beyond the journal is fetched like anyone's events.
                            let stream = self.own_stream(epoch);
                            if let Some(own) = self.streams.get_mut(&stream) {
                                own.disown(own.log.last());
                            }
                        }
                        self.open_epoch(now);
                    }
                }
                let waiting = core::mem::take(&mut self.waiting);
                for (content, expires) in waiting {
                    self.log(now, content, expires);
                }
                for peer in self.peers.values_mut() {
                    peer.vector_due = now;
                }
            }
            Standing::Numbering { epoch, base } => {
                let stream = self.own_stream(epoch);
                let last = self.streams.get(&stream).map_or(0, |own| own.log.last());
                if self.breaks(Sabotage::NumberReused) {
                    return;
                }
                let is_outdone = self.peers.values().any(|peer| peer.told.event(stream) > last);
                if is_outdone {
                    let again: Vec<Entry> = self.streams.get_mut(&stream).map_or_else(Vec::new, |own| {
                        let again = (base + 1..=last).filter_map(|number| own.log.event(number)).collect();
                        own.disown(base);
                        again
                    });
                    self.open_epoch(now);
                    for entry in again {
                        self.log(now, entry.content, entry.expires);
                    }
                } else if self.highest_epoch().is_some_and(|highest| highest > epoch) {
                    self.open_epoch(now);
                }
            }
        }
    }

    /// Begins to number from 1 in an epoch that nobody has seen.
    fn open_epoch(&mut self, now: Time) {
        let clock = self.wall.saturating_add(now.0.saturating_sub(self.wall_at.0));
        let seen = self.highest_epoch().map_or(0, |epoch| (epoch >> 16) + 1);
        let lot = self.random() & 0xffff;
        let epoch = clock.max(seen).min(u64::MAX >> 16) << 16 | lot;
        self.standing = Standing::Numbering { epoch, base: 0 };
        self.streams.insert(self.own_stream(epoch), Stream::own(Log::default()));
        self.counts.epochs += 1;
        self.events.push_back(Event::Epoch(epoch));
        for peer in self.peers.values_mut() {
            peer.pushed = 0;
            peer.vector_due = now;
        }
    }
}
