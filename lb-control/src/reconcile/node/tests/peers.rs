//! The other nodes: asked when a way to them is known, and not forgotten by a restart.

use super::*;
use crate::reconcile::{PeerNode, PeerRing};
use lb_common::abi::MAX_PEERS;

fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 20, 0, host).into()
}

fn ring(hosts: &[u8]) -> PeerRing {
    let node = |&host: &u8| PeerNode { id: host.into(), address: address(host), source: address(254) };
    PeerRing::new(1, hosts.iter().map(node).collect(), false)
}

fn asked(plane: &Shared) -> (Vec<u64>, bool) {
    let mut chaos = plane.lock();
    let flags = chaos.inner().settings().expect("memory").flags;
    let rows = chaos.inner().peers().expect("memory");
    (rows.iter().map(|peer| peer.id).collect(), flags & SettingsFlags::PEERS != 0)
}

fn tell(node: &mut Node, ring: PeerRing) {
    node.world.ring = Some(ring);
    node.follow_world();
}

#[test]
fn those_with_a_way_are_asked_and_their_devices_allowed() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(two_services()).expect("applied");
    assert_eq!(asked(&plane), (vec![], false));
    tell(&mut node, ring(&[3, 2]));
    assert_eq!(asked(&plane), (vec![], true), "nobody is known to be nobody");
    assert!(node.addresses().contains(&address(2)) && node.addresses().contains(&address(3)));
    for host in [2, 3] {
        node.hop(HopChange { address: address(host), hop: Some(way(host)) });
    }
    node.follow_world();
    assert_eq!(asked(&plane), (vec![2, 3], true));
    assert!(plane.lock().inner().devices().expect("memory").contains(&7));
    node.hop(HopChange { address: address(2), hop: None });
    node.follow_world();
    assert_eq!(asked(&plane), (vec![3], true));
    tell(&mut node, ring(&[]));
    assert_eq!(asked(&plane), (vec![], false));
    assert!(!node.addresses().contains(&address(2)));
}

#[test]
fn a_restart_goes_on_asking_until_it_is_told_otherwise() {
    let plane = Shared::new();
    let mut first = node(&plane);
    first.hop(HopChange { address: address(2), hop: Some(way(2)) });
    tell(&mut first, ring(&[2]));
    first.apply(two_services()).expect("applied");
    assert_eq!(asked(&plane), (vec![2], true));
    let mut second = node(&plane);
    second.apply(two_services()).expect("applied");
    assert!(asked(&plane).1, "what is not known here is not reset");
    tell(&mut second, ring(&[]));
    assert_eq!(asked(&plane), (vec![], false));
}

#[test]
fn too_many_are_refused_by_the_tables() {
    let plane = Shared::new();
    let rows = vec![Peer { id: 1, ..Peer::default() }; MAX_PEERS as usize + 1];
    plane.lock().inner().put_peers(&rows).unwrap_err();
}
