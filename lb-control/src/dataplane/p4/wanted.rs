//! From the tables as the reconciler writes them to the entries of the switch.

mod connection;
mod slots;

use super::numbers::{Numbers, Tag};
use super::ports::{Ports, Route};
use super::row::{Content, Key, Table};
use super::stamps::Stamps;
use crate::dataplane::{DataPlane as _, Error, Result, memory::Memory};
use connection::server_id;
use lb_common::abi::{
    Addr, Affinity, AffinityRules, Backend, Method, Mode, Service, ServiceFlags, ServiceKey, Status, switch,
};
use slots::State;
use std::collections::{BTreeMap, HashMap};

/// Entries by what they are found by.
pub(super) type Rows = BTreeMap<Key, Content>;

/// Every entry but those of sessions.
pub(super) fn rows(
    image: &mut Memory,
    ports: &Ports,
    routes: &[Route],
    numbers: &Numbers,
    stamps: &mut Stamps,
) -> Result<Rows> {
    let mut rows: Rows = stamps.time().into_iter().collect();
    let settings = image.settings()?;
    let (services, backends) = (image.services()?, image.backends()?);
    let backends: HashMap<u16, Backend> = backends.into_iter().collect();
    let statuses = image.statuses()?;
    let bits = |slot: u16| statuses.get(Status::word(slot) as usize).copied().unwrap_or_default();
    let rules: HashMap<u16, AffinityRules> = image.affinities()?.into_iter().collect();

    let node = [u128::from(ports.cpu), number(settings.tunnel_v4), number(settings.tunnel_v6)];
    rows.insert(Key::exact(Table::Settings, []), Content::of(node));
    for route in routes {
        let key = Key { table: Table::Routes, fields: vec![route.address()], prefix: route.prefix() };
        rows.insert(key, Content::of(route.values(ports)?));
    }
    let mut of_service: HashMap<u32, Vec<(u16, Backend)>> = HashMap::new();
    for (&slot, backend) in backends.iter().filter(|(_, backend)| backend.address != Addr::NONE) {
        of_service.entry(backend.service).or_default().push((slot, *backend));
        let Some(tag) = numbers.backend(slot).map(Tag::values) else { continue };
        if Status::serves(bits(slot), slot) && stamps.admit(backend) {
            rows.insert(Key::exact(Table::Status, tag), Content::default());
        }
        if let Some(port) = ports.number(backend.hop.ifindex)
            && backend.hop.destination.0 != [0; 6]
        {
            let way = [
                number(backend.address),
                u128::from(backend.port.host()),
                mac(backend.hop.destination.0),
                mac(backend.hop.source.0),
                u128::from(backend.vlan),
                u128::from(backend.hop.mtu),
                u128::from(port),
            ];
            rows.insert(Key::exact(Table::Backends, tag), Content::of(way));
        }
    }
    for (key, service) in &services {
        match key.kind {
            ServiceKey::VIP => {
                rows.insert(Key::exact(Table::Vips, [number(key.address)]), Content::default());
                continue;
            }
            ServiceKey::BY_PORT | ServiceKey::ALONE => {}
            _ => continue,
        }
        let Some(there) = numbers.service(service.slot).map(u128::from) else { continue };
        let rules = rules.get(&service.slot).copied().unwrap_or_default();
        if key.kind == ServiceKey::ALONE {
            let found_by = [number(key.address), u128::from(key.protocol)];
            rows.insert(Key::exact(Table::Alone, found_by), Content::of(row(key, service, there, &rules)));
            continue;
        }
        rows.insert(place(key), Content::of(row(key, service, there, &rules)));
        rows.insert(
            Key::exact(Table::Rates, [there]),
            Content::of([u128::from(service.binding_rate), u128::from(service.binding_rate.max(16) / 16)]),
        );
        slots::fill(&mut rows, image, service, there, |slot| {
            let is_admitted = backends.get(&slot).is_none_or(|backend| stamps.admit(backend));
            State {
                accepts: is_admitted && Status::accepts(bits(slot), slot),
                serves: is_admitted && Status::serves(bits(slot), slot),
                tag: numbers.backend(slot),
            }
        })?;
        if Affinity::from_u8(service.affinity) == Some(Affinity::Payload) {
            rows.insert(Key::exact(Table::Affinities, [there]), Content::of(segment(&rules)));
        }
        let own = of_service.get(&service.id).map(Vec::as_slice).unwrap_or_default();
        if service.mode != Mode::Nat as u8 && key.port.host() != 0 {
            let from = [number(key.address), u128::from(key.port.host()), u128::from(key.protocol)];
            rows.insert(Key::exact(Table::Returns, from), Content::of([there]));
        }
        if service.mode == Mode::Nat as u8 {
            // What nobody marks a client must not see.
            for (slot, backend) in own.iter().filter(|(_, backend)| stamps.admit(backend)) {
                let Some(tag) = numbers.backend(*slot) else { continue };
                if let Some(mark) = stamps.mark(backend) {
                    let (stamp, number) = (u128::from(mark.stamp()), u128::from(mark.number().get()));
                    let [there_slot, generation] = tag.values();
                    let serves = u128::from(Status::serves(bits(*slot), *slot));
                    rows.insert(Key::exact(Table::Stamps, tag.values()), Content::of([stamp]));
                    let content = Content::of([stamp, there_slot, generation, serves]);
                    rows.insert(Key::exact(Table::Marks, [there, number]), content);
                }
                let (key, content) = reply(key, service, there, tag, backend);
                if let Some(other) = rows.insert(key.clone(), content.clone())
                    && other != content
                {
                    return Err(Error::SharedBackend { address: backend.address, port: backend.port.host() });
                }
            }
        }
    }
    for (place, shape) in image.quic()? {
        let (slot, rotation) = (place / 8, place % 8);
        let Some((_, service)) = services
            .iter()
            .find(|(key, service)| key.kind == ServiceKey::BY_PORT && u32::from(service.slot) == slot)
        else {
            continue;
        };
        let Some(there) = numbers.service(service.slot).map(u128::from) else { continue };
        let bits = u32::from(shape.server_id_len) * 8;
        // Behind the first octet, of 120 bits.
        let mask = ((1_u128 << bits) - 1) << (112 - bits);
        let needed = 1 + u128::from(shape.server_id_len) + u128::from(shape.nonce_len);
        let key = Key::exact(Table::Quic, [there, u128::from(rotation)]);
        rows.insert(key, Content::of([mask, needed]));
        let rules = rules.get(&service.slot).copied().unwrap_or_default();
        for server in image.servers(rules.servers, rules.server_count)? {
            let of = backends.get(&server.backend).filter(|row| row.generation == server.generation);
            let Some(tag) = of.and_then(|_| numbers.backend(server.backend)) else { continue };
            let key = [there, server_id(server.mark, shape.server_id_len)];
            rows.insert(Key::exact(Table::Servers, key), Content::of(tag.values()));
        }
    }
    Ok(rows)
}

/// What the entry of a session says.
pub(super) fn binding(service: &Service, tag: Tag) -> Content {
    Content { values: tag.values().into(), idle: service.lifetime }
}

/// Refuses what a switch cannot do.
pub(super) fn examine(key: &ServiceKey, service: &Service, rules: &AffinityRules) -> Result<()> {
    let refuse = |what: &'static str, instead: &'static str| {
        Err(Error::Unserved { address: key.address, port: key.port.host(), what, instead })
    };
    if key.kind != ServiceKey::BY_PORT {
        return Ok(());
    }
    if service.flags & ServiceFlags::SNAT != 0 {
        return refuse("source NAT", "let the backends' default route lead to the switch");
    }
    if service.flags & ServiceFlags::SPLICE != 0 {
        return refuse("delayed binding", "put XDP nodes behind the switch for it");
    }
    if service.method != Method::Order as u8 {
        return refuse(
            "choice by load",
            "use the order of sessions: a switch does not know how many connections there are",
        );
    }
    if service.flags & ServiceFlags::LIMITED != 0 {
        return refuse("limits of connections", "leave them out: a switch does not know how many there are");
    }
    match Mode::from_u8(service.mode) {
        // Replies are told by the port that they come from.
        Some(Mode::Nat) if key.port.host() == 0 => {
            return refuse("`nat` on any port", "use `l2` or `ipip`, or a service for each port");
        }
        Some(Mode::Nat | Mode::L2 | Mode::Ipip) => {}
        Some(Mode::Gue) | None => return refuse("this mode", "use `nat`, `l2` or `ipip`"),
    }
    let is_long =
        |affinity| affinity == Affinity::SourceIp as u8 && !key.address.is_v4() && service.prefix_v6 > 64;
    if is_long(service.affinity) || is_long(rules.fallback) {
        return refuse(
            "IPv6 prefixes above 64",
            "use `prefix-v6 = 64`: session keys of a switch have 8 bytes",
        );
    }
    match Affinity::from_u8(service.affinity) {
        Some(Affinity::None | Affinity::SourceIp) => {}
        Some(Affinity::QuicCid) => {}
        Some(Affinity::Payload) => {
            let end = u32::from(rules.offset) + u32::from(rules.length);
            if rules.length > 8 || end > switch::WINDOW {
                return refuse(
                    "this segment",
                    "use at most 8 bytes that end within the first 24 of the payload",
                );
            }
        }
        Some(Affinity::HttpCookie) | None => {
            return refuse("this affinity", "put XDP nodes behind the switch for it");
        }
    }
    Ok(())
}

/// What a service is found by.
fn place(key: &ServiceKey) -> Key {
    let (address, port, protocol) = (number(key.address), key.port.host(), u128::from(key.protocol));
    if port == 0 {
        Key::exact(Table::AnyPort, [address, protocol])
    } else {
        Key::exact(Table::Services, [address, u128::from(port), protocol])
    }
}

fn row(key: &ServiceKey, service: &Service, there: u128, rules: &AffinityRules) -> [u128; 7] {
    [
        u128::from(service.id),
        there,
        u128::from(service.mode),
        u128::from(service.affinity),
        u128::from(rules.fallback),
        u128::from(key_mask(key, service)),
        u128::from(service.table_mask),
    ]
}

/// What is kept of a client's address.
fn key_mask(key: &ServiceKey, service: &Service) -> u64 {
    if key.address.is_v4() {
        let prefix = u32::from(service.prefix_v4).clamp(1, 32);
        u64::from(u32::MAX << (32 - prefix))
    } else {
        u64::MAX << (64 - u32::from(service.prefix_v6).clamp(1, 64))
    }
}

fn reply(key: &ServiceKey, service: &Service, there: u128, tag: Tag, backend: &Backend) -> (Key, Content) {
    let port = if backend.port.host() == 0 { key.port } else { backend.port };
    let from = [number(backend.address), u128::from(port.host()), u128::from(key.protocol)];
    let values = [
        number(key.address),
        u128::from(key.port.host()),
        u128::from(service.id),
        there,
        u128::from(service.affinity),
        u128::from(key_mask(key, service)),
        u128::from(tag.slot),
        u128::from(tag.generation),
    ];
    (Key::exact(Table::Replies, from), Content::of(values))
}

/// Where the segment of a payload is: how far the window is shifted, what is kept, and how many bytes it takes.
fn segment(rules: &AffinityRules) -> [u128; 3] {
    let end = u32::from(rules.offset) + u32::from(rules.length);
    let kept = rules.mask.iter().take(rules.length.into());
    let mask = kept.fold(0_u128, |mask, byte| mask << 8 | u128::from(*byte));
    [u128::from(switch::WINDOW.saturating_sub(end) * 8), mask, u128::from(end)]
}

/// An address as the program has it.
pub(super) fn number(address: Addr) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// A MAC address as a number.
pub(super) fn mac(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}
