//! Replicated bindings: the records, where they are kept, and which of two that disagree holds.
//!
//! A [`Body`] says to which server a session is bound, how often it moved (generation), and what is to be
//! known of it: that an administrator pinned it, or that it is deleted (a tombstone). Bodies of one [`Key`] are
//! ordered by [`Body::rank`]; the [`store::Store`] keeps the highest binding and the highest tombstone it was told, each with the latest
//! expiry it was told. Highest and latest do not depend on order or repetition, so every node ends with the same records.
//!
//! What a failover moves is not written into the records. A [`failover::Mark`] says once that a server failed;
//! where its sessions are now follows from the record and the marks ([`failover`]), again the same on every node.
//!
//! Nothing here reads a clock: [`time::Time`] is an argument, milliseconds of the node's own clock that never steps back.

pub mod body;
pub mod failover;
pub mod log;
pub mod member;
pub mod store;
pub mod time;
pub mod vector;
mod wheel;

pub use body::{Body, Flags, Key, MAX_GENERATION, Rank};
pub use failover::{Mark, View, ViewMember};
pub use log::{Content, Entry, Log};
pub use store::{Binding, Merged, Store};
pub use time::{Tick, Time};
pub use vector::{NodeId, StreamId, Vector};
