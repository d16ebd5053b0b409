//! One stream as a node holds it: the events, how far they are durable, and what is missing.

use super::gap::Want;
use crate::binding::{Entry, Log, Time};

/// Events of one origin in one epoch.
pub(super) struct Stream {
    /// Its last number is the vector's entry.
    pub(super) log: Log,
    /// Events that may leave the node; of others' streams, all.
    durable: u64,
    /// Own events that the journal was given.
    written: u64,
    /// What others have of it and this node has not.
    pub(super) want: Option<Want>,
    /// Since when all members have known the same of it.
    pub(super) agreed_since: Option<Time>,
}

impl Stream {
    /// Another node's, or an own one of which others know more than the journal.
    pub(super) fn foreign(last: u64) -> Self {
        Self { log: Log::after(last), durable: u64::MAX, written: u64::MAX, want: None, agreed_since: None }
    }

    /// An own one; what `log` holds came from the journal.
    pub(super) fn own(log: Log) -> Self {
        let last = log.last();
        Self { log, durable: last, written: last, want: None, agreed_since: None }
    }

    /// The last event that others may see.
    pub(super) fn sendable(&self) -> u64 {
        self.log.last().min(self.durable)
    }

    /// Whether that brought events nearer to the peers.
    pub(super) fn make_durable(&mut self, number: u64) -> bool {
        let before = self.sendable();
        if self.durable != u64::MAX {
            self.durable = number.min(self.written).max(self.durable);
        }
        self.sendable() > before
    }

    /// The next own event for the journal.
    pub(super) fn next_to_write(&mut self) -> Option<(u64, Entry)> {
        if self.written >= self.log.last() {
            return None;
        }
        let number = self.written + 1;
        let entry = self.log.event(number)?;
        self.written = number;
        Some((number, entry))
    }

    /// Treats what it holds as another's: numbers above are not this node's any more.
    pub(super) fn disown(&mut self, last: u64) {
        if self.log.last() > last {
            self.log = Log::after(last);
        }
        (self.durable, self.written) = (u64::MAX, u64::MAX);
    }

    /// Forgets events that nobody lacks, and beyond `most` also others; never one that is not durable.
    pub(super) fn trim(&mut self, needed_after: u64, most: usize) {
        let over = self.log.last().saturating_sub(most as u64);
        self.log.trim(needed_after.max(over).min(self.sendable()));
    }

    /// Forgets the oldest events when there are an eighth more than `most`.
    pub(super) fn bound(&mut self, most: usize) {
        if self.log.len() > most + most / 8 {
            self.trim(0, most);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.log.bytes()
    }
}
