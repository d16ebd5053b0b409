//! The maps; names, keys, values and sizes are those of `lb_common::abi`.
//!
//! Sizes that depend on the configuration are set by the loader; the ones here are the defaults.

use aya_ebpf::{
    btf_maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use lb_common::abi::{
    self, AffinityRules, ArenaChunk, Backend, BindingBucket, BindingEvent, Counters, Flow, FlowKey,
    FragmentKey, FragmentRef, Hand, Hold, Outcome, PathRule, Peer, QuicConfig, Secrets, Server, Service,
    ServiceAtHand, ServiceKey, Settings, Vitals,
};
use lb_common::datapath::Scratch;

const BINDINGS_LEN: usize = abi::binding_buckets(abi::DEFAULT_BINDINGS) as usize;
const FLOWS_LEN: usize = (abi::DEFAULT_FLOWS + abi::half_open_len(abi::DEFAULT_FLOWS)) as usize;
const INDEX_LEN: usize = abi::flow_index_len(abi::DEFAULT_FLOWS) as usize;
const STATUS_LEN: usize = (abi::MAX_BACKENDS / abi::STATUS_PER_WORD) as usize;
const ARENA_LEN: usize = 1024;
const HOLDS_LEN: usize = abi::DEFAULT_HOLDS as usize;

#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, { abi::SERVICE_ENTRIES as usize }> = HashMap::new();
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, { abi::MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
pub(crate) static STATUS: Array<u64, STATUS_LEN> = Array::new();
#[btf_map]
pub(crate) static ARENA: Array<ArenaChunk, ARENA_LEN> = Array::new();
#[btf_map]
pub(crate) static AFFINITIES: Array<AffinityRules, { abi::MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub(crate) static SERVERS: Array<Server, { abi::SERVER_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static PATHS: Array<PathRule, { abi::PATH_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static QUIC: Array<QuicConfig, { abi::QUIC_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static SECRETS: Array<Secrets, 1> = Array::new();
#[btf_map]
pub(crate) static HOLDS: Array<Hold, HOLDS_LEN> = Array::new();
#[btf_map]
pub(crate) static PEERS: Array<Peer, { abi::MAX_PEERS as usize }> = Array::new();
#[btf_map]
pub(crate) static VITALS: Array<Vitals, { abi::MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
pub(crate) static CHOICES: Array<u64, { abi::CHOICE_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static BINDINGS: Array<BindingBucket, BINDINGS_LEN> = Array::new();
#[btf_map]
pub(crate) static HANDS: Array<Hand, { abi::hand::COUNT as usize }> = Array::new();
#[btf_map]
pub(crate) static FLOW_INDEX: HashMap<FlowKey, u64, INDEX_LEN> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS: Array<Flow, FLOWS_LEN> = Array::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentRef, { abi::FRAGMENT_ENTRIES as usize }> =
    LruHashMap::new();
#[btf_map]
pub(crate) static DEVICES: DevMapHash<{ abi::MAX_DEVICES as usize }> = DevMapHash::new();
#[btf_map]
pub(crate) static SERVICE_COUNTERS: PerCpuArray<Counters, { abi::MAX_SERVICES as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counters, { abi::MAX_BACKENDS as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static OUTCOMES: PerCpuArray<u64, { Outcome::COUNT as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static RATES: Array<u64, { abi::RATE_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static QUOTAS: Array<u64, { abi::QUOTA_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static DOORKEEPER: Array<u64, { abi::DOORKEEPER_ENTRIES as usize }> = Array::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<BindingEvent, { abi::EVENT_RING_BYTES as usize }> = RingBuf::new();
#[btf_map]
pub(crate) static SERVICES_AT_HAND: PerCpuArray<ServiceAtHand, { abi::SERVICES_AT_HAND as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<32> = ProgramArray::new();
