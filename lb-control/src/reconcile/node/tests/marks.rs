//! Marks of source-NAT addresses: only of those that no connection of the host's own comes from.

use super::*;
use lb_common::abi::Be16;

fn marked(plane: &Shared, address: Ipv4Addr) -> bool {
    let mark = FlowKey::mark(address.into(), Be16::default());
    plane.lock().inner().has_mark(&mark).expect("memory")
}

fn spliced(source: Option<Ipv4Addr>) -> Desired {
    let mut spec = service(1, Mode::Nat, vec![backend(1, 100)]);
    spec.affinity = cookie(Reading::Bind);
    spec.source = source.map(Into::into);
    desired(vec![spec])
}

#[test]
fn an_address_that_the_host_connects_from_is_not_the_balancers_alone() {
    let (alone, hosts) = (Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 1, 0, 254));
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(spliced(Some(alone))).expect("applied");
    assert!(marked(&plane, alone));
    node.apply(spliced(Some(hosts))).expect("applied");
    assert!(!marked(&plane, alone));
    assert!(marked(&plane, hosts), "no way is known yet");
    node.hop(HopChange { address: Ipv4Addr::new(10, 1, 0, 1).into(), hop: Some(way(1)) });
    node.follow_world();
    assert!(!marked(&plane, hosts), "health checks come from it");
}

#[test]
fn a_mark_is_found_again_after_a_restart() {
    let source = Ipv4Addr::new(10, 98, 0, 1);
    let plane = Shared::new();
    node(&plane).apply(spliced(Some(source))).expect("applied");
    node(&plane).apply(spliced(None)).expect("applied");
    assert!(!marked(&plane, source));
}
