//! What forwards packets, as the control plane sees it: tables to fill and interfaces to attach to.
//!
//! One trait, several implementations: [`xdp`] drives the kernel, [`p4`] a switch, [`memory`] is a model of tables, and
//! [`chaos`] wraps another one and fails on purpose.

pub mod chaos;
pub(crate) mod clock;
mod error;
pub mod memory;
pub mod p4;
mod sizes;
pub mod xdp;

pub use error::{Error, InterfaceError, Operation};
pub use sizes::{Sizes, cpus};

use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, Binding, BindingEvent, BindingKey, BindingRecord, Counters, Flow,
    FlowKey, PathRule, Peer, QuicConfig, RebindReport, RebindRequest, RecordResult, Secrets, Server, Service,
    ServiceKey, Settings, SweepReport, SweepRequest, Vitals,
};
use lb_core::mirror::Express;
use std::os::fd::BorrowedFd;

/// Result of an operation on a data plane.
pub type Result<T> = std::result::Result<T, Error>;

/// A thing that forwards packets.
///
/// Calls block, each for milliseconds at most, but for [`resize`](Self::resize), which copies tables
/// while traffic goes on. There is one caller: the reconciler.
pub trait DataPlane: Send {
    /// What this implementation can do.
    fn capabilities(&self) -> Capabilities;

    /// Sizes of the tables that run now.
    fn sizes(&self) -> Sizes;
    /// Replaces tables by ones of other sizes, keeping every binding and flow that fits.
    ///
    /// Either everything is as asked for, or nothing has changed.
    fn resize(&mut self, sizes: &Sizes) -> Result<Migration>;

    /// The node's settings.
    fn settings(&mut self) -> Result<Settings>;
    /// Writes the node's settings.
    ///
    /// The data plane itself knows the schema, the sizes and the flags `TX_BY_REDIRECT` and `MIGRATING`;
    /// what the argument says of them does not count.
    fn put_settings(&mut self, settings: &Settings) -> Result<()>;

    /// Every service.
    fn services(&mut self) -> Result<Vec<(ServiceKey, Service)>>;
    /// Adds a service or replaces it at once.
    fn put_service(&mut self, key: &ServiceKey, service: &Service) -> Result<()>;
    /// Removes a service; one that is not there is no error.
    fn delete_service(&mut self, key: &ServiceKey) -> Result<()>;

    /// Every backend slot that is or was in use, by slot.
    fn backends(&mut self) -> Result<Vec<(u16, Backend)>>;
    /// Writes a backend slot.
    fn put_backend(&mut self, slot: u16, backend: &Backend) -> Result<()>;

    /// The status words, see [`lb_common::abi::Status`].
    fn statuses(&mut self) -> Result<Vec<u64>>;
    /// Writes a status word.
    fn put_status(&mut self, word: u32, bits: u64) -> Result<()>;

    /// Chunks of the arena of selection tables, from that one on.
    fn arena(&mut self, start: u32, count: u32) -> Result<Vec<ArenaChunk>>;
    /// Writes chunks of the arena, from that one on.
    fn put_arena(&mut self, start: u32, chunks: &[ArenaChunk]) -> Result<()>;

    /// The rules of services whose affinity has some, by service slot.
    fn affinities(&mut self) -> Result<Vec<(u16, AffinityRules)>>;
    /// Writes the rules of a service slot; all zero = none.
    fn put_affinity(&mut self, slot: u16, rules: &AffinityRules) -> Result<()>;
    /// Marks of servers from that place on.
    fn servers(&mut self, start: u32, count: u32) -> Result<Vec<Server>>;
    /// Writes marks of servers from that place on.
    fn put_servers(&mut self, start: u32, servers: &[Server]) -> Result<()>;
    /// Path rules from that place on.
    fn paths(&mut self, start: u32, count: u32) -> Result<Vec<PathRule>>;
    /// Writes path rules from that place on.
    fn put_paths(&mut self, start: u32, rules: &[PathRule]) -> Result<()>;
    /// Configurations of QUIC connection ids that are in use, by [`QuicConfig::place`].
    fn quic(&mut self) -> Result<Vec<(u32, QuicConfig)>>;
    /// Writes a configuration of QUIC connection ids; all zero = none.
    fn put_quic(&mut self, place: u32, configuration: &QuicConfig) -> Result<()>;
    /// The keys that packets are checked with.
    fn secrets(&mut self) -> Result<Secrets>;
    /// Writes the keys that packets are checked with.
    fn put_secrets(&mut self, secrets: &Secrets) -> Result<()>;
    /// The other nodes, in the order of the ring.
    fn peers(&mut self) -> Result<Vec<Peer>>;
    /// Writes the other nodes, [`lb_common::abi::MAX_PEERS`] at most; rows behind them are free.
    fn put_peers(&mut self, peers: &[Peer]) -> Result<()>;
    /// Whether a backend's address stands in the flow index for good, see [`FlowKey::mark`].
    fn has_mark(&mut self, mark: &FlowKey) -> Result<bool>;
    /// Marks a backend's address.
    fn put_mark(&mut self, mark: &FlowKey) -> Result<()>;
    /// Removes the mark of a backend's address; one that is not there is no error.
    fn delete_mark(&mut self, mark: &FlowKey) -> Result<()>;

    /// Interfaces that packets may be sent to.
    fn devices(&mut self) -> Result<Vec<u32>>;
    /// Allows an interface, by index.
    fn put_device(&mut self, ifindex: u32) -> Result<()>;
    /// Forbids an interface.
    fn delete_device(&mut self, ifindex: u32) -> Result<()>;

    /// Interfaces whose packets it handles.
    fn attachments(&mut self) -> Result<Vec<Attachment>>;
    /// Starts to handle an interface's packets, with the tables as they are.
    fn attach(&mut self, interface: &str) -> Result<Attachment>;
    /// Leaves an interface.
    fn detach(&mut self, interface: &str) -> Result<()>;
    /// Leaves every interface and frees every table, pinned ones too; only dropping it may follow.
    fn detach_all(&mut self) -> Result<()>;

    /// Some bindings, from where `cursor` says.
    fn bindings(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<(BindingKey, Binding)>>;
    /// One binding, expired ones too.
    fn binding(&mut self, key: &BindingKey) -> Result<Option<Binding>>;
    /// Puts, deletes or acknowledges bindings by generation; one result a record.
    fn apply_bindings(&mut self, records: &[BindingRecord]) -> Result<Vec<RecordResult>>;
    /// Some flow records in use, from where `cursor` says.
    fn flows(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<Flow>>;
    /// Takes over flows of another node, [`Flow::last_seen`] being how long ago that was; one result a flow.
    ///
    /// What is here already stays as it is, and nothing that lives gives way.
    fn adopt(&mut self, flows: &[Flow]) -> Result<Vec<RecordResult>>;

    /// Goes on with these connections of other nodes packet by packet, as far as it can, and with no others.
    fn offload(&mut self, _all: &[Express]) -> Result<()> {
        Ok(())
    }
    /// What it goes on with of a service; packets as its counters were read last. `None` = it never does.
    fn offloaded(&mut self, _service: u16) -> Result<Option<Offloaded>> {
        Ok(None)
    }

    /// Traffic of those services and backends, added up over all CPUs.
    fn counters(&mut self, services: &[u16], backends: &[u16]) -> Result<Traffic>;
    /// What is noted of those backends, in their order.
    fn vitals(&mut self, backends: &[u16]) -> Result<Vec<Vitals>>;
    /// Sets the counters of a slot that gets another owner to zero, and forgets what is noted of it.
    fn clear_counters(&mut self, slot: CounterSlot) -> Result<()>;
    /// How often each [`lb_common::abi::Outcome`] was met, by its number.
    fn outcomes(&mut self) -> Result<Vec<u64>>;
    /// How full the tables are.
    fn usage(&mut self) -> Result<Usage>;

    /// Moves sessions of a pool in a stretch of the table of bindings.
    fn rebind(&mut self, request: &RebindRequest) -> Result<RebindReport>;
    /// Reclaims what has expired in a stretch of a ring.
    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport>;
    /// Takes binding events that wait, at most `limit`.
    fn events(&mut self, limit: usize) -> Result<Vec<BindingEvent>>;
    /// Becomes readable when events wait; `None` = ask from time to time.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What an implementation can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Its name, for people.
    pub name: &'static str,
    /// It goes on forwarding when the process ends.
    pub survives: bool,
    /// It keeps bindings.
    pub bindings: bool,
    /// It translates addresses and keeps flows.
    pub flows: bool,
}

/// Where a listing goes on; only good for the data plane that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor(pub(crate) u32);

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The entries.
    pub rows: Vec<T>,
    /// Where the next part starts; `None` at the end.
    pub next: Option<Cursor>,
}

/// An interface whose packets are handled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Where in its receive path.
    pub mode: AttachMode,
    /// Its MTU.
    pub mtu: u32,
}

/// Where in an interface's receive path the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's stack, for drivers without support.
    Generic,
}

/// Traffic of services and backends, in the order they were asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// By service.
    pub services: Vec<Counters>,
    /// By backend.
    pub backends: Vec<Counters>,
}

/// What a switch goes on with by itself of a service whose connections are other nodes'.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offloaded {
    /// Connections.
    pub connections: u64,
    /// Packets of both directions that no node saw.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A place that counters are kept for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterSlot {
    /// A service's slot.
    Service(u16),
    /// A backend's slot.
    Backend(u16),
}

/// How full the tables are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Bindings that live, as insert and reclaim count them.
    pub bindings: u64,
    /// Holds that connections own, as claim and release count them.
    pub holds: u64,
}

/// What a change of table sizes or of the schema did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Migration {
    /// Bindings in the new table that came from the old one.
    pub bindings: u64,
    /// Bindings that had no room.
    pub bindings_left_out: u64,
    /// Flows in the new table that came from the old one.
    pub flows: u64,
    /// Flows that had no room.
    pub flows_left_out: u64,
}
