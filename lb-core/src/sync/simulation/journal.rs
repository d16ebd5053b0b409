//! A machine's disk.

use crate::binding::{Content, StreamId, View};
use crate::sync::{Checkpoint, Recovery, Saved};
use core::time::Duration;

/// An event that was written.
#[derive(Clone)]
pub(super) struct Logged {
    pub(super) wall: u64,
    /// True time.
    pub(super) at: u64,
    pub(super) stream: StreamId,
    pub(super) number: u64,
    pub(super) content: Content,
    pub(super) left: Duration,
}

/// A checkpoint that was written.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) wall: u64,
    pub(super) checkpoint: Checkpoint,
    /// Portions of the records, each with the wall clock.
    pub(super) portions: Vec<(u64, Vec<Saved>)>,
}

/// What is on the disk, or about to be.
#[derive(Clone, Default)]
pub(super) struct Journal {
    pub(super) saved: Option<Snapshot>,
    pub(super) views: Vec<View>,
    pub(super) events: Vec<Logged>,
    /// Events that are on it for sure.
    pub(super) synced: usize,
}

impl Journal {
    /// The latest event of a stream that survives a loss of power.
    pub(super) fn durable(&self, stream: StreamId) -> u64 {
        let logged = self.events[..self.synced].iter().filter(|logged| logged.stream == stream);
        let saved = self.saved.as_ref().map_or(0, |saved| saved.checkpoint.vector.event(stream));
        logged.map(|logged| logged.number).max().unwrap_or(0).max(saved)
    }

    pub(super) fn checkpoint(&mut self, saved: Snapshot) {
        let vector = &saved.checkpoint.vector;
        // Of what is not on the disk yet, the node waits to hear that it is.
        let waiting = self.events.split_off(self.synced);
        self.events.retain(|logged| logged.number > vector.event(logged.stream));
        self.synced = self.events.len();
        self.events.extend(waiting);
        self.saved = Some(saved);
    }

    /// Reads it into a starting node.
    pub(super) fn replay(&self, recovery: &mut Recovery) {
        if let Some(saved) = &self.saved {
            recovery.written_at(saved.wall);
            recovery.vector(&saved.checkpoint.vector);
            saved.checkpoint.views.iter().for_each(|view| recovery.view(view.clone()));
            saved.checkpoint.marks.iter().for_each(|(mark, left)| recovery.mark(*mark, *left));
            for (wall, records) in &saved.portions {
                recovery.written_at(*wall);
                records.iter().for_each(|record| recovery.record(record));
            }
        }
        self.views.iter().for_each(|view| recovery.view(view.clone()));
        for logged in &self.events {
            recovery.written_at(logged.wall);
            recovery.event(logged.stream, logged.number, &logged.content, logged.left);
        }
    }
}

#[test]
fn a_checkpoint_keeps_nobody_from_hearing_what_is_durable() {
    use crate::binding::{Body, Key, NodeId, Vector};
    let stream = StreamId { node: NodeId(1), epoch: 5 };
    let logged = |number| {
        let body = Body { key: Key { service: 1, session: number }, server: 11, ..Body::default() };
        let content = Content::Binding(body);
        Logged { wall: 0, at: 0, stream, number, content, left: Duration::from_secs(60) }
    };
    let mut journal =
        Journal { events: vec![logged(1), logged(2), logged(3)], synced: 2, ..Journal::default() };
    let checkpoint =
        Checkpoint { vector: Vector::from_iter([(stream, 3)]), marks: Vec::new(), views: Vec::new() };
    journal.checkpoint(Snapshot { wall: 0, checkpoint, portions: Vec::new() });
    let waiting: Vec<u64> = journal.events[journal.synced..].iter().map(|logged| logged.number).collect();
    assert_eq!((journal.synced, waiting), (0, vec![3]));
}
