//! The reconciler over the kernel's tables.

use crate::sandbox::{SIZES, Sandbox, output, run};
use lb_common::abi::{
    Be16, BindingBucket, BindingKey, BindingOp, BindingRecord, BindingWord, FlowKey, Hop, Mac, Mode,
    OnMismatch, Reading,
};
use lb_common::affinity::quic::Layout;
use lb_control::dataplane::{DataPlane, xdp::Xdp};
use lb_control::reconcile::{self, HopChange, HopState, ResolvedHop, SessionFilter};
use lb_core::pool::{
    Admin, AffinitySpec, BackendSpec, CookieSpec, Desired, Fallback, Limits, NodeSpec, PathSpec, Protocol,
    QuicConfiguration, QuicSpec, ServiceSpec, Timeouts, Vlan,
};
use std::{net::Ipv4Addr, time::Duration};

pub(crate) fn desired() -> Desired {
    let backends = (1..=3).map(|number| BackendSpec {
        name: format!("be{number}"),
        number,
        address: Ipv4Addr::new(10, 2, 0, number as u8).into(),
        port: 80,
        weight: 100,
        admin: Admin::Enabled,
        vlan: Vlan::Auto,
        route: None,
        limit: 0,
        server_id: None,
    });
    Desired {
        node: NodeSpec {
            interfaces: vec!["lb0".into()],
            bindings: SIZES.bindings,
            flows: SIZES.flows,
            held: SIZES.holds,
            session_secret: [1; 16],
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
        services: vec![ServiceSpec {
            name: "web".into(),
            id: 77,
            address: Ipv4Addr::new(10, 99, 0, 1).into(),
            port: 80,
            protocol: Protocol::Tcp,
            mode: Mode::L2,
            affinity: AffinitySpec::SourceIp { v4: 32, v6: 64 },
            lifetime: Duration::from_secs(60),
            binding_rate: 1_000,
            source: None,
            mss: None,
            proxy_protocol: false,
            method: lb_common::abi::Method::Order,
            slow_start: core::time::Duration::ZERO,
            mirror: None,
            consistency: lb_core::pool::Consistency::Tables,
            health: None,
            paths: Vec::new(),
            backends: backends.collect(),
        }],
    }
}

pub(crate) fn way(address: u8) -> HopChange {
    let hop = Hop {
        destination: Mac([2, 0, 0, 0, 0, address]),
        mtu: 1_500,
        source: Mac([2, 0, 0, 0, 0, 99]),
        ifindex: crate::sandbox::ifindex("lb0"),
        ..Hop::default()
    };
    let hop = ResolvedHop { hop, source: None, vlan: None };
    HopChange { address: Ipv4Addr::new(10, 2, 0, address).into(), hop: Some(hop) }
}

/// A TCP packet from 10.1.0.`client` to the service.
pub(crate) fn packet(to: [u8; 6], client: u8, flags: u8) -> Vec<u8> {
    let mut frame = crate::sandbox::echo(to, 0)[..34].to_vec();
    frame[16..18].copy_from_slice(&40_u16.to_be_bytes());
    frame[23] = 6;
    frame[29] = client;
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(80_u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    frame
}

#[tokio::test]
async fn sessions_are_seen_acknowledged_listed_and_deleted() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    run("ethtool -K peer0 gro on");
    let state = tempfile::tempdir().expect("a directory");
    let overrides = state.path().join("overrides.json");
    let plane = sandbox.open(SIZES);
    let (handle, thread) = reconcile::spawn(Box::new(plane), Some(overrides.clone())).expect("starts");
    let report = handle.apply(desired()).await.expect("applied");
    assert_eq!((report.services_added, report.attached), (vec!["web".to_owned()], vec!["lb0".to_owned()]));
    assert_eq!(handle.addresses().borrow().len(), 3);
    for address in 1..=3 {
        handle.hop(way(address)).await.expect("taken");
    }
    let mut events = handle.events();
    let (wire, to) = (crate::sandbox::Wire::new("peer0"), crate::sandbox::mac("lb0"));
    for client in 1..=20 {
        wire.send(&packet(to, client, 0x10));
    }
    for _ in 0..20 {
        let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
        assert_eq!(event.expect("in time").expect("an event").service, 77);
    }
    let rows = handle.sessions(SessionFilter::default(), 100).await.expect("listed");
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row.service.as_deref() == Some("web") && row.backend.is_some()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let row = handle.session("web", 0x0a01_0007).await.expect("found");
    assert!(!row.unsynced, "events are acknowledged");
    let view = handle.view().await.expect("a view");
    assert_eq!((view.bindings, view.services[0].counters.bindings), (20, 20));
    assert_eq!(view.services[0].counters.packets, 20);
    assert!(view.services[0].backends.iter().all(|backend| backend.hop != HopState::Unresolved));
    let filter = SessionFilter { backend: Some("be1".into()), ..SessionFilter::default() };
    let of_one = handle.sessions(filter, 100).await.expect("listed");
    assert_eq!(of_one.len() as u64, view.services[0].backends[0].counters.bindings);

    handle.session_delete("web", 0x0a01_0007).await.expect("deleted");
    let error = handle.session("web", 0x0a01_0007).await.expect_err("gone").to_string();
    assert!(error.contains("0xa010007"), "{error}");
    let error = handle.session("wbe", 1).await.expect_err("unknown").to_string();
    assert!(error.contains("did you mean \"web\""), "{error}");

    let inputs = handle.explain_inputs("web").await.expect("told");
    assert_eq!(inputs.members.len(), 3);
    assert_eq!(inputs.table.len() as u32, view.services[0].table_size);

    handle.set_admin("web", "be1", Some(Admin::Draining)).await.expect("drained");
    handle.set_weight("web", "be2", Some(300)).await.expect("weighted");
    drop(handle);
    thread.join().expect("it ends when nobody needs it");

    // A second life: everything stands, overrides too.
    let (handle, thread) = reconcile::spawn(Box::new(sandbox.open(SIZES)), Some(overrides)).expect("starts");
    let report = handle.apply(desired()).await.expect("applied");
    assert_eq!(report.writes, 0, "{report:?}");
    let view = handle.view().await.expect("a view");
    let be1 = &view.services[0].backends[0];
    assert_eq!((be1.spec.admin, be1.configured_admin), (Admin::Draining, Some(Admin::Enabled)));
    assert_eq!(view.bindings, 19);
    assert!(
        handle.tables().await.expect("told").iter().any(|row| row.name == "BINDINGS" && row.used == Some(19))
    );

    let mut larger = desired();
    larger.node.bindings *= 2;
    let report = handle.apply(larger).await.expect("resized");
    assert_eq!(report.migration.map(|migration| migration.bindings), Some(19));
    handle.detach().await.expect("everything goes");
    thread.join().expect("it ends");
    assert!(!output("ip link show lb0").contains("prog/xdp"));
    assert!(!sandbox.root.exists());
}

/// Services whose affinity has rules, servers that packets name, and a pool for a path.
fn named_servers() -> Desired {
    let mut state = desired();
    state.node.secrets.syn_cookie = [3; 16];
    let mut by_id = state.services[0].clone();
    let by_cookie = &mut state.services[0];
    by_cookie.mode = Mode::Nat;
    by_cookie.affinity = AffinitySpec::HttpCookie(CookieSpec {
        name: "SESS".into(),
        reading: Reading::Route,
        part: Some((b'!', 1)),
        learn: false,
        fallback: Fallback::None,
        on_mismatch: OnMismatch::Count,
        head_limit: 4_096,
    });
    let backends = by_cookie.backends.clone();
    by_cookie.paths =
        vec![PathSpec { prefix: "/static/".into(), name: "web/static/".into(), id: 79, backends }];
    (by_id.name, by_id.id, by_id.protocol) = ("quic".into(), 78, Protocol::Udp);
    let layout = Layout::new(4, 6).expect("in range");
    let configurations = vec![QuicConfiguration { rotation: 1, layout, key: Some([9; 16]) }];
    by_id.affinity = AffinitySpec::QuicCid(QuicSpec { configurations, fallback: Fallback::None });
    state.services.push(by_id);
    state
}

#[tokio::test]
async fn names_of_servers_stand_in_the_kernel_over_restarts_and_other_sizes() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    let (handle, thread) = reconcile::spawn(Box::new(sandbox.open(SIZES)), None).expect("starts");
    handle.apply(named_servers()).await.expect("applied");
    for address in 1..=3 {
        handle.hop(way(address)).await.expect("taken");
    }
    let inputs = handle.explain_inputs("web").await.expect("told");
    assert_eq!((inputs.servers.len(), inputs.rules.path_count), (3, 1));
    assert_eq!((inputs.rules.mss_v4, inputs.rules.mss_v6), (1_460, 1_440), "the links' MTU");
    assert!(inputs.secrets.since_1970 > 0 && inputs.secrets.last_epoch > inputs.secrets.first_epoch);
    let of_path = handle.explain_inputs("web/static/").await.expect("a path's pool");
    assert_ne!(of_path.servers, inputs.servers, "servers of its own");
    assert_eq!((of_path.service.id, of_path.service.slot), (79, inputs.service.slot));
    assert_eq!(handle.explain_inputs("quic").await.expect("told").servers.len(), 3);
    drop(handle);
    thread.join().expect("it ends when nobody needs it");

    // A second life, in tables of other sizes: marks, rules and keys are those of before.
    let sizes = lb_control::dataplane::Sizes { flows: 2 * SIZES.flows, holds: 2 * SIZES.holds, ..SIZES };
    let mut plane = sandbox.open(sizes);
    let mark = FlowKey::mark(Ipv4Addr::new(10, 2, 0, 1).into(), Be16::new(80));
    assert!(plane.has_mark(&mark).expect("read"), "backends of spliced services stay marked");
    assert_eq!(plane.quic().expect("read").len(), 1);
    let settings = plane.settings().expect("read");
    assert_eq!(settings.holds - settings.cpu_holds, sizes.holds);
    let (handle, thread) = reconcile::spawn(Box::new(plane), None).expect("starts");
    let mut same = named_servers();
    (same.node.flows, same.node.held) = (sizes.flows, sizes.holds);
    let report = handle.apply(same.clone()).await.expect("applied");
    assert_eq!(report.writes, 0, "{report:?}");
    same.services.truncate(0);
    handle.apply(same).await.expect("applied");
    drop(handle);
    thread.join().expect("it ends");
    let mut plane = sandbox.open(sizes);
    assert!(!plane.has_mark(&mark).expect("read"));
    assert!(plane.affinities().expect("read").is_empty() && plane.quic().expect("read").is_empty());
}

#[tokio::test]
async fn a_binding_whose_event_was_lost_is_found_by_the_sweep() {
    let sandbox = Sandbox::new();
    let mut plane: Xdp = sandbox.open(SIZES);
    let word = BindingWord::new(1, 1, 0).with(BindingWord::UNSYNCED).0;
    let record = BindingRecord {
        session: 8,
        word,
        lifetime: 60_000_000_000,
        service: 77,
        op: BindingOp::Put as u8,
        pad: 0,
        home: 0,
    };
    plane.apply_bindings(&[record]).expect("runs");
    let second = sandbox.options();
    let (handle, thread) = reconcile::spawn(Box::new(plane), None).expect("starts");
    let event = tokio::time::timeout(Duration::from_secs(20), handle.events().recv()).await;
    let event = event.expect("within a round of the sweep").expect("an event");
    assert_eq!((event.service, event.session), (77, 8));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bindings = aya::maps::MapData::from_pin(second.root.join("maps/BINDINGS")).expect("pinned");
    let bindings: aya::maps::Array<_, BindingBucket> =
        aya::maps::Map::from_map_data(bindings).and_then(TryInto::try_into).expect("an array");
    let slots = bindings.iter().flat_map(|bucket| bucket.expect("read").0);
    let mut found = slots.filter_map(|slot| slot.binding());
    let (_, found) = found.find(|(key, _)| *key == BindingKey::new(77, 8)).expect("there");
    assert!(!BindingWord(found.word).has(BindingWord::UNSYNCED));
    drop(handle);
    thread.join().expect("it ends");
}
