use super::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
const BELOW: Mac = Mac([2, 0, 0, 0, 0, 0xbb]);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(name: &str) -> Link {
    Link { name: name.to_owned(), mac: Some(OURS), mtu: 1500, up: true, kind: LinkKind::Plain }
}

fn at(interface: u32, address: &str) -> NextHop {
    NextHop { interface, address: ip(address) }
}

fn path(interface: u32, gateway: Option<&str>) -> Path {
    Path { interface, gateway: gateway.map(ip), weight: 1, source: None, mtu: None }
}

fn way(resolution: &Resolution) -> Way {
    match &resolution.outcome {
        Outcome::Way(way) => *way,
        other => panic!("expected a way, found {other:?}"),
    }
}

fn nowhere(resolution: &Resolution) -> NoWay {
    match &resolution.outcome {
        Outcome::Nowhere(reason) => reason.clone(),
        other => panic!("expected no way, found {other:?}"),
    }
}

fn single(target: &str, path: Path, view: &View) -> Resolution {
    resolve(ip(target), &Route::Paths(vec![path]), view)
}

#[test]
fn on_link_of_both_families() {
    for (target, source) in [("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "2001:db8::1")] {
        let view = View::new([(3, link("eth0"))], [(at(3, target), Neighbour::Fresh(GATEWAY))]);
        let found = single(target, Path { source: Some(ip(source)), ..path(3, None) }, &view);
        assert_eq!(found.next_hops, [at(3, target)]);
        let hop = Hop { destination: GATEWAY, mtu: 1500, source: OURS, pad: 0, ifindex: 3, pad2: 0 };
        assert_eq!(way(&found), Way { hop, local: ip(source), vlan: None });
    }
}

#[test]
fn through_a_gateway_of_either_family() {
    for gateway in ["192.0.2.254", "fe80::1"] {
        let view = View::new([(3, link("eth0"))], [(at(3, gateway), Neighbour::Stale(GATEWAY))]);
        let found = single("198.51.100.9", path(3, Some(gateway)), &view);
        assert_eq!(found.next_hops, [at(3, gateway)]);
        assert_eq!(way(&found).hop.destination, GATEWAY);
        assert_eq!(way(&found).local, ip("0.0.0.0"), "no preferred source");
    }
}

#[test]
fn mtu_is_the_smallest_of_route_and_links() {
    let vlan = Link { mtu: 1496, kind: LinkKind::Vlan { below: 2, id: 7 }, ..link("eth0.7") };
    let below = Link { mac: Some(BELOW), mtu: 9000, ..link("eth0") };
    let view = View::new([(2, below), (3, vlan)], [(at(3, "192.0.2.7"), Neighbour::Fixed(GATEWAY))]);
    for (route, expected) in [(None, 1496), (Some(9000), 1496), (Some(1400), 1400)] {
        let found = single("192.0.2.7", Path { mtu: route, ..path(3, None) }, &view);
        assert_eq!(way(&found).hop.mtu, expected);
    }
    let loopback = Link { mtu: 65536, ..link("big0") };
    let view = View::new([(3, loopback)], [(at(3, "192.0.2.7"), Neighbour::Fresh(GATEWAY))]);
    assert_eq!(way(&single("192.0.2.7", path(3, None), &view)).hop.mtu, 65535);
}

#[test]
fn vlan_device_means_the_real_interface_and_a_tag() {
    let vlan = Link { kind: LinkKind::Vlan { below: 2, id: 100 }, ..link("eth0.100") };
    let below = Link { mac: Some(BELOW), ..link("eth0") };
    let neighbours = [(at(3, "192.0.2.7"), Neighbour::Fresh(GATEWAY))];
    let view = View::new([(2, below.clone()), (3, vlan.clone())], neighbours);
    let found = way(&single("192.0.2.7", path(3, None), &view));
    assert_eq!((found.hop.ifindex, found.vlan), (2, Some(100)));
    assert_eq!(found.hop.source, OURS, "the VLAN device's own address");

    let down = Link { up: false, ..below.clone() };
    let view = View::new([(2, down), (3, vlan.clone())], neighbours);
    assert_eq!(nowhere(&single("192.0.2.7", path(3, None), &view)), NoWay::Down("eth0".into()));

    let stacked = Link { kind: LinkKind::Vlan { below: 1, id: 5 }, ..below };
    let view = View::new([(2, stacked), (3, vlan)], neighbours);
    assert_eq!(nowhere(&single("192.0.2.7", path(3, None), &view)), NoWay::Tags("eth0.100".into()));

    let provider = Link { kind: LinkKind::OtherVlan, ..link("eth0.s") };
    let view = View::new([(3, provider)], neighbours);
    assert_eq!(nowhere(&single("192.0.2.7", path(3, None), &view)), NoWay::Tags("eth0.s".into()));
}

#[test]
fn routes_that_lead_nowhere() {
    let reasons = [NoWay::NoRoute, NoWay::Refused("blackhole"), NoWay::Refused("unreachable"), NoWay::Local];
    for reason in reasons {
        let found = resolve(ip("192.0.2.7"), &Route::Nowhere(reason.clone()), &View::default());
        assert_eq!((nowhere(&found), found.next_hops.len()), (reason, 0));
    }
}

#[test]
fn interface_down_without_ethernet_or_unknown() {
    let neighbours = [(at(3, "192.0.2.7"), Neighbour::Fresh(GATEWAY))];
    let down = Link { up: false, ..link("eth0") };
    let found = single("192.0.2.7", path(3, None), &View::new([(3, down)], neighbours));
    assert_eq!(nowhere(&found), NoWay::Down("eth0".into()));

    let tunnel = Link { mac: None, ..link("tun0") };
    let found = single("192.0.2.7", path(3, None), &View::new([(3, tunnel)], neighbours));
    assert_eq!(nowhere(&found), NoWay::NotEthernet("tun0".into()));

    let found = single("192.0.2.7", path(3, None), &View::default());
    assert_eq!(found.outcome, Outcome::Waiting, "the link's event is still to come");
}

#[test]
fn neighbour_decides() {
    let expected = [
        (Neighbour::Fresh(GATEWAY), Some(GATEWAY)),
        (Neighbour::Stale(GATEWAY), Some(GATEWAY)),
        (Neighbour::Fixed(GATEWAY), Some(GATEWAY)),
        (Neighbour::Absent, None),
        (Neighbour::Resolving, None),
    ];
    for (neighbour, mac) in expected {
        let view = View::new([(3, link("eth0"))], [(at(3, "192.0.2.7"), neighbour)]);
        let found = single("192.0.2.7", path(3, None), &view);
        match mac {
            Some(mac) => assert_eq!(way(&found).hop.destination, mac),
            None => assert_eq!(found.outcome, Outcome::Waiting),
        }
        assert_eq!(found.next_hops, [at(3, "192.0.2.7")], "also to be asked for");
    }
    let view = View::new([(3, link("eth0"))], [(at(3, "192.0.2.7"), Neighbour::Failed)]);
    let found = single("192.0.2.7", path(3, None), &view);
    assert_eq!(nowhere(&found), NoWay::Unresolved(ip("192.0.2.7"), "eth0".into()));
    assert_eq!(found.next_hops.len(), 1);
}

/// Which of two gateways each of many targets takes.
fn shares(paths: &[Path], view: &View) -> Vec<Mac> {
    let route = Route::Paths(paths.to_vec());
    (0..10_000_u32)
        .map(|n| way(&resolve(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), &route, view)).hop.destination)
        .collect()
}

#[test]
fn multipath_follows_weights_and_moves_only_what_it_must() {
    let neighbours = |second| [(at(3, "192.0.2.1"), Neighbour::Fresh(GATEWAY)), (at(4, "192.0.2.2"), second)];
    let links = || [(3, link("eth0")), (4, link("eth1"))];
    let view = View::new(links(), neighbours(Neighbour::Fresh(OTHER)));
    let (one, two) = (path(3, Some("192.0.2.1")), path(4, Some("192.0.2.2")));

    let even = shares(&[one.clone(), two.clone()], &view);
    let first = even.iter().filter(|mac| **mac == GATEWAY).count();
    assert!((4_800..5_200).contains(&first), "{first}");
    assert_eq!(even, shares(&[two.clone(), one.clone()], &view), "whatever the order of the paths");

    let heavy = shares(&[one.clone(), Path { weight: 3, ..two.clone() }], &view);
    let first = heavy.iter().filter(|mac| **mac == GATEWAY).count();
    assert!((2_300..2_700).contains(&first), "{first}");
    assert!(even.iter().zip(&heavy).all(|(a, b)| a == b || *b == OTHER), "only towards the heavier path");

    let broken = View::new(links(), neighbours(Neighbour::Failed));
    assert!(shares(&[one.clone(), two.clone()], &broken).iter().all(|mac| *mac == GATEWAY));
    let waiting = View::new(links(), neighbours(Neighbour::Absent));
    let found = resolve(ip("10.0.0.1"), &Route::Paths(vec![one, two]), &waiting);
    assert_eq!(way(&found).hop.destination, GATEWAY);
    assert_eq!(found.next_hops.len(), 2, "the other is to be asked for too");
}
