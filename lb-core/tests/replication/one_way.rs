//! A node that restarts while nothing comes through to one peer, or from it.

use super::*;

/// A restart of node `id` beside a link that is cut one way.
#[derive(Clone, Copy, Debug)]
struct Restart {
    id: u64,
    cut: (u64, u64),
    keeps_journal: bool,
}

/// Every kind of restart of a node beside another one.
fn restarts(id: u64, other: u64) -> impl Iterator<Item = Restart> {
    let cuts = [(id, other), (other, id)].into_iter();
    cuts.flat_map(move |cut| [true, false].map(|keeps_journal| Restart { id, cut, keeps_journal }))
}

impl Cluster {
    /// Ends a node and cuts the link; the others go on, and each has something to tell.
    fn crash(&mut self, restart: Restart) -> (Vec<Write>, u64) {
        let wall = WALL + self.now;
        let written = self.ends(restart.id);
        self.cut = vec![restart.cut];
        (written, wall)
    }

    fn restart(&mut self, restart: Restart, members: &[u64], (written, wall): &(Vec<Write>, u64)) {
        self.start(config(restart.id, members), |recovery| {
            if restart.keeps_journal {
                replay(recovery, written, *wall, None);
            }
        });
    }

    /// Lets time pass until a node is ready; after how many milliseconds.
    fn until_ready(&mut self, id: u64) -> u64 {
        let begin = self.now;
        while !self.node(id).is_ready() {
            assert!(self.now < begin + 60_000, "node {id} is not ready after a minute");
            self.pass(10);
        }
        self.now - begin
    }

    /// Whether all know the same, and each hears each.
    fn is_level(&mut self) -> bool {
        let now = Time(self.now);
        let vectors: Vec<_> = self.places.values().map(|place| place.node.vector()).collect();
        let hears = |place: &Place| {
            place
                .node
                .peers(now)
                .all(|peer| peer.silent.is_some_and(|silent| silent < Duration::from_secs(2)))
        };
        self.places.values().all(hears)
            && vectors.iter().all(|vector| vectors.iter().all(|other| vector.covers(other)))
    }
}

/// Nodes with a session each; the last one restarts, and node 1 has told something by then.
fn restarted(count: u64, restart: Restart) -> Cluster {
    let all: Vec<u64> = (1..=count).collect();
    let mut cluster = Cluster::new(&all);
    for id in &all {
        cluster.binds(*id, key(*id), 100 * *id, MINUTE * 10);
    }
    cluster.pass(1_000);
    let journal = cluster.crash(restart);
    cluster.binds(1, key(count + 1), 100 * (count + 1), MINUTE * 10);
    cluster.pass(5_000);
    cluster.restart(restart, &all[..all.len() - 1], &journal);
    cluster
}

#[test]
fn a_third_node_tells_both_what_they_cannot_tell_each_other() {
    for restart in restarts(3, 1) {
        let mut cluster = restarted(3, restart);
        let ready = cluster.until_ready(3);
        assert!(ready < 3_000, "{restart:?}: ready after {ready} ms");
        let known: Vec<_> = (1..=4).map(|session| cluster.server(3, key(session))).collect();
        assert_eq!(known, [100, 200, 300, 400].map(Some), "{restart:?}: when it is ready");
        // What happens now.
        cluster.binds(1, key(5), 500, MINUTE * 10);
        cluster.binds(3, key(6), 600, MINUTE * 10);
        cluster.does(1, Local::Deleted { key: key(2) });
        cluster.pass(3_000);
        let known = |cluster: &mut Cluster, id| [2, 5, 6].map(|session| cluster.server(id, key(session)));
        for id in 1..=3 {
            assert_eq!(known(&mut cluster, id), [None, Some(500), Some(600)], "{restart:?}: node {id}");
        }
        // It lasts.
        cluster.pass(30_000);
        cluster.cut.clear();
        cluster.pass(3_000);
        assert!(cluster.is_level(), "{restart:?}");
    }
}

#[test]
fn who_hears_nobody_takes_itself_for_the_first_one_and_gets_level_later() {
    for restart in restarts(2, 1).filter(|restart| restart.cut == (1, 2)) {
        let mut cluster = restarted(2, restart);
        let ready = cluster.until_ready(2);
        assert!((5_000..7_000).contains(&ready), "{restart:?}: ready after {ready} ms");
        let own = cluster.server(2, key(2));
        assert_eq!(own, restart.keeps_journal.then_some(200), "{restart:?}: what its journal held");
        cluster.binds(2, key(4), 400, MINUTE * 10);
        cluster.pass(10_000);
        cluster.cut.clear();
        cluster.pass(3_000);
        assert!(cluster.is_level(), "{restart:?}");
        for id in 1..=2 {
            let known: Vec<_> = (1..=4).map(|session| cluster.server(id, key(session))).collect();
            assert_eq!(known, [100, 200, 300, 400].map(Some), "{restart:?}: node {id}");
        }
    }
}

#[test]
fn who_hears_somebody_with_the_database_waits_for_it_although_nobody_hears_the_question() {
    for restart in restarts(2, 1).filter(|restart| restart.cut == (2, 1)) {
        let mut cluster = restarted(2, restart);
        cluster.pass(30_000);
        assert!(!cluster.node(2).is_ready(), "{restart:?}: it would bind anew what node 1 has bound");
        cluster.cut.clear();
        let ready = cluster.until_ready(2);
        assert!(ready < 2_000, "{restart:?}: ready after {ready} ms");
        let known: Vec<_> = (1..=3).map(|session| cluster.server(2, key(session))).collect();
        assert_eq!(known, [100, 200, 300].map(Some), "{restart:?}");
        cluster.pass(3_000);
        assert!(cluster.is_level(), "{restart:?}");
    }
}

#[test]
fn who_waits_for_the_database_of_a_node_that_ends_waits_no_longer() {
    for restart in restarts(2, 1).filter(|restart| restart.cut == (2, 1)) {
        let mut cluster = restarted(2, restart);
        cluster.pass(10_000);
        assert!(!cluster.node(2).is_ready(), "{restart:?}");
        cluster.places.remove(&1);
        let ready = cluster.until_ready(2);
        assert!(ready < 5_000, "{restart:?}: ready after {ready} ms");
    }
}

#[test]
fn nodes_that_start_in_a_circle_of_links_cut_one_way_do_not_wait_for_each_other() {
    let mut cluster =
        Cluster { now: 0, places: BTreeMap::new(), cut: vec![(1, 2), (2, 3), (3, 1)], sent: Vec::new() };
    for id in 1..=3 {
        cluster.start(config(id, &[1, 2, 3]), |_| {});
    }
    for id in 1..=3 {
        let ready = cluster.until_ready(id);
        assert!(ready < 7_000, "node {id}: ready after {ready} ms");
    }
    (1..=3).for_each(|id| cluster.binds(id, key(id), 100, MINUTE));
    cluster.cut.clear();
    cluster.pass(3_000);
    assert!(cluster.is_level());
}
