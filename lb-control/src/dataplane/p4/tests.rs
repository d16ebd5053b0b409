//! Against a switch that speaks real gRPC and forwards nothing.

mod stamps;
mod switch;

use super::link::{Link, News, Peer, Standing, Told};
use super::numbers::Tag;
use super::program::Program;
use super::row::{Content, Key, Table};
use super::wanted::{self, Rows};
use crate::dataplane::Error;
use lb_common::abi::{Affinity, AffinityRules, Be16, Method, Mode, Service, ServiceFlags, ServiceKey};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch::{Switch, until};

const SERVICE: u32 = 77;
const LIFETIME: u64 = 5_000_000_000;

fn link(switch: &Switch, election: u64) -> Link {
    let peer = Peer { address: switch.address.to_string(), device: 0, election };
    Link::start(peer, Arc::new(Program::bmv2().expect("whole")), 1_000).expect("a thread")
}

fn backend(slot: u16, address: u128) -> (Key, Content) {
    let way = [address, 80, 0x0200_0000_0001, 0x0200_0000_0002, 0xffff, 1_500, 2];
    (Key::exact(Table::Backends, [u128::from(slot), 0]), Content::of(way))
}

fn arena(place: u32) -> Key {
    Key::exact(Table::Arena, [0, u128::from(place)])
}

fn rows() -> Rows {
    let mut rows: Rows =
        (0..2_500_u32).map(|place| (arena(place), Content::of([u128::from(place % 3), 0]))).collect();
    rows.extend((0..3).map(|slot| backend(slot, 0xffff_0a00_0000 + u128::from(slot))));
    rows.insert(Key::exact(Table::Settings, []), Content::of([511, 0, 0]));
    rows.insert(Key::exact(Table::Vips, [9]), Content::default());
    rows
}

fn want(link: &Link, rows: Rows) {
    let backends = rows.iter().filter(|(key, _)| key.table == Table::Backends);
    let owners =
        backends.map(|(key, row)| (Tag::read(&key.fields).expect("a backend"), row.values[0])).collect();
    link.want(rows, HashMap::from([(SERVICE, LIFETIME)]), owners);
}

fn settled(link: &Link) {
    until("the switch has what it should", || link.standing() == Standing::Settled);
}

fn session(key: u64) -> Key {
    Key::exact(Table::Bindings, [u128::from(SERVICE), u128::from(key)])
}

#[test]
fn p4_tables_are_filled_and_only_differences_are_written_later() {
    let switch = Switch::start();
    {
        let link = link(&switch, 1);
        want(&link, rows());
        settled(&link);
        assert_eq!(switch.rows(Table::Arena).len(), 2_500);
        let (key, content) = backend(2, 0xffff_0a00_0002);
        assert_eq!(switch.rows(Table::Backends)[&key], content);
    }
    // While nobody looks, an entry goes, one changes and one comes.
    switch.lose(&arena(7));
    switch.put(&arena(8), &Content::of([1, 1]));
    switch.put(&arena(70_000), &Content::of([1, 0]));
    switch.state().updates = 0;
    let link = link(&switch, 1);
    want(&link, rows());
    settled(&link);
    assert_eq!(switch.rows(Table::Arena).len(), 2_500);
    assert_eq!(switch.rows(Table::Arena)[&arena(8)], Content::of([2, 0]));
    // Those three, and the default entry, which cannot be read back.
    assert_eq!(switch.state().updates, 4);
    assert_eq!(switch.state().pipelines, 1);
}

#[test]
fn p4_what_is_refused_stops_nothing_else_and_is_tried_again() {
    let switch = Switch::start();
    switch.state().refused.push(Table::Backends);
    let link = link(&switch, 1);
    want(&link, rows());
    until("all else is there", || {
        switch.rows(Table::Arena).len() == 2_500 && switch.rows(Table::Vips).len() == 1
    });
    assert_eq!(link.standing(), Standing::Behind);
    assert!(switch.rows(Table::Backends).is_empty());
    switch.state().refused.clear();
    settled(&link);
    assert_eq!(switch.rows(Table::Backends).len(), 3);
}

#[test]
fn p4_sessions_are_bound_when_told_and_unbound_when_idle() {
    let switch = Switch::start();
    let link = link(&switch, 1);
    want(&link, rows());
    settled(&link);
    // One of them is of no service that we know.
    switch.digest(5, &[(SERVICE, 10, 1, 0), (SERVICE, 11, 2, 3), (78, 12, 1, 0)]);
    until("they are bound", || switch.rows(Table::Bindings).len() == 2);
    assert_eq!(switch.rows(Table::Bindings)[&session(11)], Content { values: vec![2, 3], idle: LIFETIME });
    until("the list is acknowledged", || switch.state().acknowledged == [5]);
    let told = |session, slot, generation| {
        News::Bound(Told { service: SERVICE, session, backend: Tag { slot, generation } })
    };
    assert_eq!(link.news(10), [told(10, 1, 0), told(11, 2, 3)]);
    // Told twice is bound once.
    switch.digest(6, &[(SERVICE, 10, 2, 0)]);
    until("the list is acknowledged", || switch.state().acknowledged == [5, 6]);
    assert_eq!(link.news(10), []);
    switch.idle(&session(10));
    until("it is gone", || switch.rows(Table::Bindings).len() == 1);
    assert_eq!(link.news(10), [News::Idle { service: SERVICE, session: 10 }]);
    assert_eq!(link.bindings(), 1);
    // What else should be does not touch sessions.
    want(&link, rows());
    settled(&link);
    assert_eq!(switch.rows(Table::Bindings).len(), 1);
}

#[test]
fn p4_of_two_the_higher_is_master_and_the_other_takes_over_with_its_sessions() {
    let switch = Switch::start();
    let first = link(&switch, 2);
    want(&first, rows());
    settled(&first);
    let second = link(&switch, 1);
    let mut other = rows();
    other.insert(Key::exact(Table::Vips, [10]), Content::default());
    // On the second one this slot is another backend's.
    let (mut key, content) = backend(2, 0xffff_0a00_0099);
    other.remove(&key);
    key.fields[1] = 1;
    other.insert(key, content);
    want(&second, other);
    until("it waits", || second.standing() == Standing::Backup);
    switch.digest(1, &[(SERVICE, 10, 1, 0), (SERVICE, 11, 2, 0)]);
    until("they are bound", || switch.rows(Table::Bindings).len() == 2);
    assert_eq!(switch.rows(Table::Vips).len(), 1);
    drop(first);
    settled(&second);
    assert_eq!(switch.rows(Table::Vips).len(), 2);
    assert_eq!(switch.state().pipelines, 1);
    let told = Told { service: SERVICE, session: 10, backend: Tag { slot: 1, generation: 0 } };
    assert_eq!(second.news(10), [News::Found(told)]);
    assert_eq!(switch.rows(Table::Bindings).into_keys().collect::<Vec<_>>(), [session(10)]);
}

#[test]
fn p4_ways_that_are_not_found_yet_stay_as_the_switch_has_them() {
    let switch = Switch::start();
    {
        let link = link(&switch, 1);
        want(&link, rows());
        settled(&link);
    }
    let rows_without = |slot: u16| {
        let mut rows = rows();
        rows.remove(&backend(slot, 0).0);
        rows
    };
    let owner = |slot: u16, address: u128| (Tag { slot, generation: 0 }, 0xffff_0a00_0000 + address);
    let link = link(&switch, 1);
    // Of the three one is not found yet, one is elsewhere now, and not found yet either.
    let mut both = rows_without(2);
    both.remove(&backend(1, 0).0);
    let owners = HashMap::from([owner(0, 0), owner(1, 99), owner(2, 2)]);
    link.want(both.clone(), HashMap::new(), owners.clone());
    settled(&link);
    let there = |slot: u16| switch.rows(Table::Backends).contains_key(&backend(slot, 0).0);
    assert_eq!([there(0), there(1), there(2)], [true, false, true]);
    // Something else changes.
    both.insert(Key::exact(Table::Vips, [11]), Content::default());
    link.want(both.clone(), HashMap::new(), owners);
    until("it is written", || switch.rows(Table::Vips).len() == 2);
    settled(&link);
    assert!(there(2));
    // It is found, elsewhere behind the switch.
    let (key, mut content) = backend(2, 0xffff_0a00_0002);
    content.values[6] = 9;
    both.insert(key.clone(), content.clone());
    link.want(both.clone(), HashMap::new(), HashMap::from([owner(0, 0), owner(2, 2)]));
    until("it is written", || switch.rows(Table::Backends)[&key] == content);
    // It is lost again: that is no news from before us.
    both.remove(&key);
    link.want(both, HashMap::new(), HashMap::from([owner(0, 0), owner(2, 2)]));
    until("it is gone", || !there(2));
}

#[test]
fn p4_connections_of_nodes_stay_while_who_knows_of_them_does() {
    let switch = Switch::start();
    let key = Key::exact(Table::Offloaded, [1, 2, 3, 4]);
    let content = |place| Content::of([5, 6, 7, 8, 9, 10, 3, 0, 11, 12, 1_500, 2, 3, 1, place, 4]);
    {
        let link = link(&switch, 1);
        assert!(!link.has_wants());
        want(&link, rows());
        assert!(link.has_wants());
        link.want_offloads(vec![(key.clone(), Some(content(0)))]);
        settled(&link);
        assert_eq!(switch.rows(Table::Offloaded)[&key], content(0));
        // What else should be does not touch them.
        let mut more = rows();
        more.insert(Key::exact(Table::Vips, [10]), Content::default());
        want(&link, more);
        settled(&link);
        // One is over, and the next one has the same ports.
        link.want_offloads(vec![(key.clone(), None), (key.clone(), Some(content(1)))]);
        settled(&link);
        assert_eq!(switch.rows(Table::Offloaded)[&key], content(1));
        assert_eq!(link.bindings(), 0);
    }
    let link = link(&switch, 1);
    want(&link, rows());
    settled(&link);
    assert!(switch.rows(Table::Offloaded).is_empty());
}

#[test]
fn p4_switch_that_starts_again_gets_everything_again() {
    let switch = Switch::start();
    let link = link(&switch, 1);
    want(&link, rows());
    settled(&link);
    switch.digest(1, &[(SERVICE, 10, 1, 0)]);
    until("it is bound", || switch.rows(Table::Bindings).len() == 1);
    let switch = switch.restart(false);
    let begun = Instant::now();
    until("the tables are back", || {
        switch.rows(Table::Arena).len() == 2_500 && switch.rows(Table::Bindings).len() == 1
    });
    eprintln!("tables back {:?} after the switch", begun.elapsed());
    settled(&link);
    assert_eq!(switch.state().pipelines, 1);
    // A connection that is lost costs nothing but looking.
    let switch = switch.restart(true);
    switch.state().updates = 0;
    until("it is there again", || {
        !switch.state().acknowledged.is_empty() || link.standing() == Standing::Settled
    });
    std::thread::sleep(Duration::from_millis(50));
    settled(&link);
    assert_eq!(switch.rows(Table::Bindings).len(), 1);
    assert!(switch.state().updates <= 1, "{} updates for nothing", switch.state().updates);
}

#[test]
fn p4_what_a_switch_cannot_do_is_refused() {
    let v4 = ServiceKey::service(IpAddr::from([10, 0, 0, 1]).into(), Be16::new(80), 6);
    let v6 = ServiceKey::service(IpAddr::from(Ipv6Addr::LOCALHOST).into(), Be16::new(80), 6);
    let rules = AffinityRules { length: 8, offset: 16, ..AffinityRules::default() };
    let plain = Service { prefix_v4: 32, prefix_v6: 64, ..Service::default() };
    let source = Service { affinity: Affinity::SourceIp as u8, ..plain };
    let payload = Service { affinity: Affinity::Payload as u8, ..plain };
    for (key, service, rules) in [
        (v4, plain, rules),
        (v4, Service { mode: Mode::Ipip as u8, ..plain }, rules),
        (v6, source, rules),
        (v4, Service { prefix_v6: 128, ..source }, rules),
        (v4, payload, rules),
    ] {
        wanted::examine(&key, &service, &rules).expect("a switch can do this");
    }
    for (key, service, rules) in [
        (v4, Service { mode: Mode::Gue as u8, ..plain }, rules),
        (ServiceKey { port: Be16::new(0), ..v4 }, Service { mode: Mode::Nat as u8, ..plain }, rules),
        (v4, Service { flags: ServiceFlags::SNAT, ..plain }, rules),
        (v4, Service { flags: ServiceFlags::SPLICE, ..plain }, rules),
        (v4, Service { flags: ServiceFlags::LIMITED, ..plain }, rules),
        (v4, Service { method: Method::LeastConnections as u8, ..plain }, rules),
        (v4, Service { affinity: Affinity::HttpCookie as u8, ..plain }, rules),
        (v6, Service { prefix_v6: 65, ..source }, rules),
        (v4, payload, AffinityRules { length: 9, offset: 0, ..rules }),
        (v4, payload, AffinityRules { length: 8, offset: 17, ..rules }),
    ] {
        let error = wanted::examine(&key, &service, &rules).expect_err("a switch cannot do this");
        assert!(matches!(error, Error::Unserved { port: 80 | 0, .. }), "{error}");
    }
}
