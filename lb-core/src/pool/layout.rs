//! Where everything of one node lies in the maps: backend slots, service slots, regions of the arena.
//!
//! Pure bookkeeping. [`Layout::plan`] compares what stands with what is wanted and says what to write; the
//! caller writes it and then either keeps [`Plan::into_layout`] or, when writing failed, tells the old layout by
//! [`Layout::abandon`]. A new table always goes where no table stands, so the switch of a service
//! from one to the other is one map update, and nothing that stands is freed before the plan is kept.

mod arena;
mod filling;
mod plan;
mod slots;
mod stretch;

pub use arena::Region;
pub use plan::{BackendPlan, FreedBackend, FreedService, Plan, ServicePlan};
pub use stretch::Stretch;

use super::mark::MarkError;
use super::table::{self, Share, TableError};
use super::{Desired, ServiceSpec};
use lb_common::abi::{
    ARENA_CHUNK, MAX_BACKENDS, MAX_PATH_RULES, MAX_SERVICES, PATH_ENTRIES, PathRule, SERVER_ENTRIES, Server,
};
use slots::{BackendSlots, ServiceSlots};
use std::collections::BTreeMap;
use thiserror::Error;

/// Smallest arena, in chunks.
pub const MIN_ARENA_CHUNKS: u32 = 256;
/// Largest arena, in chunks (512 MiB of kernel memory).
pub const MAX_ARENA_CHUNKS: u32 = 1 << 20;

/// Where the table of a service without backends "begins": behind the end of every arena, so that looking for an
/// owner finds none instead of a backend of another service.
pub const NO_TABLE: u32 = u32::MAX;
const _: () = assert!(MAX_ARENA_CHUNKS as u64 * (ARENA_CHUNK as u64) < NO_TABLE as u64);

/// Why there is no plan; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// More services than the maps hold.
    #[error("{configured} services are configured, a node holds at most {MAX_SERVICES}")]
    TooManyServices {
        /// Services configured.
        configured: usize,
    },
    /// Two services with one id.
    #[error("services {first:?} and {second:?} have the same id {id:#010x}; give one of them another id")]
    SameId {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// Their id.
        id: u32,
    },
    /// A pool that no table can be made for.
    #[error("service {service:?}: {source}")]
    Pool {
        /// The service.
        service: String,
        /// What is wrong with its pool.
        source: TableError,
    },
    /// A pool whose servers cannot be told apart by what packets say.
    #[error("service {service:?}: {source}")]
    Marks {
        /// The service or pool.
        service: String,
        /// What is wrong with its servers.
        source: MarkError,
    },
    /// More path rules than a request is compared with.
    #[error("service {service:?} has {configured} path rules, at most {MAX_PATH_RULES} are possible")]
    TooManyPaths {
        /// The service.
        service: String,
        /// Rules configured.
        configured: usize,
    },
    /// No room for the marks of a pool's servers or a service's path rules beside those that stand.
    #[error(
        "service {service:?}: no room for {needed} {what}; a node holds {} marks of servers and {} path rules, and twice \
         what changes while it changes: change fewer services at once, or use fewer backends and paths",
        SERVER_ENTRIES,
        PATH_ENTRIES
    )]
    EntriesFull {
        /// The service or pool.
        service: String,
        /// "marks of servers" or "path rules".
        what: &'static str,
        /// How many.
        needed: u32,
    },
    /// More backends than the maps hold.
    #[error(
        "service {service:?} does not fit: {configured} backends are configured in all, a node holds at most {MAX_BACKENDS}"
    )]
    TooManyBackends {
        /// The first service that does not fit.
        service: String,
        /// Backends of all services together.
        configured: usize,
    },
    /// Room will be there when what this configuration no longer needs has been freed.
    #[error(
        "service {service:?}: no free {what} slot beside those that this change frees; remove the old ones first, then add the new"
    )]
    SlotsBusy {
        /// The first service that does not fit.
        service: String,
        /// "backend" or "service".
        what: &'static str,
    },
    /// The arena is too small or too fragmented; a new one of `needed` chunks has room.
    #[error(
        "service {service:?}: no run of {run} free chunks for its table in an arena of {chunks}; migrate to an arena of {needed}"
    )]
    ArenaFull {
        /// The first service that does not fit.
        service: String,
        /// Chunks of its table and member list.
        run: u32,
        /// Chunks of the arena.
        chunks: u32,
        /// Chunks that are enough, see [`arena_chunks`].
        needed: u32,
    },
    /// No arena can be that large.
    #[error(
        "tables of all services need {needed} chunks of {ARENA_CHUNK} slots, at most {MAX_ARENA_CHUNKS} are possible; use fewer services or weights that differ less"
    )]
    ArenaTooLarge {
        /// Chunks for two tables of each service.
        needed: u64,
    },
}

/// Chunks of an arena for this configuration: every table twice, so that all can be swapped at once, rounded up
/// to an eighth of a power of two so that not every new backend asks for a new arena.
pub fn arena_chunks(desired: &Desired) -> Result<u32, LayoutError> {
    let once: u64 = desired.pools().iter().map(|pool| u64::from(run(&pool.service))).sum();
    let needed = (2 * once).max(u64::from(MIN_ARENA_CHUNKS));
    if needed > u64::from(MAX_ARENA_CHUNKS) {
        return Err(LayoutError::ArenaTooLarge { needed });
    }
    let needed = needed as u32;
    Ok(needed.next_multiple_of((needed.next_power_of_two() / 8).max(1)))
}

/// Chunks of a service's table and member list.
fn run(service: &ServiceSpec) -> u32 {
    let slots = table::size(service.backends.iter().map(|backend| backend.weight));
    slots.saturating_add(service.backends.len() as u32).div_ceil(ARENA_CHUNK as u32)
}

/// What stands in the maps of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    arena_chunks: u32,
    backends: BackendSlots,
    services: BTreeMap<u32, Standing>,
    service_slots: ServiceSlots,
}

/// A backend slot as found in pinned maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundBackend {
    /// The slot.
    pub slot: u16,
    /// Its generation; kept when the slot is freed.
    pub generation: u16,
    /// Service id and server number; `None` = free.
    pub owner: Option<(u32, u64)>,
}

/// A service, or the pool of a path, as found in pinned maps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundService {
    /// Its id.
    pub id: u32,
    /// Its slot; `None` for a path's pool, which has that of its service.
    pub slot: Option<u16>,
    /// First arena slot of its table.
    pub table: u32,
    /// Table size - 1.
    pub mask: u32,
    /// First arena slot of its member list.
    pub members: u32,
    /// Length of the member list.
    pub member_count: u32,
    /// Arena from the table to the end of the member list; empty when it was not read, then the table is written anew.
    pub contents: Vec<u16>,
    /// Marks of its servers.
    pub servers: Stretch<Server>,
    /// Path rules.
    pub paths: Stretch<PathRule>,
}

/// A service or a path's pool that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Standing {
    /// `None` for a path's pool.
    slot: Option<u16>,
    /// `None` without backends.
    place: Option<Place>,
    servers: Stretch<Server>,
    paths: Stretch<PathRule>,
}

/// Table and member list of a service in the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    region: Region,
    mask: u32,
    members: u32,
    count: u32,
    made: Made,
}

/// What a table was made from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Made {
    /// By us.
    From(Source),
    /// Found in a pinned map: what it holds.
    Found(Vec<u16>),
}

/// Servers by number and the backend slot of each; they say all about a table.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Source {
    shares: Vec<Share>,
    slots: Vec<u16>,
}

impl Layout {
    /// Nothing stands; the arena has that many chunks.
    pub fn new(arena_chunks: u32) -> Self {
        Self::recover([], [], arena_chunks)
    }

    /// What stands in pinned maps.
    ///
    /// `backends` are all slots that were ever used (generation above 0 or with an owner). Contradictions, which only
    /// a damaged map can hold, never fail: of two slots of one backend the second is freed by the next plan, and a
    /// service in a slot already taken or with a table outside the arena is placed anew.
    pub fn recover(
        backends: impl IntoIterator<Item = FoundBackend>,
        services: impl IntoIterator<Item = FoundService>,
        arena_chunks: u32,
    ) -> Self {
        Self::recover_slots(BackendSlots::recover(backends, MAX_BACKENDS), services, arena_chunks)
    }

    fn recover_slots(
        backends: BackendSlots,
        services: impl IntoIterator<Item = FoundService>,
        arena_chunks: u32,
    ) -> Self {
        let mut layout =
            Self { arena_chunks, backends, services: BTreeMap::new(), service_slots: ServiceSlots::new() };
        for mut found in services {
            if layout.services.contains_key(&found.id)
                || found.slot.is_some_and(|slot| !layout.service_slots.take(slot))
            {
                continue;
            }
            let place = place(&mut found, arena_chunks);
            let servers = found.servers.inside(SERVER_ENTRIES);
            let paths = found.paths.inside(PATH_ENTRIES);
            layout.services.insert(found.id, Standing { slot: found.slot, place, servers, paths });
        }
        layout
    }

    /// Chunks of the arena.
    pub fn arena_chunks(&self) -> u32 {
        self.arena_chunks
    }

    /// Slot and generation of a backend that stands.
    pub fn backend(&self, service: u32, number: u64) -> Option<(u16, u16)> {
        self.backends.find(service, number)
    }

    /// Slot of a service that stands.
    pub fn service(&self, id: u32) -> Option<u16> {
        self.services.get(&id).and_then(|standing| standing.slot)
    }

    /// Everything that has to be written to get from what stands to what is wanted.
    pub fn plan(&self, desired: &Desired) -> Result<Plan, LayoutError> {
        plan::make(self, desired)
    }

    /// Takes note that a plan was tried and given up.
    ///
    /// Some of its new backends may have been seen by packets, so their slots get a higher generation and are
    /// not used again soon.
    pub fn abandon(&mut self, plan: &Plan) {
        for backend in plan.services.iter().flat_map(|service| &service.backends) {
            if backend.fresh {
                self.backends.skip(backend.slot, backend.generation);
            }
        }
    }
}

/// Where a found service lies; `None` when it has no backends or cannot lie there.
fn place(found: &mut FoundService, arena_chunks: u32) -> Option<Place> {
    if found.member_count == 0 {
        return None;
    }
    let region = Region::spanning(found.table, found.members, found.member_count)?;
    let size = u64::from(found.mask) + 1;
    let regular = size.is_power_of_two()
        && u64::from(found.table) + size == u64::from(found.members)
        && region.end() <= u64::from(arena_chunks);
    regular.then(|| Place {
        region,
        mask: found.mask,
        members: found.members,
        count: found.member_count,
        made: Made::Found(core::mem::take(&mut found.contents)),
    })
}

#[cfg(test)]
mod tests;
