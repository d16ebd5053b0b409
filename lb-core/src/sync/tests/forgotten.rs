//! Streams that all but one node have forgotten.

use super::lives::talk;
use crate::binding::{Body, Content, Key, NodeId, StreamId, Time};
use crate::sync::{Config, Node, Recovery};
use core::time::Duration;

/// A stream of a node that is no member any more.
const ENDED: StreamId = StreamId { node: NodeId(9), epoch: 7 };
/// Its last event, and the last one that node 1 has.
const END: u64 = 100;
const HELD: u64 = 4;

fn recovery(id: u64, other: u64) -> Recovery {
    Recovery::new(Config::new(NodeId(id), vec![NodeId(other)]), Time(0), 1 << 40, id)
}

/// Node 1 with an old image of its disk.
fn behind() -> Node {
    let mut recovery = recovery(1, 2);
    for session in 1..=HELD {
        let body = Body { key: Key { service: 80, session }, server: 100, ..Body::default() };
        recovery.event(ENDED, session, &Content::Binding(body), Duration::from_secs(60));
    }
    recovery.finish()
}

/// What nobody can send any more comes as a snapshot, once.
#[test]
fn who_is_behind_in_a_forgotten_stream_gets_a_snapshot() {
    let (mut behind, mut other) = (behind(), recovery(2, 1).finish());
    other.dropped.insert(ENDED, END);
    let mut now = Time(0);
    for _ in 0..600 {
        now = now.after(Duration::from_millis(50));
        for node in [&mut behind, &mut other] {
            node.handle_timeout(now);
        }
        talk(&mut behind, &mut other, now);
    }
    assert!(behind.vector().event(ENDED) >= END, "{:?}", behind.vector());
    assert_eq!(behind.counts.snapshots_done, 1);
}
