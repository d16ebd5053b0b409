//! Connection mirroring: what a node tells others of its translated connections, so that one of them can go on with
//! them when it dies.
//!
//! [`Mirror`] is the side that tells. It is shown every flow of the node round by round, and makes messages of what the peers do
//! not know yet: flows that have reached their service's age, changes, uses from time to time, ends. [`Copies`] is the side
//! that holds them, in memory only: while its owner lives, nobody else touches a flow. When the owner is dead they are
//! [taken](Copies::take) and written into the tables of whoever inherits. A switch in front of the nodes is told the same: it holds
//! them to go on with some of them packet by packet ([`Express`]) while their owner lives.
//!
//! Messages of one connection arrive in order or not at all. Each has a number, and who misses one asks for all flows once
//! more; so does, by itself, a connection that is made anew. What is not told again in such a *walk* has ended. Nothing of it is
//! in a journal: connections do not outlive all nodes. The format is in `docs/replication.md`.

mod copies;
mod express;
mod record;
mod tell;
#[cfg(test)]
mod tests;
pub mod wire;

pub use copies::{Copies, Counts, Holding};
pub use express::Express;
pub use record::{Place, Record, Splice};
pub use tell::{Lifetimes, Mirror, Seen, Standing};
