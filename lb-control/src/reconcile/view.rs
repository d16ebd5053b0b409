//! What runs, as people and programs ask for it.

use super::Health;
use crate::dataplane::{Attachment, Migration, Offloaded, Sizes};
use lb_common::abi::{AffinityRules, Counters, Hop, Outcome, Secrets, Server, Service, Status, Vitals};
use lb_core::pool::{Admin, BackendSpec, ServiceSpec};
use std::net::IpAddr;

/// What applying a desired state did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ApplyReport {
    /// Number of writes to the tables; 0 = everything was so already.
    pub writes: usize,
    /// Services by name: new ones.
    pub services_added: Vec<String>,
    /// Services by name: changed ones.
    pub services_changed: Vec<String>,
    /// Services by name: gone ones.
    pub services_removed: Vec<String>,
    /// Interfaces newly attached to.
    pub attached: Vec<String>,
    /// Interfaces left.
    pub detached: Vec<String>,
    /// What a change of table sizes copied, where there was one.
    pub migration: Option<Migration>,
}

/// Everything that runs, at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// The services, by name.
    pub services: Vec<ServiceView>,
    /// Attached interfaces.
    pub attachments: Vec<Attachment>,
    /// Sizes of the tables.
    pub sizes: Sizes,
    /// Live bindings in all.
    pub bindings: u64,
    /// Ids of the nodes that are asked about packets, in the order in which those visit them.
    pub peers: Vec<u64>,
    /// The tables do not hold what they should and are being repaired.
    pub repairing: bool,
}

/// A service, or the pool of a path, that runs.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceView {
    /// As desired, overrides applied; for a path's pool with the pool's name, id and backends.
    pub spec: ServiceSpec,
    /// Place of its counters.
    pub slot: u16,
    /// Slots of its selection table.
    pub table_size: u32,
    /// Its traffic; for a path's pool that of its backends, since the service counts the rest.
    pub counters: Counters,
    /// What a switch goes on with of it by itself; `None` = this is none, or it is not to.
    pub offloaded: Option<Offloaded>,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendView>,
    /// For a path's pool: what the path begins with.
    pub prefix: Option<String>,
}

/// A backend that runs.
#[derive(Clone, PartialEq, Debug)]
pub struct BackendView {
    /// As desired, overrides applied.
    pub spec: BackendSpec,
    /// Weight in the configuration file, when overridden.
    pub configured_weight: Option<u32>,
    /// Admin state in the configuration file, when overridden.
    pub configured_admin: Option<Admin>,
    /// Its slot.
    pub slot: u16,
    /// Owner number of the slot.
    pub generation: u16,
    /// What the data plane lets it receive.
    pub status: Status,
    /// What health checks say; `None` = not checked.
    pub health: Option<Health>,
    /// The way to it.
    pub hop: HopState,
    /// Its traffic.
    pub counters: Counters,
    /// Signs of life and load.
    pub vitals: Vitals,
    /// Slow start: hundredths of its weight that it has; `None` = all of it.
    pub ramp: Option<u8>,
}

/// What is known of the way to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HopState {
    /// Nothing heard yet, or the neighbour does not answer.
    Unresolved,
    /// Resolved.
    Resolved {
        /// The next hop.
        hop: Hop,
        /// Our address on the way to it.
        source: Option<IpAddr>,
    },
}

/// Count of one outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutcomeRow {
    /// The outcome.
    pub outcome: Outcome,
    /// Packets that met it since the tables were made.
    pub packets: u64,
}

/// Fill of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableRow {
    /// Its name.
    pub name: &'static str,
    /// Entries it has room for.
    pub size: u64,
    /// Entries in use, where that is known without a walk.
    pub used: Option<u64>,
}

/// What is needed to compute on the host which backend a session gets.
#[derive(Clone, PartialEq, Debug)]
pub struct ExplainInputs {
    /// The service as the data plane has it.
    pub service: Service,
    /// Backend slot of every slot of the selection table.
    pub table: Vec<u16>,
    /// Backend slots of the member list.
    pub members: Vec<u16>,
    /// Rules of the service's affinity; all zero when it needs none.
    pub rules: AffinityRules,
    /// Marks of the pool's servers, sorted.
    pub servers: Vec<Server>,
    /// Keys that packets are checked with.
    pub secrets: Box<Secrets>,
    /// The service's backends.
    pub view: ServiceView,
    /// Secret of the session-key hash, as in [`lb_common::abi::Settings`].
    pub session_secret: [u64; 2],
    /// The other one, whose sessions are found, too.
    pub other_secret: Option<[u64; 2]>,
}
