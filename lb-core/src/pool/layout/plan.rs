//! The way from what stands to what is wanted.

use super::arena::FreeList;
use super::{Layout, LayoutError, Made, NO_TABLE, Place, Source, Standing, arena_chunks};
use crate::pool::table::{Selection, Share};
use crate::pool::{Desired, ServiceSpec};
use lb_common::abi::{ARENA_CHUNK, ArenaChunk, MAX_BACKENDS, MAX_SERVICES};
use std::collections::{BTreeMap, BTreeSet};

/// What to write, and what can be freed afterwards.
///
/// The order that leaves no gap: fresh backends and their hops, arena, services, then status of what is freed,
/// then the freed services and backends themselves. The next plan may write where this one freed; a program run
/// that began before a service was switched lasts microseconds, so a pause of a millisecond between plans is ample.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Services, in the order of the configuration.
    pub services: Vec<ServicePlan>,
    /// Services that are gone.
    pub freed_services: Vec<FreedService>,
    /// Backends that are gone.
    pub freed_backends: Vec<FreedBackend>,
    next: Layout,
}

/// A service's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePlan {
    /// Its id.
    pub id: u32,
    /// Its slot.
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
    check(desired)?;
    let mut next = layout.clone();
    let wanted: BTreeSet<(u32, u64)> = desired
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(|backend| (service.id, backend.number)))
        .collect();
    let mut gaps = FreeList::beside(
        layout.services.values().filter_map(|standing| standing.place.as_ref()).map(|place| place.region),
        layout.arena_chunks,
    );
    next.services = BTreeMap::new();
    let mut services = Vec::with_capacity(desired.services.len());
    for service in &desired.services {
        let plan = place_service(layout, &mut next, &mut gaps, service).map_err(|error| match error {
            // The arena may be large enough but fragmented; a new one of that size is neither.
            LayoutError::ArenaFull { service, run, chunks, .. } => match arena_chunks(desired) {
                Ok(needed) => LayoutError::ArenaFull { service, run, chunks, needed },
                Err(error) => error,
            },
            error => error,
        })?;
        services.push(plan);
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
        if !next.services.contains_key(&id) {
            next.service_slots.free(standing.slot);
            freed_services.push(FreedService { id, slot: standing.slot });
        }
    }
    Ok(Plan { services, freed_services, freed_backends, next })
}

/// Limits of the whole node.
fn check(desired: &Desired) -> Result<(), LayoutError> {
    if desired.services.len() > MAX_SERVICES as usize {
        return Err(LayoutError::TooManyServices { configured: desired.services.len() });
    }
    let configured: usize = desired.services.iter().map(|service| service.backends.len()).sum();
    let mut names = BTreeMap::new();
    let mut backends = 0;
    for service in &desired.services {
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

/// Slots of a service and its backends, and its table.
fn place_service(
    layout: &Layout,
    next: &mut Layout,
    free: &mut FreeList,
    service: &ServiceSpec,
) -> Result<ServicePlan, LayoutError> {
    let busy = |what| LayoutError::SlotsBusy { service: service.name.clone(), what };
    let standing = layout.services.get(&service.id);
    let slot = match standing {
        Some(standing) => standing.slot,
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
    let (place, contents) = place_table(old, free, service, shares, slots, layout.arena_chunks)?;
    let (table, mask, members, member_count) = place
        .as_ref()
        .map(|place| (place.region.slot(), place.mask, place.members, place.count))
        .unwrap_or((NO_TABLE, 0, NO_TABLE, 0));
    next.services.insert(service.id, Standing { slot, place });
    let fresh = standing.is_none();
    Ok(ServicePlan { id: service.id, slot, fresh, table, mask, members, member_count, contents, backends })
}

/// Where the table lies, and what to write when it does not stand already.
fn place_table(
    old: Option<&Place>,
    free: &mut FreeList,
    service: &ServiceSpec,
    shares: Vec<Share>,
    slots: Vec<u16>,
    arena_chunks: u32,
) -> Result<(Option<Place>, Option<Vec<u16>>), LayoutError> {
    let count = shares.len() as u32;
    if count == 0 {
        return Ok((None, None));
    }
    let source = Source { shares, slots };
    if let Some(old) = old.filter(|old| old.made == Made::From(source.clone())) {
        return Ok((Some(old.clone()), None));
    }
    let Source { shares, slots } = &source;
    let selection = Selection::new(shares.iter().copied())
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
