mod health;

use super::*;
use crate::dataplane::{
    Attachment, Capabilities, CounterSlot, Cursor, Operation, Page, Traffic, Usage,
    chaos::{Chaos, Faults},
    memory::Memory,
};
use crate::reconcile::ResolvedHop;
use lb_common::abi::{
    Addr, AffinityRules, ArenaChunk, Backend, Binding, BindingEvent, BindingKey, BindingRecord, Flow,
    FlowKey, Hop, Mac, Mode, OnMismatch, PathRule, Peer, QuicConfig, Reading, RebindReport, RebindRequest,
    RecordResult, Secrets, Server, Service, ServiceFlags, ServiceKey, Settings, SettingsFlags, Status,
    SweepReport, SweepRequest, Vitals,
};
use lb_common::affinity::quic::Layout;
use lb_core::pool::{
    Admin, AffinitySpec, BackendSpec, CookieSpec, Fallback, Limits, NodeSpec, PathSpec, PayloadSpec,
    Protocol, QuicConfiguration, QuicSpec, ServiceSpec, Timeouts, Vlan,
};
use proptest::prelude::*;
use std::{
    net::Ipv4Addr,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

const SIZES: Sizes = Sizes { bindings: 1_024, flows: 1_024, arena: 256, holds: 64 };

/// A chaotic data plane that the test keeps a hand on.
#[derive(Clone)]
struct Shared(Arc<Mutex<Chaos>>);

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Chaos::new(Memory::new(SIZES)))))
    }

    fn lock(&self) -> MutexGuard<'_, Chaos> {
        self.0.lock().expect("no test panics while holding it")
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        impl DataPlane for Shared {
            fn capabilities(&self) -> Capabilities { self.lock().capabilities() }
            fn sizes(&self) -> Sizes { self.lock().sizes() }
            fn event_fd(&self) -> Option<BorrowedFd<'_>> { None }
            $(fn $name(&mut self, $($arg: $ty),*) -> dataplane::Result<$out> { self.lock().$name($($arg),*) })*
        }
    };
}

forward! {
    resize(sizes: &Sizes) -> Migration;
    settings() -> Settings;
    put_settings(settings: &Settings) -> ();
    services() -> Vec<(ServiceKey, Service)>;
    put_service(key: &ServiceKey, service: &Service) -> ();
    delete_service(key: &ServiceKey) -> ();
    backends() -> Vec<(u16, Backend)>;
    put_backend(slot: u16, backend: &Backend) -> ();
    statuses() -> Vec<u64>;
    put_status(word: u32, bits: u64) -> ();
    arena(start: u32, count: u32) -> Vec<ArenaChunk>;
    put_arena(start: u32, chunks: &[ArenaChunk]) -> ();
    affinities() -> Vec<(u16, AffinityRules)>;
    put_affinity(slot: u16, rules: &AffinityRules) -> ();
    servers(start: u32, count: u32) -> Vec<Server>;
    put_servers(start: u32, servers: &[Server]) -> ();
    paths(start: u32, count: u32) -> Vec<PathRule>;
    put_paths(start: u32, rules: &[PathRule]) -> ();
    quic() -> Vec<(u32, QuicConfig)>;
    put_quic(place: u32, configuration: &QuicConfig) -> ();
    secrets() -> Secrets;
    put_secrets(secrets: &Secrets) -> ();
    has_mark(mark: &FlowKey) -> bool;
    put_mark(mark: &FlowKey) -> ();
    delete_mark(mark: &FlowKey) -> ();
    devices() -> Vec<u32>;
    put_device(ifindex: u32) -> ();
    delete_device(ifindex: u32) -> ();
    attachments() -> Vec<Attachment>;
    attach(interface: &str) -> Attachment;
    detach(interface: &str) -> ();
    detach_all() -> ();
    bindings(cursor: Option<Cursor>, limit: usize) -> Page<(BindingKey, Binding)>;
    binding(key: &BindingKey) -> Option<Binding>;
    apply_bindings(records: &[BindingRecord]) -> Vec<RecordResult>;
    flows(cursor: Option<Cursor>, limit: usize) -> Page<Flow>;
    adopt(flows: &[Flow]) -> Vec<RecordResult>;
    counters(services: &[u16], backends: &[u16]) -> Traffic;
    vitals(backends: &[u16]) -> Vec<Vitals>;
    clear_counters(slot: CounterSlot) -> ();
    outcomes() -> Vec<u64>;
    usage() -> Usage;
    rebind(request: &RebindRequest) -> RebindReport;
    sweep(request: &SweepRequest) -> SweepReport;
    peers() -> Vec<Peer>;
    put_peers(peers: &[Peer]) -> ();
    events(limit: usize) -> Vec<BindingEvent>;
}

mod history;
mod marks;
mod peers;
mod rebind;

fn desired(services: Vec<ServiceSpec>) -> Desired {
    Desired {
        node: NodeSpec {
            interfaces: vec!["eth0".into()],
            bindings: SIZES.bindings,
            flows: SIZES.flows,
            held: SIZES.holds,
            session_secret: [7; 16],
            other_secret: None,
            secrets: Default::default(),
            tunnel_v4: None,
            tunnel_v6: None,
            gue_port: 6_080,
            timeouts: Timeouts {
                tcp_half_open: Duration::from_secs(5),
                tcp_established: Duration::from_secs(3_600),
                tcp_closing: Duration::from_secs(60),
                tcp_reset: Duration::from_secs(5),
                udp_new: Duration::from_secs(30),
                udp_established: Duration::from_secs(120),
                request_head: Duration::from_secs(20),
                connect: Duration::from_secs(10),
            },
            limits: Limits {
                answer_rate: 1_000,
                prefix_quota: 0,
                prefix_window: Duration::from_secs(10),
                drain_rate: 10_000,
            },
        },
        services,
    }
}

fn service(id: u32, mode: Mode, backends: Vec<BackendSpec>) -> ServiceSpec {
    ServiceSpec {
        name: format!("s{id}"),
        id,
        address: Ipv4Addr::new(10, 99, 0, (id / 4) as u8 + 1).into(),
        port: 80 + (id % 4) as u16,
        protocol: Protocol::Tcp,
        mode,
        affinity: AffinitySpec::SourceIp { v4: 32, v6: 64 },
        lifetime: Duration::from_secs(600),
        binding_rate: 10_000,
        source: None,
        mss: None,
        proxy_protocol: false,
        method: lb_common::abi::Method::Order,
        slow_start: core::time::Duration::ZERO,
        mirror: None,
        consistency: lb_core::pool::Consistency::Tables,
        health: None,
        paths: Vec::new(),
        backends,
    }
}

fn backend(number: u64, weight: u32) -> BackendSpec {
    BackendSpec {
        name: format!("b{number}"),
        number,
        address: Ipv4Addr::new(10, 1, 0, number as u8).into(),
        port: 8_080,
        weight,
        admin: Admin::Enabled,
        vlan: Vlan::Auto,
        route: None,
        limit: 0,
        server_id: None,
    }
}

fn two_services() -> Desired {
    desired(vec![
        service(1, Mode::Nat, vec![backend(1, 100), backend(2, 100)]),
        service(2, Mode::Ipip, vec![backend(1, 100), backend(3, 0)]),
    ])
}

fn way(host: u8) -> ResolvedHop {
    let hop = Hop {
        destination: Mac([2, 0, 0, 0, 0, host]),
        mtu: 1_500,
        source: Mac([2, 0, 0, 0, 1, 0]),
        ifindex: 7,
        ..Hop::default()
    };
    ResolvedHop { hop, source: Some(Ipv4Addr::new(10, 1, 0, 254).into()), vlan: None }
}

fn node(plane: &Shared) -> Node {
    Node::recover(Box::new(plane.clone()), Overrides::default()).expect("empty tables can be read")
}

/// What the tables mean, free of slots and places.
#[derive(Clone, PartialEq, Debug)]
struct Meaning {
    settings: Settings,
    services: BTreeMap<Vec<u8>, ServiceMeaning>,
    devices: Vec<u32>,
    attached: Vec<String>,
    owners: usize,
    statuses_set: u32,
    secrets: Secrets,
    /// Rules of affinities that stand.
    affinities: usize,
    quic: Vec<String>,
    marks: BTreeSet<(Vec<u8>, u16)>,
}

#[derive(Clone, PartialEq, Debug)]
struct ServiceMeaning {
    row: Service,
    table: Vec<u64>,
    members: Vec<(Backend, Status)>,
    rules: AffinityRules,
    /// Mark and server number.
    servers: Vec<(u64, u64)>,
    paths: Vec<(Vec<u8>, Self)>,
}

fn meaning(plane: &Shared) -> Meaning {
    let mut chaos = plane.lock();
    let plane = chaos.inner();
    let backends: BTreeMap<u16, Backend> = plane.backends().expect("memory").into_iter().collect();
    let statuses = plane.statuses().expect("memory");
    let affinities: BTreeMap<u16, AffinityRules> = plane.affinities().expect("memory").into_iter().collect();
    let mut quic: Vec<String> = plane
        .quic()
        .expect("memory")
        .into_iter()
        .map(|(place, entry)| format!("{} {entry:?}", place % 8))
        .collect();
    quic.sort();
    let mut marks = BTreeSet::new();
    let mut services = BTreeMap::new();
    for (key, row) in plane.services().expect("memory") {
        let rules = affinities.get(&row.slot).filter(|_| key.kind != ServiceKey::VIP).copied();
        let rules = rules.unwrap_or_default();
        let of_paths = plane.paths(rules.paths, rules.path_count).expect("memory");
        let mut read = |row: Service, servers: (u32, u32)| {
            let mut places = Vec::new();
            if row.member_count > 0 {
                places = recovery::slots(plane, row.table, row.members + row.member_count).expect("memory");
            }
            let size = places.len() - row.member_count as usize;
            let members = places[size..].iter().map(|slot| {
                let word = statuses[Status::word(*slot) as usize];
                let status = match (Status::serves(word, *slot), Status::accepts(word, *slot)) {
                    (true, true) => Status::Up,
                    (true, false) => Status::Draining,
                    (false, _) => Status::Down,
                };
                assert_eq!(backends[slot].service, row.id, "a member of another pool");
                if row.flags & ServiceFlags::SPLICE != 0 {
                    let mark = FlowKey::mark(backends[slot].address, backends[slot].port);
                    assert!(plane.has_mark(&mark).expect("memory"), "a spliced backend without a mark");
                    marks.insert((mark.source.octets().to_vec(), mark.source_port.host()));
                }
                (Backend { generation: 0, ..backends[slot] }, status)
            });
            let members = members.collect();
            let servers = plane.servers(servers.0, servers.1).expect("memory");
            assert!(servers.is_sorted_by(|a, b| a.mark < b.mark), "marks are not sorted");
            let servers = servers.iter().map(|server| {
                let backend = backends[&server.backend];
                assert_eq!((backend.service, backend.generation), (row.id, server.generation));
                (server.mark, backend.number)
            });
            ServiceMeaning {
                table: places[..size].iter().map(|slot| backends[slot].number).collect(),
                members,
                row: Service { slot: 0, table: 0, members: 0, ..row },
                rules: AffinityRules::default(),
                servers: servers.collect(),
                paths: Vec::new(),
            }
        };
        let mut meaning = read(row, (rules.servers, rules.server_count));
        meaning.rules = AffinityRules { servers: 0, paths: 0, ..rules };
        for rule in of_paths {
            let prefix = rule.prefix[..rule.len.into()].to_vec();
            assert_eq!(rule.service.slot, row.slot, "a path counts for its service");
            meaning.paths.push((prefix, read(rule.service, (rule.servers, rule.server_count.into()))));
        }
        let name =
            [&key.address.octets()[..], &key.port.raw().to_ne_bytes(), &[key.protocol, key.kind]].concat();
        services.insert(name, meaning);
    }
    Meaning {
        settings: plane.settings().expect("memory"),
        services,
        devices: plane.devices().expect("memory"),
        attached: plane
            .attachments()
            .expect("memory")
            .into_iter()
            .map(|attached| attached.interface)
            .collect(),
        owners: backends.values().filter(|backend| backend.address != Addr::NONE).count(),
        secrets: plane.secrets().expect("memory"),
        affinities: affinities.len(),
        quic,
        marks,
        statuses_set: statuses.iter().map(|word| word.count_ones()).sum(),
    }
}

/// What a first and undisturbed application of that state means.
fn clean(desired: &Desired, ways: &[u8]) -> Meaning {
    let plane = Shared::new();
    let mut node = node(&plane);
    for &host in ways {
        node.hop(HopChange { address: Ipv4Addr::new(10, 1, 0, host).into(), hop: Some(way(host)) });
    }
    node.apply(desired.clone()).expect("nothing disturbs");
    meaning(&plane)
}

#[test]
fn the_first_application_fills_the_tables() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.hop(HopChange { address: Ipv4Addr::new(10, 1, 0, 1).into(), hop: Some(way(1)) });
    let report = node.apply(two_services()).expect("applied");
    assert_eq!(report.services_added, ["s1", "s2"]);
    assert_eq!(report.attached, ["eth0"]);
    let found = meaning(&plane);
    assert_eq!(found.owners, 4);
    assert_eq!(found.settings.flags, SettingsFlags::NAT);
    assert_eq!(found.settings.tunnel_v4, Addr::from(Ipv4Addr::new(10, 1, 0, 254)));
    assert!(found.devices.contains(&7));
    let ipip = found.services.values().find(|service| service.row.id == 2).expect("it is there");
    let statuses: Vec<Status> = ipip.members.iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses, [Status::Up, Status::Draining]);
    assert_eq!(ipip.row.flags & ServiceFlags::SNAT, 0);
    assert_eq!(ipip.row.lifetime, 600_000_000_000);
}

#[test]
fn only_differences_are_written() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(two_services()).expect("applied");
    assert_eq!(node.apply(two_services()).expect("applied").writes, 0);
    let mut changed = two_services();
    changed.services[0].backends[0].admin = Admin::Draining;
    let report = node.apply(changed).expect("applied");
    assert_eq!((report.writes, report.services_changed), (1, vec!["s1".to_owned()]));
}

#[test]
fn a_restart_finds_everything_and_writes_nothing() {
    let plane = Shared::new();
    let mut first = node(&plane);
    first.hop(HopChange { address: Ipv4Addr::new(10, 1, 0, 1).into(), hop: Some(way(1)) });
    first.apply(two_services()).expect("applied");
    let before = meaning(&plane);
    drop(first);
    let report = node(&plane).apply(two_services()).expect("applied");
    assert_eq!(report.writes, 0, "hops and tunnel sources hold until they are known anew");
    assert_eq!(meaning(&plane), before);
}

#[test]
fn overrides_come_before_the_configuration() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(two_services()).expect("applied");
    node.overrides = node.overrides.with_admin(("s1", "b1"), 1, Some(Admin::Disabled), None);
    node.apply(two_services()).expect("applied");
    let status =
        |plane: &Shared| meaning(plane).services.values().find(|s| s.row.id == 1).map(|s| s.members[0].1);
    assert_eq!(status(&plane), Some(Status::Down));
    node.overrides = Overrides::default();
    node.apply(two_services()).expect("applied");
    assert_eq!(status(&plane), Some(Status::Up));
}

#[test]
fn hops_and_health_show_at_once() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(health::checked_services()).expect("applied");
    let address = Ipv4Addr::new(10, 1, 0, 3).into();
    node.hop(HopChange { address, hop: Some(way(3)) });
    node.world.health.note(health::dead("s1", "b2"));
    node.follow_world();
    let found = meaning(&plane);
    assert!(found.services.values().flat_map(|s| &s.members).any(|(row, _)| row.hop == way(3).hop));
    let s1 = found.services.values().find(|service| service.row.id == 1).expect("there");
    assert_eq!(s1.members[1].1, Status::Down);
    node.hop(HopChange { address, hop: None });
    node.follow_world();
    assert!(
        meaning(&plane).services.values().flat_map(|s| &s.members).all(|(row, _)| row.hop == Hop::default())
    );
}

/// Another state that differs in everything: services come, go and change, tables grow.
fn other_services() -> Desired {
    let mut other = desired(vec![
        service(2, Mode::Gue, vec![backend(1, 50), backend(4, 100)]),
        service(3, Mode::L2, vec![backend(5, 1), backend(6, 2)]),
    ]);
    other.node.interfaces = vec!["eth0".into(), "eth1".into()];
    other.node.bindings = 2_048;
    other.node.gue_port = 9;
    other
}

/// Services whose affinity has rules, servers that can be named, and paths.
fn named_servers() -> Desired {
    let list = || vec![backend(1, 1), backend(2, 1)];
    let mut by_cookie = service(2, Mode::Nat, list());
    by_cookie.affinity = cookie(Reading::Route);
    by_cookie.paths = vec![path(2, 1, list()), path(2, 2, vec![backend(7, 1)])];
    let mut by_id = service(4, Mode::L2, list());
    (by_id.protocol, by_id.affinity) = (Protocol::Udp, quic(2));
    let mut state = desired(vec![by_cookie, by_id]);
    state.node.secrets.syn_cookie = [5; 16];
    state
}

/// The same services with others in everything that names servers.
fn other_named_servers() -> Desired {
    let mut state = named_servers();
    let [by_cookie, by_id] = &mut state.services[..] else { unreachable!("there are two") };
    by_cookie.affinity = cookie(Reading::Bind);
    by_cookie.paths.remove(0);
    by_cookie.paths[0].backends.push(backend(1, 1));
    by_cookie.backends[0].port = 9;
    by_id.affinity = quic(1);
    by_id.backends[1].server_id = Some(vec![9; 15]);
    state.node.secrets.syn_cookie = [6; 16];
    state
}

#[test]
fn whichever_write_fails_the_state_before_runs_on() {
    fail_everywhere(&two_services(), &other_services());
}

#[test]
fn whichever_write_fails_names_lead_to_the_servers_they_led_to() {
    fail_everywhere(&named_servers(), &other_named_servers());
}

/// Lets each call of the change from one state to another fail; of the many that write one table, the first and the last.
fn fail_everywhere(from: &Desired, to: &Desired) {
    let wanted = clean(to, &[]);
    let plane = Shared::new();
    let mut undisturbed = node(&plane);
    undisturbed.apply(from.clone()).expect("applied");
    plane.lock().set_faults(Faults::default());
    undisturbed.apply(to.clone()).expect("applied");
    let calls = plane.lock().calls().to_vec();
    let is_arena = |place: Option<usize>| place.and_then(|at| calls.get(at)) == Some(&Operation::PutArena);
    let inside = |at: usize| is_arena(at.checked_sub(1)) && is_arena(Some(at)) && is_arena(Some(at + 1));
    for (number, late) in (0..calls.len()).filter(|&at| !inside(at)).flat_map(|at| [(at, false), (at, true)])
    {
        let plane = Shared::new();
        let mut node = node(&plane);
        node.apply(from.clone()).expect("applied");
        let before = meaning(&plane);
        plane.lock().set_faults(Faults { calls: vec![number as u64], late, ..Faults::default() });
        let result = node.apply(to.clone());
        assert_eq!(plane.lock().failed(), 1, "call {number}");
        plane.lock().set_faults(Faults::default());
        match result {
            Err(ApplyError::RolledBack { .. }) => {
                let now = Meaning { devices: before.devices.clone(), ..meaning(&plane) };
                assert_eq!(now, before, "call {number}, late: {late}");
                assert!(!node.is_dirty());
            }
            // Reading what was attached failed after everything was written.
            Ok(_) => assert!(node.is_dirty(), "call {number}"),
            Err(other) => panic!("call {number}: {other}"),
        }
        node.apply(to.clone()).expect("a second attempt works");
        assert_eq!(meaning(&plane), wanted, "call {number}, late: {late}");
        let marks = plane.lock().inner().mark_count();
        assert_eq!(marks, wanted.marks.len(), "call {number}, late: {late}");
    }
    assert!(calls.len() > 20, "the change takes more than {} calls", calls.len());
}

#[test]
fn what_cannot_be_taken_back_is_repaired_later() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(two_services()).expect("applied");
    let before = meaning(&plane);
    plane.lock().set_faults(Faults { kinds: vec![Operation::Attach], ..Faults::default() });
    node.apply(other_services()).expect_err("refused");
    assert_eq!(Meaning { devices: before.devices.clone(), ..meaning(&plane) }, before);

    // Deleting what is gone fails, and so does deleting again what was added.
    let kinds = vec![Operation::DeleteService];
    plane.lock().set_faults(Faults { kinds: kinds.clone(), ..Faults::default() });
    let error = node.apply(other_services()).expect_err("refused");
    assert!(matches!(error, ApplyError::Repairing { .. }), "{error}");
    assert!(node.is_dirty());
    plane.lock().set_faults(Faults { kinds, ..Faults::default() });
    node.repair().expect_err("still refused");
    let error = node.apply(other_services()).expect_err("not while it is being repaired");
    assert!(matches!(error, ApplyError::Unsettled(_)), "{error}");
    plane.lock().set_faults(Faults::default());
    node.repair().expect("repaired");
    node.audit().expect("attached");
    assert_eq!(meaning(&plane), before);
}

#[test]
fn an_arena_that_is_too_small_grows() {
    let plane = Shared::new();
    let mut node = node(&plane);
    let services = (1..=12).map(|id| service(id, Mode::L2, vec![backend(1, 1), backend(2, 1)]));
    let many = desired(services.collect());
    node.apply(many.clone()).expect("applied");
    assert!(plane.sizes().arena > SIZES.arena);
    let mut changed = many;
    for service in &mut changed.services {
        service.backends.push(backend(3, 7));
    }
    node.apply(changed.clone()).expect("applied");
    assert_eq!(meaning(&plane).services, clean(&changed, &[]).services);
}

#[test]
fn attachments_that_vanish_come_back() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(two_services()).expect("applied");
    plane.lock().inner().detach("eth0").expect("memory");
    plane.lock().set_faults(Faults { kinds: vec![Operation::Attach], ..Faults::default() });
    node.audit().expect_err("it cannot attach yet");
    assert!(!node.is_dirty());
    let mut changed = two_services();
    changed.services[0].backends[0].admin = Admin::Draining;
    node.apply(changed).expect("other changes are made all the same");
    plane.lock().set_faults(Faults::default());
    node.audit().expect("attached");
    assert_eq!(meaning(&plane).attached, ["eth0"]);
}

fn cookie(reading: Reading) -> AffinitySpec {
    AffinitySpec::HttpCookie(CookieSpec {
        name: "SESS".into(),
        reading,
        part: None,
        learn: reading == Reading::Bind,
        fallback: Fallback::None,
        on_mismatch: OnMismatch::Count,
        head_limit: 4_096,
    })
}

fn quic(rotations: u8) -> AffinitySpec {
    let layout = Layout::new(4 + rotations, 6).expect("in range");
    let entry = |rotation| QuicConfiguration { rotation, layout, key: Some([rotation; 16]) };
    let configurations = (0..rotations).map(entry).collect();
    AffinitySpec::QuicCid(QuicSpec { configurations, fallback: Fallback::None })
}

/// A path's pool; its id may be what a service had before, and the other way round.
fn path(service: u32, n: u8, backends: Vec<BackendSpec>) -> PathSpec {
    PathSpec {
        prefix: "/abc"[..=n.into()].into(),
        name: format!("p{service}-{n}"),
        id: 10 * u32::from(n) + service,
        backends,
    }
}
