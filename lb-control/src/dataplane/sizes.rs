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
}

impl Sizes {
    /// Fewest bindings and flows a table is made for.
    pub const SMALLEST: u32 = 64;
    /// Most bindings and flows: numbers of slots and of index entries stay below 2^31.
    pub const LARGEST: u32 = 1 << 28;

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

    /// All flow records.
    pub const fn flow_records(&self) -> u32 {
        self.half_open() + self.flows
    }
}
