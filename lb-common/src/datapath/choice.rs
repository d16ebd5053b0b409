//! Which service, which session, which backend.

use super::Env;
use super::binding::{self, Chosen};
use super::scratch::{Packet, Scratch};
use crate::abi::{Addr, Affinity, Be16, FlowKey, Service, ServiceKey, Settings, SettingsFlags, Status};
use crate::affinity;
use crate::packet::protocol;
use crate::select::{PROBES, Probes};

/// What a session wants of a backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
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
    service_by(env, settings, &ServiceKey::service(address, port, protocol))
}

/// The same by the key of its port.
#[inline(always)]
pub(crate) fn service_by<'a, E: Env>(
    env: &'a E,
    settings: &Settings,
    key: &ServiceKey,
) -> Option<&'a Service> {
    if let Some(service) = env.service(key) {
        return Some(service);
    }
    if settings.flags & SettingsFlags::ANY_PORT == 0 {
        return None;
    }
    env.service(&ServiceKey::service(key.address.by_words(), Be16::new(0), key.protocol))
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
    service(env, settings, address.by_words(), port, protocol)
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

/// Whether a datagram has to be read behind its headers to know whose it is.
#[inline(always)]
pub(crate) fn reads_payload(service: &Service, packet: &Packet) -> bool {
    service.affinity > Affinity::SourceIp as u8 && packet.protocol == protocol::UDP
}

/// The session key that an earlier program has read, or that addresses and ports say; out of line, for stacks are short.
#[inline(never)]
pub(crate) fn session_left(service: &Service, settings: &Settings, scratch: &Scratch) -> u64 {
    if reads_payload(service, &scratch.packet) {
        scratch.session
    } else {
        session(service, settings, &scratch.packet)
    }
}

/// The session key of a packet from a client, as far as addresses and ports say.
#[inline(always)]
pub(crate) fn session(service: &Service, settings: &Settings, packet: &Packet) -> u64 {
    session_by(service.affinity, service, settings.session_secret(), packet)
}

/// The same by a given affinity, one that knows addresses and ports only, and under a given secret.
#[inline(always)]
pub(crate) fn session_by(affinity: u8, service: &Service, secret: &[u64; 2], packet: &Packet) -> u64 {
    if affinity == Affinity::SourceIp as u8 {
        affinity::source(&packet.source, service.prefix_v4, service.prefix_v6, secret)
    } else {
        affinity::connection(&packet.flow_key(), secret)
    }
}

/// Whether a session may be bound under another key than the one that the secret in use makes.
#[inline(always)]
pub(crate) const fn has_two_secrets(settings: &Settings) -> bool {
    settings.flags & SettingsFlags::TWO_SECRETS != 0
}

/// Whether a packet's session key hangs on the secret, where the affinity knows addresses and ports only.
#[inline(always)]
pub(crate) const fn is_hashed(service: &Service, packet: &Packet) -> bool {
    service.affinity != Affinity::SourceIp as u8 || (!packet.is_v4() && service.prefix_v6 > 64)
}

/// Whether a session that addresses and ports name may be bound under another key.
#[inline(always)]
pub(crate) fn has_other_session(service: &Service, settings: &Settings, packet: &Packet) -> bool {
    has_two_secrets(settings) && is_hashed(service, packet) && !reads_payload(service, packet)
}

/// Carries the binding of a session that addresses and ports name over to its key, see [`binding::carry`]; the key to go by.
#[inline(always)]
pub(crate) fn carry<E: Env>(
    env: &E,
    service: &Service,
    settings: &Settings,
    packet: &Packet,
    session: u64,
) -> u64 {
    if !has_other_session(service, settings, packet) {
        return session;
    }
    binding::carry(env, service.id, session, other_session(service.affinity, service, settings, packet))
}

/// The key that the other secret makes, by a given affinity; out of line for the sake of the stack.
#[inline(never)]
pub(crate) fn other_session(affinity: u8, service: &Service, settings: &Settings, packet: &Packet) -> u64 {
    session_by(affinity, service, settings.other_secret(), packet)
}

/// The same, of the client's direction of a flow.
#[inline(always)]
pub(crate) fn session_of_client(affinity: u8, service: &Service, secret: &[u64; 2], client: &FlowKey) -> u64 {
    if affinity == Affinity::SourceIp as u8 {
        affinity::source(&client.source, service.prefix_v4, service.prefix_v6, secret)
    } else {
        affinity::connection(client, secret)
    }
}

/// The session key that a packet of the other direction belongs to, as far as addresses and ports say.
#[inline(never)]
pub(crate) fn session_of_reply<E: Env>(
    env: &E,
    service: &Service,
    secret: &[u64; 2],
    reply: &FlowKey,
) -> u64 {
    let mut kind = service.affinity;
    if kind > Affinity::SourceIp as u8 {
        kind = env.affinity_rules(service.slot).map_or(Affinity::None as u8, |rules| rules.fallback);
    }
    if kind == Affinity::SourceIp as u8 {
        affinity::source(&reply.destination, service.prefix_v4, service.prefix_v6, secret)
    } else {
        affinity::connection(&reply.reversed(), secret)
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

/// The first backend in the session's order that is none of four and takes new sessions, else the first that serves.
#[inline(always)]
pub(crate) fn next<'a, E: Env>(
    env: &'a E,
    service: &Service,
    session: u64,
    tried: Tried,
) -> Option<Chosen<'a>> {
    let mut found = walk_past(env, service, session, Want::Accepts, tried);
    if found == NONE {
        found = walk_past(env, service, session, Want::Serves, tried);
    }
    if found == NONE {
        return None;
    }
    let slot = found as u16;
    Some((slot, env.backend(slot)?))
}

/// Up to four backends that are out of the question, in one word; at least one.
#[derive(Clone, Copy)]
pub(crate) struct Tried(u64);

impl Tried {
    /// Only this one.
    #[inline(always)]
    pub(crate) const fn one(slot: u16) -> Self {
        Self(slot as u64 * 0x0001_0001_0001_0001)
    }
    /// With another one in place `i`, 0..=3.
    #[inline(always)]
    pub(crate) const fn with(self, i: u32, slot: u16) -> Self {
        let shift = (i & 3) * 16;
        Self(self.0 & !(0xffff << shift) | (slot as u64) << shift)
    }
    #[inline(always)]
    pub(crate) const fn has(self, slot: u16) -> bool {
        let t = self.0;
        t as u16 == slot || (t >> 16) as u16 == slot || (t >> 32) as u16 == slot || (t >> 48) as u16 == slot
    }
}

/// No backend; backend slots are 16 bits.
pub(crate) const NONE: u32 = u32::MAX;

/// The kernel's twin of [`crate::select::choose`].
#[inline(never)]
pub(crate) fn walk<E: Env>(env: &E, service: &Service, session: u64, want: Want) -> u32 {
    first_of(env, service, session, |slot| takes(env, slot, want))
}

/// [`walk`] past those that were tried.
#[inline(never)]
fn walk_past<E: Env>(env: &E, service: &Service, session: u64, want: Want, tried: Tried) -> u32 {
    first_of(env, service, session, |slot| !tried.has(slot) && takes(env, slot, want))
}

/// The first backend in the session's order that fits.
#[inline(always)]
pub(crate) fn first_of<E: Env>(env: &E, service: &Service, session: u64, fits: impl Fn(u16) -> bool) -> u32 {
    let count = service.member_count;
    // Without members there is no table, and its place in the arena may be another service's.
    if count == 0 {
        return NONE;
    }
    let probes = Probes::new(session);
    let mut i = 0;
    while i < PROBES {
        if let Some(slot) = env.arena(service.table.wrapping_add(probes.value(i) & service.table_mask))
            && fits(slot)
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
            Some(slot) if fits(slot) => {
                found = slot as u32;
                true
            }
            _ => false,
        }
    });
    found
}

/// Whether a backend is one that is wanted.
#[inline(always)]
pub(crate) fn takes<E: Env>(env: &E, slot: u16, want: Want) -> bool {
    match (env.status(Status::word(slot)), want) {
        (Some(word), Want::Accepts) => Status::accepts(word, slot),
        (Some(word), Want::Serves) => Status::serves(word, slot),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Dice, Model};
    use super::*;
    use crate::abi::STATUS_PER_WORD;
    use crate::select::{self, Table};

    struct Pool<'a>(&'a [u16], &'a [u16]);

    impl Table for Pool<'_> {
        fn owner(&self, slot: u32) -> Option<u16> {
            self.0.get(slot as usize).copied()
        }
        fn member(&self, place: u32) -> Option<u16> {
            self.1.get(place as usize).copied()
        }
        fn mask(&self) -> u32 {
            self.0.len() as u32 - 1
        }
        fn member_count(&self) -> u32 {
            self.1.len() as u32
        }
    }

    #[test]
    fn the_walk_is_the_hosts_order() {
        const SLOTS: u16 = 128;
        let mut dice = Dice(7);
        let mut model = Model::new(0, 0);
        let mut beyond_the_table = 0;
        for _ in 0..20_000 {
            let members: Vec<u16> = (0..dice.below(9)).map(|_| dice.below(SLOTS as usize) as u16).collect();
            let owner = |dice: &mut Dice| match members.len() {
                0 => 5,
                n => members[dice.below(n)],
            };
            let table: Vec<u16> = (0..1 << dice.below(6)).map(|_| owner(&mut dice)).collect();
            // Now all serve, now nearly none.
            let sparse = dice.below(3);
            model.status = (0..u32::from(SLOTS) / STATUS_PER_WORD)
                .map(|_| {
                    (0..sparse * 2).fold(dice.roll() << 16 ^ dice.roll(), |bits, _| {
                        bits & (dice.roll() << 16 ^ dice.roll())
                    })
                })
                .collect();
            let before = dice.below(20);
            model.arena = vec![5; before];
            model.arena.extend(&table);
            model.arena.extend(&members);
            let service = Service {
                table: before as u32,
                table_mask: table.len() as u32 - 1,
                members: (before + table.len()) as u32,
                member_count: members.len() as u32,
                ..Service::default()
            };
            let session = dice.roll() << 40 ^ dice.roll();
            let pool = Pool(&table, &members);
            let word = |slot| model.status[Status::word(slot) as usize];
            let accepting = select::choose(&pool, session, |slot| Status::accepts(word(slot), slot));
            let serving = || select::choose(&pool, session, |slot| Status::serves(word(slot), slot));
            assert_eq!(choose(&model, &service, session).map(|(slot, _)| slot), accepting.or_else(serving));
            if let Some((slot, _)) = first(&model, &service, session) {
                assert_eq!(Some(slot), accepting);
            }
            let probes = Probes::new(session);
            let probed = |slot| (0..PROBES).any(|i| table[(probes.value(i) as usize) % table.len()] == slot);
            beyond_the_table += accepting.is_some_and(|slot| !probed(slot)) as u32;
        }
        assert!(beyond_the_table > 100, "the walk over the members is tried too: {beyond_the_table}");
    }
}
