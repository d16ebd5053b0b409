//! The wire format under bytes of any kind, and single situations that the simulation found.

mod forgotten;
mod lives;
mod owed;

use super::wire::{self, Kind, MAX_EVENT, Message};
use super::{Config, Local, Node, Recovery, Write};
use crate::binding::{
    Body, Content, Flags, Key, MAX_GENERATION, Mark, NodeId, StreamId, Time, Vector, View, ViewMember,
};
use core::time::Duration;
use proptest::prelude::*;

fn content() -> impl Strategy<Value = Content> {
    let binding = (any::<u32>(), any::<u64>(), any::<u64>(), 0..=MAX_GENERATION, 0_u8..4, any::<u32>())
        .prop_map(|(service, session, server, generation, flags, failover)| {
            let key = Key { service, session };
            Content::Binding(Body { key, server, generation, flags: Flags(flags), failover }.sane())
        });
    let mark = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
        |(service, server, epoch, digest)| Content::Failover(Mark { service, server, epoch, digest }),
    );
    prop_oneof![binding, mark]
}

fn start(id: u64, others: &[u64]) -> Node {
    let others = others.iter().map(|&id| NodeId(id)).collect();
    Recovery::new(Config::new(NodeId(id), others), Time(0), 1 << 40, id).finish()
}

fn node() -> Node {
    start(1, &[2])
}

/// A message of every part that there is.
fn message(contents: &[(Content, u64)]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Events, 7, 1000);
    let stream = StreamId { node: NodeId(2), epoch: 3 };
    out.vector(&Vector::from_iter([(stream, 10)]));
    out.range(&wire::Range { stream, first: 1, last: 2 });
    let mut left = contents.iter();
    out.events(|_| left.next().copied());
    out.cursor(&wire::SnapshotCursor { id: 1, from: 0, next: 5, is_last: true });
    out.digest(9);
    out.hello(wire::Hello { challenge: 1, response: 2 });
    out.lives(&wire::Lives::from_iter([(NodeId(3), 4)]));
    buffer
}

#[test]
fn a_peer_that_dies_after_its_first_vector_keeps_nobody_waiting() {
    let mut node = node();
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Vector, 7, 1000);
    out.vector(&Vector::from_iter([(StreamId { node: NodeId(2), epoch: 3 }, 10)]));
    node.handle_message(Time(5), NodeId(2), &buffer).expect("a vector");
    node.set_blocked(NodeId(2), true);
    let ready = (5..20_000).step_by(50).find(|&time| {
        node.handle_timeout(Time(time));
        while node.poll_transmit(Time(time), &mut buffer).is_some() {}
        node.is_ready()
    });
    let alone_after = Config::new(NodeId(1), Vec::new()).alone_after.as_millis() as u64;
    let ready = ready.expect("ready");
    assert!((alone_after..alone_after + 2_000).contains(&ready), "ready after {ready} ms");
}

/// What a node sends to a peer, up to the first message of a kind.
fn sent(node: &mut Node, now: Time, to: u64, kind: Kind) -> Vec<u8> {
    let mut buffer = Vec::new();
    loop {
        let peer = node.poll_transmit(now, &mut buffer).expect("a message of this kind");
        if peer == NodeId(to) && Message::parse(&buffer).expect("its own message").kind == Some(kind) {
            return buffer;
        }
    }
}

/// As if each had heard that the other's present life is the one that it is.
fn acquaint(a: &mut Node, b: &mut Node) {
    let lives = (a.incarnation, b.incarnation);
    let (id_of_a, id_of_b) = (a.id(), b.id());
    a.peers.get_mut(&id_of_b).expect("a member").incarnation = Some(lives.1);
    b.peers.get_mut(&id_of_a).expect("a member").incarnation = Some(lives.0);
}

#[test]
fn a_mark_of_a_snapshot_that_broke_off_hides_no_mark_that_the_vector_covers() {
    let stream = StreamId { node: NodeId(3), epoch: 7 };
    let vector = Vector::from_iter([(stream, 1)]);
    let failure = |digest| (Content::Failover(Mark { service: 80, server: 100, epoch: 1, digest }), 60_000);
    let mut buffer = Vec::new();

    // Node 1 hears of a failure from its origin, and of another one's like it that holds in a snapshot which breaks off.
    let mut node = start(1, &[2, 3]);
    let mut out = wire::begin(&mut buffer, Kind::Events, 30, 1000);
    out.range(&wire::Range { stream, first: 1, last: 1 });
    let mut events = [failure(5)].into_iter();
    out.events(|_| events.next());
    node.handle_message(Time(10), NodeId(3), &buffer).expect("events");
    node.begin_import(Time(20), NodeId(3));
    let request = sent(&mut node, Time(20), 3, Kind::SnapshotRequest);
    let id = Message::parse(&request).expect("a request").cursor.expect("a cursor").id;
    let mut out = wire::begin(&mut buffer, Kind::SnapshotChunk, 30, 1020);
    out.vector(&vector);
    let mut events = [failure(9)].into_iter();
    out.events(|_| events.next());
    out.cursor(&wire::SnapshotCursor { id, from: 0, next: 8, is_last: false });
    node.handle_message(Time(30), NodeId(3), &buffer).expect("a chunk");
    // It goes on with node 2, so that it cannot tell it itself yet.
    let vector_of_2 = Vector::from_iter([(StreamId { node: NodeId(2), epoch: 1 }, 0)]);
    wire::begin(&mut buffer, Kind::Vector, 20, 1030).vector(&vector_of_2);
    node.handle_message(Time(40), NodeId(2), &buffer).expect("a vector");
    node.set_members(Time(40), &[NodeId(2)]);
    assert!(node.snapshot_progress().is_some());
    node.handle_timeout(Time(3_000));
    assert_eq!(node.vector().event(stream), 1, "the vector covers the first one");

    // Node 2 takes everything from node 1.
    let mut other = start(2, &[1]);
    acquaint(&mut node, &mut other);
    other.begin_import(Time(3_000), NodeId(1));
    let request = sent(&mut other, Time(3_000), 1, Kind::SnapshotRequest);
    node.handle_message(Time(3_010), NodeId(2), &request).expect("a request");
    let chunk = sent(&mut node, Time(3_010), 2, Kind::SnapshotChunk);
    other.handle_message(Time(3_020), NodeId(1), &chunk).expect("a chunk");
    assert!(other.snapshot_progress().is_none(), "it is complete");
    assert_eq!(other.vector().event(stream), 1);
    let marks = |node: &Node| node.store().marks().map(|(mark, _)| mark.digest).collect::<Vec<_>>();
    assert_eq!(marks(&other), marks(&node));
    assert_eq!(marks(&other), [9]);

    // No vector covers it: node 2 tells it, should node 1 be gone.
    other.handle_timeout(Time(6_000));
    let own = core::iter::from_fn(|| other.poll_journal(Time(6_000)));
    let own: Vec<Content> = own
        .filter_map(|write| match write {
            Write::Event { content, .. } => Some(content),
            Write::View(_) => None,
        })
        .collect();
    assert_eq!(own, [failure(9).0]);
}

#[test]
fn a_view_in_the_journal_outlives_a_restart_before_its_mark() {
    let member =
        |number, is_live: bool| ViewMember { number, weight: 1, failover: u32::from(!is_live), is_live };
    let view = View::new(80, vec![member(100, false), member(200, true)]);
    let mark = Mark { service: 80, server: 100, epoch: 1, digest: view.digest() };
    let config = Config::new(NodeId(1), vec![NodeId(2)]);
    let mut recovery = Recovery::new(config, Time(0), 1 << 40, 5);
    recovery.view(view);
    let mut node = recovery.finish();

    let key = Key { service: 80, session: 5 };
    let body = Body { key, server: 100, ..Body::default() };
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Events, 7, 1000);
    let stream = StreamId { node: NodeId(2), epoch: 3 };
    out.range(&wire::Range { stream, first: 1, last: 2 });
    let mut events = [Content::Binding(body), Content::Failover(mark)].into_iter();
    out.events(|_| events.next().map(|content| (content, 60_000)));
    node.handle_message(Time(10), NodeId(2), &buffer).expect("events");
    assert_eq!(node.find(key, Time(10)).map(|binding| binding.server), Some(200));
}

#[test]
fn a_view_that_nobody_has_hides_no_later_failover() {
    let member = |number, is_live| ViewMember { number, weight: 1, failover: 0, is_live };
    let view = View::new(80, vec![member(100, false), member(200, true)]);
    let mark = |epoch, digest| Content::Failover(Mark { service: 80, server: 100, epoch, digest });
    let key = Key { service: 80, session: 5 };
    let body = Content::Binding(Body { key, server: 100, ..Body::default() });
    let mut node = node();
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Events, 7, 1000);
    out.range(&wire::Range { stream: StreamId { node: NodeId(2), epoch: 3 }, first: 1, last: 3 });
    // Who told the first one is gone, and so is its view.
    let mut events = [body, mark(1, 9), mark(2, view.digest())].into_iter();
    out.events(|_| events.next().map(|content| (content, 60_000)));
    node.handle_message(Time(10), NodeId(2), &buffer).expect("events");
    wire::begin(&mut buffer, Kind::View, 7, 1000).view(&view);
    node.handle_message(Time(10), NodeId(2), &buffer).expect("a view");
    let server = |node: &Node, time| node.find(key, Time(time)).map(|binding| binding.server);
    assert_eq!(server(&node, 10), Some(100), "somebody may have it");
    for time in (10..10_000).step_by(50) {
        node.handle_timeout(Time(time));
        while node.poll_transmit(Time(time), &mut buffer).is_some() {}
    }
    assert_eq!(server(&node, 10_000), Some(200));
}

#[test]
fn a_snapshot_has_the_vector_of_all_that_is_in_it() {
    let (mut node, mut other) = (start(1, &[2]), start(2, &[1]));
    acquaint(&mut node, &mut other);
    node.handle_timeout(Time(3_000));
    let key = Key { service: 80, session: 5 };
    let bound = Local::Bound { key, server: 100, generation: 0, left: Duration::from_secs(60) };
    let (stream, number) = node.handle_local(Time(3_000), bound).expect("an event");
    assert!(node.poll_journal(Time(3_000)).is_some());

    other.begin_import(Time(3_000), NodeId(1));
    let request = sent(&mut other, Time(3_000), 1, Kind::SnapshotRequest);
    node.handle_message(Time(3_010), NodeId(2), &request).expect("a request");
    let mut buffer = Vec::new();
    while node.poll_transmit(Time(3_010), &mut buffer).is_some() {
        let kind = Message::parse(&buffer).expect("its own message").kind;
        assert_ne!(kind, Some(Kind::SnapshotChunk), "the record is not durable yet");
    }
    node.handle_durable(Time(3_020), stream, number);
    let chunk = sent(&mut node, Time(3_020), 2, Kind::SnapshotChunk);
    other.handle_message(Time(3_020), NodeId(1), &chunk).expect("a chunk");
    assert!(other.find(key, Time(3_020)).is_some());
    assert_eq!(other.vector().event(stream), number, "or it would have a record that nobody tells of");
}

#[test]
fn events_that_wait_for_the_journal_are_forgotten_when_it_has_them() {
    let config = Config { log_events: 60, ..Config::new(NodeId(1), vec![NodeId(2)]) };
    let mut node = Recovery::new(config, Time(0), 1 << 40, 5).finish();
    let now = Time(2_000);
    node.handle_timeout(now);
    for session in 0..100 {
        let key = Key { service: 80, session };
        node.handle_local(
            now,
            Local::Bound { key, server: 100, generation: 0, left: Duration::from_secs(60) },
        );
    }
    let (stream, last) = node.latest().expect("it numbers");
    while node.poll_journal(now).is_some() {}
    let held = |node: &Node| last + 1 - node.streams[&stream].log.first();
    assert_eq!(held(&node), 100, "the journal may lose them");
    node.handle_durable(now, stream, last);
    assert_eq!(held(&node), 60);
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(
        content in content(),
        left in 0_u64..1 << 42,
        is_covered in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        wire::put_event(&mut bytes, &content, Duration::from_millis(left), is_covered);
        prop_assert!(bytes.len() <= MAX_EVENT, "{} bytes", bytes.len());
        prop_assert_eq!(wire::event(&bytes), Ok((content, Duration::from_millis(left), is_covered)));
    }

    #[test]
    fn no_bytes_make_a_node_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        wire::examine(&bytes);
        let mut node = node();
        let _ = node.handle_message(Time(5), NodeId(2), &bytes);
    }

    #[test]
    fn no_damage_to_a_message_makes_a_node_panic(
        contents in prop::collection::vec((content(), any::<u64>()), 0..5),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        kind in 1_u8..10,
    ) {
        let mut bytes = message(&contents);
        bytes[1] = kind;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        wire::examine(&bytes);
        let mut node = node();
        let mut buffer = Vec::new();
        for time in [5, 3000, 90_000] {
            let _ = node.handle_message(Time(time), NodeId(2), &bytes);
            node.handle_timeout(Time(time));
            for _ in 0..100 {
                if node.poll_transmit(Time(time), &mut buffer).is_none() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_is_skipped(
        contents in prop::collection::vec((content(), 0_u64..1 << 42), 0..5),
        tag in 100_u8..,
        extra in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut bytes = message(&contents);
        bytes.push(tag);
        bytes.extend((extra.len() as u32).to_le_bytes());
        bytes.extend(&extra);
        let read = Message::parse(&bytes).expect("a field more");
        prop_assert_eq!(read.events().collect::<Vec<_>>(), contents);
        bytes[1] = 200;
        prop_assert_eq!(Message::parse(&bytes).expect("another kind").kind, None);
        bytes[0] = 2;
        prop_assert_eq!(Message::parse(&bytes).err(), Some(wire::Malformed::Version(2)));
    }
}
