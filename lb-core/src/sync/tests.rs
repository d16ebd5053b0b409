//! The wire format under bytes of any kind.

use super::wire::{self, Kind, MAX_EVENT, Message};
use super::{Config, Node, Recovery};
use crate::binding::{Body, Content, Flags, Key, MAX_GENERATION, Mark, NodeId, StreamId, Time, Vector};
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

fn node() -> Node {
    Recovery::new(Config::new(NodeId(1), vec![NodeId(2)]), Time(0), 1 << 40, 5).finish()
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

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(content in content(), left in 0_u64..1 << 42) {
        let mut bytes = Vec::new();
        wire::put_event(&mut bytes, &content, Duration::from_millis(left));
        prop_assert!(bytes.len() <= MAX_EVENT, "{} bytes", bytes.len());
        prop_assert_eq!(wire::event(&bytes), Ok((content, Duration::from_millis(left))));
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
