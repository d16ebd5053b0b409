//! What the tables should hold, or do hold, but for the arena.

use super::{PeerRing, ResolvedHop, health::Healths, ramp::Ramps};
use lb_common::abi::{
    Addr, AffinityRules, Backend, Be16, FlowKey, Mode, Peer, QuicConfig, Secrets, Service, ServiceKey,
    Settings, SettingsFlags, Status, VLAN_KEEP, VLAN_NONE,
};
use lb_core::pool::{
    BackendSpec, Desired, NodeSpec, PoolSpec, ServiceSpec, Vlan,
    layout::{BackendPlan, ServicePlan},
    row::{self, nanoseconds},
    secret::{self, Clocks},
    status,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// Content of every table that the reconciler writes, but for the arena: new selection tables go where none
/// stands, so nothing has to be taken back there.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Image {
    /// Without what the data plane itself decides.
    pub(super) settings: Settings,
    /// Services, and the entries that mark VIPs and services that are alone on theirs.
    pub(super) services: HashMap<ServiceKey, Service>,
    /// Slots with an owner; and freed ones, in an image that was read, for their generation.
    pub(super) backends: BTreeMap<u16, Backend>,
    /// Words that are not 0.
    pub(super) statuses: BTreeMap<u32, u64>,
    /// Rules of affinities that have some, by service slot.
    pub(super) affinities: BTreeMap<u16, AffinityRules>,
    /// Configurations of QUIC connection ids in use, by [`QuicConfig::place`].
    pub(super) quic: BTreeMap<u32, QuicConfig>,
    /// Keys that packets are checked with.
    pub(super) secrets: Secrets,
    /// The other nodes.
    pub(super) peers: Vec<Peer>,
    /// Marks of the backends of spliced services.
    pub(super) marks: HashSet<FlowKey>,
    pub(super) devices: BTreeSet<u32>,
    pub(super) attached: BTreeSet<String>,
}

/// What the world says beside the desired state.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct World {
    /// Ways to backend addresses.
    pub(super) hops: HashMap<IpAddr, ResolvedHop>,
    /// What health checks say; backends that they do not speak of count as healthy.
    pub(super) health: Healths,
    /// Who has come back and gets his share of sessions bit by bit.
    pub(super) ramps: Ramps,
    /// Interfaces that packets come in on, by index, and their MTU.
    pub(super) ingress: BTreeMap<u32, u32>,
    /// What the clocks say.
    pub(super) clocks: Clocks,
    /// The other nodes; `None` = nobody has said who they are.
    pub(super) ring: Option<PeerRing>,
    /// Whether there were any when this process took over.
    pub(super) had_peers: bool,
    /// Tunnel sources that were used last, until routes say better.
    pub(super) tunnel: [Addr; 2],
}

/// MTU of Ethernet.
const USUAL_MTU: u16 = 1_500;

impl World {
    /// The least MTU of the links of clients and of a service's backends, as far as they are known.
    fn mtu(&self, pools: &[PoolSpec]) -> u16 {
        let backends = pools.iter().flat_map(|pool| &pool.service.backends);
        let hops = backends.filter_map(|backend| self.hops.get(&backend.address)).map(|way| way.hop.mtu);
        let ingress = self.ingress.values().map(|&mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
        hops.chain(ingress).filter(|&mtu| mtu > 0).min().unwrap_or(USUAL_MTU)
    }

    /// The mark of a source-NAT address that is the balancer's alone.
    ///
    /// What comes for one that this host itself connects from may be meant for the host, health checks above all, and
    /// the host resets what is not.
    fn source_mark(&self, service: &ServiceSpec) -> Option<FlowKey> {
        let source =
            service.source.filter(|&source| self.hops.values().all(|way| way.source != Some(source)))?;
        Some(FlowKey::mark(source.into(), Be16::default()))
    }

    /// Whether another node may know what this one does not.
    fn has_peers(&self) -> bool {
        self.ring.as_ref().map_or(self.had_peers, |ring| !ring.nodes.is_empty())
    }

    fn tunnel_source(&self, desired: &Desired, v4: bool) -> Addr {
        let spec = &desired.node;
        let given = if v4 { spec.tunnel_v4.map(Addr::from) } else { spec.tunnel_v6.map(Addr::from) };
        let tunnels =
            desired.services.iter().filter(|service| matches!(service.mode, Mode::Ipip | Mode::Gue));
        let addresses = tunnels.flat_map(|service| service.backends.iter().map(|backend| backend.address));
        // The lowest address decides, so that the order of the configuration does not matter.
        let family: BTreeSet<IpAddr> = addresses.filter(|address| address.is_ipv4() == v4).collect();
        let learned = family.iter().find_map(|address| self.hops.get(address)?.source);
        let learned = learned.filter(|source| source.is_ipv4() == v4).map(Addr::from);
        given.or(learned).unwrap_or(self.tunnel[usize::from(!v4)])
    }
}

impl Image {
    /// What the tables should hold; `pools` are those of `desired` and `places` theirs, in their order.
    pub(super) fn build(
        desired: &Desired,
        pools: &[PoolSpec],
        places: &[ServicePlan],
        world: &World,
    ) -> Self {
        let mut image = Self {
            settings: settings(desired, world),
            devices: world.ingress.keys().copied().collect(),
            secrets: desired.node.secrets.keys(world.clocks),
            peers: world.ring.as_ref().map(|ring| ring.rows(&world.hops)).unwrap_or_default(),
            attached: desired.node.interfaces.iter().cloned().collect(),
            ..Self::default()
        };
        image.devices.extend(image.peers.iter().map(|peer| peer.hop.ifindex));
        let mut on_vip = HashMap::new();
        for service in &desired.services {
            *on_vip.entry((service.address, service.protocol)).or_insert(0_u32) += 1;
        }
        for (index, (pool, place)) in pools.iter().zip(places).enumerate() {
            let service = &pool.service;
            if pool.prefix.is_none() {
                let is_alone = on_vip.get(&(service.address, service.protocol)) == Some(&1);
                let of_paths = pools[index + 1..].iter().take_while(|pool| pool.prefix.is_some()).count();
                image.add_service(&pools[index..=index + of_paths], place, is_alone, world);
            }
            let used = world.health.judge(service).used;
            for ((backend, place), used) in service.backends.iter().zip(&place.backends).zip(used) {
                let row = self::backend(service, backend, place, world);
                if row.hop.ifindex != 0 {
                    image.devices.insert(row.hop.ifindex);
                }
                image.backends.insert(place.slot, row);
                if service.is_spliced() {
                    image.marks.insert(FlowKey::mark(row.address, row.port));
                    image.marks.extend(world.source_mark(service));
                }
                let status = status::effective(backend.admin, backend.weight, used);
                let bits = image.status_word(Status::word(place.slot));
                image.put_status(Status::word(place.slot), status.set(bits, place.slot));
            }
        }
        image
    }

    /// Adds what is looked up by the address and slot of the service whose pools these are.
    fn add_service(&mut self, pools: &[PoolSpec], place: &ServicePlan, is_alone: bool, world: &World) {
        let Some(PoolSpec { service, .. }) = pools.first() else { return };
        let row = row::service(service, place);
        self.services.insert(key(service), row);
        self.services.insert(ServiceKey::vip(service.address.into()), Service::default());
        if is_alone {
            // Fragments without ports can only be for this service.
            let alone = ServiceKey::alone(service.address.into(), service.protocol.number());
            self.services.insert(alone, row);
        }
        let rules = row::rules(service, place, row::mss(service, world.mtu(pools)));
        self.affinities.extend(rules.map(|rules| (place.slot, rules)));
        for configuration in service.affinity.quic().into_iter().flat_map(|quic| &quic.configurations) {
            let entry = QuicConfig::new(configuration.layout, configuration.key.as_ref());
            self.quic.extend(QuicConfig::place(place.slot, configuration.rotation).map(|at| (at, entry)));
        }
    }

    /// A status word.
    pub(super) fn status_word(&self, word: u32) -> u64 {
        self.statuses.get(&word).copied().unwrap_or_default()
    }

    /// Replaces a status word.
    pub(super) fn put_status(&mut self, word: u32, bits: u64) {
        if bits == 0 {
            self.statuses.remove(&word);
        } else {
            self.statuses.insert(word, bits);
        }
    }
}

/// What may be compared and written of settings: the rest is the data plane's.
pub(super) fn own(settings: &Settings) -> Settings {
    const THEIRS: u32 = SettingsFlags::TX_BY_REDIRECT | SettingsFlags::MIGRATING;
    Settings {
        schema: 0,
        flags: settings.flags & !THEIRS,
        binding_capacity: 0,
        binding_buckets: 0,
        half_open: 0,
        flows: 0,
        version: 0,
        tick: 0,
        holds: 0,
        cpu_holds: 0,
        seed: 0,
        ..*settings
    }
}

/// What a service's packets are looked up by.
pub(super) fn key(service: &ServiceSpec) -> ServiceKey {
    ServiceKey::service(service.address.into(), Be16::new(service.port), service.protocol.number())
}

fn settings(desired: &Desired, world: &World) -> Settings {
    let NodeSpec { session_secret, other_secret, gue_port, timeouts, limits, .. } = &desired.node;
    let flag = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
    let services = &desired.services;
    own(&Settings {
        flags: flag(SettingsFlags::NAT, services.iter().any(|service| service.mode == Mode::Nat))
            | flag(SettingsFlags::ANY_PORT, services.iter().any(|service| service.port == 0))
            | flag(SettingsFlags::PEERS, world.has_peers())
            | flag(SettingsFlags::TWO_SECRETS, other_secret.is_some()),
        first_secret: secret::words(session_secret),
        second_secret: other_secret.as_ref().map(secret::words).unwrap_or_default(),
        tunnel_v4: world.tunnel_source(desired, true),
        tunnel_v6: world.tunnel_source(desired, false),
        gue_port: (*gue_port).into(),
        answer_rate: limits.answer_rate,
        prefix_quota: limits.prefix_quota,
        prefix_window: u32::try_from(limits.prefix_window.as_secs()).unwrap_or(u32::MAX).max(1),
        tcp_half_open: nanoseconds(timeouts.tcp_half_open),
        tcp_established: nanoseconds(timeouts.tcp_established),
        tcp_closing: nanoseconds(timeouts.tcp_closing),
        tcp_reset: nanoseconds(timeouts.tcp_reset),
        udp_new: nanoseconds(timeouts.udp_new),
        udp_established: nanoseconds(timeouts.udp_established),
        head_timeout: nanoseconds(timeouts.request_head),
        connect_timeout: nanoseconds(timeouts.connect),
        ..Settings::default()
    })
}

fn backend(service: &ServiceSpec, spec: &BackendSpec, place: &BackendPlan, world: &World) -> Backend {
    let way = world.hops.get(&spec.address);
    Backend {
        address: spec.address.into(),
        hop: way.map(|way| way.hop).unwrap_or_default(),
        number: spec.number,
        service: service.id,
        port: Be16::new(spec.port),
        generation: place.generation,
        vlan: match spec.vlan {
            Vlan::Auto => way.and_then(|way| way.vlan).unwrap_or(VLAN_KEEP),
            Vlan::Untagged => VLAN_NONE,
            Vlan::Tagged(tag) => tag,
        },
        weight: world.ramps.weight(&service.name, spec),
        limit: spec.limit,
    }
}
