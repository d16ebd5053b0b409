//! Sizes of the tables that configuration decides about.

use lb_common::abi;

/// Number of entries of the tables whose size is not fixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sizes {
    /// Bindings.
    pub bindings: u32,
    /// Established flows; half-open ones have room of their own.
    pub flows: u32,
    /// Chunks of the arena of selection tables.
    pub arena: u32,
    /// Holds that spliced connections share; each CPU has one of its own beside them.
    pub holds: u32,
}

impl Sizes {
    /// Fewest bindings and flows a table is made for.
    pub const SMALLEST: u32 = 64;
    /// Most bindings and flows: numbers of slots and of index entries stay below 2^31.
    pub const LARGEST: u32 = 1 << 28;

    /// Most holds: a gibibyte of kernel memory.
    pub const MOST_HOLDS: u32 = 100_000;

    /// Buckets of the binding table.
    pub const fn binding_buckets(&self) -> u32 {
        abi::binding_buckets(self.bindings)
    }

    /// Slots of the binding table.
    pub const fn binding_slots(&self) -> u32 {
        self.binding_buckets() * abi::BINDING_SLOTS
    }

    /// Half-open flow records, which stand before the established ones.
    pub const fn half_open(&self) -> u32 {
        abi::half_open_len(self.flows)
    }

    /// All holds: one for each CPU that there may be, then those that connections share.
    pub fn hold_records(&self) -> u32 {
        cpus() + self.holds
    }

    /// All flow records.
    pub const fn flow_records(&self) -> u32 {
        self.half_open() + self.flows
    }
}

/// CPUs that there may be.
pub fn cpus() -> u32 {
    // A kernel that does not say has at most as many as it numbers.
    aya::util::nr_cpus().map_or(1, |cpus| cpus as u32)
}
