//! Which service, which session, which backend.

use super::Env;
use super::binding::Chosen;
use super::scratch::Packet;
use crate::abi::{Addr, Affinity, Be16, FlowKey, Service, ServiceKey, Settings, SettingsFlags, Status};
use crate::affinity;
use crate::select::{PROBES, Probes};

/// What a session wants of a backend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It takes new sessions.
    Accepts,
    /// It serves at all.
    Serves,
}

/// The service of a destination: by its port, else the one that takes any port.
#[inline(always)]
pub(crate) fn service<'a, E: Env>(
    env: &'a E,
    settings: &Settings,
    address: Addr,
    port: Be16,
    protocol: u8,
) -> Option<&'a Service> {
    if let Some(service) = env.service(&ServiceKey::service(address, port, protocol)) {
        return Some(service);
    }
    if settings.flags & SettingsFlags::ANY_PORT == 0 {
        return None;
    }
    env.service(&ServiceKey::service(address, Be16::new(0), protocol))
}

/// The same, out of line: for the programs where size counts more than a call.
#[inline(never)]
pub(crate) fn service_again<'a, E: Env>(
    env: &'a E,
    settings: &Settings,
    address: &Addr,
    port: Be16,
    protocol: u8,
) -> Option<&'a Service> {
    service(env, settings, *address, port, protocol)
}

/// The service of a packet's destination, out of line.
#[inline(always)]
pub(crate) fn service_of<'a, E: Env>(
    env: &'a E,
    settings: &Settings,
    packet: &Packet,
) -> Option<&'a Service> {
    service_again(env, settings, &packet.destination, packet.destination_port, packet.protocol)
}

/// The session key of a packet from a client.
#[inline(always)]
pub(crate) fn session(service: &Service, settings: &Settings, packet: &Packet) -> u64 {
    if service.affinity == Affinity::SourceIp as u8 {
        affinity::source(&packet.source, service.prefix_v4, service.prefix_v6, &settings.session_secret)
    } else {
        affinity::connection(&packet.flow_key(), &settings.session_secret)
    }
}

/// The session key that a packet of the other direction belongs to.
#[inline(always)]
pub(crate) fn session_of_reply(service: &Service, settings: &Settings, reply: &FlowKey) -> u64 {
    if service.affinity == Affinity::SourceIp as u8 {
        affinity::source(&reply.destination, service.prefix_v4, service.prefix_v6, &settings.session_secret)
    } else {
        affinity::connection(&reply.reversed(), &settings.session_secret)
    }
}

/// Probe 0 of a session, when that backend takes new sessions: nearly always the answer.
#[inline(always)]
pub(crate) fn first<'a, E: Env>(env: &'a E, service: &Service, session: u64) -> Option<Chosen<'a>> {
    if service.member_count == 0 {
        return None;
    }
    let slot = env.arena(service.table.wrapping_add(Probes::new(session).value(0) & service.table_mask))?;
    if !takes(env, slot, Want::Accepts) {
        return None;
    }
    Some((slot, env.backend(slot)?))
}

/// The first backend in the session's order that takes new sessions, else the first that serves.
#[inline(always)]
pub(crate) fn choose<'a, E: Env>(env: &'a E, service: &Service, session: u64) -> Option<Chosen<'a>> {
    let mut found = walk(env, service, session, Want::Accepts);
    if found == NONE {
        found = walk(env, service, session, Want::Serves);
    }
    if found == NONE {
        return None;
    }
    let slot = found as u16;
    Some((slot, env.backend(slot)?))
}

/// No backend; backend slots are 16 bits.
const NONE: u32 = u32::MAX;

/// The kernel's twin of [`crate::select::choose`].
#[inline(never)]
fn walk<E: Env>(env: &E, service: &Service, session: u64, want: Want) -> u32 {
    let count = service.member_count;
    // Without members there is no table, and its place in the arena may be another service's.
    if count == 0 {
        return NONE;
    }
    let probes = Probes::new(session);
    let mut i = 0;
    while i < PROBES {
        if let Some(slot) = env.arena(service.table.wrapping_add(probes.value(i) & service.table_mask))
            && takes(env, slot, want)
        {
            return slot as u32;
        }
        i += 1;
    }
    let start = probes.value(PROBES) % count;
    let members = service.members;
    let mut found = NONE;
    env.repeat(count, |i| {
        let place = start.wrapping_add(i);
        let place = if place >= count { place.wrapping_sub(count) } else { place };
        match env.arena(members.wrapping_add(place)) {
            Some(slot) if takes(env, slot, want) => {
                found = slot as u32;
                true
            }
            _ => false,
        }
    });
    found
}

#[inline(always)]
fn takes<E: Env>(env: &E, slot: u16, want: Want) -> bool {
    match (env.status(Status::word(slot)), want) {
        (Some(word), Want::Accepts) => Status::accepts(word, slot),
        (Some(word), Want::Serves) => Status::serves(word, slot),
        (None, _) => false,
    }
}
