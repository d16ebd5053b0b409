//! Two nodes, each with tables and programs of its own in the kernel, act as one.

use crate::reconcile::{desired, packet, way};
use crate::sandbox::{SIZES, Sandbox, Wire, mac, run};
use aya::maps::{Array, Map, MapData};
use lb_common::abi::{BindingBucket, BindingWord, SlotState};
use lb_control::cluster::authority::Authority;
use lb_control::cluster::bindings::{self, Bindings};
use lb_control::cluster::home::Home;
use lb_control::cluster::identity::Role;
use lb_control::cluster::join::join;
use lb_control::cluster::keyring::Keyring;
use lb_control::cluster::replica::Replica;
use lb_control::config::SharedSecrets;
use lb_control::dataplane::{DataPlane, Sizes};
use lb_control::reconcile::{self, ChangeError, Handle, SessionFilter, SessionRow};
use lb_core::binding::Key;
use lb_core::pool::{Admin, Desired};
use lb_core::sync::Local;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3_600);
/// Time for what takes milliseconds, on a machine that does other things.
const SOON: Duration = Duration::from_secs(30);
/// Session key of the first client.
const CLIENTS: u64 = 0x0a01_0000;

/// A loopback address that no other process has ports of.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 0x40 | high, middle, low)
}

/// A node's machine: a state directory, an interface, tables.
struct Machine {
    sandbox: Sandbox,
    state: tempfile::TempDir,
    listen: SocketAddr,
    desired: Desired,
    sizes: Sizes,
    interface: &'static str,
    wire: Wire,
}

/// A node that runs.
struct Running {
    handle: Handle,
    thread: JoinHandle<()>,
    bindings: Bindings,
    replica: Replica,
    tasks: JoinSet<()>,
}

impl Machine {
    fn new(sandbox: Sandbox, interface: &'static str, peer: &str, mut desired: Desired) -> Self {
        sandbox.veth(interface, peer);
        run(&format!("ethtool -K {peer} gro on"));
        let listen = UdpSocket::bind((own_address(), 0)).and_then(|socket| socket.local_addr());
        desired.node.interfaces = vec![interface.into()];
        Self {
            sandbox,
            state: tempfile::tempdir().expect("a directory"),
            listen: listen.expect("a free port"),
            desired,
            sizes: SIZES,
            interface,
            wire: Wire::new(peer),
        }
    }

    fn home(&self) -> Home {
        Home::in_state(self.state.path())
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.listen.to_string()]
    }

    async fn start(&self) -> Running {
        let (handle, thread) =
            reconcile::spawn(Box::new(self.sandbox.open(self.sizes)), None).expect("the reconciler starts");
        let until = Instant::now() + SOON;
        let (replica, updates, _) = loop {
            match Replica::start(&self.home(), self.listen, None) {
                Ok(started) => break started,
                // The socket of a node that has stopped is closed a moment later.
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut tasks = JoinSet::new();
        let bindings = bindings::start(&handle, &replica, updates, &mut tasks);
        handle.apply(self.desired.clone()).await.expect("applied");
        for address in 1..=3 {
            let mut change = way(address);
            if let Some(hop) = &mut change.hop {
                hop.hop.ifindex = crate::sandbox::ifindex(self.interface);
            }
            handle.hop(change).await.expect("taken");
        }
        // The ways stand a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Running { handle, thread, bindings, replica, tasks }
    }

    /// Packets of these clients come in; what each has sent but once lives half a minute.
    fn clients(&self, clients: impl IntoIterator<Item = u8>) {
        let to = mac(self.interface);
        for client in clients {
            self.wire.send(&packet(to, client, 0x10));
        }
    }

    /// The same, two of each: these live as long as the service says, and a walk has to tell the others so.
    fn regulars(&self, clients: impl IntoIterator<Item = u8> + Clone) {
        self.clients(clients.clone());
        self.clients(clients);
    }

    /// Changes words in the table behind the back of everyone, as a packet would whose event is lost.
    fn moved_unheard(&self, session: u64, change: impl Fn(BindingWord) -> BindingWord) {
        let table = MapData::from_pin(self.sandbox.root.join("maps/BINDINGS")).expect("pinned");
        let mut table: Array<_, BindingBucket> =
            Map::from_map_data(table).and_then(TryInto::try_into).expect("an array");
        for number in 0..table.len() {
            let mut bucket = table.get(&number, 0).expect("read");
            for slot in &mut bucket.0 {
                let word = BindingWord(slot.word);
                if slot.session == session && word.slot_state() == SlotState::Live {
                    slot.word = word.with_content(change(word.content()).with(BindingWord::UNSYNCED)).0;
                    return table.set(number, bucket, 0).expect("written");
                }
            }
        }
        panic!("session {session:#x} is not there");
    }
}

impl Running {
    async fn ready(&self) {
        let mut ready = self.replica.ready();
        tokio::time::timeout(SOON, ready.wait_for(|ready| *ready))
            .await
            .expect("in time")
            .expect("a replica");
    }

    async fn sessions(&self) -> BTreeMap<u64, SessionRow> {
        let rows = self.handle.sessions(SessionFilter::default(), 100_000).await.expect("listed");
        rows.into_iter().map(|row| (row.session, row)).collect()
    }

    /// Waits until the kernel holds what is wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&BTreeMap<u64, SessionRow>) -> bool) {
        let end = Instant::now() + SOON;
        loop {
            let sessions = self.sessions().await;
            if wanted(&sessions) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {sessions:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends as `lbd` does; the kernel goes on.
    async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.replica.stop().await;
        drop((self.handle, self.bindings));
        self.thread.join().expect("it ends when nobody needs it");
    }

    /// Ends as after `kill -9`, as far as one process can show it.
    async fn kill(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        drop((self.handle, self.bindings));
        self.thread.join().expect("it ends when nobody needs it");
        // Two processes cannot have one journal open.
        self.replica.stop().await;
    }
}

/// The same services; another node lays them out in other slots.
fn laid_out_differently() -> Desired {
    let mut state = desired();
    let mut other = state.services[0].clone();
    (other.name, other.id, other.port) = ("other".into(), 78, 81);
    state.services.insert(0, other);
    state.services[1].backends.reverse();
    state
}

/// A service with brief sessions, for whose sake the table is walked through every second.
fn walked(machine: &mut Machine) {
    let mut brief = machine.desired.services[0].clone();
    (brief.name, brief.id, brief.port, brief.lifetime) = ("brief".into(), 79, 82, Duration::from_secs(8));
    machine.desired.services.push(brief);
}

/// Sessions that do not end while a busy machine loads programs.
fn lasting(mut state: Desired) -> Desired {
    state.services.iter_mut().for_each(|service| service.lifetime = HOUR);
    state
}

async fn cluster_of(adjust: impl Fn(&mut Machine)) -> (Machine, Running, Machine, Running) {
    let sandbox = Sandbox::new();
    run("ip link set lo up");
    let mut a = Machine::new(sandbox, "lb0", "peer0", lasting(desired()));
    adjust(&mut a);
    Authority::found(&a.home(), "a", a.addresses(), Keyring::of(&SharedSecrets::default()))
        .expect("a cluster");
    let one = a.start().await;
    one.ready().await;
    let mut b = Machine::new(Sandbox::beside(), "lb1", "peer1", lasting(laid_out_differently()));
    adjust(&mut b);
    let token = one.replica.token(Role::Node, HOUR).expect("a token");
    join(&b.home(), &a.listen.to_string(), &token, "b", b.addresses(), None).await.expect("joined");
    let two = b.start().await;
    two.ready().await;
    (a, one, b, two)
}

/// Whether two nodes hold the same sessions, told and acknowledged.
fn alike(one: &BTreeMap<u64, SessionRow>, two: &BTreeMap<u64, SessionRow>) -> bool {
    one.len() == two.len()
        && one.iter().zip(two).all(|((session, a), (other, b))| {
            let said = |row: &SessionRow| (row.backend.clone(), row.generation, row.pinned, row.unsynced);
            session == other && said(a) == said(b) && !a.unsynced && a.backend.is_some()
        })
}

/// Whether there are so many sessions, none of which ends soon.
fn lasts(sessions: &BTreeMap<u64, SessionRow>, count: usize) -> bool {
    sessions.len() == count && sessions.values().all(|row| row.expires_in > HOUR / 2)
}

#[tokio::test]
async fn what_packets_bind_at_one_node_stands_in_the_kernel_of_the_other() {
    let (a, one, b, two) = cluster_of(walked).await;
    a.regulars(1..=30);
    b.regulars(31..=50);
    for node in [&one, &two] {
        node.until("what both bound, and that it is used", |sessions| lasts(sessions, 50)).await;
    }
    let (own, looked) = (one.sessions().await, Instant::now());
    two.until("what a bound, acknowledged", |sessions| alike(&own, sessions)).await;
    let (copied, passed) = (two.sessions().await, looked.elapsed());
    one.until("all is acknowledged", |sessions| alike(sessions, &copied)).await;
    for (session, row) in &copied {
        let apart = (row.expires_in + passed).abs_diff(own[session].expires_in);
        assert!(apart < Duration::from_secs(5), "{session:#x} ends {apart:?} earlier or later");
    }
    assert!(copied.iter().any(|(session, row)| row.slot != own[session].slot), "slots are a node's own");

    // An administrator's changes count everywhere.
    one.bindings.delete("web", CLIENTS + 7).await.expect("deleted");
    assert!(!one.sessions().await.contains_key(&(CLIENTS + 7)));
    two.bindings.delete("web", CLIENTS + 8).await.expect("deleted");
    two.bindings.pin("web", CLIENTS + 9, "be2", HOUR).await.expect("pinned");
    for node in [&one, &two] {
        node.until("two are deleted, one is pinned", |sessions| {
            let pinned = sessions.get(&(CLIENTS + 9));
            let is_pinned = |row: &SessionRow| row.pinned && row.backend.as_deref() == Some("be2");
            !sessions.contains_key(&(CLIENTS + 7))
                && !sessions.contains_key(&(CLIENTS + 8))
                && pinned.is_some_and(is_pinned)
        })
        .await;
    }
    let error = two.bindings.delete("web", CLIENTS + 7).await.expect_err("it has gone");
    assert!(matches!(error, ChangeError::UnknownSession { .. }), "{error}");
    let error = two.bindings.pin("web", CLIENTS + 1, "be9", HOUR).await.expect_err("nobody");
    assert!(matches!(error, ChangeError::UnknownBackend { .. }), "{error}");
    // What is deleted may come again.
    b.clients([7]);
    one.until("it comes again", |sessions| sessions.contains_key(&(CLIENTS + 7))).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn nodes_that_were_away_lose_nothing_and_revive_nothing() {
    let (a, one, b, two) = cluster_of(walked).await;
    a.regulars(1..=20);
    two.until("what a bound, and that it is used", |sessions| lasts(sessions, 20)).await;
    one.kill().await;
    // The kernel goes on: these wait for the next life of `lbd`, and their events are lost.
    a.regulars(21..=40);
    let mut plane = a.sandbox.open(SIZES);
    let lost = plane.events(1_000).expect("read");
    assert!(lost.len() >= 20, "{} events", lost.len());
    drop(plane);
    // Meanwhile the others go on too.
    two.bindings.delete("web", CLIENTS + 3).await.expect("deleted");
    b.regulars(41..=50);
    two.until("what b bound", |sessions| sessions.len() == 29).await;

    let one = a.start().await;
    one.until("what b bound and deleted", |sessions| {
        sessions.len() == 49 && !sessions.contains_key(&(CLIENTS + 3))
    })
    .await;
    two.until("what was bound while a was away", |sessions| sessions.len() == 49).await;
    let copied = two.sessions().await;
    one.until("both hold the same", |sessions| alike(sessions, &copied)).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_move_whose_event_was_lost_is_found_by_the_sweep() {
    let (a, one, _b, two) = cluster_of(walked).await;
    a.regulars(1..=5);
    two.until("what a bound, and that it is used", |sessions| lasts(sessions, 5)).await;
    let before = one.sessions().await;
    one.until("all is acknowledged", |sessions| sessions.values().all(|row| !row.unsynced)).await;
    let (session, row) = before.first_key_value().expect("a session");
    let elsewhere = before.values().find(|other| other.slot != row.slot).expect("another backend");
    let (slot, name) = (elsewhere.slot, elsewhere.backend.clone());
    let services = one.handle.view().await.expect("a view").services;
    let slots = services.into_iter().flat_map(|service| service.backends).collect::<Vec<_>>();
    let generation = slots.iter().find(|backend| backend.slot == slot).expect("its slot").generation;
    a.moved_unheard(*session, |word| BindingWord::new(slot, generation, word.generation() + 1));
    let is_moved = |sessions: &BTreeMap<u64, SessionRow>| {
        let row = sessions.get(session);
        row.is_some_and(|row| row.backend == name && row.generation == 1 && !row.unsynced)
    };
    two.until("the move", is_moved).await;
    one.until("the acknowledgement", is_moved).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn bindings_of_unknown_services_wait_for_the_configuration_that_knows_them() {
    let (a, one, mut b, two) = cluster_of(walked).await;
    two.stop().await;
    let with_web = b.desired.clone();
    b.desired.services.retain(|service| service.name == "other");
    let two = b.start().await;
    two.ready().await;
    a.regulars(1..=10);
    let known = async {
        while two.replica.standing().await.expect("a replica").bindings < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, known).await.expect("in time");
    assert!(two.sessions().await.is_empty(), "it knows no such service");
    two.handle.apply(with_web).await.expect("applied");
    let own = one.sessions().await;
    two.until("what waited", |sessions| alike(&own, sessions)).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_session_that_is_used_lives_on_at_the_other_node() {
    let sandbox = Sandbox::new();
    run("ip link set lo up");
    let brief = |mut state: Desired| {
        state.services.iter_mut().for_each(|service| service.lifetime = Duration::from_secs(8));
        state
    };
    let a = Machine::new(sandbox, "lb0", "peer0", brief(desired()));
    Authority::found(&a.home(), "a", a.addresses(), Keyring::of(&SharedSecrets::default()))
        .expect("a cluster");
    let one = a.start().await;
    one.ready().await;
    let b = Machine::new(Sandbox::beside(), "lb1", "peer1", brief(laid_out_differently()));
    let token = one.replica.token(Role::Node, HOUR).expect("a token");
    join(&b.home(), &a.listen.to_string(), &token, "b", b.addresses(), None).await.expect("joined");
    let begun = Instant::now();
    let two = b.start().await;
    two.ready().await;
    a.clients(1..=10);
    two.until("what a bound", |sessions| sessions.len() == 10).await;
    // The first five go on for more than a lifetime, the others say nothing more.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.clients(1..=5);
    }
    let sessions: Vec<u64> = two.sessions().await.into_keys().collect();
    assert_eq!(sessions, (CLIENTS + 1..=CLIENTS + 5).collect::<Vec<_>>());
    two.until("what is used no more ends", BTreeMap::is_empty).await;
    // But for the probes that a node without events makes, b tells nothing of its own: what it wrote ends here when it was said to.
    let own = two.replica.standing().await.expect("a replica").counts.own;
    let probes = begun.elapsed().as_secs() / 10;
    assert!(own <= probes, "b had {own} things to tell, {probes} probes among them");
    one.stop().await;
    two.stop().await;
}

/// How many failures both nodes told, and how many events of their own.
async fn told(nodes: [&Running; 2]) -> (u64, u64) {
    let mut sum = (0, 0);
    for node in nodes {
        let counts = node.replica.standing().await.expect("a replica").counts;
        sum = (sum.0 + counts.failovers, sum.1 + counts.own);
    }
    sum
}

#[tokio::test]
async fn ten_thousand_sessions_of_a_dead_backend_move_on_both_nodes_by_one_event() {
    const SESSIONS: u64 = 10_000;
    let (a, one, b, two) = cluster_of(|machine| {
        machine.sizes.bindings = 32_768;
        machine.desired.node.bindings = 32_768;
    })
    .await;
    let begun = Instant::now();
    let held = |session| Local::Held {
        key: Key { service: 77, session },
        server: session % 2 + 1,
        generation: 0,
        left: HOUR,
    };
    // Half of them at each node, all with the first two backends.
    for (node, sessions) in [(&one, 0..SESSIONS / 2), (&two, SESSIONS / 2..SESSIONS)] {
        let told = node.replica.tell(sessions.map(held).collect()).await.expect("a replica");
        told.durable().await.expect("durable");
    }
    for node in [&one, &two] {
        node.until("all of them", |sessions| sessions.len() as u64 == SESSIONS).await;
    }
    let is_moved = |row: &SessionRow| row.backend.as_deref() != Some("be1");
    let before = one.sessions().await;
    assert_eq!(before.values().filter(|row| !is_moved(row)).count() as u64, SESSIONS / 2);

    // Node b alone cannot reach it: nobody's session moves, here or there.
    let (failures, events) = told([&one, &two]).await;
    two.handle.set_admin("web", "be1", Some(Admin::Disabled)).await.expect("taken out");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(told([&one, &two]).await.0, failures);
    for node in [&one, &two] {
        assert_eq!(node.sessions().await.values().filter(|row| row.generation > 0).count(), 0);
    }

    // Node a finds the same.
    one.handle.set_admin("web", "be1", Some(Admin::Disabled)).await.expect("taken out");
    for node in [&one, &two] {
        node.until("everyone has moved", |sessions| sessions.values().all(is_moved)).await;
    }
    let after = one.sessions().await;
    two.until("both hold the same", |sessions| alike(&after, sessions)).await;
    for (session, row) in &after {
        let was_with_it = before[session].backend.as_deref() == Some("be1");
        assert_eq!(row.generation, u32::from(was_with_it), "{session}");
        assert!(was_with_it || row.backend == before[session].backend, "{session} had no reason to move");
    }
    let (failures_after, events_after) = told([&one, &two]).await;
    let probes = 2 * (begun.elapsed().as_secs() / 10 + 1);
    assert_eq!(failures_after, failures + 1, "one event");
    assert!(events_after - events <= 1 + probes, "{events} events before, {events_after} after");
    one.stop().await;
    two.stop().await;
    drop((a, b));
}

#[tokio::test]
async fn what_found_no_room_is_written_when_there_is_some() {
    const SMALL: u32 = 1_024;
    let (a, one, b, two) = cluster_of(|machine| {
        if machine.interface == "lb1" {
            machine.sizes.bindings = SMALL;
            machine.desired.node.bindings = SMALL;
        }
    })
    .await;
    let all = 0..u64::from(SMALL) * 2;
    let key = |session| Key { service: 77, session };
    let held =
        all.clone().map(|session| Local::Held { key: key(session), server: 1, generation: 0, left: HOUR });
    one.replica.tell(held.collect()).await.expect("a replica").durable().await.expect("durable");
    one.until("all of them", |sessions| sessions.len() as u64 == all.end).await;
    two.until("as many as there is room for", |sessions| sessions.len() > SMALL as usize / 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let placed = two.sessions().await;
    assert!(placed.len() < all.end as usize, "there is room for all");
    // Those that have a place end; the others take it.
    let deleted = placed.keys().map(|&session| Local::Deleted { key: key(session) });
    one.replica.tell(deleted.collect()).await.expect("a replica").durable().await.expect("durable");
    let left = all.end as usize - placed.len();
    one.until("the others", |sessions| sessions.len() == left).await;
    let own = one.sessions().await;
    two.until("the others, as far as there is room", |sessions| {
        let is_right = |(session, row): (&u64, &SessionRow)| own[session].backend == row.backend;
        let known = sessions.keys().all(|session| own.contains_key(session));
        known && sessions.iter().all(is_right) && sessions.len() >= left.min(SMALL as usize * 3 / 4)
    })
    .await;
    one.stop().await;
    two.stop().await;
    drop((a, b));
}
