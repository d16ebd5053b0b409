//! Messages of others.

use super::peer::Life;
use super::snapshot::Source;
use super::wire::{ANSWER, READY, STARTING};
use super::wire::{Kind, Message, Range};
use super::{Node, Refused, Sabotage};
use crate::binding::{NodeId, Tick, Time, View};
use core::time::Duration;

/// Events of a message that are looked at before the first of them is taken in.
const AHEAD: usize = 32;
/// Views that are kept before a mark names them.
const EARLY_VIEWS: usize = 64;

impl Node {
    /// Takes a message of a peer. A message that is refused has changed nothing; one of a life that is new here only
    /// has the peer asked whether that is its present one.
    pub fn handle_message(&mut self, now: Time, from: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        let own = self.stream();
        let lot = self.random();
        let Some(peer) = self.peers.get_mut(&from) else {
            self.counts.refused += 1;
            return Err(Refused::Stranger(from));
        };
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.counts.refused += 1;
                return Err(Refused::Malformed(from, error));
            }
        };
        let Some(kind) = message.kind else { return Ok(()) };
        match peer.lives_in(&message, lot, now, self.config.silence) {
            Life::Present => {}
            Life::Unproven => {
                if message.question & READY != 0 {
                    peer.has_more = Some(now);
                }
                return Ok(());
            }
            Life::Former => {
                self.counts.refused += 1;
                return Err(Refused::FormerLife(from));
            }
        }
        let was_silent = peer.is_silent(now, self.config.silence);
        peer.heard = Some(now);
        peer.received += bytes.len() as u64;
        let excess = peer.ways.excess(message.sent, now);
        if was_silent {
            peer.vector_due = now;
        }
        let has_vector = kind != Kind::SnapshotChunk;
        if let Some(vector) = message.vector.as_ref().filter(|_| has_vector) {
            peer.tells(vector, message.sent, own);
        }
        let says_news = match message.statement.clone() {
            Some(statement) => peer.states(statement, message.sent),
            None => false,
        };
        match kind {
            Kind::Vector => {
                if message.question & (ANSWER | STARTING) != 0 {
                    peer.must_answer = true;
                }
                // Not an answer to a former life's question.
                if message.digest == Some(u64::from(self.incarnation)) {
                    let lives = message.lives.clone();
                    self.take_answer(from, lives);
                }
            }
            Kind::Events => self.take_events(now, from, &message, excess),
            Kind::Request => self.serve(now, from, message.range),
            Kind::Unavailable => self.refuse_range(now, from, message.range),
            Kind::SnapshotRequest => {
                if let Some(cursor) = message.cursor {
                    let chunks = u8::try_from(cursor.next).unwrap_or(u8::MAX);
                    peer.snapshot = Some((cursor.id, cursor.from, chunks));
                    peer.held = None;
                }
            }
            Kind::SnapshotChunk => self.take_chunk(now, from, &message, excess),
            Kind::ViewRequest => {
                if let Some(digest) = message.digest.filter(|digest| !peer.views.contains(digest)) {
                    peer.views.truncate(63);
                    peer.views.push(digest);
                }
            }
            Kind::View => {
                if let Some(view) = message.view {
                    self.take_view(view);
                }
            }
        }
        if message.vector.is_some() && has_vector {
            self.notice(now, from);
        }
        self.look_at_standing(now);
        self.look_at_owed(now);
        self.look_at_base(now);
        if says_news {
            self.hear_statement(now, from);
        }
        Ok(())
    }

    /// Takes a view that a mark names, or keeps it until one does.
    pub(super) fn take_view(&mut self, view: View) {
        self.views_wanted.remove(&view.digest());
        if self.store.add_view(view.clone()) {
            self.views_to_write.push_back(view);
        } else {
            self.keep_early(view);
        }
    }

    /// Keeps a view until a mark names it, unless that is there.
    pub(super) fn keep_early(&mut self, view: View) {
        let digest = view.digest();
        if self.store.view(digest).is_none() && self.early_view(digest).is_none() {
            self.early_views.truncate(EARLY_VIEWS - 1);
            self.early_views.push_front(view);
        }
    }

    /// A view that no mark has named yet.
    pub(super) fn early_view(&self, digest: u64) -> Option<&View> {
        self.early_views.iter().find(|view| view.digest() == digest)
    }

    /// When something ends that had so much left when it was sent.
    pub(super) fn arrival(&self, now: Time, left: u64, excess: u64) -> Tick {
        if self.breaks(Sabotage::AbsoluteExpiry) {
            let wall = self.wall + now.0 - self.wall_at.0;
            return Tick::of(now.after(Duration::from_millis(left.saturating_sub(wall))));
        }
        match left.saturating_sub(excess) {
            0 => Tick::now(now),
            left => Tick::of(now.after(Duration::from_millis(left))),
        }
    }

    /// Applies an update if its first event directly follows what is held of its stream (row A4).
    fn take_events(&mut self, now: Time, from: NodeId, message: &Message<'_>, excess: u64) {
        let Some(Range { stream: id, first, .. }) = message.range else { return };
        let count = message.count;
        if id.node == self.config.id && self.is_own_now(id.epoch) {
            self.counts.repeated += count;
            return;
        }
        let after_last = first.saturating_add(count);
        if after_last <= first || !self.has_room_for(id, after_last - 1) {
            return;
        }
        let skips = self.breaks(Sabotage::GapCheckSkipped);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let applied = stream.log.last();
        if first > applied + 1 {
            if skips {
                stream.log.skip_to(first - 1);
            } else {
                self.counts.gaps += 1;
                self.want_now(now, id);
                return;
            }
        }
        let known = (stream.log.last() + 1).saturating_sub(first);
        self.counts.repeated += known.min(count);
        if known >= count {
            return;
        }
        self.counts.applied += count - known;
        // What reconciling makes necessary is logged in another stream.
        let mut log = core::mem::take(&mut stream.log);
        let mut events = message.events().skip(known as usize);
        let mut ahead = Vec::with_capacity(AHEAD);
        loop {
            ahead.extend(events.by_ref().take(AHEAD));
            if ahead.is_empty() {
                break;
            }
            self.store.approach(ahead.iter().filter_map(|(content, _)| content.key()));
            for (content, left) in ahead.drain(..) {
                let expires = self.arrival(now, left, excess);
                log.push(&crate::binding::Entry { content, expires });
                self.take_in(now, &content, expires, Source::Stream);
            }
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.log = log;
            stream.bound(self.config.cache_events);
        }
        self.has_progressed(now, id);
        let due = now.after(self.config.ack_delay);
        for (&other, peer) in &mut self.peers {
            // The origin waits for it most; the others learn what they may ask us for.
            let due = if other == from { due } else { due.after(self.config.ack_delay) };
            peer.vector_due = peer.vector_due.min(due);
        }
    }
}
