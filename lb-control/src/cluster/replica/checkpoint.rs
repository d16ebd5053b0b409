//! Checkpoints: from time to time all records go to the journal, in portions, so that its events can be forgotten.

use super::record;
use crate::cluster::journal::Write;
use lb_core::binding::{StreamId, Time};
use lb_core::sync::{Checkpoint, Node};
use std::time::Duration;

/// Events after which there is a new one, unless the store is larger.
const EVENTS: u64 = 100_000;
/// Time after which there is a new one if anything happened.
const EVERY: Duration = Duration::from_secs(60);
/// Places of the store in a portion.
const PORTION: u32 = 8_192;

/// When the next checkpoint is due, or how far the present one is.
pub(super) struct Checkpoints {
    number: u64,
    last: Time,
    /// Own events at the last one.
    events: u64,
    running: Option<Running>,
}

/// A checkpoint that is being written.
struct Running {
    checkpoint: Checkpoint,
    place: u32,
    part: u32,
}

impl Checkpoints {
    /// After a start with a checkpoint of this number.
    pub(super) const fn after(number: u64, now: Time) -> Self {
        Self { number, last: now, events: 0, running: None }
    }

    /// Begins one when it is due.
    pub(super) fn begin(&mut self, node: &mut Node, now: Time) {
        let events = node.counts().own + node.counts().applied;
        let new = events.saturating_sub(self.events);
        // As many events as records: so each event costs the disk a record or two, however large the store is.
        let many = EVENTS.max(node.store().len() as u64);
        let is_due = new >= many || new > 0 && now.since(self.last) >= EVERY;
        if self.running.is_some() || !is_due {
            return;
        }
        // Before the numbering has begun there is nothing to hold on to.
        let Some(checkpoint) = node.checkpoint(now) else { return };
        self.number += 1;
        self.last = now;
        self.events = events;
        self.running = Some(Running { checkpoint, place: 0, part: 0 });
    }

    /// Whether there is something to write now.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The next portion.
    pub(super) fn step(&mut self, node: &mut Node, now: Time, wall: u64) -> Vec<Write> {
        let Some(mut running) = self.running.take() else { return Vec::new() };
        let (snapshot, part, own) = (self.number, running.part, node.id());
        let (records, next) = node.records(running.place, PORTION, now);
        let marks = if part == 0 { running.checkpoint.marks.as_slice() } else { &[] };
        let mut writes = vec![Write::Part { snapshot, part, bytes: record::part(marks, &records, wall) }];
        running.part += 1;
        match next {
            Some(place) => {
                running.place = place;
                self.running = Some(running);
            }
            None => {
                let Checkpoint { vector, views, .. } = running.checkpoint;
                let digests = views.iter().map(|view| view.digest()).collect();
                writes.extend(
                    views.iter().map(|view| Write::View { digest: view.digest(), bytes: record::view(view) }),
                );
                writes.push(Write::Seal { snapshot, vector: record::vector(&vector), views: digests });
                // What the checkpoint holds need not be kept behind it.
                let trim = |(stream, through): (StreamId, u64)| Write::Trim {
                    origin: stream.node.0,
                    epoch: stream.epoch,
                    through,
                };
                writes.extend(vector.iter().filter(|(stream, _)| stream.node == own).map(trim));
            }
        }
        writes
    }
}
