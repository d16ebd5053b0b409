//! The whole database, chunk by chunk.
//!
//! Who wants it pulls: each request names the place to go on from, so a chunk that is lost is asked for again and
//! a server needs no memory of its clients. The vector of the first chunk holds for the whole: what changed at
//! the server since comes as events behind it, and merging records twice changes nothing. The vector of the last chunk says
//! which events those are at most: until they are had, no vector covers all that came.

use super::wire::{Message, SnapshotCursor, Told};
use super::{Event, Node, Sabotage};
use crate::binding::{Content, Mark, NodeId, StreamId, Tick, Time, Vector};

/// Requests without an answer before another peer is asked.
const PATIENCE: u32 = 5;

/// A snapshot that is being fetched.
pub(super) struct Import {
    pub(super) from: NodeId,
    /// Chunks of another fetching may be older than this one's vector.
    id: u32,
    /// The server's life: its places mean nothing in another one.
    incarnation: Option<u32>,
    pub(super) cursor: u32,
    vector: Option<Vector>,
    pub(super) next_ask: Time,
    tries: u32,
    chunks: u32,
    records: u64,
    /// Failovers that were news.
    pub(super) marks: Vec<(Mark, Tick)>,
}

/// What a snapshot that was fetched may have in it and the own vector has not.
pub(super) struct Owed {
    /// Whose snapshot, and in which life.
    from: NodeId,
    incarnation: u32,
    vector: Vector,
    since: Time,
    /// Failovers that were news.
    marks: Vec<(Mark, Tick)>,
}

/// What a vector must come to before it covers what others told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// An event, which the vector has with it.
    Stream,
    /// A snapshot, which has its vector when it is complete.
    Snapshot,
    /// A snapshot of a node whose own vector does not cover it.
    Uncovered,
}

impl Import {
    fn new(from: NodeId, id: u32, now: Time) -> Self {
        Self {
            from,
            id,
            incarnation: None,
            cursor: 0,
            vector: None,
            next_ask: now,
            tries: 0,
            chunks: 0,
            records: 0,
            marks: Vec::new(),
        }
    }
}

impl Node {
    /// Begins to fetch a snapshot, unless one is being fetched.
    pub(super) fn begin_import(&mut self, now: Time, from: NodeId) {
        if self.import.is_none() && self.peers.contains_key(&from) {
            self.give_up_owed();
            let id = (self.random() >> 32) as u32;
            self.import = Some(Import::new(from, id, now));
            self.counts.snapshots_begun += 1;
            self.events.push_back(Event::SnapshotBegun(from));
        }
    }

    /// Records of the snapshot that is being fetched so far, and from whom.
    pub fn snapshot_progress(&self) -> Option<(NodeId, u64)> {
        self.import.as_ref().map(|import| (import.from, import.records))
    }

    /// Whom to ask for which chunk now.
    pub(super) fn next_chunk(&mut self, now: Time) -> Option<(NodeId, SnapshotCursor)> {
        let import = self.import.as_mut().filter(|import| import.next_ask <= now)?;
        import.tries += 1;
        import.chunks = 0;
        import.next_ask = now.after(self.config.retry);
        if import.tries <= PATIENCE {
            let next = u32::from(self.config.chunks);
            let cursor = SnapshotCursor { id: import.id, from: import.cursor, next, is_last: false };
            return Some((import.from, cursor));
        }
        // Another one; without one, nothing is fetched until somebody says again that it has more.
        let former = import.from;
        let is_there = |id: &NodeId| {
            self.peers.get(id).is_some_and(|p| !p.is_silent(now, self.config.silence) && !p.told.is_empty())
        };
        let next = self.peers.keys().copied().filter(is_there);
        let next = next.clone().find(|&id| id > former).or_else(|| next.clone().find(|&id| id != former));
        self.give_up_import();
        let gap_delay = now.after(self.config.gap_delay);
        for want in self.streams.values_mut().filter_map(|stream| stream.want.as_mut()) {
            want.next_ask = gap_delay;
        }
        self.begin_import(now, next?);
        None
    }

    /// Takes a chunk of the snapshot that is being fetched.
    pub(super) fn take_chunk(&mut self, now: Time, from: NodeId, message: &Message<'_>, excess: u64) {
        let Some(cursor) = message.cursor else { return };
        let Some(import) = self.import.as_mut().filter(|import| import.from == from) else { return };
        if import.incarnation.is_some_and(|life| life != message.incarnation) {
            self.give_up_import();
            self.begin_import(now, from);
            return;
        }
        if (cursor.id, cursor.from) != (import.id, import.cursor) {
            return;
        }
        if cursor.from == 0 {
            if message.vector.is_none() {
                return;
            }
            import.vector = message.vector.clone();
            import.incarnation = Some(message.incarnation);
        }
        import.cursor = cursor.next;
        import.tries = 0;
        import.chunks += 1;
        import.records += message.count;
        let is_window_over = import.chunks >= u32::from(self.config.chunks);
        import.next_ask = if is_window_over { now } else { now.after(self.config.retry) };
        let is_first = cursor.from == 0;
        if let Some(vector) = message.vector.as_ref().filter(|_| is_first)
            && self.breaks(Sabotage::VectorBeforeSnapshot)
        {
            self.adopt(now, vector);
        }
        for Told { content, left, is_covered } in message.told() {
            if let Content::Binding(body) = content
                && self.breaks(Sabotage::SnapshotOverNewer)
            {
                self.store.erase(body.key);
            }
            let expires = self.arrival(now, left, excess);
            let source = if is_covered { Source::Snapshot } else { Source::Uncovered };
            self.take_in(now, &content, expires, source);
        }
        if cursor.is_last
            && let Some(Import { vector: Some(vector), records, marks, .. }) = self.import.take()
        {
            self.adopt(now, &vector);
            let vector = message.vector.clone().unwrap_or(vector);
            self.owed = Some(Owed { from, incarnation: message.incarnation, vector, since: now, marks });
            self.look_at_owed(now);
            self.counts.snapshots_done += 1;
            self.events.push_back(Event::SnapshotDone(from, records));
        }
    }

    /// Whether the events that a snapshot's records may have had in them have come, or nobody has them.
    ///
    /// What its source alone knew may get other numbers when it is gone, of itself or of another one that goes on in its
    /// epoch: from then on no number proves that what the snapshot brought was told.
    pub(super) fn look_at_owed(&mut self, now: Time) {
        let Some(owed) = &self.owed else { return };
        let source = self.peers.get(&owed.from).and_then(|peer| peer.incarnation);
        let is_gone = source != Some(owed.incarnation);
        let own = self.vector();
        let lacks = |id: StreamId, event: u64| {
            let is_dropped = self.dropped.get(&id).is_some_and(|&last| last >= event);
            own.event(id) < event && !is_dropped
        };
        let lacking: Vec<_> =
            owed.vector.iter().filter(|&(id, event)| lacks(id, event)).map(|(id, _)| id).collect();
        let can_come = |&id: &StreamId| {
            let mut present = self.peers.values().filter(|peer| !peer.is_silent(now, self.config.silence));
            present.any(|peer| peer.told.event(id) > own.event(id))
        };
        let is_late = now.since(owed.since) > self.config.silence;
        if is_gone || is_late && !lacking.is_empty() && !lacking.iter().any(can_come) {
            self.give_up_owed();
        } else if lacking.is_empty() {
            self.store.end_fetching(true);
            self.owed = None;
        } else {
            return;
        }
        self.tell_uncovered(now);
    }

    /// Notes whether the vector covers a mark that came.
    pub(super) fn note_cover(&mut self, mark: Mark, expires: Tick, source: Source, is_news: bool) {
        let known = self.uncovered_marks.len();
        let fetched = self.import.as_mut().map(|import| &mut import.marks);
        match source {
            Source::Stream => {
                let owed = self.owed.as_mut().map(|owed| &mut owed.marks);
                for marks in [Some(&mut self.uncovered_marks), fetched, owed].into_iter().flatten() {
                    marks.retain(|(other, _)| *other != mark);
                }
            }
            Source::Snapshot => {
                self.uncovered_marks.retain(|(other, _)| *other != mark);
                let was_uncovered = self.uncovered_marks.len() < known;
                if let Some(fetched) = fetched.filter(|_| is_news || was_uncovered) {
                    fetched.push((mark, expires));
                }
            }
            Source::Uncovered if is_news => {
                self.uncovered_marks.retain(|(other, _)| *other != mark);
                self.uncovered_marks.push((mark, expires));
            }
            // It is covered here, or noted already, or another one holds against it.
            Source::Uncovered => {}
        }
    }

    /// Whether the own vector covers a mark.
    pub(super) fn covers(&self, mark: &Mark) -> bool {
        let fetched = self.import.iter().flat_map(|import| &import.marks);
        let owed = self.owed.iter().flat_map(|owed| &owed.marks);
        !fetched.chain(owed).chain(&self.uncovered_marks).any(|(other, _)| other == mark)
    }

    /// Stops fetching; what came is kept, although no vector covers it.
    pub(super) fn give_up_import(&mut self) {
        if let Some(import) = self.import.take() {
            self.leave_uncovered(import.marks);
        }
    }

    /// Waits no longer for what a snapshot may have had in it.
    fn give_up_owed(&mut self) {
        if let Some(owed) = self.owed.take() {
            self.leave_uncovered(owed.marks);
        }
    }

    /// No vector will cover what a snapshot brought.
    fn leave_uncovered(&mut self, marks: Vec<(Mark, Tick)>) {
        self.uncovered_marks.extend(marks);
        self.store.end_fetching(false);
        self.has_uncovered = true;
    }

    /// Records of snapshots that were not completed become own events, unless another snapshot had them too: their source may be
    /// gone for ever, and then nobody else tells of them.
    pub(super) fn tell_uncovered(&mut self, now: Time) {
        if self.import.is_some() || self.owed.is_some() {
            return;
        }
        self.has_uncovered = false;
        for (mark, expires) in core::mem::take(&mut self.uncovered_marks) {
            self.log(now, Content::Failover(mark), expires);
        }
        for (body, expires) in self.store.take_uncovered(now) {
            self.log(now, Content::Binding(body), expires);
        }
    }

    /// Everything up to this vector is in the store.
    fn adopt(&mut self, now: Time, vector: &Vector) {
        for (id, last) in vector.iter() {
            if id.node == self.config.id && self.is_own_now(id.epoch) || !self.has_room_for(id, last) {
                continue;
            }
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.log.skip_to(last);
            }
            self.has_progressed(now, id);
        }
        for peer in self.peers.values_mut() {
            peer.vector_due = now;
        }
        for digest in self.store.missing_views() {
            self.want_view(now, digest);
        }
    }
}
