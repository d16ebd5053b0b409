//! What a node must know again after a crash: its epoch, its own and others' events, its vector, a snapshot.
//!
//! A [`Journal`] is a queue to a thread that owns the file. Whatever waits when the thread turns to the queue
//! becomes one transaction with one `fsync`, so a burst costs one flush and nobody on the way of a packet waits for a
//! disk. A write is durable once [`Progress::durable`] has reached its ticket; only then may it leave the node.
//!
//! Contents are bytes of the synchronisation's own format. The journal knows only what it has to find them by.

mod disk;
mod error;
mod opening;
mod writer;

pub use error::{JournalError, Stopped};
pub use opening::Opening;

use std::path::Path;
use tokio::sync::{mpsc, watch};

/// Batches that wait for the disk before their sender does.
const QUEUE: usize = 1_024;

/// Consecutive events of one origin, as they were sent or received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The node that made the events.
    pub origin: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Number of the first event.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// The events.
    pub bytes: Vec<u8>,
}

/// A change of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Adds events; a block with the same first event is replaced.
    Events(Block),
    /// Forgets blocks that end at or before an event.
    Trim {
        /// Whose events.
        origin: u64,
        /// Of which epoch.
        epoch: u64,
        /// The last event that may go.
        through: u64,
    },
    /// Begins a new epoch of the node itself.
    Epoch(u64),
    /// Replaces the version vector.
    Vector(Vec<u8>),
    /// Adds a part of a snapshot that counts once it is [sealed](Write::Seal).
    Part {
        /// Number of the snapshot; a later one has a higher number.
        snapshot: u64,
        /// Place of the part.
        part: u32,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Keeps a view of a pool under its digest.
    View {
        /// Its digest.
        digest: u64,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Makes a snapshot the current one and forgets all others, and views that it does not need.
    Seal {
        /// Number of the snapshot.
        snapshot: u64,
        /// The vector that it was taken at.
        vector: Vec<u8>,
        /// Digests of the views that are still needed.
        views: Vec<u64>,
    },
}

/// A complete snapshot.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    /// Its number.
    pub number: u64,
    /// The vector that it was taken at.
    pub vector: Vec<u8>,
    /// Its parts in order.
    pub parts: Vec<Vec<u8>>,
}

/// What the journal held when it was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recovered {
    /// The node's epoch.
    pub epoch: u64,
    /// Events by origin, epoch and number.
    pub blocks: Vec<Block>,
    /// The version vector; empty when none was written.
    pub vector: Vec<u8>,
    /// The latest sealed snapshot.
    pub snapshot: Option<Snapshot>,
    /// Views by digest.
    pub views: Vec<Vec<u8>>,
}

/// How far the disk is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Everything up to this ticket survives a crash.
    pub durable: Ticket,
    /// What keeps the rest from it, while something does.
    pub trouble: Option<String>,
}

/// Number of a batch of writes; the first one is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Ticket(pub u64);

/// The node's journal.
///
/// One owner writes; its writes become durable in the order in which they were made.
#[derive(Debug)]
pub struct Journal {
    queue: mpsc::Sender<Vec<Write>>,
    last: Ticket,
    progress: watch::Receiver<Progress>,
    thread: std::thread::JoinHandle<()>,
}

impl Journal {
    /// Opens the journal of a node, or makes one with the epoch `fresh`.
    ///
    /// A file that cannot be trusted is set aside under another name, and a new one with the epoch `fresh` is made:
    /// `fresh` must be higher than any epoch that the node had, such as the time in milliseconds. A file that
    /// cannot be *reached* (permissions, a full disk, another daemon that has it open) is an error and stays.
    pub fn open(path: &Path, node: u64, fresh: u64) -> Result<(Self, Recovered, Opening), JournalError> {
        let (file, recovered, opening) = opening::open(path, node, fresh)?;
        Ok((Self::of(file)?, recovered, opening))
    }

    /// Sets the file aside, as if it could not be trusted, since what it holds means nothing to its owner. Blocks.
    pub fn set_aside(
        self,
        path: &Path,
        node: u64,
        fresh: u64,
        reason: String,
    ) -> Result<(Self, Opening), JournalError> {
        // Nothing is written any more: whether the thread ended well is of no importance.
        let _ = self.close();
        let (file, opening) = opening::set_aside(path, node, fresh, reason)?;
        Ok((Self::of(file)?, opening))
    }

    fn of(file: opening::JournalFile) -> Result<Self, JournalError> {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let (told, progress) = watch::channel(Progress::default());
        let writer = writer::Writer::new(file, inbox, told);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(|source| JournalError::Thread { source })?;
        Ok(Self { queue, last: Ticket(0), progress, thread })
    }

    /// Queues writes that become durable together; waits while the disk is far behind.
    pub async fn write(&mut self, writes: Vec<Write>) -> Result<Ticket, Stopped> {
        self.queue.send(writes).await.map_err(|_| Stopped)?;
        self.last.0 += 1;
        Ok(self.last)
    }

    /// How far the disk is; changes with every flush.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Writes what is queued, as far as the disk takes it, and closes the file. Blocks.
    pub fn close(self) -> Result<(), Stopped> {
        drop(self.queue);
        self.thread.join().map_err(|_| Stopped)?;
        if self.progress.borrow().durable == self.last { Ok(()) } else { Err(Stopped) }
    }
}

#[cfg(test)]
mod tests;
