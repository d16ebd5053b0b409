//! Replicated bindings, promise by promise: nodes on a network without faults, in virtual time.

mod deletion;
mod failure;
mod image;
mod one_way;

use lb_core::binding::{Binding, Content, Key, NodeId, StreamId, Time};
use lb_core::pool::identity::{server_number, service_id};
use lb_core::sync::wire::{Kind, Message};
use lb_core::sync::{Checkpoint, Config, Local, Node, PoolMember, Recovery, Write};
use std::collections::BTreeMap;
use std::time::Duration;

const WALL: u64 = 1_700_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A node with its journal, which writes at once unless it is told not to.
struct Place {
    node: Node,
    written: Vec<Write>,
    is_stuck: bool,
}

/// Nodes and what passes between them.
struct Cluster {
    now: u64,
    places: BTreeMap<u64, Place>,
    /// Messages from one to the other are lost.
    cut: Vec<(u64, u64)>,
    sent: Vec<(u64, u64, Vec<u8>)>,
}

fn config(id: u64, members: &[u64]) -> Config {
    Config::new(NodeId(id), members.iter().map(|&id| NodeId(id)).collect())
}

impl Cluster {
    fn new(ids: &[u64]) -> Self {
        let mut cluster = Self { now: 0, places: BTreeMap::new(), cut: Vec::new(), sent: Vec::new() };
        for &id in ids {
            cluster.start(config(id, ids), |_| {});
        }
        cluster.pass(6_000);
        cluster
    }

    fn start(&mut self, config: Config, journal: impl FnOnce(&mut Recovery)) {
        let id = config.id.0;
        let mut recovery = Recovery::new(config, Time(self.now), WALL + self.now, id * 7919 + self.now);
        journal(&mut recovery);
        self.places.insert(id, Place { node: recovery.finish(), written: Vec::new(), is_stuck: false });
    }

    /// Ends a node; what its journal holds.
    fn ends(&mut self, id: u64) -> Vec<Write> {
        self.places.remove(&id).expect("it was started").written
    }

    /// Lets time pass; messages take no time.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now = (self.now + 10).min(end);
            self.exchange();
        }
    }

    fn exchange(&mut self) {
        let now = Time(self.now);
        for (&id, place) in &mut self.places {
            place.node.handle_timeout(now);
            while let Some(write) = place.node.poll_journal(now) {
                if let Write::Event { stream, number, .. } = write
                    && !place.is_stuck
                {
                    place.node.handle_durable(now, stream, number);
                }
                place.written.push(write);
            }
            while place.node.poll_event(now).is_some() {}
            let mut buffer = Vec::new();
            while let Some(to) = place.node.poll_transmit(now, &mut buffer) {
                if !self.cut.contains(&(id, to.0)) {
                    self.sent.push((id, to.0, core::mem::take(&mut buffer)));
                }
            }
        }
        for (from, to, message) in core::mem::take(&mut self.sent) {
            if let Some(place) = self.places.get_mut(&to) {
                let _ = place.node.handle_message(now, NodeId(from), &message);
            }
        }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.places.get_mut(&id).expect("a node of this test").node
    }

    fn does(&mut self, id: u64, local: Local) -> Option<(StreamId, u64)> {
        let now = Time(self.now);
        self.node(id).handle_local(now, local)
    }

    fn binds(&mut self, id: u64, key: Key, server: u64, left: Duration) {
        self.does(id, Local::Bound { key, server, generation: 0, left });
    }

    fn find(&mut self, id: u64, key: Key) -> Option<Binding> {
        let now = Time(self.now);
        self.node(id).find(key, now)
    }

    fn server(&mut self, id: u64, key: Key) -> Option<u64> {
        self.find(id, key).map(|binding| binding.server)
    }
}

/// How a pool of ten servers stands at a node.
fn pool(down: &[u64]) -> Local {
    let servers = (1..=10).map(|n| n * 100).map(|number| {
        let is_up = !down.contains(&number);
        PoolMember { number, weight: 1, serves: is_up, accepts: is_up }
    });
    Local::Pool { service: 80, members: servers.collect(), lifetime: MINUTE * 10 }
}

const fn key(session: u64) -> Key {
    Key { service: 80, session }
}

#[test]
fn a1_a_request_that_matches_goes_to_the_bound_replica_and_its_expiry_begins_anew() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(5), 100, MINUTE);
    cluster.pass(30_000);
    assert_eq!(
        cluster.server(2, key(5)),
        Some(100),
        "client and application id find the replica on any node"
    );
    cluster.does(2, Local::Used { key: key(5), lifetime: MINUTE });
    cluster.pass(50_000);
    assert_eq!(cluster.server(1, key(5)), Some(100), "80 s after it was made, 50 s after it was used");
    assert_eq!(cluster.server(1, key(6)), None, "one that does not match has no binding");
    let other = Key { service: 81, ..key(5) };
    assert_eq!(cluster.server(1, other), None, "another application");
    cluster.pass(20_000);
    assert_eq!(cluster.server(1, key(5)), None);
}

#[test]
fn a2_own_events_are_numbered_without_gaps() {
    let mut cluster = Cluster::new(&[1, 2]);
    for session in 0..100 {
        cluster.binds(1, key(session), 100, MINUTE);
        cluster.does(1, Local::Used { key: key(session), lifetime: MINUTE });
    }
    cluster.pass(100);
    let numbers: Vec<u64> = cluster.places[&1]
        .written
        .iter()
        .filter_map(|write| match write {
            Write::Event { number, .. } => Some(*number),
            Write::View(_) => None,
        })
        .collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}

#[test]
fn a3_the_vector_has_the_own_latest_event_and_the_latest_of_each_peer() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    for (node, events) in [(1, 3), (2, 5), (3, 7)] {
        (0..events).for_each(|n| cluster.binds(node, key(node * 100 + n), 9, MINUTE));
    }
    cluster.pass(1_000);
    for id in 1..=3 {
        let vector = cluster.node(id).vector();
        let events: Vec<(u64, u64)> = vector.iter().map(|(stream, event)| (stream.node.0, event)).collect();
        assert_eq!(events, [(1, 3), (2, 5), (3, 7)], "node {id}");
    }
}

#[test]
fn a4_an_update_is_applied_only_where_it_follows_and_only_once() {
    let mut cluster = Cluster::new(&[1, 2]);
    let mut updates = Vec::new();
    for session in 0..3 {
        cluster.binds(1, key(session), 100, MINUTE);
        let now = Time(cluster.now);
        let place = cluster.places.get_mut(&1).expect("it was started");
        while let Some(Write::Event { stream, number, .. }) = place.node.poll_journal(now) {
            place.node.handle_durable(now, stream, number);
        }
        cluster.now += 10;
        let mut buffer = Vec::new();
        while cluster
            .places
            .get_mut(&1)
            .expect("it was started")
            .node
            .poll_transmit(Time(cluster.now), &mut buffer)
            .is_some()
        {
            if Message::parse(&buffer).expect("an own message").kind == Some(Kind::Events) {
                updates.push(buffer.clone());
            }
        }
    }
    assert_eq!(updates.len(), 3);
    let now = Time(cluster.now);
    let stream = cluster.node(1).stream().expect("it numbers");
    let b = cluster.node(2);
    b.handle_message(now, NodeId(1), &updates[0]).expect("a good message");
    b.handle_message(now, NodeId(1), &updates[2]).expect("a good message");
    assert_eq!(b.vector().event(stream), 1, "the third does not follow the first");
    assert_eq!(b.find(key(2), now), None);
    let mut buffer = Vec::new();
    assert_eq!(b.poll_transmit(now, &mut buffer), Some(NodeId(1)));
    let asked = Message::parse(&buffer).expect("an own message");
    assert_eq!(asked.kind, Some(Kind::Request));
    assert_eq!(asked.range.map(|range| (range.stream, range.first)), Some((stream, 2)));
    b.handle_message(now, NodeId(1), &updates[1]).expect("a good message");
    b.handle_message(now, NodeId(1), &updates[2]).expect("a good message");
    assert_eq!(b.vector().event(stream), 3);
    let (before, repeated) = (b.find(key(2), now), b.counts().repeated);
    b.handle_message(now, NodeId(1), &updates[2]).expect("a good message");
    assert_eq!((b.find(key(2), now), b.vector().event(stream)), (before, 3));
    assert_eq!(b.counts().repeated, repeated + 1);
}

#[test]
fn a5_two_nodes_that_bind_one_session_differently_end_alike() {
    let mut winners = Vec::new();
    for session in 0..40 {
        let mut cluster = Cluster::new(&[1, 2]);
        cluster.cut = vec![(1, 2), (2, 1)];
        cluster.binds(1, key(session), 100, MINUTE);
        cluster.pass(5_000);
        cluster.binds(2, key(session), 200, MINUTE);
        cluster.cut.clear();
        cluster.pass(5_000);
        let (one, two) = (cluster.find(1, key(session)), cluster.find(2, key(session)));
        let (one, two) = (one.expect("it lives"), two.expect("it lives"));
        assert_eq!((one.server, one.generation), (two.server, two.generation));
        let later = Duration::from_secs(54);
        assert!(
            one.left > later && two.left > later,
            "the later expiry holds: {:?} {:?}",
            one.left,
            two.left
        );
        winners.push(one.server);
    }
    assert!(winners.contains(&100) && winners.contains(&200), "no server wins all ties");
    // A generation holds against an expiry and a hash.
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(1), 100, MINUTE);
    cluster.pass(1_000);
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.does(1, Local::Bound { key: key(1), server: 300, generation: 1, left: MINUTE });
    cluster.pass(30_000);
    cluster.does(2, Local::Used { key: key(1), lifetime: MINUTE });
    cluster.cut.clear();
    cluster.pass(5_000);
    assert_eq!((cluster.server(1, key(1)), cluster.server(2, key(1))), (Some(300), Some(300)));
}

#[test]
fn a6_what_has_expired_goes_everywhere_without_a_message() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(1), 100, Duration::from_secs(10));
    cluster.pass(1_000);
    assert_eq!(cluster.server(2, key(1)), Some(100));
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.pass(20_000);
    for id in 1..=2 {
        assert_eq!(cluster.find(id, key(1)), None);
        assert_eq!(cluster.node(id).store().len(), 0, "no memory is held for it");
    }
    assert_eq!(cluster.node(1).counts().own, 1);
}

#[test]
fn a7_updates_come_in_batches_and_from_time_to_time_and_who_is_silent_is_asked() {
    let mut cluster = Cluster::new(&[1, 2]);
    (0..200).for_each(|session| cluster.binds(1, key(session), 100, MINUTE));
    let before = cluster.node(2).peers(Time(0)).next().expect("one peer").received;
    cluster.pass(30);
    assert_eq!(cluster.server(2, key(199)), Some(100));
    let received = cluster.node(2).peers(Time(0)).next().expect("one peer").received - before;
    assert!(received < 200 * 40 + 200, "one message, at most 40 bytes an event: {received}");
    // Nothing to say: a heartbeat a second.
    let heard = |cluster: &mut Cluster| {
        let now = Time(cluster.now);
        cluster.node(2).peers(now).next().expect("one peer").silent.expect("it was heard")
    };
    for _ in 0..10 {
        cluster.pass(700);
        assert!(heard(&mut cluster) <= Duration::from_millis(1_050));
    }
    // One that was silent is asked, and answers at once.
    cluster.cut = vec![(1, 2)];
    cluster.pass(3_500);
    cluster.cut = vec![(1, 2), (2, 1)];
    let now = Time(cluster.now + 1_000);
    let mut buffer = Vec::new();
    assert_eq!(cluster.node(2).poll_transmit(now, &mut buffer), Some(NodeId(1)));
    assert_eq!(Message::parse(&buffer).expect("an own message").question & 1, 1, "it asks for an answer");
}

#[test]
fn a8_a_new_node_and_one_that_is_too_far_behind_get_the_whole_database() {
    let mut cluster = Cluster::new(&[1, 2]);
    (0..5_000).for_each(|session| cluster.binds(1, key(session), 100, MINUTE * 10));
    cluster.pass(3_000);
    // New and empty.
    for id in 1..=2 {
        let now = Time(cluster.now);
        cluster.node(id).set_members(now, &[NodeId(1), NodeId(2), NodeId(3)]);
    }
    cluster.start(config(3, &[1, 2]), |_| {});
    cluster.pass(3_000);
    assert!(cluster.node(3).is_ready());
    assert_eq!(cluster.node(3).store().len(), 5_000);
    assert_eq!(cluster.node(3).counts().snapshots_done, 1);
    let known = cluster.node(1).vector();
    assert!(cluster.node(3).vector().covers(&known));
    // Too far behind for a log of few events.
    let mut cluster = Cluster { now: 0, places: BTreeMap::new(), cut: Vec::new(), sent: Vec::new() };
    for id in 1..=2 {
        cluster.start(Config { log_events: 100, ..config(id, &[1, 2]) }, |_| {});
    }
    cluster.pass(6_000);
    cluster.cut = vec![(1, 2), (2, 1)];
    (0..5_000).for_each(|session| cluster.binds(1, key(session), 100, MINUTE * 10));
    cluster.pass(1_000);
    cluster.cut.clear();
    cluster.pass(5_000);
    assert_eq!(cluster.node(2).counts().snapshots_done, 1);
    assert_eq!(cluster.node(2).store().len(), 5_000);
}

/// Feeds a new node what the journal of another one had.
fn replay(recovery: &mut Recovery, written: &[Write], wall: u64, saved: Option<&Checkpoint>) {
    recovery.written_at(wall);
    if let Some(saved) = saved {
        recovery.vector(&saved.vector);
    }
    for write in written {
        match write {
            Write::Event { stream, number, content, left } => {
                recovery.event(*stream, *number, content, *left)
            }
            Write::View(view) => recovery.view(view.clone()),
        }
    }
}

#[test]
fn a9_a_node_that_restarts_sends_what_its_log_holds_and_fetches_the_rest() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.binds(1, key(1), 100, MINUTE);
    let acknowledged = cluster.does(1, Local::Pinned { key: key(2), server: 200, lifetime: MINUTE });
    cluster.binds(2, key(3), 300, MINUTE);
    cluster.pass(100);
    assert!(acknowledged.is_some());
    let (epoch, wall) = (cluster.node(1).stream(), WALL + cluster.now);
    let written = cluster.ends(1);
    cluster.now += 20_000;
    cluster.cut.clear();
    cluster.start(config(1, &[1, 2]), |recovery| replay(recovery, &written, wall, None));
    cluster.pass(3_000);
    for id in 1..=2 {
        assert_eq!(cluster.server(id, key(1)), Some(100), "node {id}: its log was sent");
        assert_eq!(cluster.server(id, key(2)), Some(200), "node {id}: acknowledged");
        assert_eq!(cluster.server(id, key(3)), Some(300), "node {id}: fetched");
    }
    let left = cluster.find(2, key(1)).expect("it lives").left;
    assert!(left < Duration::from_secs(38), "lives run on while a machine is down: {left:?}");
    assert_eq!(cluster.node(1).stream(), epoch, "nobody knew more of it: the epoch goes on");
    // An event that is not durable stays.
    cluster.places.get_mut(&1).expect("it was started").is_stuck = true;
    cluster.binds(1, key(9), 100, MINUTE);
    cluster.pass(5_000);
    assert_eq!((cluster.server(1, key(9)), cluster.server(2, key(9))), (Some(100), None));
}

#[test]
fn a10_events_of_a_node_that_is_gone_come_from_any_peer() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.cut = vec![(1, 3)];
    cluster.binds(1, key(1), 100, MINUTE);
    cluster.pass(30);
    assert_eq!((cluster.server(2, key(1)), cluster.server(3, key(1))), (Some(100), None));
    let stream = cluster.node(1).stream().expect("it numbers");
    cluster.places.remove(&1);
    cluster.pass(10_000);
    assert_eq!(cluster.server(3, key(1)), Some(100), "node 2 had it");
    assert!(cluster.node(2).counts().relayed > 0);
    assert_eq!(cluster.node(3).counts().snapshots_done, 0);
    let now = Time(cluster.now);
    let told = cluster.node(2).peers(now).find(|peer| peer.id == NodeId(3)).expect("a member").told;
    assert_eq!(told.event(stream), 1, "node 2 knows that node 3 has it");
}

#[test]
fn a11_a_node_that_lost_its_log_begins_a_new_epoch_and_the_old_one_is_dropped_in_time() {
    let mut cluster = Cluster { now: 0, places: BTreeMap::new(), cut: Vec::new(), sent: Vec::new() };
    for id in 1..=2 {
        cluster.start(Config { retention: Duration::from_secs(30), ..config(id, &[1, 2]) }, |_| {});
    }
    cluster.pass(6_000);
    cluster.binds(1, key(1), 100, MINUTE * 10);
    cluster.pass(1_000);
    let old = cluster.node(1).stream().expect("it numbers");
    cluster.places.remove(&1);
    // Its clock is an hour behind, too.
    let lost = Config { retention: Duration::from_secs(30), ..config(1, &[1, 2]) };
    let node = Recovery::new(lost, Time(cluster.now), WALL - 3_600_000, 99).finish();
    cluster.places.insert(1, Place { node, written: Vec::new(), is_stuck: false });
    cluster.pass(3_000);
    let new = cluster.node(1).stream().expect("it numbers");
    assert!(new.epoch > old.epoch, "above the highest that anyone saw");
    cluster.binds(1, key(2), 100, MINUTE * 10);
    cluster.pass(1_000);
    let vector = cluster.node(2).vector();
    assert_eq!((vector.event(old), vector.event(new)), (1, 1));
    assert_eq!(cluster.server(1, key(1)), Some(100), "fetched from its peer");
    assert_eq!(cluster.server(2, key(2)), Some(100));
    cluster.pass(60_000);
    for id in 1..=2 {
        let streams: Vec<StreamId> = cluster.node(id).vector().iter().map(|(stream, _)| stream).collect();
        assert!(!streams.contains(&old) && streams.contains(&new), "node {id}: {streams:?}");
    }
}

#[test]
fn a12_the_same_database_serves_dns() {
    // Client id: the resolver's address; application id: the domain name; replica: the site.
    let mut cluster = Cluster::new(&[1, 2]);
    let resolver = Key {
        service: service_id("www.example.org"),
        session: u64::from(u32::from_be_bytes([192, 0, 2, 53])),
    };
    cluster.binds(1, resolver, server_number("site-a"), MINUTE);
    cluster.pass(1_000);
    assert_eq!(cluster.server(2, resolver), Some(server_number("site-a")), "several servers act as one");
}

#[test]
fn uses_are_told_once_a_quarter_of_the_lifetime_and_still_count_to_the_last() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(1), 100, Duration::from_secs(100));
    for _ in 0..200 {
        cluster.pass(1_000);
        cluster.does(1, Local::Used { key: key(1), lifetime: Duration::from_secs(100) });
    }
    let own = cluster.node(1).counts().own;
    assert!((8..=9).contains(&own), "{own} events in two lifetimes");
    cluster.pass(97_000);
    assert_eq!(
        cluster.server(2, key(1)),
        Some(100),
        "used 97 s ago, told of it before the end that was told last"
    );
    cluster.pass(5_000);
    assert_eq!(cluster.server(2, key(1)), None);
}

#[test]
fn records_of_services_that_nobody_here_knows_are_kept_and_passed_on() {
    let mut cluster = Cluster::new(&[1, 2]);
    let unknown = Key { service: 0xdead_beef, session: 1 };
    cluster.binds(1, unknown, 0xffff_ffff_ffff_fff1, MINUTE);
    cluster.pass(1_000);
    for id in 1..=2 {
        let now = Time(cluster.now);
        cluster.node(id).set_members(now, &[NodeId(1), NodeId(2), NodeId(3)]);
    }
    cluster.start(config(3, &[1, 2]), |_| {});
    cluster.places.remove(&1);
    cluster.pass(6_000);
    assert_eq!(cluster.server(3, unknown), Some(0xffff_ffff_ffff_fff1));
}

#[test]
fn a_stranger_changes_nothing_and_learns_nothing() {
    let mut cluster = Cluster::new(&[1, 2]);
    let mut stranger = Cluster::new(&[2, 9]);
    stranger.binds(9, key(1), 100, MINUTE);
    let mut buffer = Vec::new();
    let now = Time(cluster.now);
    let later = Time(stranger.now + 2_000);
    stranger.node(9).poll_transmit(later, &mut buffer);
    assert!(cluster.node(2).handle_message(now, NodeId(9), &buffer).is_err());
    assert_eq!(cluster.find(2, key(1)), None);
    assert!(cluster.node(2).poll_transmit(now, &mut buffer).is_none_or(|to| to == NodeId(1)));
}

#[test]
fn the_journals_events_survive_their_encoding() {
    let mut cluster = Cluster::new(&[1]);
    cluster.binds(1, key(u64::MAX), u64::MAX, MINUTE);
    cluster.binds(1, key(1), 100, MINUTE);
    cluster.does(1, pool(&[100]));
    cluster.pass(100);
    let mut events = 0;
    for write in &cluster.places[&1].written {
        if let Write::Event { content, left, .. } = write {
            let mut bytes = Vec::new();
            lb_core::sync::wire::put_event(&mut bytes, content, *left, true);
            assert!(bytes.len() <= lb_core::sync::wire::MAX_EVENT);
            let (read, still, is_covered) =
                lb_core::sync::wire::event(&bytes).expect("what was written can be read");
            assert_eq!((read, still, is_covered), (*content, *left, true));
            events += usize::from(matches!(read, Content::Binding(_) | Content::Failover(_)));
        }
    }
    assert_eq!(events, 3);
}
