//! Sessions that are deleted, and what is bound after that.

use super::*;

#[test]
fn a_deleted_session_stays_deleted_although_a_cut_off_node_used_it() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.binds(1, key(1), 100, MINUTE);
    cluster.pass(1_000);
    cluster.cut = vec![(1, 2), (2, 1), (2, 3), (3, 2)];
    cluster.pass(20_000);
    cluster.does(2, Local::Used { key: key(1), lifetime: MINUTE });
    cluster.does(1, Local::Deleted { key: key(1) });
    cluster.cut.clear();
    cluster.pass(5_000);
    for id in 1..=3 {
        assert_eq!(cluster.find(id, key(1)), None, "node {id}");
    }
    cluster.pass(90_000);
    assert_eq!(cluster.node(3).store().len(), 0, "the tombstone ended when the record would have");
}

#[test]
fn a_deleted_session_stays_deleted_although_a_data_plane_holds_it_for_longer_than_was_told() {
    let mut cluster = Cluster::new(&[1, 2]);
    for id in 1..=2 {
        cluster.does(id, pool(&[]));
    }
    // Its client has sent one packet; the second one gives it ten minutes, and nobody hears of that.
    cluster.binds(1, key(1), 100, MINUTE / 2);
    cluster.pass(1_000);
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.does(2, Local::Deleted { key: key(1) });
    cluster.pass(60_000);
    cluster.cut.clear();
    cluster.does(1, Local::Held { key: key(1), server: 100, generation: 0, left: MINUTE * 9 });
    cluster.pass(5_000);
    assert_eq!((cluster.find(1, key(1)), cluster.find(2, key(1))), (None, None));
    cluster.pass(600_000);
    assert_eq!(cluster.node(1).store().len(), 0, "the tombstone ended when the session could have");
}

#[test]
fn what_is_bound_over_a_tombstone_ends_by_itself_and_holds_against_what_was_deleted() {
    let mut cluster = Cluster::new(&[1, 2]);
    for id in 1..=2 {
        cluster.does(id, pool(&[]));
    }
    cluster.binds(1, key(1), 100, MINUTE * 10);
    cluster.pass(1_000);
    cluster.cut = vec![(1, 2), (2, 1)];
    cluster.does(2, Local::Deleted { key: key(1) });
    cluster.binds(2, key(1), 200, MINUTE / 2);
    let found = cluster.find(2, key(1)).expect("bound anew");
    assert_eq!((found.server, found.generation), (200, 1));
    assert!(found.left < MINUTE, "neither the tombstone's end nor that of what it deleted: {found:?}");
    cluster.cut.clear();
    cluster.pass(5_000);
    for id in 1..=2 {
        assert_eq!(cluster.server(id, key(1)), Some(200), "node {id}");
    }
    cluster.pass(30_000);
    for id in 1..=2 {
        assert_eq!(
            cluster.find(id, key(1)),
            None,
            "node {id}: it ended, what was deleted before has not come back"
        );
    }
    // That a data plane still holds it changes nothing; what is bound now holds against it, too.
    cluster.does(1, Local::Held { key: key(1), server: 100, generation: 0, left: MINUTE * 9 });
    cluster.pass(5_000);
    assert_eq!((cluster.find(1, key(1)), cluster.find(2, key(1))), (None, None));
    cluster.binds(2, key(1), 300, MINUTE);
    cluster.pass(1_000);
    let found = cluster.find(1, key(1)).expect("bound anew");
    assert_eq!((found.server, found.generation), (300, 1));
    cluster.pass(700_000);
    assert_eq!((cluster.node(1).store().len(), cluster.node(2).store().len()), (0, 0));
}

#[test]
fn who_fetches_everything_and_who_restarts_know_what_was_deleted_beside_what_was_bound_since() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.does(1, pool(&[]));
    cluster.binds(1, key(1), 100, MINUTE);
    cluster.does(1, Local::Deleted { key: key(1) });
    cluster.binds(1, key(1), 200, MINUTE / 2);
    cluster.pass(1_000);
    for id in 1..=2 {
        let now = Time(cluster.now);
        cluster.node(id).set_members(now, &[NodeId(1), NodeId(2), NodeId(3)]);
    }
    cluster.start(config(3, &[1, 2]), |_| {});
    cluster.pass(3_000);
    assert_eq!(cluster.node(3).counts().snapshots_done, 1);
    // Node 1 restarts with a checkpoint and no events behind it.
    let now = Time(cluster.now);
    let saved = cluster.node(1).checkpoint(now).expect("it numbers");
    let (records, next) = cluster.node(1).records(0, 100, now);
    assert_eq!((records.len(), next), (2, None));
    let wall = WALL + cluster.now;
    cluster.start(config(1, &[2, 3]), |recovery| {
        replay(recovery, &[], wall, Some(&saved));
        records.iter().for_each(|record| recovery.record(record));
    });
    cluster.pass(6_000);
    for id in 1..=3 {
        let found = cluster.find(id, key(1)).expect("it lives");
        assert_eq!((found.server, found.generation), (200, 1), "node {id}");
    }
    cluster.pass(30_000);
    for id in 1..=3 {
        cluster.does(id, Local::Held { key: key(1), server: 100, generation: 0, left: MINUTE * 9 });
        cluster.pass(1_000);
        assert_eq!(cluster.find(id, key(1)), None, "node {id} knows that it was deleted");
    }
}

/// Seed 178 of the simulation.
#[test]
fn what_a_journal_makes_of_a_session_that_others_deleted_between_is_told() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.binds(1, key(1), 100, MINUTE * 10);
    cluster.pass(1_000);
    cluster.does(2, Local::Deleted { key: key(1) });
    cluster.pass(1_000);
    cluster.binds(1, key(1), 200, MINUTE);
    cluster.pass(1_000);
    assert_eq!(cluster.find(2, key(1)).map(|binding| binding.generation), Some(1));
    // The journal has both bindings and not the deletion: there the second one inherits the first one's end.
    let (wall, written) = (WALL + cluster.now, cluster.ends(1));
    cluster.start(config(1, &[1, 2]), |recovery| replay(recovery, &written, wall, None));
    cluster.pass(2 * 60_000);
    let found = cluster.find(1, key(1)).expect("it has the end of the first one");
    assert_eq!(cluster.find(2, key(1)).map(|other| other.server), Some(found.server));
}

#[test]
fn what_a_data_plane_has_had_for_a_while_is_told_unless_it_was_deleted() {
    let mut cluster = Cluster::new(&[1, 2]);
    let held = |session, generation, left| Local::Held { key: key(session), server: 100, generation, left };
    // Nobody knows it: the journal was lost, or the cluster is new.
    assert!(cluster.does(1, held(1, 3, MINUTE)).is_some());
    cluster.pass(200);
    assert_eq!(cluster.find(2, key(1)).map(|binding| binding.generation), Some(3));
    // It ends a moment later than the others think: not worth a word, neither now nor at its end.
    let told = cluster.node(2).counts().own;
    assert_eq!(cluster.does(2, held(1, 3, MINUTE)), None);
    cluster.pass(59_000);
    assert_eq!(cluster.node(2).counts().own, told);
    // It was used.
    assert!(cluster.does(2, held(1, 3, MINUTE)).is_some());
    cluster.pass(200);
    assert!(cluster.find(1, key(1)).is_some_and(|binding| binding.left > MINUTE / 2));
    // It was deleted while this data plane heard nothing.
    cluster.does(1, Local::Deleted { key: key(1) });
    cluster.pass(200);
    assert_eq!(cluster.does(2, held(1, 3, MINUTE)), None);
    cluster.pass(200);
    assert_eq!((cluster.find(1, key(1)), cluster.find(2, key(1))), (None, None));
}
