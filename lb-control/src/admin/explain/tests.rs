use super::*;
use lb_common::select::choose;
use lb_core::pool::AffinitySpec;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Plain {
    owners: Vec<u16>,
    members: Vec<u16>,
}

impl Table for Plain {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.owners.get(slot as usize).copied()
    }
    fn member(&self, place: u32) -> Option<u16> {
        self.members.get(place as usize).copied()
    }
    fn mask(&self) -> u32 {
        self.owners.len() as u32 - 1
    }
    fn member_count(&self) -> u32 {
        self.members.len() as u32
    }
}

pub(super) fn service(port: u16, protocol: Protocol) -> ServiceSpec {
    ServiceSpec {
        name: format!("s{port}"),
        id: 7,
        address: "10.99.0.1".parse().unwrap(),
        port,
        protocol,
        mode: Mode::Nat,
        affinity: AffinitySpec::SourceIp { v4: 32, v6: 64 },
        lifetime: Duration::from_secs(60),
        binding_rate: 1000,
        source: None,
        mss: None,
        proxy_protocol: false,
        method: lb_common::abi::Method::Order,
        slow_start: core::time::Duration::ZERO,
        mirror: None,
        consistency: lb_core::pool::Consistency::Tables,
        health: None,
        paths: Vec::new(),
        backends: vec![],
    }
}

pub(super) fn packet(protocol: Protocol) -> Packet {
    Packet {
        source: "10.0.0.7:51312".parse().unwrap(),
        destination: "10.99.0.1:80".parse().unwrap(),
        protocol,
    }
}

pub(super) fn candidate(slot: u16, status: Status) -> Candidate {
    Candidate {
        name: format!("be{slot}"),
        address: "10.1.0.11".parse().unwrap(),
        status,
        generation: 3,
        hop: Some("eth0, 02:00:00:00:00:0b".into()),
        load: Load::default(),
    }
}

pub(super) fn chosen(explanation: &Explanation) -> Option<String> {
    match &explanation.verdict {
        Verdict::Forward { backend, .. } => Some(backend.clone()),
        Verdict::Pass { .. } | Verdict::Answer { .. } | Verdict::Drop { .. } => None,
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Up), Just(Status::Draining), Just(Status::Down)]
}

proptest! {
    /// The told decision is the one that the order function makes.
    #[test]
    fn agrees_with_choose(
        session: u64,
        bits in 3u32..9,
        seed in proptest::collection::vec(0u16..12, 256),
        states in proptest::collection::vec(status(), 12),
        members in 0usize..12,
    ) {
        let table = Plain {
            owners: seed[..1 << bits].to_vec(),
            members: (0..members as u16).collect(),
        };
        let service = service(80, Protocol::Tcp);
        let at = |slot: u16| states[usize::from(slot)];
        let scene = Scene {
            read: None,
            service: &service, session, flow: None, binding: None, table: &table,
            backend: |slot| Some(candidate(slot, at(slot))),
        };
        let explanation = explain(&packet(Protocol::Tcp), &scene);
        let expected = choose(&table, session, |slot| at(slot) == Status::Up)
            .or_else(|| choose(&table, session, |slot| at(slot) != Status::Down))
            .map(|slot| format!("be{slot}"));
        prop_assert_eq!(chosen(&explanation), expected);
    }
}

pub(super) fn table() -> Plain {
    Plain { owners: vec![0, 1, 2, 0, 1, 2, 0, 1], members: vec![0, 1, 2] }
}

fn with_binding(word: BindingWord, remaining: u64, status: Status) -> Explanation {
    let table = table();
    let service = service(80, Protocol::Tcp);
    let scene = Scene {
        read: None,
        service: &service,
        session: 0x0a00_0007,
        flow: None,
        binding: Some(Bound { word, remaining }),
        table: &table,
        backend: |slot| Some(candidate(slot, if slot == 2 { status } else { Status::Up })),
    };
    explain(&packet(Protocol::Tcp), &scene)
}

#[test]
fn a_binding_that_holds_decides() {
    for status in [Status::Up, Status::Draining] {
        let told = with_binding(BindingWord::new(2, 3, 1), 5_000_000_000, status);
        assert_eq!(chosen(&told).as_deref(), Some("be2"));
        assert!(told.steps.iter().all(|s| s.kind != StepKind::Probe));
        let binding = told.steps.iter().find(|s| s.kind == StepKind::Binding).unwrap();
        assert_eq!(binding.because, "it holds for 5 s more and be2 serves bound sessions");
    }
}

#[test]
fn a_binding_that_does_not_hold_leaves_it_to_the_order() {
    let word = BindingWord::new(2, 3, 1);
    for told in [
        with_binding(word, 0, Status::Up),
        with_binding(word.with(BindingWord::DEAD), 5, Status::Up),
        with_binding(word, 5, Status::Down),
        with_binding(BindingWord::new(2, 2, 1), 5, Status::Up),
    ] {
        assert!(told.steps.iter().any(|s| s.kind == StepKind::Probe), "{told:?}");
    }
}

#[test]
fn a_port_of_its_own_comes_before_any_port() {
    let services = [service(0, Protocol::Tcp), service(80, Protocol::Tcp), service(80, Protocol::Udp)];
    let found = |port: u16, protocol| {
        let mut packet = packet(protocol);
        packet.destination.set_port(port);
        service_of(&packet, &services).map(|s| (s.port, s.protocol))
    };
    assert_eq!(found(80, Protocol::Tcp), Some((80, Protocol::Tcp)));
    assert_eq!(found(81, Protocol::Tcp), Some((0, Protocol::Tcp)));
    assert_eq!(found(80, Protocol::Udp), Some((80, Protocol::Udp)));
    assert_eq!(found(81, Protocol::Udp), None);
}

#[test]
fn nobody_left_resets_tcp_and_drops_udp() {
    for (protocol, verdict) in [
        (Protocol::Tcp, Verdict::Answer { outcome: "reset-sent".into() }),
        (Protocol::Udp, Verdict::Drop { outcome: "no-backend".into() }),
    ] {
        let (table, service) = (table(), service(80, protocol));
        let scene = Scene {
            read: None,
            service: &service,
            session: 1,
            flow: None,
            binding: None,
            table: &table,
            backend: |slot| Some(candidate(slot, Status::Down)),
        };
        assert_eq!(explain(&packet(protocol), &scene).verdict, verdict);
    }
}

#[test]
fn unresolved_hop_drops() {
    let (table, service) = (table(), service(80, Protocol::Tcp));
    let scene = Scene {
        read: None,
        service: &service,
        session: 1,
        flow: None,
        binding: None,
        table: &table,
        backend: |slot| Some(Candidate { hop: None, ..candidate(slot, Status::Up) }),
    };
    let told = explain(&packet(Protocol::Tcp), &scene);
    assert_eq!(told.verdict, Verdict::Drop { outcome: "no-hop".into() });
}
