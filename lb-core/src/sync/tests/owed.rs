//! What a snapshot brought, and no vector covers yet.

use super::{sent, start};
use crate::binding::{Body, Content, Key, NodeId, StreamId, Time, Vector};
use crate::sync::wire::{self, Kind, Message, Range, SnapshotCursor};
use crate::sync::{Node, Write};

/// How far the first and the last chunk of a snapshot know a stream.
const FIRST: u64 = 15;
const LAST: u64 = 20;

const fn stream(of: u64) -> StreamId {
    StreamId { node: NodeId(of), epoch: 7 }
}

fn binding(session: u64) -> Content {
    Content::Binding(Body { key: Key { service: 80, session }, server: 100, ..Body::default() })
}

/// Node 1, which numbers; node `of` told of a session with its event 20, which only a snapshot of node 2, in life 20, brought so far.
fn owing(of: u64) -> Node {
    let mut node = start(1, &[2, 3]);
    node.handle_timeout(Time(2_000));
    node.begin_import(Time(2_010), NodeId(2));
    let request = sent(&mut node, Time(2_010), 2, Kind::SnapshotRequest);
    let id = Message::parse(&request).expect("a request").cursor.expect("a cursor").id;
    let mut buffer = Vec::new();
    for (from, last) in [(0, FIRST), (8, LAST)] {
        let mut out = wire::begin(&mut buffer, Kind::SnapshotChunk, 20, 1_000);
        out.vector(&Vector::from_iter([(stream(of), last)]));
        let mut records = (from > 0).then(|| (binding(LAST), 60_000)).into_iter();
        out.events(|_| records.next());
        out.cursor(&SnapshotCursor { id, from, next: from + 8, is_last: from > 0 });
        node.handle_message(Time(2_020), NodeId(2), &buffer).expect("a chunk");
    }
    assert!(node.snapshot_progress().is_none(), "it is complete");
    assert_eq!(node.vector().event(stream(of)), FIRST);
    node
}

/// A node tells, in a life, what its events up to `LAST` are: sessions from this one on.
fn numbers(node: &mut Node, of: u64, life: u32, mut session: u64) {
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Events, life, 2_000);
    out.range(&Range { stream: stream(of), first: FIRST + 1, last: LAST });
    let end = session + LAST - FIRST;
    out.events(|_| {
        session += 1;
        (session <= end).then(|| (binding(session), 60_000))
    });
    node.handle_message(Time(2_030), NodeId(of), &buffer).expect("events");
    assert_eq!(node.vector().event(stream(of)), LAST);
}

/// What node 1 has told itself, some time later.
fn told(node: &mut Node) -> Vec<Content> {
    for time in (2_040..8_000).step_by(20) {
        node.handle_timeout(Time(time));
    }
    let writes = core::iter::from_fn(|| node.poll_journal(Time(8_000)));
    writes
        .filter_map(|write| match write {
            Write::Event { content, .. } => Some(content),
            Write::View(_) => None,
        })
        .collect()
}

#[test]
fn the_events_cover_it_when_they_come() {
    for of in [2, 3] {
        let mut node = owing(of);
        numbers(&mut node, of, 10 * of as u32, FIRST);
        assert_eq!(told(&mut node), [], "of node {of}");
    }
}

#[test]
fn events_to_which_its_source_gives_the_same_numbers_do_not_cover_it() {
    let mut node = owing(2);
    numbers(&mut node, 2, 21, 100);
    assert_eq!(told(&mut node), [binding(LAST)]);
}

fn restarts(node: &mut Node) {
    let mut buffer = Vec::new();
    wire::begin(&mut buffer, Kind::Vector, 21, 1_000).vector(&Vector::default());
    node.handle_message(Time(2_025), NodeId(2), &buffer).expect("a vector");
}

fn leaves(node: &mut Node) {
    node.set_members(Time(2_025), &[NodeId(3)]);
}

/// Node 3 is back with an old image of its disk, and nobody knew more but who is gone.
#[test]
fn events_to_which_another_node_gives_the_same_numbers_do_not_cover_it_when_its_source_is_gone() {
    for (way, goes) in [("restarts", restarts as fn(&mut Node)), ("leaves", leaves)] {
        let mut node = owing(3);
        goes(&mut node);
        numbers(&mut node, 3, 30, 100);
        assert_eq!(told(&mut node), [binding(LAST)], "its source {way}");
    }
}
