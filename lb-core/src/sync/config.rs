//! What a node is told of itself.

use crate::binding::NodeId;
use core::time::Duration;

/// Identity, members and measures of a node; [`Config::new`] has the defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The own id.
    pub id: NodeId,
    /// The other members at the start.
    pub members: Vec<NodeId>,
    /// A peer is told the vector at least so often.
    pub heartbeat: Duration,
    /// A peer that was silent for so long is asked.
    pub silence: Duration,
    /// A batch is sent when its first event has waited so long ...
    pub batch_delay: Duration,
    /// ... or when so many wait, whichever is first.
    pub batch_events: u64,
    /// A message is about this long at most, in bytes.
    pub message_bytes: usize,
    /// What was received is told to all within this time, so that they can forget it.
    pub ack_delay: Duration,
    /// Events that a peer's vector has may be on their way for so long before they are asked for.
    pub gap_delay: Duration,
    /// What is not answered is asked again, of another peer if possible.
    pub retry: Duration,
    /// Own events kept for peers that have not got them.
    pub log_events: usize,
    /// Events of each other stream kept for peers that have not got them.
    pub cache_events: usize,
    /// Events sent to a peer that it has not told back; then sending waits.
    pub window: u64,
    /// A node that lacks more events than this takes a snapshot.
    pub too_far: u64,
    /// Chunks of a snapshot that are asked for at once.
    pub chunks: u8,
    /// Streams of former epochs and members are forgotten so long after all members know the same of them.
    pub retention: Duration,
    /// A starting node waits so long for all members to say what they know of it.
    pub resume_wait: Duration,
    /// A starting node that hears nobody for so long takes itself for the first one.
    pub alone_after: Duration,
    /// Streams in the vector.
    pub most_streams: usize,
}

impl Config {
    /// The defaults.
    pub const fn new(id: NodeId, members: Vec<NodeId>) -> Self {
        Self {
            id,
            members,
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            batch_delay: Duration::from_millis(5),
            batch_events: 256,
            message_bytes: 32 * 1024,
            ack_delay: Duration::from_millis(20),
            gap_delay: Duration::from_millis(100),
            retry: Duration::from_millis(300),
            log_events: 262_144,
            cache_events: 65_536,
            window: 65_536,
            too_far: 200_000,
            chunks: 32,
            retention: Duration::from_secs(3600),
            resume_wait: Duration::from_secs(2),
            alone_after: Duration::from_secs(5),
            most_streams: 256,
        }
    }
}
