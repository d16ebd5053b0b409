//! Ways followed on real links, routes and neighbours: veth pairs between network namespaces. Needs root.

#[path = "net_namespaces/lab.rs"]
mod lab;
#[path = "net_namespaces/program.rs"]
mod program;

use std::time::{Duration, Instant};

use lab::{Lab, mac};
use lb_control::net::interface::{InterfaceError, Mode, takes_redirects};

/// What the product promises is 100 ms; machines under test may be slow, so the figure is printed and
/// the bound is loose.
const SOON: Duration = Duration::from_millis(1500);

#[test]
fn missing_neighbours_are_resolved_without_traffic() {
    let lab = Lab::new("resolve");
    let follower = lab.follow(&["192.0.2.2", "2001:db8:1::2"]);
    for address in ["192.0.2.2", "2001:db8:1::2"] {
        let way = follower.way(address, SOON);
        assert_eq!(way.hop.destination, mac(1));
        assert_eq!(way.hop.source, mac(0x10));
        assert_eq!((way.hop.ifindex, way.hop.mtu, way.vlan), (lab.index("lb0"), 1500, None));
        let local = if address.contains(':') { "2001:db8:1::1" } else { "192.0.2.1" };
        assert_eq!(way.local.to_string(), local);
        let entry = lab.ip(&["neigh", "show", "to", address]);
        assert!(entry.contains("managed"), "the kernel is to keep it fresh: {entry}");
    }
    follower.targets(&["192.0.2.2"]);
    lab.eventually("mark taken away", || {
        !lab.ip(&["neigh", "show", "to", "2001:db8:1::2"]).contains("managed")
    });
}

#[test]
fn new_address_of_a_neighbour_is_followed() {
    let lab = Lab::new("mac");
    for setting in ["net.ipv4.conf.be0.arp_notify=1", "net.ipv6.conf.be0.ndisc_notify=1"] {
        lab.sysctl("be0", setting);
    }
    let follower = lab.follow(&["192.0.2.2", "2001:db8:1::2"]);
    follower.ways(2, SOON);
    let start = Instant::now();
    lab.ip_in("be0", &["link", "set", "be0", "address", "02:00:00:00:00:55"]);
    for (address, way) in follower.ways(2, SOON) {
        assert_eq!(way.expect("a way").hop.destination, mac(0x55), "{address}");
    }
    println!("neighbour's MAC, both families: {:?} including the ip command", start.elapsed());

    let start = Instant::now();
    lab.ip(&["link", "set", "lb0", "address", "02:00:00:00:00:66"]);
    for (address, way) in follower.ways(2, SOON) {
        assert_eq!(way.expect("a way").hop.source, mac(0x66), "{address}");
    }
    println!("own MAC: {:?} including the ip command", start.elapsed());

    lab.ip(&["link", "set", "lb0", "mtu", "1400"]);
    for (address, way) in follower.ways(2, SOON) {
        assert_eq!(way.expect("a way").hop.mtu, 1400, "{address}");
    }
}

#[test]
fn deleted_neighbour_is_asked_for_again_and_the_way_stays() {
    let lab = Lab::new("delete");
    let follower = lab.follow(&["192.0.2.2", "2001:db8:1::2"]);
    follower.ways(2, SOON);
    for address in ["192.0.2.2", "2001:db8:1::2"] {
        lab.ip(&["neigh", "del", address, "dev", "lb0"]);
        let start = Instant::now();
        lab.eventually("neighbour resolved again", || {
            lab.ip(&["neigh", "show", "to", address]).contains("02:00:00:00:00:01")
        });
        println!("deleted neighbour is back: {:?}", start.elapsed());
    }
    follower.quiet(Duration::from_millis(300));
}

#[test]
fn silent_neighbour_is_no_way_until_it_answers() {
    let lab = Lab::new("silent");
    lab.sysctl("lb", "net.ipv4.neigh.lb0.retrans_time_ms=100");
    let follower = lab.follow(&["192.0.2.9"]);
    assert_eq!(follower.change("192.0.2.9", Duration::from_secs(5)), None);
    lab.ip_in("be0", &["addr", "add", "192.0.2.9/24", "dev", "be0"]);
    assert_eq!(follower.way("192.0.2.9", Duration::from_secs(15)).hop.destination, mac(1));
}

#[test]
fn routes_are_followed() {
    let lab = Lab::new("routes");
    lab.ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.2"]);
    lab.ip(&["-6", "route", "add", "2001:db8:f::/48", "via", "2001:db8:1::2", "mtu", "1400"]);
    lab.ip(&["route", "add", "203.0.113.0/24", "via", "inet6", "2001:db8:1::2", "dev", "lb0"]);
    let (v4, v6, mixed) = ("198.51.100.5", "2001:db8:f::5", "203.0.113.5");
    let follower = lab.follow(&[v4, v6, mixed]);
    for (address, way) in follower.ways(3, SOON) {
        let way = way.expect("a way");
        assert_eq!((way.hop.destination, way.hop.ifindex), (mac(1), lab.index("lb0")), "{address}");
        assert_eq!(way.hop.mtu, if address == v6.parse::<std::net::IpAddr>().unwrap() { 1400 } else { 1500 });
    }

    lab.resolved("192.0.3.2");
    lab.resolved("2001:db8:2::2");
    let moves: [(&str, &[&str]); 2] = [
        (v4, &["route", "replace", "198.51.100.0/24", "via", "192.0.3.2"]),
        (v6, &["-6", "route", "replace", "2001:db8:f::/48", "via", "2001:db8:2::2"]),
    ];
    for (address, command) in moves {
        let start = Instant::now();
        lab.ip(command);
        let way = follower.way(address, SOON);
        println!("{address} moved to another interface: {:?} including the ip command", start.elapsed());
        assert_eq!((way.hop.destination, way.hop.ifindex), (mac(2), lab.index("lb1")));
    }

    lab.ip(&["route", "add", "blackhole", "198.51.100.5/32"]);
    assert_eq!(follower.change(v4, SOON), None);
    lab.ip(&["route", "del", "blackhole", "198.51.100.5/32"]);
    assert_eq!(follower.way(v4, SOON).hop.destination, mac(2));

    // Policy rules and nexthop objects count as well.
    lab.ip(&["route", "add", "198.51.100.5", "via", "192.0.2.2", "table", "100"]);
    lab.ip(&["rule", "add", "to", "198.51.100.5", "lookup", "100"]);
    assert_eq!(follower.way(v4, SOON).hop.destination, mac(1));
    lab.ip(&["rule", "del", "to", "198.51.100.5", "lookup", "100"]);
    assert_eq!(follower.way(v4, SOON).hop.destination, mac(2));
    lab.ip(&["nexthop", "add", "id", "7", "via", "192.0.2.2", "dev", "lb0"]);
    lab.ip(&["route", "add", "198.51.100.5", "nhid", "7"]);
    assert_eq!(follower.way(v4, SOON).hop.destination, mac(1));
    lab.ip(&["nexthop", "replace", "id", "7", "via", "192.0.3.2", "dev", "lb1"]);
    assert_eq!(follower.way(v4, SOON).hop.destination, mac(2));
}

#[test]
fn several_paths_share_the_targets_and_stand_in_for_each_other() {
    let lab = Lab::new("paths");
    lab.ip(&[
        "route",
        "add",
        "198.51.100.0/24",
        "nexthop",
        "via",
        "192.0.2.2",
        "nexthop",
        "via",
        "192.0.3.2",
    ]);
    lab.resolved("192.0.2.2");
    lab.resolved("192.0.3.2");
    let targets: Vec<String> = (1..=64).map(|n| format!("198.51.100.{n}")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let follower = lab.follow(&targets);
    let ways = follower.ways(64, SOON);
    let second: Vec<_> =
        ways.iter().filter(|(_, way)| way.expect("a way").hop.destination == mac(2)).collect();
    println!("{} of 64 targets on the second path", second.len());
    assert!((16..=48).contains(&second.len()));
    for (address, way) in &ways {
        let way = way.expect("a way");
        let local = if way.hop.destination == mac(2) { "192.0.3.1" } else { "192.0.2.1" };
        assert_eq!(way.local.to_string(), local, "{address}");
    }

    let start = Instant::now();
    lab.ip(&["link", "set", "lb1", "down"]);
    let moved = follower.ways(second.len(), SOON);
    println!("{} targets moved off a path that is down: {:?}", moved.len(), start.elapsed());
    for (address, way) in &second {
        assert_eq!(moved[address].expect("a way").hop.destination, mac(1), "{address}");
        assert_ne!(**way, moved[address]);
    }
    follower.quiet(Duration::from_millis(200));
}

#[test]
fn link_down_and_up() {
    let lab = Lab::new("link");
    let follower = lab.follow(&["192.0.2.2", "2001:db8:1::2"]);
    follower.ways(2, SOON);
    let start = Instant::now();
    lab.ip(&["link", "set", "lb0", "down"]);
    assert!(follower.ways(2, SOON).values().all(Option::is_none));
    println!("link down, both families: {:?} including the ip command", start.elapsed());

    let start = Instant::now();
    lab.ip(&["link", "set", "lb0", "up"]);
    lab.ip(&["addr", "replace", "2001:db8:1::1/64", "dev", "lb0", "nodad"]);
    for (address, way) in follower.ways(2, Duration::from_secs(8)) {
        assert_eq!(way.expect("a way").hop.destination, mac(1), "{address}");
    }
    println!("link up, both families resolved: {:?} including the ip commands", start.elapsed());

    // The other end down means no carrier.
    lab.ip_in("be0", &["link", "set", "be0", "down"]);
    assert!(follower.ways(2, SOON).values().all(Option::is_none));
}

#[test]
fn lost_events_are_made_up_for() {
    let lab = Lab::new("overrun");
    lab.ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.2"]);
    lab.resolved("192.0.3.2");
    let follower = lab.follow(&["198.51.100.5"]);
    assert_eq!(follower.way("198.51.100.5", SOON).hop.destination, mac(1));

    let resume = follower.stall();
    let flood: String =
        (0..20_000_u32).map(|n| format!("route add 10.{}.{}.0/24 dev lb1\n", n / 256, n % 256)).collect();
    lab.ip_batch(&flood);
    lab.ip(&["route", "replace", "198.51.100.0/24", "via", "192.0.3.2"]);
    let dropped = lab.dropped_events();
    assert!(dropped > 0, "the flood was to fill the receive buffer");
    let start = Instant::now();
    drop(resume);
    assert_eq!(follower.way("198.51.100.5", SOON).hop.destination, mac(2));
    println!("{dropped} events lost; right again after {:?}", start.elapsed());
}

#[test]
fn interface_facts_and_preparation() {
    let lab = Lab::new("interface");
    let found = lab.interface("lb0").expect("lb0 exists");
    assert_eq!(
        (found.index, found.mac, found.mtu, found.up),
        (lab.index("lb0"), Some(mac(0x10)), 1500, true)
    );
    assert_eq!((found.kind.as_deref(), found.driver.as_deref()), (Some("veth"), Some("veth")));
    assert!(found.queues.receive >= 1 && found.queues.transmit >= 1);
    assert_eq!(found.xdp, []);

    let features = || lab.exec("lb", &["ethtool", "-k", "lb0"]);
    assert!(features().contains("rx-vlan-offload: on"), "a veth starts with it");
    let changed = lab.inside(|| found.prepare(Mode::Native, false)).expect("a veth can be prepared");
    println!("switched off: {changed:?}");
    assert!(changed.contains(&"rx-vlan-hw-parse".to_owned()));
    assert!(features().contains("rx-vlan-offload: off"));
    assert_eq!(lab.inside(|| found.prepare(Mode::Native, false)).expect("again"), Vec::<String>::new());

    match lab.interface("lb7") {
        Err(InterfaceError::Missing { present, .. }) => {
            assert!(present.contains("lb0") && present.contains("lb1"))
        }
        other => panic!("no such interface, yet {other:?}"),
    }
    assert!(lab.interface("a-name-that-is-too-long").is_err());
    let loopback = lab.interface("lo").expect("lo exists");
    assert!(matches!(loopback.check(Mode::Skb, false), Err(InterfaceError::NotEthernet { .. })));
}

#[test]
fn programs_on_an_interface_are_found() {
    let lab = Lab::new("programs");
    let program = program::pass_program("t_net_pass");
    for (mode, option) in [(Mode::Native, "xdpdrv"), (Mode::Skb, "xdpgeneric")] {
        lab.ip_with_mounts(&["link", "set", "lb0", option, "pinned", program.path()]);
        let found = lab.interface("lb0").expect("lb0 exists").xdp;
        assert!(found.len() == 1 && found[0].mode == mode, "{found:?}");
        assert_eq!(found[0].name.as_deref(), Some("t_net_pass"));
        assert!(found[0].to_string().contains("t_net_pass"));
        lab.ip(&["link", "set", "lb0", option, "off"]);
        assert_eq!(lab.interface("lb0").expect("lb0 exists").xdp, []);
    }
}

#[test]
fn a_veth_takes_frames_when_its_other_end_has_gro() {
    let lab = Lab::new("redirect");
    let takes = || lab.inside(|| takes_redirects(lab.index("lb0"))).expect("the kernel answers");
    if takes().is_none() {
        // Kernels before 6.3 do not tell.
        return;
    }
    for (gro, expected) in [("on", true), ("off", false)] {
        lab.exec("be0", &["ethtool", "-K", "be0", "gro", gro]);
        assert_eq!(takes(), Some(expected), "GRO {gro} on the other end");
    }
}

#[test]
fn many_targets() {
    let lab = Lab::new("many");
    lab.ip(&["route", "add", "10.0.0.0/8", "via", "192.0.2.2"]);
    lab.resolved("192.0.3.2");
    let targets: Vec<String> = (0..2_048_u32).map(|n| format!("10.1.{}.{}", n / 256, n % 256)).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let start = Instant::now();
    let follower = lab.follow(&targets);
    follower.ways(2_048, Duration::from_secs(30));
    println!("2,048 targets known after {:?}", start.elapsed());
    let start = Instant::now();
    lab.ip(&["route", "replace", "10.0.0.0/8", "via", "192.0.3.2"]);
    follower.ways(2_048, Duration::from_secs(30));
    println!("2,048 targets moved after {:?}", start.elapsed());
}
