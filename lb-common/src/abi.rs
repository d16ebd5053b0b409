//! The one source of map names, sizes, keys and values.
//!
//! Everything here is `#[repr(C)]`, made of fixed-width integers and byte arrays with explicit zeroed
//! padding, and has its size asserted; a change of any layout raises [`SCHEMA_VERSION`].

mod address;
mod affinity;
mod backend;
mod binding;
mod counters;
mod endian;
mod event;
mod flow;
mod hold;
mod hop;
mod maintenance;
mod outcome;
mod peer;
mod probe;
mod quic;
mod rebind;
mod secret;
mod service;
mod settings;
pub mod switch;
mod vitals;

pub use address::Addr;
pub use affinity::{
    Affinity, AffinityFlags, AffinityRules, MAX_COOKIE_NAME, MAX_PATH_PREFIX, MAX_PATH_RULES,
    MAX_PAYLOAD_SEGMENT, OnMismatch, PATH_ENTRIES, PathRule, Reading, SERVER_ENTRIES, Server,
};
pub use backend::{ARENA_CHUNK, ArenaChunk, Backend, STATUS_PER_WORD, Status, VLAN_KEEP, VLAN_NONE};
pub use binding::{
    BINDING_PROBES, BINDING_SLOTS, Binding, BindingBucket, BindingKey, BindingPath, BindingSlot, BindingWord,
    SlotState, UNPROVED_LIFETIME, place,
};
pub use counters::{Counters, Hand, Quota, TokenBucket};
pub use endian::{Be16, Be32};
pub use event::{BindingEvent, BindingEventKind};
pub use flow::{
    Flow, FlowKey, FlowRef, FlowState, FlowWord, FragmentKey, FragmentRef, HOME_LEN, SpliceFlags, flow_home,
};
pub use hold::{
    DEFAULT_HOLDS, Filling, HOLD_FRONT, HOLD_LEN, HOLD_SLACK, Hold, HoldFlags, HoldWord, MAX_TRIED, Named,
    Said,
};
pub use hop::{Hop, Mac, VlanTags};
pub use maintenance::{
    BindingOp, BindingRecord, RECORDS_PER_RUN, RecordResult, SweepReport, SweepRequest, SweepTarget,
};
pub use outcome::Outcome;
pub use peer::{MAX_PEERS, PEER_PORT, Peer, Question, Visit};
pub use probe::{PROBE_ANSWERS, PROBE_MARK, PROBE_WAYS, ProbeAnswer, ProbeEnvelope, ProbeKey, ProbeWay};
pub use quic::{AES_ROUND_KEYS, QUIC_ENTRIES, QUIC_ROTATIONS, QuicConfig};
pub use rebind::{REBIND_MAX, RebindReport, RebindRequest, RebindWhom};
pub use secret::{EPOCH_SHIFT, SYN_KEYS, Secrets, SegmentKey};
pub use service::{Method, Mode, SERVICES_AT_HAND, Service, ServiceAtHand, ServiceFlags, ServiceKey};
pub use settings::{Settings, SettingsFlags};
pub use vitals::{CHOICE_ENTRIES, Vitals};

/// Version of every layout in this module; pinned maps of another version are migrated, never reused.
pub const SCHEMA_VERSION: u32 = 5;

/// Most services one node can hold.
pub const MAX_SERVICES: u32 = 4_096;
/// Entries of the service map: every service, its marker of the VIP and its entry as the only one.
pub const SERVICE_ENTRIES: u32 = MAX_SERVICES * 3;
/// Most backends one service can hold.
pub const MAX_BACKENDS_PER_SERVICE: u32 = 4_096;
/// Most backends in all services together; a backend slot is a `u16`.
pub const MAX_BACKENDS: u32 = 65_536;
/// Most interfaces a packet can be redirected to.
pub const MAX_DEVICES: u32 = 256;
/// Default number of bindings.
pub const DEFAULT_BINDINGS: u32 = 1 << 20;
/// Default number of flows (NAT connections).
pub const DEFAULT_FLOWS: u32 = 1 << 18;
/// Entries of the rate table: one a service, and one for the node's own answers.
pub const RATE_ENTRIES: u32 = MAX_SERVICES + 1;
/// Entries of the quota table, indexed by a hash of service and source prefix.
pub const QUOTA_ENTRIES: u32 = 65_536;
/// Entries of the doorkeeper, indexed by a hash of the flow.
pub const DOORKEEPER_ENTRIES: u32 = 65_536;
/// Fragment trains tracked at once.
pub const FRAGMENT_ENTRIES: u32 = 16_384;
/// Bytes of the ring that carries [`BindingEvent`]s to `lbd`.
pub const EVENT_RING_BYTES: u32 = 1 << 20;

/// Number of buckets of a binding table for `capacity` bindings.
///
/// Half as many slots again as bindings, so that in a table that is not full all but one key in a million find
/// room on their path.
pub const fn binding_buckets(capacity: u32) -> u32 {
    (capacity + capacity / 2).div_ceil(BINDING_SLOTS)
}

/// Number of half-open flow records beside `capacity` established ones.
pub const fn half_open_len(capacity: u32) -> u32 {
    let eighth = capacity / 8;
    if eighth < 64 { 64 } else { eighth }
}

/// Entries of the flow index: two directions for every record, and slack for records being replaced.
pub const fn flow_index_len(capacity: u32) -> u32 {
    (capacity + half_open_len(capacity)) * 2
}

/// Names of the maps, as they stand in the object file and below the pin directory.
pub mod map {
    /// `Array<Settings>`, one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// `Hash<ServiceKey, Service>`.
    pub const SERVICES: &str = "SERVICES";
    /// `Array<Backend>` by backend slot.
    pub const BACKENDS: &str = "BACKENDS";
    /// `Array<u64>`: two status bits a backend slot, see [`super::Status`].
    pub const STATUS: &str = "STATUS";
    /// `Array<ArenaChunk>`: selection tables and member lists of all services.
    pub const ARENA: &str = "ARENA";
    /// `Array<BindingBucket>`: where a binding is in it, [`super::BindingPath`] says.
    pub const BINDINGS: &str = "BINDINGS";
    /// `Array<Hand>`: the clock hands of the rings, see [`super::hand`].
    pub const HANDS: &str = "HANDS";
    /// `Hash<FlowKey, FlowRef>`: both directions of every flow.
    pub const FLOW_INDEX: &str = "FLOW_INDEX";
    /// `Array<Flow>`: half-open records first, established ones behind them.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHash<FragmentKey, FragmentRef>`: where the rest of a fragment train goes.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `Array<AffinityRules>` by service slot.
    pub const AFFINITIES: &str = "AFFINITIES";
    /// `Array<Server>`: servers of each service, sorted by mark.
    pub const SERVERS: &str = "SERVERS";
    /// `Array<PathRule>`: path rules of each service, longest prefix first.
    pub const PATHS: &str = "PATHS";
    /// `Array<QuicConfig>` by service slot and rotation, see [`super::QUIC_ENTRIES`].
    pub const QUIC: &str = "QUIC";
    /// `Array<Secrets>`, one entry.
    pub const SECRETS: &str = "SECRETS";
    /// `Array<Hold>`: one a CPU, then those that flows share.
    pub const HOLDS: &str = "HOLDS";
    /// `Array<Vitals>` by backend slot: signs of life and load.
    pub const VITALS: &str = "VITALS";
    /// `Array<u64>`: where new sessions went that nothing is bound of yet.
    pub const CHOICES: &str = "CHOICES";
    /// `Array<Peer>`: the other nodes of the cluster, in the order in which packets visit them.
    pub const PEERS: &str = "PEERS";
    /// `DevMapHash` by interface index.
    pub const DEVICES: &str = "DEVICES";
    /// `PerCpuArray<Counters>` by service slot.
    pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
    /// `PerCpuArray<Counters>` by backend slot.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// `PerCpuArray<u64>` by [`super::Outcome`].
    pub const OUTCOMES: &str = "OUTCOMES";
    /// `Array<TokenBucket>` by service slot: rate of new bindings; behind the last one, of the node's own answers.
    pub const RATES: &str = "RATES";
    /// `Array<Quota>`: new bindings by source prefix.
    pub const QUOTAS: &str = "QUOTAS";
    /// `Array<u64>`: flows seen once.
    pub const DOORKEEPER: &str = "DOORKEEPER";
    /// `RingBuf` of [`super::BindingEvent`].
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<ServiceAtHand>`: services looked up lately.
    pub const SERVICES_AT_HAND: &str = "SERVICES_AT_HAND";
    /// `PerCpuArray` of the packet's parsed form, handed from program to program.
    pub const SCRATCH: &str = "SCRATCH";
    /// `ProgArray` of the tail-called programs, see [`super::program`].
    pub const PROGRAMS: &str = "PROGRAMS";
}

/// Names of the programs in the object file and their places in [`map::PROGRAMS`].
pub mod program {
    /// The entry program, attached to interfaces.
    pub const ENTRY: &str = "stickleback";
    /// Tail-called programs by place in `PROGRAMS`.
    pub const TAIL_CALLS: [(u32, &str); 21] = [
        (BIND, "bind"),
        (NAT, "nat"),
        (OPEN, "open"),
        (ICMP, "icmp"),
        (FRAGMENT, "fragment"),
        (ANSWER, "answer"),
        (ESTABLISH, "establish"),
        (GREET, "greet"),
        (COLLECT, "collect"),
        (READ, "read"),
        (WAIT, "wait"),
        (CONNECT, "connect"),
        (TURN, "turn"),
        (LEARN, "learn"),
        (INSPECT, "inspect"),
        (QUIC, "quic"),
        (ASK, "ask"),
        (VISIT, "visit"),
        (PICK, "pick"),
        (INQUIRE, "inquire"),
        (REPLY, "reply"),
    ];
    /// Makes or moves a binding in the direct modes.
    pub const BIND: u32 = 0;
    /// Translates a packet of a known flow.
    pub const NAT: u32 = 1;
    /// Opens a NAT flow.
    pub const OPEN: u32 = 2;
    /// ICMP and ICMPv6.
    pub const ICMP: u32 = 3;
    /// Fragments.
    pub const FRAGMENT: u32 = 4;
    /// Answers that the balancer itself sends: resets and ICMP errors.
    pub const ANSWER: u32 = 5;
    /// Moves a NAT flow that proved itself out of the half-open ring and binds its session.
    pub const ESTABLISH: u32 = 6;
    /// Answers a client's SYN with a SYN cookie.
    pub const GREET: u32 = 7;
    /// Takes a client's segments until its request head is complete.
    pub const COLLECT: u32 = 8;
    /// Chooses the backend and sends it a SYN.
    pub const CONNECT: u32 = 9;
    /// Turns a backend's segment round: acknowledgement, held bytes, or a SYN to the next backend.
    pub const TURN: u32 = 10;
    /// Looks for the session's cookie in a response.
    pub const LEARN: u32 = 11;
    /// Looks for another session's cookie in a later request.
    pub const INSPECT: u32 = 12;
    /// Finds the backend of a QUIC packet.
    pub const QUIC: u32 = 13;
    /// Reads a request once more of it has come.
    pub const READ: u32 = 14;
    /// Takes a client's segments while its backend is asked and is sent what is held.
    pub const WAIT: u32 = 15;
    /// Sends a packet whose flow this node does not know to the next node.
    pub const ASK: u32 = 16;
    /// Takes a packet that another node does not know: handles it, or sends it on.
    pub const VISIT: u32 = 17;
    /// Picks the backend of a new session by load, for the program that opens its flow.
    pub const PICK: u32 = 18;
    /// Asks the other nodes for the backend of a request's session.
    pub const INQUIRE: u32 = 19;
    /// Takes such a question of another node, or its answer to one.
    pub const REPLY: u32 = 20;
    /// At the ingress of the stack: appends held bytes to a packet that XDP could not make larger.
    pub const FILL: &str = "fill";
    /// Run by `lbd` through `BPF_PROG_TEST_RUN`: reclaims expired bindings and flows.
    pub const SWEEP: &str = "sweep";
    /// Run by `lbd` through `BPF_PROG_TEST_RUN`: applies binding records by generation.
    pub const APPLY: &str = "apply";
    /// Run by `lbd` through `BPF_PROG_TEST_RUN`: moves sessions from backends that failed or are drained.
    pub const REBIND: &str = "rebind";
    /// Run by `lbd` through `BPF_PROG_TEST_RUN`: takes over the flow of a node that died.
    pub const ADOPT: &str = "adopt";
}

/// Places in [`map::HANDS`].
pub mod hand {
    /// Packets that the other nodes were asked about in this window, as in [`super::TokenBucket`].
    pub const ASKED: u32 = 0;
    /// Next half-open flow record.
    pub const HALF_OPEN: u32 = 1;
    /// Next established flow record.
    pub const FLOW: u32 = 2;
    /// Source of flow nonces.
    pub const NONCE: u32 = 3;
    /// Bindings that live now; kept by insert and reclaim.
    pub const BINDINGS_LIVE: u32 = 4;
    /// What is added to the ticks to get the monotonic clock; set by every run of the sweep, 0 before the first.
    pub const CLOCK: u32 = 5;
    /// Next hold that flows share.
    pub const HOLD: u32 = 6;
    /// Holds that flows own now; kept by claim and release.
    pub const HOLDS_LIVE: u32 = 7;
    /// Number of hands.
    pub const COUNT: u32 = 8;
}

/// Implements `aya::Pod` for map types, in userspace builds only.
macro_rules! pod {
    ($($ty:ty: $size:expr),* $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$ty>() == $size);
        // SAFETY: `#[repr(C)]` of integers and byte arrays without implicit padding (the size says so).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $ty {}
    )*};
}
use pod;
