//! What can be wrong with a journal.

use std::{io, path::PathBuf};

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("journal {}: in use by another process; stop the other lbd, or give this one a state-dir of its own", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("journal {}: {source}; expected a readable and writable file with room on its disk", path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database refused for a reason of its own.
    #[error("journal {}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The journal's thread could not be made.
    #[error("journal: its thread cannot be started: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

/// The journal's thread has ended; what was not durable yet is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the journal has stopped; what it had not written is lost to a restart of this node")]
pub struct Stopped;
