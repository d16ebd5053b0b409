//! Late messages of lives that are over, and who lives in the eyes of others.

use crate::binding::{Body, Content, Key, NodeId, StreamId, Time, Vector};
use crate::sync::wire::{self, Hello, Kind, Lives};
use crate::sync::{Config, Node, Recovery};
use core::time::Duration;

/// The stream in which node 1 numbered before it restarted, and how far its journal goes.
const FORMER: StreamId = StreamId { node: NodeId(1), epoch: 7 };
const HELD: u64 = 4;

fn start(id: u64, others: &[u64]) -> Recovery {
    let others = others.iter().map(|&id| NodeId(id)).collect();
    Recovery::new(Config::new(NodeId(id), others), Time(0), 1 << 40, id)
}

/// Node 1 with what its journal holds.
fn restart(others: &[u64]) -> Node {
    let mut recovery = start(1, others);
    for session in 1..=HELD {
        let body = Body { key: Key { service: 80, session }, server: 100, ..Body::default() };
        recovery.event(FORMER, session, &Content::Binding(body), Duration::from_secs(60));
    }
    recovery.finish()
}

/// Hands everything over, at one moment, until neither has anything to say; how many messages that took.
pub(super) fn talk(a: &mut Node, b: &mut Node, now: Time) -> usize {
    let mut buffer = Vec::new();
    let mut count = 0;
    loop {
        let before = count;
        for is_back in [false, true] {
            let (from, to) = if is_back { (&mut *b, &mut *a) } else { (&mut *a, &mut *b) };
            while let Some(peer) = from.poll_transmit(now, &mut buffer) {
                if peer == to.id() {
                    count += 1;
                    to.handle_message(now, from.id(), &buffer).expect("a message of a member");
                }
            }
        }
        if count == before {
            return count;
        }
        assert!(count < 1_000, "they talk without end");
    }
}

/// What a life of a peer says to node 1: events of it that it has, and in which lives it sees others, as an answer.
fn says(node: &Node, life: u32, hello: Hello, knows: u64, lives: &[(u64, u32)]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let mut out = wire::begin(&mut buffer, Kind::Vector, life, 1_000);
    out.hello(hello);
    out.vector(&Vector::from_iter([(FORMER, knows)]));
    out.digest(u64::from(node.incarnation));
    out.lives(&Lives::from_iter(lives.iter().map(|&(id, life)| (NodeId(id), life))));
    buffer
}

/// What proves a life to a node.
fn proof(node: &Node, of: u64) -> Hello {
    let asked = node.peers.get(&NodeId(of)).expect("a member").hello().challenge;
    Hello { challenge: 5, response: asked }
}

#[test]
fn a_late_message_of_a_life_that_is_over_is_no_new_life() {
    let (mut node, mut other) = (restart(&[2]), start(2, &[1]).finish());
    let before_it_died = says(&node, 77, Hello { challenge: 5, response: 6 }, HELD + 3, &[]);
    talk(&mut node, &mut other, Time(10));
    assert_eq!(node.stream(), Some(FORMER), "nobody knows more of it: it goes on");

    // Node 2 knew more before it restarted, too.
    node.handle_message(Time(20), NodeId(2), &before_it_died).expect("a message of a member");
    node.handle_timeout(Time(20));
    assert_eq!(node.stream(), Some(FORMER), "nobody who lives knows more of it");
    assert_eq!(node.told_by(NodeId(2), FORMER), Some(HELD));
    talk(&mut node, &mut other, Time(2_000));
    assert_eq!(node.counts().refused, 0, "the present life is not taken for a former one");
}

#[test]
fn a_life_that_proves_itself_is_believed_and_the_former_one_is_over() {
    let (mut node, mut other) = (restart(&[2]), start(2, &[1]).finish());
    talk(&mut node, &mut other, Time(10));
    let mut again = Recovery::new(Config::new(NodeId(2), vec![NodeId(1)]), Time(0), 1 << 40, 99).finish();
    assert_ne!(again.incarnation, other.incarnation);
    talk(&mut node, &mut again, Time(20));
    assert_eq!(node.lives().get(&NodeId(2)), Some(&again.incarnation));
    assert!(again.is_ready() && again.vector().event(FORMER) == HELD, "it has what node 1 has");

    let mut buffer = Vec::new();
    let late = core::iter::from_fn(|| other.poll_transmit(Time(2_000), &mut buffer).map(|_| buffer.clone()));
    let late: Vec<Vec<u8>> = late.collect();
    assert!(!late.is_empty());
    for message in late {
        assert!(node.handle_message(Time(30), NodeId(2), &message).is_err());
    }
}

#[test]
fn numbers_go_on_only_if_all_members_see_the_same_lives() {
    let mut node = restart(&[2, 3]);
    let own = node.incarnation;
    // Node 3 restarted as well; its former life knew more, and a message of it is on its way to node 2.
    let answer_of_2 = says(&node, 20, proof(&node, 2), 0, &[(1, own), (3, 29)]);
    let answer_of_3 = says(&node, 30, proof(&node, 3), 0, &[(1, own), (2, 20)]);
    node.handle_message(Time(10), NodeId(2), &answer_of_2).expect("an answer");
    node.handle_message(Time(10), NodeId(3), &answer_of_3).expect("an answer");
    assert_eq!(node.stream(), None, "node 2 may still hear of more");

    let again = says(&node, 20, proof(&node, 2), 0, &[(1, own), (3, 30)]);
    node.handle_message(Time(20), NodeId(2), &again).expect("an answer");
    assert_eq!(node.stream(), Some(FORMER));
}

#[test]
fn numbers_begin_anew_if_members_go_on_seeing_other_lives() {
    let mut node = restart(&[2, 3]);
    let own = node.incarnation;
    let answer_of_2 = says(&node, 20, proof(&node, 2), 0, &[(1, own), (3, 29)]);
    let answer_of_3 = says(&node, 30, proof(&node, 3), 0, &[(1, own), (2, 20)]);
    node.handle_message(Time(10), NodeId(2), &answer_of_2).expect("an answer");
    node.handle_message(Time(10), NodeId(3), &answer_of_3).expect("an answer");
    node.handle_timeout(Time(1_999));
    assert_eq!(node.stream(), None);
    node.handle_timeout(Time(2_000));
    assert!(node.stream().is_some_and(|stream| stream.epoch > FORMER.epoch));
}

#[test]
fn two_that_begin_and_see_a_third_one_differently_do_not_ask_each_other_without_end() {
    let (mut a, mut b) = (restart(&[2, 3]), start(2, &[1, 3]).finish());
    let of_3 = says(&a, 30, proof(&a, 3), 0, &[]);
    a.handle_message(Time(5), NodeId(3), &of_3).expect("an answer");
    let count = talk(&mut a, &mut b, Time(10));
    assert!(count <= 10, "{count} messages at once");
}
