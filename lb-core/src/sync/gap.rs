//! What is missing: of whom it is asked, and what nobody misses any more.

use super::wire::Range;
use super::{Event, Node, Peer, Standing, Stream};
use crate::binding::{NodeId, StreamId, Time};

/// Forgotten streams that are told from new ones.
const MOST_DROPPED: usize = 1024;
/// After so many questions nobody seems to have a view.
const VIEW_QUESTIONS: u32 = 20;
/// Views that are wanted at a time.
const MOST_VIEWS: usize = 4096;

/// Events of a stream that others have.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) next_ask: Time,
    pub(super) tries: u32,
    /// Who said that it does not hold them any more.
    pub(super) refused: Vec<NodeId>,
}

/// A view that a mark names.
#[derive(Clone, Debug)]
pub(super) struct ViewWant {
    pub(super) next_ask: Time,
    pub(super) tries: u32,
}

impl Node {
    /// Whether an epoch of this node is the present one, or may become it.
    pub(super) fn is_own_now(&self, epoch: u64) -> bool {
        match self.standing {
            Standing::Asking { former, .. } => former == Some(epoch),
            Standing::Numbering { epoch: present, .. } => present == epoch,
        }
    }

    /// Makes room for a stream of which somebody has events up to `last`; false: it is of no interest.
    pub(super) fn has_room_for(&mut self, id: StreamId, last: u64) -> bool {
        if self.streams.contains_key(&id) {
            return true;
        }
        let had = self.dropped.get(&id).copied().unwrap_or(0);
        if had >= last || self.streams.len() >= self.config.most_streams {
            return false;
        }
        self.dropped.remove(&id);
        self.streams.insert(id, Stream::foreign(had));
        true
    }

    /// Looks what a peer that just told its vector has and this node has not.
    pub(super) fn notice(&mut self, now: Time, from: NodeId) {
        let Some(peer) = self.peers.get(&from) else { return };
        let told: Vec<(StreamId, u64)> = peer.told.iter().collect();
        let is_new = !self.has_base && self.streams.values().all(|stream| stream.log.last() == 0);
        for (id, last) in told {
            if id.node == self.config.id && self.is_own_now(id.epoch) || !self.has_room_for(id, last) {
                continue;
            }
            let due = now.after(self.config.gap_delay);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let missing = last.saturating_sub(stream.log.last());
            if missing == 0 {
                continue;
            }
            stream.agreed_since = None;
            stream.want.get_or_insert(Want { next_ask: due, tries: 0, refused: Vec::new() });
            if is_new || missing > self.config.too_far {
                self.begin_import(now, from);
            }
        }
    }

    /// Asks for what follows what is held, as soon as possible.
    pub(super) fn want_now(&mut self, now: Time, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            match &mut stream.want {
                // Asked a moment ago: the answer is on its way.
                Some(want) if want.tries > 0 => {}
                Some(want) => want.next_ask = now,
                none => *none = Some(Want { next_ask: now, tries: 0, refused: Vec::new() }),
            }
        }
    }

    /// Events came: what is still missing comes behind them.
    pub(super) fn has_progressed(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let last = stream.log.last();
        let is_behind = self.peers.values().any(|peer| peer.told.event(id) > last);
        stream.want = if is_behind {
            let next_ask = now.after(self.config.gap_delay);
            Some(Want { next_ask, tries: 0, refused: Vec::new() })
        } else {
            None
        };
    }

    /// A peer does not hold any more what was asked of it.
    pub(super) fn refuse_range(&mut self, now: Time, from: NodeId, range: Option<Range>) {
        let Some(range) = range else { return };
        let Some(stream) = self.streams.get_mut(&range.stream) else { return };
        let next = stream.log.last() + 1;
        if let Some(want) = stream.want.as_mut().filter(|_| range.first > next) {
            if !want.refused.contains(&from) {
                want.refused.push(from);
            }
            want.next_ask = now;
        }
    }

    /// Whom to ask next for what is missing of which stream; begins a snapshot where nobody holds it any more.
    pub(super) fn next_request(&mut self, now: Time) -> Option<(NodeId, Range)> {
        if self.import.is_some() {
            return None;
        }
        let mut snapshot = None;
        let mut request = None;
        for (&id, stream) in &mut self.streams {
            let last = stream.log.last();
            let Some(want) = stream.want.as_mut().filter(|want| want.next_ask <= now) else { continue };
            let has = |peer: &NodeId| self.peers.get(peer).is_some_and(|peer| peer.told.event(id) > last);
            let mut holders: Vec<NodeId> = self.peers.keys().copied().filter(has).collect();
            if holders.is_empty() {
                stream.want = None;
                continue;
            }
            want.next_ask = now.after(self.config.retry);
            let all = holders.clone();
            holders.retain(|peer| !want.refused.contains(peer));
            let Some(&first) = holders.first() else {
                // Everyone who has it told us so; any of them has the records.
                let at = want.tries as usize % all.len();
                want.refused.clear();
                snapshot = Some(all[at]);
                break;
            };
            // The origin first, then one after the other.
            let is_there = |id: &NodeId| {
                self.peers.get(id).is_some_and(|p| !p.is_silent(now, self.config.silence) && !p.is_blocked)
            };
            let origin = holders.iter().copied().find(|&peer| peer == id.node && is_there(&peer));
            let turn = (want.tries as usize).checked_rem(holders.len()).unwrap_or(0);
            let mut chosen = origin.filter(|_| want.tries == 0).unwrap_or(holders[turn]);
            if !is_there(&chosen) {
                chosen = holders.iter().copied().find(is_there).unwrap_or(first);
            }
            want.tries += 1;
            let to = self.peers.get(&chosen).map_or(0, |peer| peer.told.event(id));
            request = Some((chosen, Range { stream: id, first: last + 1, last: to }));
            break;
        }
        if let Some(from) = snapshot {
            self.begin_import(now, from);
        }
        request
    }

    pub(super) fn want_view(&mut self, now: Time, digest: u64) {
        if self.views_wanted.len() < MOST_VIEWS {
            self.views_wanted.entry(digest).or_insert(ViewWant { next_ask: now, tries: 0 });
        }
    }

    /// Whom to ask next for which view.
    pub(super) fn next_view_request(&mut self, now: Time) -> Option<(NodeId, u64)> {
        let peers: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.is_blocked && !peer.is_silent(now, self.config.silence))
            .map(|(&id, _)| id)
            .collect();
        let retry = now.after(self.config.retry);
        let mut request = None;
        let mut lost = Vec::new();
        for (&digest, want) in self.views_wanted.iter_mut().filter(|(_, want)| want.next_ask <= now) {
            want.next_ask = retry;
            want.tries += 1;
            if want.tries == VIEW_QUESTIONS {
                lost.push(digest);
            }
            if let Some(turn) = (want.tries as usize).checked_rem(peers.len()) {
                request = Some((peers[turn], digest));
                break;
            }
        }
        lost.into_iter().for_each(|digest| self.store.lose_view(digest));
        request
    }

    /// Forgets what nobody misses: events that all members have, streams on whose end all agree.
    pub(super) fn look_around(&mut self, now: Time) {
        self.trim_due = now.after(self.config.heartbeat);
        let newest = self.vector();
        let present = self.stream();
        let mut ended = Vec::new();
        for (&id, stream) in &mut self.streams {
            let reached = self.peers.values().map(|peer| peer.reached.event(id));
            let needed = reached.min().unwrap_or(u64::MAX);
            let is_own = id.node == self.config.id;
            let most = if is_own { self.config.log_events } else { self.config.cache_events };
            stream.trim(needed, most);
            let is_over = if is_own || self.peers.contains_key(&id.node) {
                newest.newest_epoch(id.node).is_some_and(|epoch| epoch > id.epoch)
            } else {
                true
            };
            let last = stream.log.last();
            let agree =
                stream.sendable() == last && self.peers.values().all(|peer| peer.reached.event(id) == last);
            let may_own = is_own && matches!(self.standing, Standing::Asking { .. });
            if !is_over || !agree || Some(id) == present || may_own {
                stream.agreed_since = None;
                continue;
            }
            let since = *stream.agreed_since.get_or_insert(now);
            if now.since(since) >= self.config.retention {
                ended.push((id, last));
            }
        }
        for (id, last) in ended {
            self.streams.remove(&id);
            self.dropped.insert(id, last);
            while self.dropped.len() > MOST_DROPPED {
                self.dropped.pop_first();
            }
        }
        self.look_at_owed(now);
        if self.has_uncovered {
            self.tell_uncovered(now);
        }
        self.views_wanted.retain(|_, want| want.tries < 1000);
        self.look_at_base(now);
    }

    /// Whether the database is complete, for the first time.
    pub(super) fn look_at_base(&mut self, now: Time) {
        if self.has_base || self.standing.epoch().is_none() || self.import.is_some() {
            return;
        }
        let own = self.vector();
        // What a peer told that is gone since may be nowhere any more.
        let mut present =
            self.peers.values().filter(|peer| !peer.is_silent(now, self.config.silence)).peekable();
        let has_more =
            |peer: &Peer| peer.has_more.is_some_and(|heard| now.since(heard) <= self.config.silence);
        let is_alone = present.peek().is_none()
            && !self.peers.values().any(has_more)
            && (self.peers.is_empty() || now.since(self.started) >= self.config.alone_after);
        let mut told = present.filter(|peer| peer.has_told).peekable();
        let is_even = told.peek().is_some() && told.all(|peer| own.covers(&peer.told));
        if is_alone || is_even || self.counts.snapshots_done > 0 {
            self.has_base = true;
            self.events.push_back(Event::Ready);
        }
    }
}
