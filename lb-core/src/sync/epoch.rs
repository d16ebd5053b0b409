//! Whose numbers count: beginning, going on, and beginning anew.
//!
//! A node that starts asks all members what they know of it. If all of them answer and none knows more than the
//! journal held, it goes on in its epoch. If one knows more (the journal lost its end, or an old image of the machine came back), if one
//! does not answer in time, or if there was no journal, it opens an epoch: `max(clock, highest seen + 1)`, with 16 random bits
//! below, so that two lives from the same image cannot meet in one. Events made meanwhile wait for their numbers.

use super::{Event, Node, Sabotage, Stream};
use crate::binding::{Entry, Log, StreamId, Time};

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
                let all_answered = self.peers.values().all(|peer| peer.has_answered);
                if !all_answered && now < until {
                    return;
                }
                let may_go_on = |epoch: &u64| {
                    let stream = self.own_stream(*epoch);
                    let last = self.streams.get(&stream).map_or(0, |own| own.log.last());
                    all_answered
                        && self.highest_epoch().is_none_or(|highest| highest <= *epoch)
                        && self.peers.values().all(|peer| peer.told.event(stream) <= last)
                };
                match former.filter(|epoch| self.breaks(Sabotage::NumberReused) || may_go_on(epoch)) {
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
