//! A case's tables as the data plane has them.

use super::case::{
    BackendData, BindingData, Case, HexBytes, HopData, PeerData, ServiceData, SettingsData, VlanData,
};
use super::rules::{RulesData, SecretsData, ServerData, words};
use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{
    Addr, Affinity, AffinityRules, BINDING_PROBES, Backend, Be16, BindingBucket, BindingKey, BindingPath,
    BindingSlot, BindingWord, FlowKey, Hop, Mac, Method, Mode, PathRule, Peer, QuicConfig, SCHEMA_VERSION,
    Secrets, Server, Service, ServiceFlags, ServiceKey, Settings, SettingsFlags, Status, VLAN_KEEP,
    VLAN_NONE, Vitals, binding_buckets,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where bindings are in the table.
const SEED: u64 = 0x0123_4567_89ab_cdef;
const SECOND: u64 = 1_000_000_000;

/// Holds of CPUs, as many as a test machine may have.
pub(super) const CPU_HOLDS: u32 = 64;
/// Holds at most.
pub(super) const MOST_HOLDS: u32 = CPU_HOLDS + 16;
/// Interfaces that packets can be redirected to.
pub(super) const DEVICES: [u32; 3] = [11, 12, 13];

/// MTU of an interface; 13 is a narrow link.
pub(super) const fn mtu(ifindex: u32) -> u16 {
    if ifindex == 13 { 1_280 } else { 1_500 }
}

/// Everything that is in the maps when a case begins.
#[derive(Clone, Debug)]
pub struct Tables {
    /// What holds for the node.
    pub settings: Settings,
    /// Services with their keys, without markers.
    services: Vec<(ServiceKey, Service)>,
    service_slots: Vec<u16>,
    /// Backends by slot.
    pub backends: BTreeMap<u16, Backend>,
    /// Words of the status map.
    pub status: BTreeMap<u32, u64>,
    /// The arena, slot by slot.
    pub arena: Vec<u16>,
    /// Bindings, with nanoseconds from the start until they end.
    pub bindings: Vec<(BindingKey, BindingWord, i64)>,
    /// What services take their session keys by, by service slot.
    pub affinities: BTreeMap<u16, AffinityRules>,
    /// Marks of servers.
    pub servers: Vec<Server>,
    /// Path rules.
    pub path_rules: Vec<PathRule>,
    /// Configurations of QUIC connection ids, by place in the map.
    pub quic: BTreeMap<u32, QuicConfig>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// What is noted of backends at the start, by slot.
    vitals: BTreeMap<u16, Vitals>,
    /// Keys that packets are checked with.
    secrets: SecretsData,
}

/// What one step changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// A word of the status map.
    Status(u32, u64),
    /// A backend slot.
    Backend(u16, Backend),
    /// The services, all of them.
    Services(Vec<(ServiceKey, Service)>),
    /// The secrets of the session-key hash: the one in use and the other.
    SessionSecrets([u64; 2], [u64; 2]),
}

impl Tables {
    /// The tables of a case.
    pub fn of(case: &Case, defaults: &Map<String, Value>) -> Result<Self> {
        let mut merged = defaults.clone();
        merged.extend(case.settings.clone());
        let data: SettingsData = serde_json::from_value(Value::Object(merged)).context("settings")?;
        let mut tables = Self {
            settings: settings(&data)?,
            services: Vec::new(),
            service_slots: case.services.iter().map(|service| service.slot).collect(),
            backends: BTreeMap::new(),
            status: BTreeMap::new(),
            arena: Vec::new(),
            bindings: case.bindings.iter().map(binding).collect::<Result<_>>()?,
            affinities: BTreeMap::new(),
            servers: Vec::new(),
            path_rules: Vec::new(),
            quic: BTreeMap::new(),
            peers: case.peers.iter().map(|data| peer(data, case.peers.len())).collect::<Result<_>>()?,
            vitals: case.backends.iter().map(|data| (data.slot, vitals(data))).collect(),
            secrets: data.secrets,
        };
        for data in &case.services {
            let mut service = tables.service(data).with_context(|| format!("service {}", data.id))?;
            if case.backends.iter().any(|backend| backend.service == data.id && backend.limit > 0) {
                service.flags |= ServiceFlags::LIMITED;
            }
            tables.services.push((key(data), service));
            tables.affinity_rules(data, &service).with_context(|| format!("rules of service {}", data.id))?;
        }
        for data in &case.backends {
            tables
                .backends
                .insert(data.slot, backend(data).with_context(|| format!("backend {}", data.slot))?);
            tables.set_status(data.slot, &data.status)?;
        }
        Ok(tables)
    }

    /// Entries of the service map: services, marks of VIPs and only services.
    pub fn service_entries(&self) -> Vec<(ServiceKey, Service)> {
        let mut entries = self.services.clone();
        let mut only: BTreeMap<(Addr, u8), Vec<Service>> = BTreeMap::new();
        for (key, service) in &self.services {
            entries.push((ServiceKey::vip(key.address), Service::default()));
            only.entry((key.address, key.protocol)).or_default().push(*service);
        }
        for ((address, protocol), services) in only {
            if let [service] = services[..] {
                entries.push((ServiceKey::alone(address, protocol), service));
            }
        }
        entries
    }

    /// The table of bindings as the case begins.
    pub fn binding_table(&self, now: u64) -> Result<Vec<BindingBucket>> {
        let buckets = self.settings.binding_buckets;
        let mut table = vec![BindingBucket::default(); buckets as usize];
        for (key, word, left) in &self.bindings {
            let path = BindingPath::new(key, self.settings.seed, buckets);
            let mut probes = 0;
            let slot = loop {
                ensure!(probes < BINDING_PROBES, "no room for binding {key:?}");
                let bucket = &mut table[path.bucket(probes) as usize].0;
                if let Some(free) = bucket.iter().position(|slot| slot.word == 0) {
                    break &mut bucket[free];
                }
                bucket[0].passed += 1;
                probes += 1;
            };
            *slot = BindingSlot {
                session: key.session,
                // One that is claimed by another CPU is nobody's.
                word: if word.has(BindingWord::DEAD) {
                    word.claimed().0
                } else {
                    BindingWord::default().with_content(*word).0
                },
                expires: now.saturating_add_signed(*left),
                service: key.service,
                passed: slot.passed,
                home: 0,
            };
        }
        Ok(table)
    }

    /// Slots of services, for their counters; those of services that were taken away too.
    pub fn service_slots(&self) -> &[u16] {
        &self.service_slots
    }

    /// Whether some service is not TCP.
    pub fn has_datagrams(&self) -> bool {
        self.services.iter().any(|(key, _)| key.protocol != 6)
    }

    /// What is noted of a backend; times were measured `now`, so that they count in full.
    pub fn vitals(&self, slot: u16, now: u64) -> Vitals {
        Vitals { accepted: now, ..self.vitals.get(&slot).copied().unwrap_or_default() }
    }

    /// Whether some service remembers where new sessions went.
    pub fn has_methods(&self) -> bool {
        let order = Method::Order as u8;
        self.services.iter().any(|(_, s)| s.method != order || s.flags & ServiceFlags::LIMITED != 0)
    }

    /// Whether XDP has flows of some service.
    pub fn has_flows(&self) -> bool {
        self.services.iter().any(|(_, service)| service.mode == Mode::Nat as u8)
    }

    /// Whether some service may hold bytes.
    pub fn has_holds(&self) -> bool {
        self.services.iter().any(|(_, service)| service.flags & ServiceFlags::SPLICE != 0)
    }

    /// Keys that packets are checked with, when the programs' clock shows `now`.
    pub fn secrets(&self, now: u64) -> Result<Secrets> {
        self.secrets.entry(now)
    }

    /// Keys that mark the backends of services with delayed binding in the flow index, as `lbd` keeps them there.
    pub fn marks(&self) -> Vec<FlowKey> {
        let spliced: Vec<u32> = self
            .services
            .iter()
            .filter(|(_, s)| s.flags & ServiceFlags::SPLICE != 0)
            .map(|(_, s)| s.id)
            .collect();
        let backends = self.backends.values().filter(|backend| spliced.contains(&backend.service));
        let sources = self.services.iter().map(|(_, service)| service).filter(|service| {
            service.flags & ServiceFlags::SPLICE != 0 && service.flags & ServiceFlags::SNAT != 0
        });
        let sources = sources.map(|service| FlowKey::mark(service.source, Be16::new(0)));
        backends.map(|backend| FlowKey::mark(backend.address, backend.port)).chain(sources).collect()
    }

    /// Takes a service away.
    pub fn remove_service(&mut self, id: u32) -> Change {
        self.services.retain(|(_, service)| service.id != id);
        Change::Services(self.service_entries())
    }

    /// Changes the secret of the session-key hash.
    pub fn set_secrets(&mut self, in_use: &HexBytes, other: &HexBytes) -> Result<Change> {
        let (in_use, other) = (words(&in_use.0)?, words(&other.0)?);
        self.settings = with_secrets(self.settings, in_use, other);
        Ok(Change::SessionSecrets(in_use, other))
    }

    /// Writes a backend slot anew.
    pub fn replace_backend(&mut self, data: &BackendData) -> Result<Change> {
        let new = backend(data)?;
        self.backends.insert(data.slot, new);
        Ok(Change::Backend(data.slot, new))
    }

    /// Changes a backend's status.
    pub fn set_status(&mut self, slot: u16, name: &str) -> Result<Change> {
        let status = match name {
            "up" => Status::Up,
            "draining" => Status::Draining,
            "down" => Status::Down,
            other => bail!("no status: {other}"),
        };
        let word = self.status.entry(Status::word(slot)).or_default();
        *word = status.set(*word, slot);
        Ok(Change::Status(Status::word(slot), *word))
    }

    fn service(&mut self, data: &ServiceData) -> Result<Service> {
        ensure!(
            data.table.is_empty() || data.table.len().is_power_of_two(),
            "table of {} slots",
            data.table.len()
        );
        let table = self.append(&data.table)?;
        let members = self.append(&data.members)?;
        Ok(Service {
            id: data.id,
            slot: data.slot,
            mode: match data.mode.as_str() {
                "nat" => Mode::Nat,
                "l2" => Mode::L2,
                "ipip" => Mode::Ipip,
                "gue" => Mode::Gue,
                other => bail!("no mode: {other}"),
            } as u8,
            affinity: match data.affinity.as_str() {
                "none" => Affinity::None,
                "source-ip" => Affinity::SourceIp,
                "http-cookie" => Affinity::HttpCookie,
                "quic-cid" => Affinity::QuicCid,
                "payload" => Affinity::Payload,
                other => bail!("no affinity: {other}"),
            } as u8,
            table,
            table_mask: u32::try_from(data.table.len().saturating_sub(1))?,
            members,
            member_count: u32::try_from(data.members.len())?,
            prefix_v4: data.prefix_v4,
            prefix_v6: data.prefix_v6,
            flags: service_flags(data),
            binding_rate: data.binding_rate,
            lifetime: data.lifetime * SECOND,
            source: data.source.map_or(Addr::NONE, Addr::from),
            mss: data.mss,
            method: match data.method.as_deref() {
                None | Some("order") => Method::Order,
                Some("two-choices") => Method::TwoChoices,
                Some("least-connections") => Method::LeastConnections,
                Some("least-time") => Method::LeastTime,
                Some(other) => bail!("no method: {other}"),
            } as u8,
            ..Service::default()
        })
    }

    /// Fills in what a service takes its session keys by.
    fn affinity_rules(&mut self, data: &ServiceData, service: &Service) -> Result<()> {
        if let Some(rules) = &data.rules {
            let (servers, paths) =
                (u32::try_from(self.servers.len())?, u32::try_from(self.path_rules.len())?);
            self.affinities.insert(data.slot, rules.entry(servers, paths)?);
            self.servers.extend(rules.servers());
            self.paths(rules, service)?;
        }
        for config in &data.quic {
            let (place, entry) = config.entry(data.slot)?;
            self.quic.insert(place, entry);
        }
        Ok(())
    }

    fn paths(&mut self, rules: &RulesData, service: &Service) -> Result<()> {
        for path in &rules.paths {
            let table = self.append(&path.table)?;
            let members = self.append(&path.members)?;
            let servers = u32::try_from(self.servers.len())?;
            self.servers.extend(path.servers.iter().map(ServerData::entry));
            self.path_rules.push(path.entry(service, (table, members, servers))?);
        }
        Ok(())
    }

    fn append(&mut self, slots: &[u16]) -> Result<u32> {
        let first = u32::try_from(self.arena.len())?;
        self.arena.extend(slots);
        Ok(first)
    }
}

fn service_flags(data: &ServiceData) -> u16 {
    let snat = if data.source.is_some() { ServiceFlags::SNAT } else { 0 };
    let read_late = matches!(data.affinity.as_str(), "http-cookie" | "payload");
    let spliced = data.mode == "nat" && data.protocol == 6 && read_late;
    snat | if spliced { ServiceFlags::SPLICE } else { 0 }
}

fn key(data: &ServiceData) -> ServiceKey {
    ServiceKey::service(data.address.into(), Be16::new(data.port), data.protocol)
}

fn settings(data: &SettingsData) -> Result<Settings> {
    ensure!(data.holds <= MOST_HOLDS - CPU_HOLDS, "{} holds", data.holds);
    let mut flags = 0;
    for flag in &data.flags {
        flags |= match flag.as_str() {
            "tx-by-redirect" => SettingsFlags::TX_BY_REDIRECT,
            "nat" => SettingsFlags::NAT,
            "any-port" => SettingsFlags::ANY_PORT,
            "migrating" => SettingsFlags::MIGRATING,
            "peers" => SettingsFlags::PEERS,
            other => bail!("no flag of the settings: {other}"),
        };
    }
    let mut second_secret = [0; 2];
    if !data.other_secret.is_empty() {
        flags |= SettingsFlags::TWO_SECRETS;
        second_secret = words(&data.other_secret)?;
    }
    Ok(Settings {
        schema: SCHEMA_VERSION,
        flags,
        binding_capacity: data.binding_capacity,
        binding_buckets: binding_buckets(data.binding_capacity),
        seed: SEED,
        half_open: data.half_open,
        flows: data.flows,
        first_secret: words(&data.secret)?,
        tunnel_v4: data.tunnel_v4.into(),
        tunnel_v6: data.tunnel_v6.into(),
        gue_port: data.gue_port.into(),
        answer_rate: data.answer_rate,
        prefix_quota: data.prefix_quota,
        prefix_window: data.prefix_window,
        tcp_half_open: data.tcp_half_open * SECOND,
        tcp_established: data.tcp_established * SECOND,
        tcp_closing: data.tcp_closing * SECOND,
        tcp_reset: data.tcp_reset * SECOND,
        udp_new: data.udp_new * SECOND,
        udp_established: data.udp_established * SECOND,
        // Executors with caches and tick clocks put theirs.
        version: 1,
        tick: 0,
        head_timeout: data.head_timeout * SECOND,
        connect_timeout: data.connect_timeout * SECOND,
        holds: CPU_HOLDS + data.holds,
        cpu_holds: CPU_HOLDS,
        second_secret,
    })
}

/// The settings after a change of the secret of the session-key hash.
pub(super) fn with_secrets(settings: Settings, in_use: [u64; 2], other: [u64; 2]) -> Settings {
    let flags = (settings.flags | SettingsFlags::TWO_SECRETS) & !SettingsFlags::SECOND_IN_USE;
    Settings { flags, first_secret: in_use, second_secret: other, ..settings }.placed_like(&settings)
}

fn backend(data: &BackendData) -> Result<Backend> {
    Ok(Backend {
        address: data.address.into(),
        hop: hop(&data.hop)?,
        number: data.number,
        service: data.service,
        port: Be16::new(data.port),
        generation: data.generation,
        vlan: match &data.vlan {
            VlanData::Tag(id) => *id,
            VlanData::Word(word) if word == "keep" => VLAN_KEEP,
            VlanData::Word(word) if word == "none" => VLAN_NONE,
            VlanData::Word(other) => bail!("no VLAN: {other}"),
        },
        weight: data.weight,
        limit: data.limit,
    })
}

fn vitals(data: &BackendData) -> Vitals {
    Vitals { connections: data.connections, response: data.response * 1_000_000, ..Vitals::default() }
}

fn hop(data: &HopData) -> Result<Hop> {
    Ok(Hop {
        destination: mac(&data.destination)?,
        mtu: data.mtu,
        source: mac(&data.source)?,
        ifindex: data.ifindex,
        ..Hop::default()
    })
}

fn peer(data: &PeerData, count: usize) -> Result<Peer> {
    Ok(Peer {
        id: data.id,
        own: data.own,
        address: data.address.into(),
        source: data.source.into(),
        hop: hop(&data.hop)?,
        vlan: data.vlan,
        port: Be16::new(data.port),
        rate: data.rate,
        count: u32::try_from(count)?,
        pad: 0,
    })
}

fn binding(data: &BindingData) -> Result<(BindingKey, BindingWord, i64)> {
    let mut word = BindingWord::new(data.backend, data.slot_generation, data.generation);
    for flag in &data.flags {
        word = word.with(match flag.as_str() {
            "pinned" => BindingWord::PINNED,
            "dead" => BindingWord::DEAD,
            other => bail!("no flag of a binding: {other}"),
        });
    }
    Ok((BindingKey::new(data.service, data.session), word, data.expires * 1_000_000_000))
}

pub(super) fn mac(text: &str) -> Result<Mac> {
    let parts = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<_>, _>>()?;
    Ok(Mac(parts.try_into().ok().context("a MAC address has six parts")?))
}

/// An address of the abi in its usual form.
pub(super) fn ip(address: Addr) -> IpAddr {
    address.into()
}
