//! A node that comes back with an old image of its disk: others know more of it than its journal does.

use super::*;

/// What only the life that is lost told.
const LOST: Key = key(3);
/// The server that failed in it, and a session that was with it.
const FAILED: u64 = 100;
const MOVED: Key = key(1);

/// Node 1 is back with an image of its disk, and has fetched a snapshot from node 2, the only one that knows what node 1
/// told since: a session and a failure. Node 3 is down. Numbering has not begun.
struct Return {
    cluster: Cluster,
    /// The epoch of the image.
    former: StreamId,
    /// The journals of the nodes 2 and 3.
    journals: [Vec<Write>; 2],
}

impl Return {
    fn new() -> Self {
        let mut cluster = Cluster::new(&[1, 2, 3]);
        for id in 1..=3 {
            cluster.does(id, pool(&[]));
        }
        cluster.binds(1, MOVED, FAILED, MINUTE * 10);
        cluster.pass(1_000);
        let former = cluster.node(1).stream().expect("it numbers");
        let (image, imaged_at) = (cluster.places[&1].written.clone(), WALL + cluster.now);
        // All have it, so nobody keeps it: it cannot be had but by a snapshot.
        cluster.binds(2, key(2), 200, MINUTE * 10);
        cluster.binds(3, key(4), 200, MINUTE * 10);
        cluster.pass(3_000);
        let of_3 = cluster.ends(3);
        cluster.pass(4_000);
        cluster.binds(1, LOST, 300, MINUTE * 10);
        for id in [2, 1] {
            cluster.does(id, pool(&[FAILED]));
        }
        cluster.pass(1_000);
        assert_eq!(cluster.node(1).counts().failovers, 1);
        assert_eq!(cluster.node(2).vector().event(former), 3);
        let of_2 = cluster.places[&2].written.clone();
        cluster.start(config(1, &[2, 3]), |recovery| replay(recovery, &image, imaged_at, None));
        while cluster.node(1).counts().snapshots_done == 0 {
            cluster.pass(10);
            assert_eq!(cluster.node(1).stream(), None, "the snapshot comes before numbering begins");
        }
        assert_eq!(cluster.server(1, LOST), Some(300));
        cluster.pass(50);
        Self { cluster, former, journals: [of_2, of_3] }
    }

    /// Starts node 2 or 3 with its journal.
    fn back(&mut self, id: u64) {
        let (journal, wall) = (&self.journals[id as usize - 2], WALL + self.cluster.now);
        self.cluster.start(config(id, &[1, 2, 3]), |recovery| replay(recovery, journal, wall, None));
    }

    /// All nodes of `ids` have what the lost life told, and no vector says anything else.
    fn is_known_to(&mut self, ids: &[u64]) {
        let heir = self.cluster.server(1, MOVED);
        assert!(heir.is_some_and(|heir| heir != FAILED));
        for &id in ids {
            assert_eq!(self.cluster.server(id, LOST), Some(300), "node {id}: what was told");
            assert_eq!(self.cluster.server(id, MOVED), heir, "node {id}: the failure that was told");
            let (own, first) = (self.cluster.node(id).vector(), self.cluster.node(1).vector());
            assert!(own.covers(&first) && first.covers(&own), "node {id}: {own:?}, node 1 {first:?}");
        }
    }
}

/// Seed 1362 of the simulation.
#[test]
fn what_only_a_snapshot_brought_back_outlives_its_source() {
    let mut back = Return::new();
    back.cluster.places.remove(&2);
    back.cluster.pass(6_000);
    assert!(back.cluster.node(1).stream().is_some_and(|stream| stream.epoch > back.former.epoch));
    assert_eq!(back.cluster.node(1).counts().own, 4, "node 2 is silent: it tells all that was news");
    back.back(3);
    back.cluster.pass(6_000);
    back.is_known_to(&[3]);
}

#[test]
fn numbers_that_nobody_knows_any_more_are_given_again_and_hide_nothing() {
    let mut back = Return::new();
    // Nobody knows any more that node 1 told more than the image has.
    back.cluster.places.remove(&2);
    [2, 3].into_iter().for_each(|id| back.back(id));
    while back.cluster.node(1).stream().is_none() {
        back.cluster.pass(10);
    }
    assert_eq!(back.cluster.node(1).stream(), Some(back.former), "it goes on");
    // As many as were lost.
    (10..20).for_each(|session| back.cluster.binds(1, key(session), 500, MINUTE * 10));
    back.cluster.pass(10_000);
    back.is_known_to(&[2, 3]);
    for session in 10..20 {
        assert_eq!(back.cluster.server(3, key(session)), Some(500));
    }
}

#[test]
fn what_a_checkpoint_has_of_events_behind_its_vector_is_told() {
    let mut cluster = Cluster::new(&[1, 2]);
    (1..=2).for_each(|session| cluster.binds(1, key(session), 200, MINUTE * 10));
    cluster.pass(1_000);
    let (image, wall) = (cluster.places[&1].written.clone(), WALL + cluster.now);
    let now = Time(cluster.now);
    let begun = cluster.node(2).checkpoint(now).expect("it numbers");
    let (mut records, next) = cluster.node(2).records(0, 1, now);
    assert_eq!((records.len(), next), (1, Some(1)));
    // While it is written there is more.
    cluster.binds(1, LOST, 300, MINUTE * 10);
    cluster.pass(1_000);
    records.extend(cluster.node(2).records(1, 9, now).0);
    assert_eq!(records.len(), 3);
    // Nobody has that event any more, but the checkpoint has its record.
    let own = cluster.ends(2);
    cluster.start(config(1, &[1, 2]), |recovery| replay(recovery, &image, wall, None));
    cluster.start(config(2, &[1, 2]), |recovery| {
        replay(recovery, &own, wall, Some(&begun));
        records.iter().for_each(|record| recovery.record(record));
    });
    cluster.pass(6_000);
    assert_eq!((cluster.server(1, LOST), cluster.server(2, LOST)), (Some(300), Some(300)));
    assert_eq!(cluster.node(2).counts().own, 1, "and nothing else is");
}
