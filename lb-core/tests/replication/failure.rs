//! A server's failure: one event, agreed upon, from which every node finds the same heirs.

use super::*;

#[test]
fn a_servers_failure_is_one_event_and_every_node_finds_the_same_heirs() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    (0..1_000).for_each(|session| cluster.binds(1, key(session), 100, MINUTE * 10));
    cluster.pass(1_000);
    for id in 1..=3 {
        cluster.does(id, pool(&[]));
    }
    cluster.pass(1_000);
    let before: u64 = (1..=3).map(|id| cluster.node(id).counts().own).sum();
    // One by one they see it; the last one's word makes it so.
    cluster.does(2, pool(&[100]));
    cluster.pass(5_000);
    cluster.does(1, pool(&[100]));
    cluster.pass(5_000);
    assert_eq!(cluster.server(1, key(1)), Some(100), "node 3 says that it serves");
    cluster.does(3, pool(&[100]));
    cluster.pass(5_000);
    let own: u64 = (1..=3).map(|id| cluster.node(id).counts().own).sum();
    assert_eq!(own, before + 1, "one event for a thousand sessions");
    assert_eq!(cluster.node(1).counts().failovers, 1, "told by the one with the lowest id");
    let mut heirs = BTreeMap::<u64, u32>::new();
    for session in 0..1_000 {
        let first = cluster.find(1, key(session)).expect("it lives");
        assert_eq!(first.generation, 1);
        for id in 2..=3 {
            assert_eq!(cluster.server(id, key(session)), Some(first.server));
        }
        *heirs.entry(first.server).or_default() += 1;
    }
    assert!(!heirs.contains_key(&100) && heirs.len() == 9, "they spread over the others: {heirs:?}");
    // It comes back: who is bound to it now stays, who moved does not come back.
    for id in 1..=3 {
        cluster.does(id, pool(&[]));
    }
    cluster.pass(1_000);
    cluster.binds(3, key(5_000), 100, MINUTE);
    cluster.pass(1_000);
    assert_eq!(cluster.server(1, key(5_000)), Some(100));
    assert_ne!(cluster.server(1, key(1)), Some(100));
}

#[test]
fn a_node_that_is_cut_off_moves_nobody_elses_sessions() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.binds(1, key(1), 100, MINUTE * 10);
    for id in 1..=3 {
        cluster.does(id, pool(&[]));
    }
    cluster.pass(1_000);
    // It reaches neither its backends nor the others.
    cluster.cut = vec![(1, 2), (2, 1), (1, 3), (3, 1)];
    cluster.does(1, pool(&[100, 200]));
    cluster.pass(20_000);
    cluster.cut.clear();
    cluster.pass(5_000);
    for id in 1..=3 {
        assert_eq!(cluster.server(id, key(1)), Some(100), "node {id}");
        assert_eq!(cluster.node(id).counts().failovers, 0);
    }
    // Two of three are enough when the third one is silent.
    cluster.cut = vec![(1, 3), (3, 1), (2, 3), (3, 2)];
    cluster.pass(5_000);
    cluster.does(2, pool(&[100]));
    cluster.pass(2_000);
    assert_ne!(cluster.server(1, key(1)), Some(100), "nodes 1 and 2 agree");
    cluster.cut.clear();
    cluster.pass(5_000);
    assert_eq!(cluster.server(3, key(1)), cluster.server(1, key(1)), "the third one follows");
}

#[test]
fn of_two_nodes_the_one_that_is_left_moves_nobody_and_who_has_no_such_service_does_not_matter() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(1), 100, MINUTE * 10);
    cluster.does(1, pool(&[]));
    cluster.pass(1_000);
    cluster.does(1, pool(&[100]));
    cluster.pass(3_000);
    assert_ne!(cluster.server(2, key(1)), Some(100), "node 2 does not know the service");
    let heir = cluster.server(1, key(1)).expect("it lives");
    cluster.does(2, pool(&[]));
    cluster.pass(1_000);
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.pass(5_000);
    cluster.does(1, pool(&[100, heir]));
    cluster.pass(10_000);
    assert_eq!(cluster.server(1, key(1)), Some(heir), "half is not most");
}

#[test]
fn sessions_that_come_after_a_failure_was_agreed_upon_are_moved_too() {
    let mut cluster = Cluster::new(&[1, 2]);
    for id in 1..=2 {
        cluster.does(id, pool(&[100]));
    }
    cluster.pass(5_000);
    assert_eq!(cluster.node(1).counts().failovers, 0, "nobody is with it");
    // A node that was away still has one.
    cluster.does(2, Local::Held { key: key(1), server: 100, generation: 0, left: MINUTE });
    cluster.pass(5_000);
    let moved = cluster.server(1, key(1));
    assert!(moved.is_some_and(|server| server != 100), "{moved:?}");
    assert_eq!(cluster.server(2, key(1)), moved);
    let told: u64 = (1..=2).map(|id| cluster.node(id).counts().failovers).sum();
    assert_eq!(told, 1);
}
