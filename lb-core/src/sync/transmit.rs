//! What goes out, to whom, and when.

use super::wire::{self, ANSWER, ANSWERING, Kind, READY, Range, STARTING, SnapshotCursor, Told, Writer};
use super::{Node, Sabotage, Standing};
use crate::binding::{Content, Mark, NodeId, StreamId, Tick, Time, Vector};

/// Places that are looked at for one chunk of a snapshot.
const PLACES: u32 = 65_536;

impl Node {
    /// The next message, written into `buffer` in place of what was there; to whom.
    pub fn poll_transmit(&mut self, now: Time, buffer: &mut Vec<u8>) -> Option<NodeId> {
        let to = self.transmit(now, buffer)?;
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.sent += buffer.len() as u64;
        }
        Some(to)
    }

    fn transmit(&mut self, now: Time, buffer: &mut Vec<u8>) -> Option<NodeId> {
        if let Some((to, range)) = self.next_request(now) {
            self.counts.requests += 1;
            self.begin(now, to, Kind::Request, buffer).range(&range);
            return Some(to);
        }
        if let Some((to, cursor)) = self.next_chunk(now) {
            self.begin(now, to, Kind::SnapshotRequest, buffer).cursor(&cursor);
            return Some(to);
        }
        if let Some((to, digest)) = self.next_view_request(now) {
            self.begin(now, to, Kind::ViewRequest, buffer).digest(digest);
            return Some(to);
        }
        let peers: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| !peer.is_blocked).map(|(&id, _)| id).collect();
        for i in 0..peers.len() {
            let at = (self.turn + i) % peers.len();
            if self.transmit_to(now, peers[at], buffer) {
                self.turn = at + 1;
                return Some(peers[at]);
            }
        }
        None
    }

    /// Begins a message to a peer.
    fn begin<'b>(&self, now: Time, to: NodeId, kind: Kind, buffer: &'b mut Vec<u8>) -> Writer<'b> {
        let mut out = wire::begin(buffer, kind, self.incarnation, now.0);
        if let Some(peer) = self.peers.get(&to) {
            out.hello(peer.hello());
        }
        out
    }

    fn transmit_to(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        self.say_unavailable(now, to, buffer)
            || self.say_vector(now, to, buffer)
            || self.release_chunk(to, buffer)
            || self.say_view(now, to, buffer)
            || self.push(now, to, buffer)
            || self.serve_range(now, to, buffer)
            || self.serve_chunk(now, to, buffer)
    }

    fn say_unavailable(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        let Some((stream, first)) = self.peers.get_mut(&to).and_then(|peer| peer.unavailable.pop()) else {
            return false;
        };
        let range = Range { stream, first, last: first };
        self.begin(now, to, Kind::Unavailable, buffer).range(&range);
        true
    }

    /// The vector as a peer is to see it: with what is forgotten here and not there.
    fn vector_for(&self, to: NodeId) -> Vector {
        let vector =
            if self.breaks(Sabotage::SentBeforeDurable) { self.vector() } else { self.vector_told() };
        self.with_forgotten(to, vector)
    }

    /// A vector and the ends of the streams that a peer still has and that are forgotten here.
    fn with_forgotten(&self, to: NodeId, mut vector: Vector) -> Vector {
        if let Some(peer) = self.peers.get(&to).filter(|_| !self.dropped.is_empty()) {
            for (stream, _) in peer.told.iter() {
                if let Some(&last) = self.dropped.get(&stream) {
                    vector.set(stream, last);
                }
            }
        }
        vector
    }

    fn say_vector(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        let is_asking = matches!(self.standing, Standing::Asking { .. });
        let is_in_doubt = is_asking && !self.agrees(to);
        let is_ready = self.is_ready();
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        let is_due = peer.vector_due <= now;
        if !peer.must_answer && !is_due {
            return false;
        }
        // An answer does not ask: two that begin would ask each other without end.
        let asks_who = is_in_doubt && is_due;
        let mut question = if is_ready { READY } else { 0 };
        if asks_who {
            question |= STARTING | ANSWER;
        }
        if peer.is_silent(now, self.config.silence) {
            question |= ANSWER;
        }
        let answer = if core::mem::take(&mut peer.must_answer) { peer.incarnation } else { None };
        if is_due || !is_in_doubt {
            peer.vector_due = now.after(if asks_who { self.config.retry } else { self.config.heartbeat });
        }
        let vector = self.vector_for(to);
        let lives = self.lives();
        let statement = self.statement();
        let mut out = self.begin(now, to, Kind::Vector, buffer);
        out.vector(&vector);
        if let Some(life) = answer {
            question |= ANSWERING;
            out.digest(u64::from(life));
            out.lives(&lives);
        }
        out.question(question);
        out.statement(statement.iter());
        true
    }

    fn release_chunk(&mut self, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        let is_durable = peer.held.as_ref().is_some_and(|(stream, number, _)| {
            self.streams.get(stream).is_none_or(|own| own.sendable() >= *number)
        });
        match peer.held.take_if(|_| is_durable) {
            Some((_, _, chunk)) => {
                *buffer = chunk;
                true
            }
            None => false,
        }
    }

    fn say_view(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        while let Some(digest) = self.peers.get_mut(&to).and_then(|peer| peer.views.pop()) {
            if let Some(view) = self.store.view(digest).or_else(|| self.early_view(digest)) {
                self.begin(now, to, Kind::View, buffer).view(view);
                return true;
            }
        }
        false
    }

    /// Own events that became durable: when enough wait, or one has waited long enough.
    fn push(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        let Some(id) = self.stream() else { return false };
        let last = self.last_to_send(id);
        let (Some(stream), Some(peer)) = (self.streams.get(&id), self.peers.get_mut(&to)) else {
            return false;
        };
        // What is gone it cannot be pushed; the next event shows it that it lacks some.
        peer.pushed = peer.pushed.max(stream.log.first() - 1);
        let waiting = last.saturating_sub(peer.pushed);
        if waiting == 0 {
            peer.push_due = None;
            return false;
        }
        let due = *peer.push_due.get_or_insert(now.after(self.config.batch_delay));
        let is_full = peer.pushed.saturating_sub(peer.told.event(id)) >= self.config.window;
        let is_due = waiting >= self.config.batch_events || due <= now;
        if peer.heard.is_none() || is_full || !is_due {
            return false;
        }
        let first = peer.pushed + 1;
        let sent = self.write_events(now, to, buffer, id, first, last);
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.pushed = sent;
            // The vector went with it.
            peer.vector_due = peer.vector_due.max(now.after(self.config.heartbeat));
            if sent == last {
                peer.push_due = None;
            }
        }
        true
    }

    fn last_to_send(&self, id: StreamId) -> u64 {
        let stream = self.streams.get(&id);
        if self.breaks(Sabotage::SentBeforeDurable) {
            return stream.map_or(0, |stream| stream.log.last());
        }
        stream.map_or(0, super::Stream::sendable)
    }

    /// Writes events from `first` on, as many as go into a message; the number of the last one.
    fn write_events(
        &self,
        now: Time,
        to: NodeId,
        buffer: &mut Vec<u8>,
        id: StreamId,
        first: u64,
        last: u64,
    ) -> u64 {
        let vector = self.vector_for(to);
        let most = self.config.message_bytes;
        let mut out = self.begin(now, to, Kind::Events, buffer);
        out.vector(&vector);
        out.range(&Range { stream: id, first, last });
        let mut number = first - 1;
        if let Some(stream) = self.streams.get(&id) {
            out.events(|len| {
                if number >= last || len + wire::MAX_EVENT > most && number >= first {
                    return None;
                }
                let entry = stream.log.event(number + 1)?;
                number += 1;
                Some((entry.content, self.departure(now, entry.expires.left(now))))
            });
        }
        number
    }

    /// What is told to be left of something.
    fn departure(&self, now: Time, left: u64) -> u64 {
        if self.breaks(Sabotage::AbsoluteExpiry) { left + self.wall + now.0 - self.wall_at.0 } else { left }
    }

    /// Takes on what a peer asks for.
    pub(super) fn serve(&mut self, now: Time, from: NodeId, range: Option<Range>) {
        let Some(range) = range else { return };
        if range.stream.node != self.config.id && self.breaks(Sabotage::CacheNotServed) {
            return;
        }
        let last = self.last_to_send(range.stream);
        let is_present = self.stream() == Some(range.stream);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        // Of a forgotten stream no event is held, though its end is told of.
        let (first_held, last) = match (self.streams.get(&range.stream), self.dropped.get(&range.stream)) {
            (Some(stream), _) => (stream.log.first(), last),
            (None, Some(&end)) => (end.saturating_add(1), end),
            (None, None) => return,
        };
        if range.first == 0 || range.first > last {
            return;
        }
        if range.first < first_held {
            peer.unavailable.retain(|(other, _)| *other != range.stream);
            peer.unavailable.truncate(63);
            peer.unavailable.push((range.stream, first_held));
        } else if is_present {
            peer.pushed = range.first - 1;
            peer.push_due = Some(now);
        } else {
            self.counts.relayed += 1;
            peer.serve(range);
        }
    }

    fn serve_range(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        let Some(mut range) = self.peers.get_mut(&to).and_then(|peer| peer.serving.pop()) else {
            return false;
        };
        let last = self.last_to_send(range.stream).min(range.last);
        let first_held = self.streams.get(&range.stream).map_or(u64::MAX, |stream| stream.log.first());
        if range.first > last || range.first < first_held {
            return false;
        }
        let sent = self.write_events(now, to, buffer, range.stream, range.first, last);
        range.first = sent + 1;
        if let Some(peer) = self.peers.get_mut(&to).filter(|_| sent < last) {
            peer.serve(range);
        }
        true
    }

    fn serve_chunk(&mut self, now: Time, to: NodeId, buffer: &mut Vec<u8>) -> bool {
        // Until numbering has begun, nobody can say which records may leave.
        let Some(own) = self.stream() else { return false };
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        let Some((id, from, chunks)) =
            peer.snapshot.filter(|&(_, _, chunks)| chunks > 0 && peer.held.is_none())
        else {
            return false;
        };
        let end = from.saturating_add(PLACES).min(self.store.places()).max(from);
        // What is not durable yet may be in the records, too: the chunk waits until it is.
        let vector = self.with_forgotten(to, self.vector());
        let most = self.config.message_bytes;
        let has_marks = from == 0 && !self.breaks(Sabotage::SnapshotWithoutMarks);
        let mut marks: Vec<(Mark, Tick)> = if has_marks { self.store.marks().collect() } else { Vec::new() };
        let mut slot = from;
        let mut out = self.begin(now, to, Kind::SnapshotChunk, buffer);
        if from == 0 {
            out.vector(&vector);
        }
        out.told(|len| {
            if let Some((mark, expires)) = marks.pop() {
                // Left out it would be lost where it holds against one that the vector does cover.
                let is_covered = self.covers(&mark);
                let left = self.departure(now, expires.left(now));
                return Some(Told { content: Content::Failover(mark), left, is_covered });
            }
            while slot < end && (len + wire::MAX_EVENT <= most || slot == from) {
                let record = self.store.at(slot, now);
                let is_covered = self.store.is_covered(slot);
                slot += 1;
                if let Some((body, expires)) = record {
                    let left = self.departure(now, expires.left(now));
                    return Some(Told { content: Content::Binding(body), left, is_covered });
                }
            }
            None
        });
        let is_last = slot >= self.store.places();
        if is_last && from > 0 {
            out.vector(&vector);
        }
        out.cursor(&SnapshotCursor { id, from, next: slot, is_last });
        let number = self.streams.get(&own).map_or(0, |stream| stream.log.last());
        let is_durable = self.last_to_send(own) >= number;
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        peer.snapshot = if is_last { None } else { Some((id, slot, chunks - 1)) };
        if is_durable {
            return true;
        }
        // A record in it may be of an event that is not durable yet.
        peer.held = Some((own, number, core::mem::take(buffer)));
        false
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let mut used = Vec::new();
        self.store.advance(now, &mut used);
        for (body, expires) in used {
            self.store.merge(&body, expires, now, true);
            self.log(now, Content::Binding(body), expires);
        }
        self.look_at_standing(now);
        if now >= self.trim_due {
            self.look_around(now);
        }
        self.look_at_base(now);
        self.look_at_failures(now);
    }

    /// When [`Self::handle_timeout`] and [`Self::poll_transmit`] have something to do at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let mut next = self.trim_due;
        if let Standing::Asking { until, .. } = self.standing {
            next = next.min(until);
        }
        if let Some(deadline) = self.store.deadline() {
            next = next.min(deadline);
        }
        match &self.import {
            Some(import) => next = next.min(import.next_ask),
            None => {
                let wants = self.streams.values().filter_map(|stream| stream.want.as_ref());
                next = wants.map(|want| want.next_ask).fold(next, Time::min);
            }
        }
        next = self.failure_due().fold(next, Time::min);
        next = self.views_wanted.values().map(|want| want.next_ask).fold(next, Time::min);
        for peer in self.peers.values().filter(|peer| !peer.is_blocked) {
            next = next.min(peer.vector_due);
            // A full window opens with a message, not with time.
            let is_open = self.stream().is_some_and(|own| {
                peer.heard.is_some() && peer.pushed.saturating_sub(peer.told.event(own)) < self.config.window
            });
            if let Some(due) = peer.push_due.filter(|_| is_open) {
                next = next.min(due);
            }
        }
        Some(next)
    }
}
