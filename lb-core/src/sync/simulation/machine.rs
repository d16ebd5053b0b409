//! A machine: clocks, disk, kernel, and a node while it is up.

use super::dice::Dice;
use super::journal::{Journal, Snapshot};
use crate::binding::{Key, NodeId, Time, Vector};
use crate::sync::sabotage::Sabotage;
use crate::sync::{Config, Local, Node, Recovery};
use core::time::Duration;
use std::collections::BTreeMap;

/// True time in milliseconds since 1970 when a play begins.
pub(super) const DAWN: u64 = 1_700_000_000_000;

/// Places in a portion of a checkpoint, and milliseconds between two portions.
const PORTION: u32 = 16;
const PAUSE: u64 = 100;

/// What the kernel holds under a key.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) server: u64,
    pub(super) generation: u32,
    /// True time.
    pub(super) expires: u64,
}

pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) node: Option<Node>,
    pub(super) journal: Journal,
    /// An image of the disk taken some time ago.
    pub(super) image: Option<Journal>,
    pub(super) kernel: BTreeMap<Key, Held>,
    /// How wrong its wall clock is.
    skew: i64,
    /// Its own clock when it was booted, and true time then.
    base: u64,
    booted: u64,
    pub(super) sync_due: Option<u64>,
    /// A checkpoint that is being written, the place to go on from, and when.
    pub(super) writing: Option<(Snapshot, u32, u64)>,
    pub(super) up_at: Option<u64>,
    pub(super) is_removed: bool,
    /// Of the present life.
    pub(super) vector: Vector,
}

impl Machine {
    pub(super) fn new(id: NodeId, dice: &mut Dice) -> Self {
        const HOUR: u64 = 3_600_000;
        Self {
            id,
            node: None,
            journal: Journal::default(),
            image: None,
            kernel: BTreeMap::new(),
            skew: dice.between(0, 2 * HOUR).cast_signed() - HOUR.cast_signed(),
            base: 0,
            booted: 0,
            sync_due: None,
            writing: None,
            up_at: None,
            is_removed: false,
            vector: Vector::default(),
        }
    }

    pub(super) fn time(&self, now: u64) -> Time {
        Time(self.base + now - self.booted)
    }

    /// True time of a time of its own.
    pub(super) const fn truth(&self, time: Time) -> u64 {
        (time.0 + self.booted).saturating_sub(self.base)
    }

    pub(super) const fn wall(&self, now: u64) -> u64 {
        (DAWN + now).saturating_add_signed(self.skew)
    }

    pub(super) fn boot(&mut self, now: u64, members: Vec<NodeId>, bug: Option<Sabotage>, dice: &mut Dice) {
        (self.base, self.booted) = (dice.between(0, 1 << 32), now);
        let config = Config {
            heartbeat: Duration::from_millis(500),
            silence: Duration::from_millis(1500),
            batch_events: 8,
            message_bytes: 500,
            log_events: 60,
            cache_events: 40,
            window: 50,
            too_far: 500,
            chunks: 3,
            retention: Duration::from_secs(10),
            ..Config::new(self.id, members)
        };
        let mut recovery = Recovery::new(config, self.time(now), self.wall(now), dice.roll());
        recovery.sabotage(bug);
        self.journal.replay(&mut recovery);
        self.journal.synced = self.journal.events.len();
        self.node = Some(recovery.finish());
        self.vector = Vector::default();
        self.up_at = None;
        self.sync_due = None;
    }

    /// Begins a checkpoint, unless one is being written.
    pub(super) fn begin_checkpoint(&mut self, now: u64) {
        let (time, wall) = (self.time(now), self.wall(now));
        let Some(node) = self.node.as_mut().filter(|_| self.writing.is_none()) else { return };
        if let Some(checkpoint) = node.checkpoint(time) {
            self.writing = Some((Snapshot { wall, checkpoint, portions: Vec::new() }, 0, now));
        }
    }

    /// Writes the next portion of a checkpoint when it is due.
    pub(super) fn write_checkpoint(&mut self, now: u64) {
        let (time, wall) = (self.time(now), self.wall(now));
        let Some((mut snapshot, place, _)) = self.writing.take_if(|(_, _, due)| *due <= now) else { return };
        let Some(node) = &mut self.node else { return };
        let (records, next) = node.records(place, PORTION, time);
        snapshot.portions.push((wall, records));
        match next {
            Some(place) => self.writing = Some((snapshot, place, now + PAUSE)),
            None => self.journal.checkpoint(snapshot),
        }
    }

    /// Loses power, or the process only; then the kernel goes on.
    pub(super) fn crash(&mut self, keeps_kernel: bool) {
        self.node = None;
        (self.sync_due, self.writing) = (None, None);
        if !keeps_kernel {
            self.kernel.clear();
        }
    }

    /// The data plane tells what it has had before.
    pub(super) fn tell_held(&mut self, now: u64) {
        let time = self.time(now);
        let Some(node) = &mut self.node else { return };
        self.kernel.retain(|_, held| held.expires > now);
        for (&key, &Held { server, generation, expires }) in &self.kernel {
            let left = Duration::from_millis(expires - now);
            node.handle_local(time, Local::Held { key, server, generation, left });
        }
    }
}
