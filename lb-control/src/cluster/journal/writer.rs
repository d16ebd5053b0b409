//! The thread that owns the file: everything that waits becomes one transaction.

use super::opening::{self, JournalFile};
use super::{Progress, Ticket, Write, disk};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Bytes that one transaction takes before it is flushed.
const TRANSACTION: usize = 8 << 20;
/// Pause before the disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Attempts for what is left when the journal is closed.
const LAST_ATTEMPTS: u32 = 3;

pub(super) struct Writer {
    path: std::path::PathBuf,
    database: Option<redb::Database>,
    inbox: mpsc::Receiver<Vec<Write>>,
    told: watch::Sender<Progress>,
}

impl Writer {
    pub(super) fn new(
        file: JournalFile,
        inbox: mpsc::Receiver<Vec<Write>>,
        told: watch::Sender<Progress>,
    ) -> Self {
        Self { path: file.path, database: Some(file.database), inbox, told }
    }

    /// Writes until the owner is gone and nothing waits.
    pub(super) fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut size = weight(&first);
            let mut batches = vec![first];
            while size < TRANSACTION {
                let Ok(next) = self.inbox.try_recv() else { break };
                size += weight(&next);
                batches.push(next);
            }
            if !self.flush(&batches) {
                return;
            }
        }
    }

    /// Makes batches durable however long it takes; false = given up, since nobody waits any more.
    fn flush(&mut self, batches: &[Vec<Write>]) -> bool {
        let mut attempts = 0;
        loop {
            let trouble = match self.attempt(batches) {
                Ok(()) => {
                    let count = batches.len() as u64;
                    self.told.send_modify(|progress| {
                        progress.durable = Ticket(progress.durable.0 + count);
                        progress.trouble = None;
                    });
                    return true;
                }
                Err(trouble) => trouble,
            };
            tracing::error!(
                journal = %self.path.display(),
                error = trouble,
                "the journal cannot be written; nothing new is told to the peers until it can"
            );
            self.told.send_modify(|progress| progress.trouble = Some(trouble));
            // After an error of the disk the database refuses everything until it is opened again.
            self.database = None;
            attempts += 1;
            if self.inbox.is_closed() && attempts >= LAST_ATTEMPTS {
                return false;
            }
            sleep(AGAIN);
        }
    }

    fn attempt(&mut self, batches: &[Vec<Write>]) -> Result<(), String> {
        let path = &self.path;
        let held = &mut self.database;
        // As when it was opened: what the database asserts about a file that changed below it ends no thread.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let database = match held.take() {
                Some(database) => database,
                None => opening::again(path).map_err(|error| error.to_string())?,
            };
            disk::commit(held.insert(database), batches).map_err(|error| error.to_string())
        }));
        outcome.unwrap_or_else(|_| Err("its pages contradict each other".to_owned()))
    }
}

fn weight(writes: &[Write]) -> usize {
    let one = |write: &Write| match write {
        Write::Events(block) => block.bytes.len(),
        Write::Vector(bytes)
        | Write::Part { bytes, .. }
        | Write::View { bytes, .. }
        | Write::Seal { vector: bytes, .. } => bytes.len(),
        Write::Trim { .. } | Write::Epoch(_) => 0,
    };
    writes.iter().map(|write| one(write) + 64).sum()
}
