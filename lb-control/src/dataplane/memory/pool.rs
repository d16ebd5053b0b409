//! A pool as a request to rebind names it: a selection table, and its members.

use lb_common::abi::{ARENA_CHUNK, ArenaChunk, RebindRequest};
use lb_common::select;

/// The table and members of the pool that a request names.
pub(super) struct Pool<'a> {
    pub(super) arena: &'a [ArenaChunk],
    pub(super) request: &'a RebindRequest,
}

impl Pool<'_> {
    fn slot(&self, place: u32) -> Option<u16> {
        let chunk = self.arena.get(place as usize / ARENA_CHUNK)?;
        Some(chunk.0[place as usize % ARENA_CHUNK])
    }
}

impl select::Table for Pool<'_> {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.slot(self.request.table + slot)
    }
    fn member(&self, place: u32) -> Option<u16> {
        self.slot(self.request.members + place)
    }
    fn mask(&self) -> u32 {
        self.request.table_mask
    }
    fn member_count(&self) -> u32 {
        self.request.member_count
    }
}
