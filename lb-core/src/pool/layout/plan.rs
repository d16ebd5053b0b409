//! The way from what stands to what is wanted.

use super::arena::FreeList;
use super::filling::{Filled, Tables};
use super::{Layout, LayoutError, Made, NO_TABLE, Place, Source, Standing, Stretch, arena_chunks};
use crate::pool::table::{Selection, Share};
use crate::pool::{Desired, PoolSpec, ServiceSpec, mark, row};
use lb_common::abi::{
    ARENA_CHUNK, ArenaChunk, MAX_BACKENDS, MAX_PATH_RULES, MAX_SERVICES, PATH_ENTRIES, PathRule,
    SERVER_ENTRIES, Server,
};
use std::collections::{BTreeMap, BTreeSet};

/// What to write, and what can be freed afterwards.
///
/// The order that leaves no gap: fresh backends and their hops, arena, marks and path rules, affinities, services, then status of what is freed,
/// then the freed services and backends themselves. The next plan may write where this one freed; a program run
/// that began before a service was switched lasts microseconds, so a pause of a millisecond between plans is ample.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Services and pools of paths, in the order of [`Desired::pools`].
    pub services: Vec<ServicePlan>,
    /// Services that are gone.
    pub freed_services: Vec<FreedService>,
    /// Backends that are gone.
    pub freed_backends: Vec<FreedBackend>,
    next: Layout,
}

/// The place of a service, or of a path's pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePlan {
    /// Its id.
    pub id: u32,
    /// Its slot; a path's pool has that of its service.
    pub slot: u16,
    /// The slot is new for it, so its counters start from 0.
    pub fresh: bool,
    /// First arena slot of its table; [`NO_TABLE`] without backends.
    pub table: u32,
    /// Table size - 1; 0 without backends.
    pub mask: u32,
    /// First arena slot of its member list; [`NO_TABLE`] without backends.
    pub members: u32,
    /// Length of the member list: all configured backends by server number, those with weight 0 too.
    pub member_count: u32,
    /// Table and member list as backend slots, to be written from `table` on; `None` = they stand already.
    pub contents: Option<Vec<u16>>,
    /// Marks of its servers, sorted.
    pub servers: Stretch<Server>,
    /// Path rules, the longest prefix first.
    pub paths: Stretch<PathRule>,
    /// Backends, in the order of the configuration.
    pub backends: Vec<BackendPlan>,
}

/// A backend's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendPlan {
    /// Server number.
    pub number: u64,
    /// Its slot.
    pub slot: u16,
    /// Generation of the slot, above 0.
    pub generation: u16,
    /// The slot is new for it, so its counters start from 0.
    pub fresh: bool,
}

/// A backend slot to be freed; its generation stays in the map, so that the next owner gets a higher one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreedBackend {
    /// Id of the service it belonged to.
    pub service: u32,
    /// Server number.
    pub number: u64,
    /// The slot.
    pub slot: u16,
    /// Its generation.
    pub generation: u16,
}

/// A service slot to be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreedService {
    /// Its id.
    pub id: u32,
    /// The slot.
    pub slot: u16,
}

impl Plan {
    /// What stands when everything of the plan has been written and freed.
    pub fn into_layout(self) -> Layout {
        self.next
    }
}

impl ServicePlan {
    /// The arena entries to write, with their index; none when the table stands already.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, ArenaChunk)> {
        let first = self.table / ARENA_CHUNK as u32;
        let contents = self.contents.as_deref().unwrap_or_default();
        (first..).zip(contents.chunks(ARENA_CHUNK)).map(|(index, slots)| {
            let mut chunk = ArenaChunk([0; ARENA_CHUNK]);
            chunk.0[..slots.len()].copy_from_slice(slots);
            (index, chunk)
        })
    }
}

pub(super) fn make(layout: &Layout, desired: &Desired) -> Result<Plan, LayoutError> {
    let pools = desired.pools();
    check(desired, &pools)?;
    let mut next = Layout {
        arena_chunks: layout.arena_chunks,
        backends: layout.backends.clone(),
        services: BTreeMap::new(),
        service_slots: layout.service_slots.clone(),
    };
    let owner = |pool: &PoolSpec, number| (pool.service.id, number);
    let wanted: BTreeSet<(u32, u64)> = pools
        .iter()
        .flat_map(|pool| pool.service.backends.iter().map(move |backend| owner(pool, backend.number)))
        .collect();
    let mut gaps = Gaps::beside(layout);
    let mut services: Vec<ServicePlan> = Vec::with_capacity(pools.len());
    let mut tables = Tables::new(layout, &pools);
    for service in &desired.services {
        let own = services.len();
        let mut paths = Vec::new();
        for pool in service.pools() {
            let slot = pool.prefix.as_ref().map(|_| services[own].slot);
            let selection = tables.next();
            let plan = place_service(layout, &mut next, &mut gaps, desired, (&pool, slot, selection));
            let plan = plan.map_err(|error| match error {
                // The arena may be large enough but fragmented; a new one of that size is neither.
                LayoutError::ArenaFull { service, run, chunks, .. } => match arena_chunks(desired) {
                    Ok(needed) => LayoutError::ArenaFull { service, run, chunks, needed },
                    Err(error) => error,
                },
                error => error,
            })?;
            if let Some(prefix) = &pool.prefix {
                paths.push(row::path_rule(prefix, &pool.service, &plan));
            }
            services.push(plan);
        }
        let old = layout.services.get(&service.id).map(|standing| &standing.paths);
        let paths = Stretch::place(old, paths, &mut gaps.paths)
            .map_err(|needed| full(&service.name, "path rules", needed))?;
        if let Some(standing) = next.services.get_mut(&service.id) {
            standing.paths = paths.standing();
        }
        services[own].paths = paths;
    }
    // Freed only now, so that nothing of this plan lies where something still stands.
    let mut freed_backends: Vec<FreedBackend> = Vec::new();
    for (service, number) in layout.backends.owners().filter(|owner| !wanted.contains(owner)) {
        if let Some((slot, generation)) = next.backends.free(service, number) {
            freed_backends.push(FreedBackend { service, number, slot, generation });
        }
    }
    for (slot, generation, (service, number)) in next.backends.free_surplus() {
        freed_backends.push(FreedBackend { service, number, slot, generation });
    }
    let mut freed_services = Vec::new();
    for (&id, standing) in &layout.services {
        let Some(slot) = standing.slot else { continue };
        if next.services.get(&id).is_none_or(|standing| standing.slot.is_none()) {
            next.service_slots.free(slot);
            freed_services.push(FreedService { id, slot });
        }
    }
    Ok(Plan { services, freed_services, freed_backends, next })
}

/// What is free beside what stands.
struct Gaps {
    arena: FreeList,
    servers: FreeList,
    paths: FreeList,
}

impl Gaps {
    fn beside(layout: &Layout) -> Self {
        let standing = || layout.services.values();
        let places = standing().filter_map(|standing| standing.place.as_ref()).map(|place| place.region);
        Self {
            arena: FreeList::beside(places, layout.arena_chunks),
            servers: FreeList::beside(standing().filter_map(|s| s.servers.region()), SERVER_ENTRIES),
            paths: FreeList::beside(standing().filter_map(|s| s.paths.region()), PATH_ENTRIES),
        }
    }
}

fn full(service: &str, what: &'static str, needed: u32) -> LayoutError {
    LayoutError::EntriesFull { service: service.to_owned(), what, needed }
}

/// Limits of the whole node.
fn check(desired: &Desired, pools: &[PoolSpec]) -> Result<(), LayoutError> {
    if desired.services.len() > MAX_SERVICES as usize {
        return Err(LayoutError::TooManyServices { configured: desired.services.len() });
    }
    if let Some(service) = desired.services.iter().find(|s| s.paths.len() > MAX_PATH_RULES as usize) {
        let (service, configured) = (service.name.clone(), service.paths.len());
        return Err(LayoutError::TooManyPaths { service, configured });
    }
    let configured: usize = pools.iter().map(|pool| pool.service.backends.len()).sum();
    let mut names = BTreeMap::new();
    let mut backends = 0;
    for PoolSpec { service, .. } in pools {
        if let Some(first) = names.insert(service.id, &service.name) {
            let (first, second) = (first.clone(), service.name.clone());
            return Err(LayoutError::SameId { first, second, id: service.id });
        }
        backends += service.backends.len();
        if backends > MAX_BACKENDS as usize {
            return Err(LayoutError::TooManyBackends { service: service.name.clone(), configured });
        }
    }
    Ok(())
}

/// Slots of a pool and its backends, its table and its marks; a path's pool has the slot of its service.
fn place_service(
    layout: &Layout,
    next: &mut Layout,
    gaps: &mut Gaps,
    desired: &Desired,
    (pool, of_service, selection): (&PoolSpec, Option<u16>, Option<Filled>),
) -> Result<ServicePlan, LayoutError> {
    let service = &pool.service;
    let busy = |what| LayoutError::SlotsBusy { service: service.name.clone(), what };
    let standing = layout.services.get(&service.id);
    let own = standing.and_then(|standing| standing.slot);
    let slot = match of_service.or(own) {
        Some(slot) => slot,
        None => next.service_slots.take_any().ok_or_else(|| busy("service"))?,
    };
    let mut backends = Vec::with_capacity(service.backends.len());
    let mut members = Vec::with_capacity(service.backends.len());
    for backend in &service.backends {
        let number = backend.number;
        let stands = layout.backends.find(service.id, number);
        let (slot, generation) =
            stands.or_else(|| next.backends.take(service.id, number)).ok_or_else(|| busy("backend"))?;
        backends.push(BackendPlan { number, slot, generation, fresh: stands.is_none() });
        members.push((Share { number, weight: backend.weight }, slot));
    }
    members.sort_unstable();
    let (shares, slots) = members.into_iter().unzip();
    let old = standing.and_then(|standing| standing.place.as_ref());
    let source = Source { shares, slots };
    let (place, contents) =
        place_table(old, &mut gaps.arena, service, (source, selection), layout.arena_chunks)?;
    let (table, mask, members, member_count) = place
        .as_ref()
        .map(|place| (place.region.slot(), place.mask, place.members, place.count))
        .unwrap_or((NO_TABLE, 0, NO_TABLE, 0));
    let marks = mark::of(pool, &backends, &desired.node.session_secret, desired.node.other_secret.as_ref())
        .map_err(|source| LayoutError::Marks { service: service.name.clone(), source })?;
    let servers = Stretch::place(standing.map(|standing| &standing.servers), marks, &mut gaps.servers)
        .map_err(|needed| full(&service.name, "marks of servers", needed))?;
    let slot_held = of_service.is_none().then_some(slot);
    let stands = Standing { slot: slot_held, place, servers: servers.standing(), paths: Stretch::default() };
    next.services.insert(service.id, stands);
    Ok(ServicePlan {
        id: service.id,
        slot,
        fresh: of_service.is_none() && own.is_none(),
        table,
        mask,
        members,
        member_count,
        contents,
        servers,
        paths: Stretch::default(),
        backends,
    })
}

/// Where the table lies, and what to write when it does not stand already.
fn place_table(
    old: Option<&Place>,
    free: &mut FreeList,
    service: &ServiceSpec,
    (source, selection): (Source, Option<Filled>),
    arena_chunks: u32,
) -> Result<(Option<Place>, Option<Vec<u16>>), LayoutError> {
    let count = source.shares.len() as u32;
    if count == 0 {
        return Ok((None, None));
    }
    if let Some(old) = old.filter(|old| old.made == Made::From(source.clone())) {
        return Ok((Some(old.clone()), None));
    }
    let Source { shares, slots } = &source;
    let selection = selection
        .unwrap_or_else(|| Selection::new(shares.iter().copied()))
        .map_err(|source| LayoutError::Pool { service: service.name.clone(), source })?;
    let size = selection.slots().len() as u32;
    let table = selection.slots().iter().map(|&place| slots[usize::from(place)]);
    let contents: Vec<u16> = table.chain(slots.iter().copied()).collect();
    if let Some(old) = old {
        let same = match &old.made {
            Made::Found(found) => *found == contents && old.mask == size - 1 && old.count == count,
            Made::From(_) => false,
        };
        if same {
            return Ok((Some(Place { made: Made::From(source), ..old.clone() }), None));
        }
    }
    let run = contents.len().div_ceil(ARENA_CHUNK) as u32;
    let region = free.take(run).ok_or_else(|| LayoutError::ArenaFull {
        service: service.name.clone(),
        run,
        chunks: arena_chunks,
        needed: 0,
    })?;
    let place =
        Place { region, mask: size - 1, members: region.slot() + size, count, made: Made::From(source) };
    Ok((Some(place), Some(contents)))
}
