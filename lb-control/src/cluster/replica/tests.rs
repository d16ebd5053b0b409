use super::*;
use crate::cluster::authority::Authority;
use crate::cluster::journal::{Block, Recovered, Write};
use crate::cluster::transport::tests::Machine;
use lb_core::binding::StreamId;
use std::collections::BTreeSet;
use std::path::Path;
use tokio::time::{sleep, timeout};

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(30);

/// A member that runs.
struct Running {
    replica: Replica,
    updates: mpsc::Receiver<Vec<Update>>,
    opening: Opening,
}

fn key(session: u64) -> Key {
    Key { service: 7, session }
}

fn bound(session: u64) -> Local {
    Local::Bound { key: key(session), server: server(session), generation: 0, left: HOUR }
}

const fn server(session: u64) -> u64 {
    1_000 + session % 10
}

async fn start(machine: &Machine) -> Running {
    let quick = |config: &mut Config| {
        config.resume_wait = Duration::from_millis(500);
        config.alone_after = Duration::from_secs(1);
    };
    let mut attempts = 0;
    loop {
        match Replica::start_with(&machine.home(), machine.listen, None, quick) {
            Ok((replica, updates, opening)) => return Running { replica, updates, opening },
            // The socket of a node that has stopped is closed a moment later.
            Err(error) => assert!(attempts < 100, "{error}"),
        }
        attempts += 1;
        sleep(Duration::from_millis(20)).await;
    }
}

async fn first() -> (Machine, Running) {
    let machine = Machine::found();
    let running = start(&machine).await;
    (machine, running)
}

async fn joined(by: &(Machine, Running)) -> (Machine, Running) {
    let machine = Machine::new();
    let token = by.1.replica.token(Role::Node, HOUR).expect("a token");
    machine.join(&by.0, &token).await.expect("joined");
    let running = start(&machine).await;
    (machine, running)
}

/// One member of two, stopped, and the other one, which runs; both have the first 300 bindings.
async fn stopped() -> (Machine, (Machine, Running)) {
    let a = first().await;
    a.1.ready().await;
    let mut b = joined(&a).await;
    b.1.ready().await;
    a.1.tell((0..300).map(bound).collect()).await;
    b.1.put(0..300).await;
    let (machine, running) = a;
    running.replica.stop().await;
    (machine, b)
}

/// A member's number.
fn number(machine: &Machine) -> u64 {
    machine.home().identity().expect("readable").expect("a member").subject.id.number()
}

/// What a journal that nobody has open holds.
fn opened(path: &Path, node: u64) -> (Recovered, Opening) {
    let (journal, recovered, opening) = Journal::open(path, node, 1).expect("opened");
    journal.close().expect("closed");
    (recovered, opening)
}

/// What the journal of a member that runs holds; `None` = it was written to while it was copied.
fn copied(machine: &Machine) -> Option<Recovered> {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("journal.redb");
    std::fs::copy(machine.home().journal(), &copy).expect("copied");
    let (recovered, opening) = opened(&copy, number(machine));
    (opening == Opening::Continued).then_some(recovered)
}

impl Running {
    async fn ready(&self) {
        let mut ready = self.replica.ready();
        timeout(SOON, ready.wait_for(|ready| *ready)).await.expect("in time").expect("a replica");
    }

    /// Waits until the data plane was told these bindings.
    async fn put(&mut self, sessions: impl IntoIterator<Item = u64>) {
        let mut missing: BTreeSet<u64> = sessions.into_iter().collect();
        while !missing.is_empty() {
            let batch = timeout(SOON, self.updates.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("{} are missing", missing.len())).expect("a replica");
            for update in batch {
                match update {
                    Update::Put(binding, _) => {
                        assert_eq!(binding.server, server(binding.key.session));
                        missing.remove(&binding.key.session);
                    }
                    Update::Delete(key) => panic!("{key:?} was deleted"),
                    Update::Heard(_) | Update::Durable(_) | Update::Complete => {}
                }
            }
        }
    }

    async fn deleted(&mut self, session: u64) {
        loop {
            let batch = timeout(SOON, self.updates.recv()).await.expect("in time").expect("a replica");
            if batch.contains(&Update::Delete(key(session))) {
                return;
            }
        }
    }

    async fn holds(&self, sessions: impl IntoIterator<Item = u64>) {
        for session in sessions {
            let found = self.replica.find(key(session)).await.expect("a replica");
            assert_eq!(found.map(|binding| binding.server), Some(server(session)), "session {session}");
        }
    }

    /// One that was [stopped] gets the 300 bindings, and the other one its next ten.
    async fn goes_on_with(&mut self, other: &mut Self) {
        self.ready().await;
        self.put(0..300).await;
        self.tell((300..310).map(bound).collect()).await;
        other.put(300..310).await;
    }

    async fn tell(&self, local: Vec<Local>) {
        let told = self.replica.tell(local).await.expect("a replica");
        timeout(SOON, told.durable()).await.expect("in time").expect("durable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_binds_the_others_hold() {
    let mut a = first().await;
    a.1.ready().await;
    assert_eq!(a.1.opening, Opening::Fresh);
    let mut b = joined(&a).await;
    b.1.ready().await;
    let mut c = joined(&a).await;
    c.1.ready().await;
    a.1.tell((0..500).map(bound).collect()).await;
    b.1.tell((500..1_000).map(bound).collect()).await;
    a.1.put(500..1_000).await;
    b.1.put(0..500).await;
    c.1.put(0..1_000).await;
    b.1.tell(vec![Local::Deleted { key: key(3) }]).await;
    a.1.deleted(3).await;
    c.1.deleted(3).await;
    assert_eq!(c.1.replica.find(key(3)).await, Ok(None));

    // What they bound may have come by way of the other one.
    let connected = async {
        loop {
            let standing = a.1.replica.standing().await.expect("a replica");
            assert!(standing.is_ready && standing.journal_trouble.is_none(), "{standing:?}");
            let up = |peer: &&Peer| peer.connection.contact.is_some() && peer.replication.is_some();
            if standing.peers.iter().filter(up).count() == 2 {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, connected).await.expect("connected in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_alone_and_restarts_has_lost_nothing() {
    let (machine, running) = first().await;
    running.ready().await;
    running.tell((0..1_000).map(bound).collect()).await;
    running.replica.stop().await;
    let mut again = start(&machine).await;
    assert_eq!(again.opening, Opening::Continued);
    again.ready().await;
    again.holds(0..1_000).await;
    again.put(0..1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_takes_the_place_of_the_events_before_it() {
    const MANY: u64 = 120_000;
    let (machine, mut running) = first().await;
    running.ready().await;
    let drain = async { while running.updates.recv().await.is_some() {} };
    let work = async {
        for from in (0..MANY).step_by(4_000) {
            running.replica.tell((from..from + 4_000).map(bound).collect()).await.expect("a replica");
        }
        let sealed = async {
            while copied(&machine).is_none_or(|copy| copy.snapshot.is_none()) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(SOON, sealed).await.expect("a checkpoint in time");
    };
    tokio::select! {
        () = drain => panic!("the replica ended"),
        () = work => {}
    }
    running.replica.stop().await;

    let (recovered, _) = opened(&machine.home().journal(), number(&machine));
    let snapshot = recovered.snapshot.expect("a checkpoint");
    assert!(snapshot.parts.len() > 1, "it came in portions");
    let kept: u64 = recovered.blocks.iter().map(|block| block.last - block.first + 1).sum();
    assert!(kept < MANY / 2, "{kept} events are kept behind the checkpoint");
    let mut again = start(&machine).await;
    again.ready().await;
    again.holds((0..MANY).step_by(997)).await;
    again.put(0..MANY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_journal_is_damaged_begins_anew_with_what_its_peer_has() {
    let (machine, mut b) = stopped().await;
    let journal = machine.home().journal();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&journal)
        .and_then(|file| file.set_len(1_000))
        .expect("torn");

    let mut again = start(&machine).await;
    assert!(matches!(again.opening, Opening::SetAside { .. }), "{:?}", again.opening);
    again.goes_on_with(&mut b.1).await;
    let vector = b.1.replica.standing().await.expect("a replica").vector;
    let own = vector.iter().filter(|(stream, _)| stream.node.0 == again.replica.transport.id().number());
    assert_eq!(own.count(), 2, "an old epoch and a new one");
    again.holds(0..310).await;
}

/// A checkpoint whose vector has all events, and one of whose parts nobody understands.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_read_its_checkpoint_has_its_peer_tell_it_everything() {
    let (machine, mut b) = stopped().await;
    let path = machine.home().journal();
    let (mut journal, recovered, _) = Journal::open(&path, number(&machine), 1).expect("opened");
    let through = |block: &Block| {
        (StreamId { node: lb_core::binding::NodeId(block.origin), epoch: block.epoch }, block.last)
    };
    let vector: Vector = recovered.blocks.iter().map(through).collect();
    let trims = vector.iter().map(|(stream, through)| Write::Trim {
        origin: stream.node.0,
        epoch: stream.epoch,
        through,
    });
    let part = Write::Part { snapshot: 1, part: 0, bytes: vec![0xff; 40] };
    let seal = Write::Seal { snapshot: 1, vector: record::vector(&vector), views: Vec::new() };
    journal.write([part, seal].into_iter().chain(trims).collect()).await.expect("queued");
    journal.close().expect("durable");

    let mut again = start(&machine).await;
    let Opening::SetAside { path: aside, reason } = &again.opening else { panic!("{:?}", again.opening) };
    assert!(aside.exists() && reason == "a part of the checkpoint cannot be read", "{reason}");
    again.goes_on_with(&mut b.1).await;
    again.replica.stop().await;
    assert_eq!(opened(&path, number(&machine)).1, Opening::Continued);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_catches_up_and_who_was_removed_does_not() {
    let a = first().await;
    a.1.ready().await;
    let mut b = joined(&a).await;
    b.1.ready().await;
    a.1.tell((0..10).map(bound).collect()).await;
    b.1.put(0..10).await;
    b.1.replica.stop().await;
    a.1.tell((10..2_000).map(bound).collect()).await;
    b.1 = start(&b.0).await;
    b.1.ready().await;
    b.1.put(0..2_000).await;

    let gone = b.1.replica.transport.id();
    a.1.replica.remove(gone).expect("removed");
    a.1.tell(vec![bound(5_000)]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(b.1.replica.find(key(5_000)).await, Ok(None), "it still learns");
    b.1.tell(vec![bound(6_000)]).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(a.1.replica.find(key(6_000)).await, Ok(None), "it still tells");
}

#[test]
fn a_found_cluster_is_needed() {
    let machine = Machine::new();
    let outcome = Replica::start(&machine.home(), machine.listen, None);
    assert!(matches!(outcome, Err(ReplicaError::Cluster(ClusterError::NoCluster))));
    assert!(matches!(Authority::open(&machine.home()), Ok(None)));
}
