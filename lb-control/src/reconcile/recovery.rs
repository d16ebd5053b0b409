//! What stands in the tables, read back: after a start, and before a repair.

use super::image::{Image, World, own};
use crate::dataplane::{DataPlane, Result};
use lb_common::abi::{
    ARENA_CHUNK, Addr, AffinityRules, ArenaChunk, Backend, Be16, FlowKey, Mac, PATH_ENTRIES, PathRule,
    SERVER_ENTRIES, Server, Service, ServiceKey, SettingsFlags,
};
use lb_core::pool::{
    layout::{FoundBackend, FoundService, Layout, Stretch},
    secret::{Clocks, PAST_EPOCHS},
};
use std::{collections::HashSet, net::IpAddr};

use super::ResolvedHop;

/// Reads everything but the arena.
///
/// Marks cannot be listed: looked for are those of the backends and source-NAT addresses that stand, and `suspects`.
pub(super) fn image(plane: &mut dyn DataPlane, suspects: &HashSet<FlowKey>) -> Result<Image> {
    let mut image = Image {
        settings: own(&plane.settings()?),
        services: plane.services()?.into_iter().collect(),
        backends: plane.backends()?.into_iter().collect(),
        affinities: plane.affinities()?.into_iter().collect(),
        quic: plane.quic()?.into_iter().collect(),
        secrets: plane.secrets()?,
        peers: plane.peers()?,
        devices: plane.devices()?.into_iter().collect(),
        attached: plane.attachments()?.into_iter().map(|attachment| attachment.interface).collect(),
        ..Image::default()
    };
    let owned = image.backends.values().filter(|backend| backend.address != Addr::NONE);
    let of_backends = owned.map(|row| FlowKey::mark(row.address, row.port));
    let sources = image.services.values().map(|row| row.source).filter(|source| *source != Addr::NONE);
    let of_sources = sources.map(|source| FlowKey::mark(source, Be16::default()));
    let marks: HashSet<FlowKey> = of_backends.chain(of_sources).chain(suspects.iter().copied()).collect();
    for mark in marks {
        if plane.has_mark(&mark)? {
            image.marks.insert(mark);
        }
    }
    for (word, bits) in (0..).zip(plane.statuses()?) {
        image.put_status(word, bits);
    }
    Ok(image)
}

/// Who owns which slot and part of the arena.
pub(super) fn layout(plane: &mut dyn DataPlane, image: &Image) -> Result<Layout> {
    let backends = image.backends.iter().map(|(&slot, backend)| FoundBackend {
        slot,
        generation: backend.generation,
        owner: (backend.address != Addr::NONE).then_some((backend.service, backend.number)),
    });
    let chunks = plane.sizes().arena;
    let services = image.services.iter().filter(|(key, _)| key.kind == ServiceKey::BY_PORT);
    let mut found_services = Vec::new();
    for (_, service) in services {
        let none = AffinityRules::default();
        let rules = image.affinities.get(&service.slot).unwrap_or(&none);
        let paths = paths(plane, rules)?;
        for rule in paths.entries() {
            let servers = servers(plane, rule.servers, rule.server_count.into())?;
            found_services.push(FoundService { slot: None, servers, ..found(plane, &rule.service, chunks)? });
        }
        let servers = servers(plane, rules.servers, rules.server_count)?;
        found_services.push(FoundService { servers, paths, ..found(plane, service, chunks)? });
    }
    Ok(Layout::recover(backends, found_services, chunks))
}

/// What the rows say of the ways to the backends, which holds until routes and neighbours are known anew.
pub(super) fn world(plane: &mut dyn DataPlane, image: &Image) -> Result<World> {
    let owned = image.backends.values().filter(|backend| backend.address != Addr::NONE);
    let ingress = plane.attachments()?.into_iter().map(|attachment| (attachment.ifindex, attachment.mtu));
    Ok(World {
        hops: owned.filter_map(way).collect(),
        ingress: ingress.collect(),
        clocks: Clocks {
            since_1970: image.secrets.since_1970,
            epoch: image.secrets.first_epoch.saturating_add(PAST_EPOCHS),
        },
        tunnel: [image.settings.tunnel_v4, image.settings.tunnel_v6],
        had_peers: image.settings.flags & SettingsFlags::PEERS != 0,
        ..World::default()
    })
}

fn way(backend: &Backend) -> Option<(IpAddr, ResolvedHop)> {
    let vlan = (1..=4_094).contains(&backend.vlan).then_some(backend.vlan);
    let is_resolved = backend.hop.destination != Mac::default();
    is_resolved.then(|| (backend.address.into(), ResolvedHop { hop: backend.hop, source: None, vlan }))
}

fn found(plane: &mut dyn DataPlane, service: &Service, chunks: u32) -> Result<FoundService> {
    let end = u64::from(service.members) + u64::from(service.member_count);
    let lies_inside = service.table <= service.members && end <= u64::from(chunks) * ARENA_CHUNK as u64;
    let contents = if lies_inside && service.member_count > 0 {
        slots(plane, service.table, service.members + service.member_count)?
    } else {
        Vec::new()
    };
    Ok(FoundService {
        id: service.id,
        slot: Some(service.slot),
        table: service.table,
        mask: service.table_mask,
        members: service.members,
        member_count: service.member_count,
        contents,
        servers: Stretch::default(),
        paths: Stretch::default(),
    })
}

/// Marks of servers; none where they cannot lie there.
fn servers(plane: &mut dyn DataPlane, start: u32, count: u32) -> Result<Stretch<Server>> {
    if count == 0 || u64::from(start) + u64::from(count) > SERVER_ENTRIES.into() {
        return Ok(Stretch::default());
    }
    Ok(Stretch::found(start, plane.servers(start, count)?))
}

/// Path rules; none where they cannot lie there.
fn paths(plane: &mut dyn DataPlane, rules: &AffinityRules) -> Result<Stretch<PathRule>> {
    let (start, count) = (rules.paths, rules.path_count);
    if count == 0 || u64::from(start) + u64::from(count) > PATH_ENTRIES.into() {
        return Ok(Stretch::default());
    }
    Ok(Stretch::found(start, plane.paths(start, count)?))
}

/// A stretch of the arena.
pub(super) fn slots(plane: &mut dyn DataPlane, start: u32, end: u32) -> Result<Vec<u16>> {
    let chunk = ARENA_CHUNK as u32;
    let mut slots = Vec::with_capacity((end - start) as usize + 2 * ARENA_CHUNK);
    let first = start / chunk;
    for ArenaChunk(part) in plane.arena(first, end.div_ceil(chunk) - first)? {
        slots.extend(part);
    }
    slots.drain(..(start % chunk) as usize);
    slots.truncate((end - start) as usize);
    Ok(slots)
}
