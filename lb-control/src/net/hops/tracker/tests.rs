use super::super::resolve::{NoWay, Path};
use super::super::view::{Link, LinkKind, Neighbour};
use super::*;
use lb_common::abi::Mac;

const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(up: bool) -> Link {
    Link { name: "eth0".into(), mac: Some(Mac([2; 6])), mtu: 1500, up, kind: LinkKind::Plain }
}

fn hop(address: &str) -> NextHop {
    NextHop { interface: 3, address: ip(address) }
}

fn gateway(address: &str) -> Route {
    Route::Paths(vec![Path {
        interface: 3,
        gateway: Some(ip(address)),
        weight: 1,
        source: Some(ip("192.0.2.1")),
        mtu: None,
    }])
}

/// A tracker with one link, and the targets given.
fn tracker(targets: &[&str]) -> Tracker {
    let mut tracker = Tracker::default();
    tracker.resync(View::new([(3, link(true))], []), Instant::now());
    tracker.targets_are(&targets.iter().map(|text| ip(text)).collect());
    tracker
}

/// Answers every route query and settles.
fn settle(tracker: &mut Tracker, route: &Route) -> Vec<IpAddr> {
    let asked = tracker.unrouted(usize::MAX);
    for target in &asked {
        tracker.route_is(*target, route.clone());
    }
    tracker.settle(Instant::now());
    asked
}

fn told(tracker: &mut Tracker) -> Vec<(IpAddr, Option<Mac>)> {
    std::iter::from_fn(|| tracker.poll_change())
        .map(|change| (change.address, change.way.map(|way| way.hop.destination)))
        .collect()
}

fn asked(tracker: &mut Tracker) -> Vec<NextHop> {
    let now = Instant::now();
    std::iter::from_fn(|| tracker.poll_ask(now)).collect()
}

fn neighbour(tracker: &mut Tracker, address: &str, neighbour: Neighbour) {
    tracker.event(Event::Neighbour(hop(address), neighbour), Instant::now());
    tracker.settle(Instant::now());
}

#[test]
fn resolution_from_nothing_and_change_of_address() {
    let mut tracker = tracker(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(settle(&mut tracker, &gateway("192.0.2.254")).len(), 2);
    assert_eq!(told(&mut tracker), [], "nothing is known yet");
    assert_eq!(asked(&mut tracker), [hop("192.0.2.254")], "one request for both");

    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), Some(ONE)), (ip("10.0.0.2"), Some(ONE))]);
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Stale(ONE));
    assert_eq!(told(&mut tracker), [], "stale is still usable");
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(TWO));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), Some(TWO)), (ip("10.0.0.2"), Some(TWO))]);
    neighbour(&mut tracker, "192.0.2.77", Neighbour::Fresh(ONE));
    assert!(!tracker.is_unsettled() && told(&mut tracker).is_empty(), "somebody else's neighbour");
}

#[test]
fn known_address_is_kept_while_it_is_asked_for_again() {
    let mut tracker = tracker(&["10.0.0.1"]);
    settle(&mut tracker, &gateway("192.0.2.254"));
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    assert_eq!(told(&mut tracker).len(), 1);
    asked(&mut tracker);

    // A deletion is reported as a failure that is followed by the removal.
    let now = Instant::now();
    tracker.event(Event::Neighbour(hop("192.0.2.254"), Neighbour::Failed), now);
    tracker.event(Event::Neighbour(hop("192.0.2.254"), Neighbour::Absent), now);
    tracker.settle(now);
    assert_eq!(told(&mut tracker), []);
    assert_eq!(asked(&mut tracker), [hop("192.0.2.254")]);

    neighbour(&mut tracker, "192.0.2.254", Neighbour::Failed);
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), None)]);
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Absent);
    assert_eq!(told(&mut tracker), [], "no way is no way until it answers");
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), Some(ONE))]);
}

#[test]
fn route_events_touch_the_targets_of_their_prefix() {
    let mut tracker = tracker(&["10.0.0.1", "10.0.1.1", "10.1.0.1", "2001:db8::1", "2001:db8:1::1"]);
    settle(&mut tracker, &gateway("192.0.2.254"));
    let cases: [(&str, u8, &[&str]); 6] = [
        ("10.0.0.0", 24, &["10.0.0.1"]),
        ("10.0.0.0", 23, &["10.0.0.1", "10.0.1.1"]),
        ("0.0.0.0", 0, &["10.0.0.1", "10.0.1.1", "10.1.0.1"]),
        ("10.1.0.1", 32, &["10.1.0.1"]),
        ("::", 0, &["2001:db8::1", "2001:db8:1::1"]),
        ("2001:db8::", 48, &["2001:db8::1"]),
    ];
    for (address, length, expected) in cases {
        tracker.event(Event::Routes(ip(address), length), Instant::now());
        let expected: Vec<IpAddr> = expected.iter().map(|text| ip(text)).collect();
        assert_eq!(settle(&mut tracker, &gateway("192.0.2.254")), expected, "{address}/{length}");
    }
    for event in [Event::AllRoutes, Event::Link(3, Some(link(false)))] {
        tracker.event(event, Instant::now());
        assert_eq!(settle(&mut tracker, &gateway("192.0.2.254")).len(), 5);
    }
    tracker.event(Event::Link(3, Some(link(false))), Instant::now());
    assert!(!tracker.is_unsettled(), "the same link again is no news");
}

#[test]
fn lost_way_is_told_once_and_changes_melt() {
    let mut tracker = tracker(&["10.0.0.1"]);
    settle(&mut tracker, &Route::Nowhere(NoWay::NoRoute));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), None)]);
    tracker.event(Event::AllRoutes, Instant::now());
    settle(&mut tracker, &Route::Nowhere(NoWay::Refused("blackhole")));
    assert_eq!(told(&mut tracker), []);

    // There and back before the receiver had time: nothing to tell.
    tracker.event(Event::AllRoutes, Instant::now());
    settle(&mut tracker, &gateway("192.0.2.254"));
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    assert!(tracker.has_change());
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Failed);
    assert!(!tracker.has_change());
}

#[test]
fn neighbours_out_of_use_are_released() {
    let mut tracker = tracker(&["10.0.0.1", "10.0.0.2"]);
    settle(&mut tracker, &gateway("192.0.2.254"));
    asked(&mut tracker);
    tracker.targets_are(&[ip("10.0.0.1")].into());
    assert_eq!(tracker.poll_release(), None, "the other target still uses it");
    tracker.event(Event::AllRoutes, Instant::now());
    settle(&mut tracker, &gateway("192.0.2.253"));
    assert_eq!(tracker.poll_release(), Some(hop("192.0.2.254")));
    tracker.targets_are(&BTreeSet::new());
    assert_eq!(tracker.poll_release(), None, "never asked for, so not marked");
    assert!(tracker.users.is_empty() && tracker.next_ask().is_none());
}

#[test]
fn target_that_returns_is_told_again() {
    let mut tracker = tracker(&["10.0.0.1"]);
    settle(&mut tracker, &gateway("192.0.2.254"));
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    assert_eq!(told(&mut tracker).len(), 1);
    tracker.targets_are(&BTreeSet::new());
    tracker.route_is(ip("10.0.0.1"), gateway("192.0.2.254"));
    assert!(!tracker.is_unsettled(), "a late answer for a target that is gone");
    tracker.targets_are(&[ip("10.0.0.1")].into());
    settle(&mut tracker, &gateway("192.0.2.254"));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), Some(ONE))]);
}

#[test]
fn resync_looks_at_everything_again() {
    let mut tracker = tracker(&["10.0.0.1"]);
    settle(&mut tracker, &gateway("192.0.2.254"));
    neighbour(&mut tracker, "192.0.2.254", Neighbour::Fresh(ONE));
    told(&mut tracker);
    tracker.event(Event::Overrun, Instant::now());
    assert!(tracker.needs_resync() && tracker.is_unsettled());
    let neighbours = [(hop("192.0.2.254"), Neighbour::Fresh(TWO))];
    tracker.resync(View::new([(3, link(true))], neighbours), Instant::now());
    settle(&mut tracker, &gateway("192.0.2.254"));
    assert_eq!(told(&mut tracker), [(ip("10.0.0.1"), Some(TWO))]);
}
