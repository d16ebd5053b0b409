//! The cluster, as one node sees it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a node stands in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// It is in none.
    Alone,
    /// It is a member and has not got the bindings yet: it announces nothing.
    Joining,
    /// It is a member and has the bindings.
    Ready,
    /// It was a member; the others do not talk to it any more.
    Removed,
}

/// The cluster, as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterRow {
    /// How this node stands.
    pub state: ClusterState,
    /// This node; absent when it is alone.
    pub node: Option<ClusterNodeRow>,
    /// The other members.
    pub peers: Vec<PeerRow>,
}

/// This node in its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterNodeRow {
    /// Its id, in hexadecimal.
    #[schema(example = "00f3a1d2b4c5e697")]
    pub id: String,
    /// Its name; absent when it was removed.
    pub name: Option<String>,
    /// Where it listens.
    pub listen: String,
    /// Where the others are told to call it.
    pub addresses: Vec<String>,
    /// Whether it makes tokens, removes members and changes secrets.
    pub authority: bool,
    /// How often the member list was changed.
    pub member_list: u64,
    /// Bindings that it holds.
    pub bindings: usize,
    /// Bytes that they and the logs take.
    pub memory_bytes: usize,
    /// The latest event of each stream that it has.
    pub vector: Vec<StreamRow>,
    /// What happened since it started.
    pub counts: ClusterCounts,
    /// How long it took until others had what happened here, since the daemon started.
    pub convergence: ConvergenceRow,
    /// Connections that are mirrored.
    pub mirror: MirrorRow,
    /// What keeps its journal from being written.
    pub journal_trouble: Option<String>,
    /// When its certificate ends, in seconds since 1970.
    pub certificate_until: u64,
    /// Whether the certificate should have been made new long ago, which needs the node that holds the authority's key.
    pub certificate_overdue: bool,
}

/// The latest event of a stream: the events of a node in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamRow {
    /// Whose events.
    pub node: String,
    /// Its epoch, in hexadecimal; a node that lost its journal begins another one.
    pub epoch: String,
    /// The number of the latest.
    pub event: u64,
}

/// What happened since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterCounts {
    /// Events of this node.
    pub own: u64,
    /// Uses of bindings that were not worth an event.
    pub coalesced: u64,
    /// Events of others applied.
    pub applied: u64,
    /// Events of others that were known already.
    pub repeated: u64,
    /// Updates discarded because something before them was missing.
    pub gaps: u64,
    /// Ranges of events asked for.
    pub requests: u64,
    /// Ranges of others' events served.
    pub relayed: u64,
    /// Failures of backends that this node told the others.
    pub failovers: u64,
    /// Snapshots begun.
    pub snapshots_begun: u64,
    /// Snapshots completed.
    pub snapshots_done: u64,
    /// Messages refused.
    pub refused: u64,
}

/// Connections that other nodes go on with when theirs dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorRow {
    /// Whether connections of some service of this node are mirrored.
    pub on: bool,
    /// Connections of this node that others hold.
    pub mirrored: usize,
    /// Connections of others that this node holds.
    pub held: usize,
    /// Records sent since the daemon started.
    pub sent: u64,
    /// Records received.
    pub received: u64,
    /// Messages that a peer had no room for: it got everything anew.
    pub dropped: u64,
    /// Messages of peers that were missed: everything was asked for anew.
    pub missed: u64,
    /// Records that this node had no room for.
    pub refused: u64,
    /// Connections that go on here since their node died.
    pub adopted: u64,
    /// Connections of dead nodes that could not be taken over.
    pub lost: u64,
}

/// Times until another node said that it had an event, as far as they were measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConvergenceRow {
    /// Sum of all.
    pub sum_milliseconds: u64,
    /// How many took how long.
    pub buckets: Vec<ConvergenceBucket>,
}

/// Events by the time until another node had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConvergenceBucket {
    /// At most so many milliseconds; absent: longer than that of the row before.
    pub milliseconds: Option<u64>,
    /// How many of those that were measured took so long, and longer than that of the row before.
    pub events: u64,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerRow {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `node` (a load balancer) or `app` (an application server).
    pub role: String,
    /// Where it is called.
    pub addresses: Vec<String>,
    /// Where it is connected; absent when it is not.
    pub connected: Option<ConnectionRow>,
    /// Why the last call to it failed.
    pub failure: Option<String>,
    /// Whether packets of flows that this node does not know visit it.
    pub asked: bool,
    /// Its connections that this node holds, to go on with them when it dies.
    pub held_connections: usize,
    /// Seconds since it was heard of bindings; absent: never.
    pub last_contact_seconds: Option<f64>,
    /// Events that this node has and it has not.
    pub behind_events: u64,
    /// For how long it has lacked an event of this node; 0 = it has all.
    pub behind_seconds: f64,
    /// Events that it has and this node has not.
    pub ahead_events: u64,
    /// The latest event of each stream that it says it has.
    pub vector: Vec<StreamRow>,
    /// Bytes of messages sent to it.
    pub sent_bytes: u64,
    /// Bytes of messages received from it.
    pub received_bytes: u64,
    /// Records that came of the snapshot which is being fetched from it; absent: none is.
    pub snapshot_records: Option<u64>,
}

/// A connection between members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionRow {
    /// Where the peer is.
    pub address: String,
    /// Seconds since it was made.
    pub seconds: u64,
    /// Milliseconds for a packet there and back.
    pub round_trip_ms: f64,
    /// Bytes sent on it, everything included.
    pub sent_bytes: u64,
    /// Bytes received on it.
    pub received_bytes: u64,
}

/// Makes a cluster of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InitBody {
    /// How long the first token is good, in seconds.
    pub valid_seconds: u64,
}

/// Joins a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinBody {
    /// What `lbctl cluster token` printed.
    pub token: String,
    /// Where a node of the cluster listens: a host, with a port if it is not the usual one.
    pub address: String,
}

/// Lets one machine in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// `node`, `app` or `switch`.
    pub role: String,
    /// How long it is good, in seconds.
    pub valid_seconds: u64,
}

/// A token, shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRow {
    /// This node's id.
    pub id: String,
    /// The token.
    pub token: String,
    /// What it makes of its bearer.
    pub role: String,
    /// How long it is good, in seconds.
    pub valid_seconds: u64,
    /// Where its bearer may call.
    pub addresses: Vec<String>,
}

/// What became of a join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinedRow {
    /// This node's id from now on.
    pub id: String,
}

impl std::fmt::Debug for JoinBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinBody({})", self.address)
    }
}

impl std::fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenRow({} of {})", self.role, self.id)
    }
}

impl std::fmt::Display for ClusterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Alone => "alone",
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Removed => "removed",
        })
    }
}
