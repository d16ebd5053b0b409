//! The daemon's own state.

use super::cluster::ClusterState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The whole at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusRow {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub config_file: String,
    /// How the last load of the configuration went.
    pub reload: ReloadState,
    /// Interfaces the program is attached to.
    pub interfaces: Vec<InterfaceRow>,
    /// Where maps and links are pinned.
    pub pin_root: String,
    /// How it stands in its cluster.
    pub cluster: ClusterState,
    /// Configured services.
    pub services: usize,
    /// Configured backends.
    pub backends: usize,
    /// Backends that take new sessions.
    pub backends_up: usize,
    /// Table sizes and use.
    pub tables: Vec<TableRow>,
    /// Packets that were not simply forwarded, by outcome; outcomes never seen are left out.
    pub outcomes: Vec<OutcomeRow>,
    /// What the reconciler did.
    pub reconciler: ReconcilerRow,
    /// Ways to backends.
    pub hops: HopCounts,
    /// Binding events.
    pub events: EventsRow,
    /// What is wrong around it, each in a sentence that says what to do.
    pub warnings: Vec<String>,
}

/// How the last load of the configuration went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ReloadState {
    /// The file's contents are what runs.
    Current {
        /// When it was loaded, seconds since 1970 UTC.
        unix_seconds: u64,
    },
    /// The file was refused; what ran before goes on.
    Refused {
        /// When, seconds since 1970 UTC.
        unix_seconds: u64,
        /// Why.
        reason: String,
    },
}

/// An interface with the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceRow {
    /// Its name.
    pub name: String,
    /// How the program runs there: `native` or `skb`.
    pub mode: String,
}

/// A table of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableRow {
    /// Its name.
    #[schema(example = "bindings")]
    pub name: String,
    /// Entries in use, where the data plane knows.
    pub used: Option<u64>,
    /// Entries it can hold.
    pub capacity: u64,
}

/// A counter of packets that were not simply forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeRow {
    /// Its name.
    #[schema(example = "no-backend")]
    pub name: String,
    /// Whether such packets are lost to their senders.
    pub drop: bool,
    /// How many.
    pub count: u64,
}

/// What the reconciler did since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReconcilerRow {
    /// Configurations applied.
    pub applied: u64,
    /// Configurations refused, by the checks or by the data plane.
    pub failed: u64,
    /// The data plane does not yet hold what is wanted; repair is under way.
    pub dirty: bool,
}

/// Ways to backends, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HopCounts {
    /// The neighbour's MAC is known.
    pub resolved: usize,
    /// It is not; packets are dropped as `no-hop`.
    pub unresolved: usize,
}

/// Binding events since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsRow {
    /// Told by the reconciler and noted.
    pub received: u64,
    /// Told, but faster than they could be noted; they count for the data plane all the same.
    pub missed: u64,
    /// Not told because the ring was full, since the data plane was attached; the sweep finds them again.
    pub lost: u64,
}
