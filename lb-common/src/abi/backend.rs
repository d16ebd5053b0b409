//! Backends, their status bits and the arena of selection tables.

use super::{Addr, Be16, Hop};

/// A backend of one service's pool, by backend slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Backend {
    /// Its address; [`Addr::NONE`] = the slot is free.
    pub address: Addr,
    /// Way to it.
    pub hop: Hop,
    /// Server number, from its name or given.
    pub number: u64,
    /// Id of the service it belongs to.
    pub service: u32,
    /// Destination port for `nat`; 0 = the packet's own.
    pub port: Be16,
    /// Raised each time the slot gets another owner.
    pub generation: u16,
    /// VLAN of the way to it: [`VLAN_KEEP`], [`VLAN_NONE`] or 1..=4094.
    pub vlan: u16,
    /// Its share among those that load is compared with; 0 counts as 1.
    pub weight: u16,
    /// Connections at a time beyond which it gets no new sessions; 0 = no limit.
    pub limit: u32,
}

/// Leave the packet's own VLAN tags as they are.
pub const VLAN_KEEP: u16 = 0xffff;
/// Send without VLAN tags.
pub const VLAN_NONE: u16 = 0;

/// What a backend may receive: two bits, so that one store changes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Neither new nor bound sessions.
    Down,
    /// Bound sessions only (draining, weight 0).
    Draining,
    /// New and bound sessions.
    Up,
}

/// Backend slots in one word of the status map.
pub const STATUS_PER_WORD: u32 = 32;

impl Status {
    /// The two bits: bit 0 takes bound sessions, bit 1 takes new ones.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Down => 0b00,
            Self::Draining => 0b01,
            Self::Up => 0b11,
        }
    }

    /// Index of the status word of a backend slot.
    #[inline(always)]
    pub const fn word(slot: u16) -> u32 {
        slot as u32 / STATUS_PER_WORD
    }

    /// Bit position of a backend slot in its word.
    #[inline(always)]
    pub const fn shift(slot: u16) -> u32 {
        (slot as u32 % STATUS_PER_WORD) * 2
    }

    /// Whether bound sessions may go there.
    #[inline(always)]
    pub const fn serves(word: u64, slot: u16) -> bool {
        (word >> Self::shift(slot)) & 0b01 != 0
    }

    /// Whether new sessions may go there.
    #[inline(always)]
    pub const fn accepts(word: u64, slot: u16) -> bool {
        (word >> Self::shift(slot)) & 0b10 != 0
    }

    /// `word` with this slot's bits replaced.
    pub const fn set(self, word: u64, slot: u16) -> u64 {
        (word & !(0b11 << Self::shift(slot))) | (self.bits() << Self::shift(slot))
    }
}

/// Arena slots in one map entry.
pub const ARENA_CHUNK: usize = 256;

/// A run of arena slots, each a backend slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaChunk(pub [u16; ARENA_CHUNK]);

super::pod!(Backend: 64, ArenaChunk: 512);
