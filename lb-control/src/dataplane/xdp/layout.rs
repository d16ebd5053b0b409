//! Every pinned map: how many entries it has, and what a change of sizes does to it.

use crate::dataplane::Sizes;
use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, BindingBucket, Counters, Flow, FlowKey, FlowRef, FragmentKey,
    FragmentRef, Hand, Hold, PathRule, QuicConfig, Quota, Secrets, Server, Service, ServiceKey, Settings,
    TokenBucket, Vitals, map,
};

/// One map.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Bytes of a key and of a value; `None` = not compared, since the kernel or a build decides them.
    pub(super) entry: Option<(u32, u32)>,
    pub(super) layout: Layout,
    pub(super) fate: Fate,
}

/// How many entries a map has.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// As the object file says.
    Fixed,
    /// As the configuration says.
    Sized(fn(&Sizes) -> u32),
}

/// What becomes of a map's content when programs are loaded anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Always made anew: belongs to one build of the programs.
    Fresh,
    /// Kept unless the schema changes.
    Kept,
    /// Kept unless the number of bindings changes.
    KeptWithBindings,
    /// Kept unless the number of flows changes.
    KeptWithFlows,
    /// Kept unless the number of bindings or flows changes.
    KeptWithBindingsAndFlows,
    /// Kept unless the number of bindings, flows or holds changes.
    KeptWithSettings,
    /// Kept unless the number of holds changes, or of flows, which own them.
    KeptWithHolds,
    /// Kept unless the arena's size changes.
    KeptWithArena,
}

impl Fate {
    /// Whether the map goes on when tables of sizes `old` become ones of sizes `new`.
    pub(super) fn survives(self, old: &Sizes, new: &Sizes) -> bool {
        let (bindings, flows) = (old.bindings == new.bindings, old.flows == new.flows);
        let (arena, holds) = (old.arena == new.arena, old.holds == new.holds);
        match self {
            Self::Fresh => false,
            Self::Kept => true,
            Self::KeptWithBindings => bindings,
            Self::KeptWithFlows => flows,
            Self::KeptWithBindingsAndFlows => bindings && flows,
            Self::KeptWithSettings => bindings && flows && holds,
            Self::KeptWithHolds => flows && holds,
            Self::KeptWithArena => arena,
        }
    }
}

macro_rules! table {
    ($name:ident, $key:ty => $value:ty, $layout:expr, $fate:ident) => {
        Table {
            name: map::$name,
            entry: Some((size_of::<$key>() as u32, size_of::<$value>() as u32)),
            layout: $layout,
            fate: Fate::$fate,
        }
    };
    ($name:ident, $layout:expr, $fate:ident) => {
        Table { name: map::$name, entry: None, layout: $layout, fate: Fate::$fate }
    };
}

/// Every pinned map.
pub(super) const TABLES: &[Table] = &[
    table!(SETTINGS, u32 => Settings, Layout::Fixed, KeptWithSettings),
    table!(SERVICES, ServiceKey => Service, Layout::Fixed, Kept),
    table!(BACKENDS, u32 => Backend, Layout::Fixed, Kept),
    table!(STATUS, u32 => u64, Layout::Fixed, Kept),
    table!(ARENA, u32 => ArenaChunk, Layout::Sized(|sizes| sizes.arena), KeptWithArena),
    table!(AFFINITIES, u32 => AffinityRules, Layout::Fixed, Kept),
    table!(SERVERS, u32 => Server, Layout::Fixed, Kept),
    table!(PATHS, u32 => PathRule, Layout::Fixed, Kept),
    table!(QUIC, u32 => QuicConfig, Layout::Fixed, Kept),
    table!(SECRETS, u32 => Secrets, Layout::Fixed, Kept),
    table!(HOLDS, u32 => Hold, Layout::Sized(Sizes::hold_records), KeptWithHolds),
    table!(BINDINGS, u32 => BindingBucket, Layout::Sized(Sizes::binding_buckets), KeptWithBindings),
    table!(HANDS, u32 => Hand, Layout::Fixed, KeptWithBindingsAndFlows),
    table!(
        FLOW_INDEX, FlowKey => FlowRef,
        Layout::Sized(|sizes| lb_common::abi::flow_index_len(sizes.flows)), KeptWithFlows
    ),
    table!(FLOWS, u32 => Flow, Layout::Sized(Sizes::flow_records), KeptWithFlows),
    table!(FRAGMENTS, FragmentKey => FragmentRef, Layout::Fixed, KeptWithFlows),
    table!(DEVICES, Layout::Fixed, Kept),
    table!(SERVICE_COUNTERS, u32 => Counters, Layout::Fixed, Kept),
    table!(BACKEND_COUNTERS, u32 => Counters, Layout::Fixed, Kept),
    table!(OUTCOMES, u32 => u64, Layout::Fixed, Kept),
    table!(RATES, u32 => TokenBucket, Layout::Fixed, Kept),
    table!(QUOTAS, u32 => Quota, Layout::Fixed, Kept),
    table!(DOORKEEPER, u32 => u64, Layout::Fixed, Kept),
    table!(VITALS, u32 => Vitals, Layout::Fixed, Kept),
    table!(CHOICES, u32 => u64, Layout::Fixed, Kept),
    table!(EVENTS, Layout::Fixed, Kept),
    // What older programs knew of the others is told to newer ones again.
    table!(PEERS, Layout::Fixed, Fresh),
    table!(SCRATCH, Layout::Fixed, Fresh),
    table!(PROGRAMS, Layout::Fixed, Fresh),
];
