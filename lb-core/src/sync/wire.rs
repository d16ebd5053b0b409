//! The wire format: messages to bytes and back; `docs/replication.md` describes it.
//!
//! A message is a version, a kind, and fields of (tag, length, content). Unknown tags, unknown kinds and what a
//! known field has behind what is known of it are skipped. Everything is little-endian. Parsing checks every
//! length, allocates nothing but vectors that the message's own length bounds, and never panics.

mod event;
mod field;
mod message;

pub use event::{MAX_EVENT, event, put_event};
pub use message::{Hello, Kind, Lives, Message, Range, SnapshotCursor, Standing, Statement, examine};

pub(super) use event::Told;
pub(crate) use field::{Reader, Writer};
pub(super) use message::{ANSWER, ANSWERING, READY, STARTING, begin};

/// Version that this program speaks.
pub const VERSION: u8 = 1;

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Another version of the format.
    #[error("format version {0}, expected {VERSION}")]
    Version(u8),
    /// It ends in the middle of something.
    #[error("it ends in the middle of its {0}")]
    Short(&'static str),
    /// A field that this kind needs is missing.
    #[error("its {0} is missing")]
    Missing(&'static str),
    /// A number that cannot be.
    #[error("its {0} is out of range")]
    Range(&'static str),
}
