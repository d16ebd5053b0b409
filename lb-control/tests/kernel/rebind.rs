//! All sessions of a backend that failed are moved at once.

use crate::precedence::Precedence;
use crate::reconcile::desired;
use crate::sandbox::{SIZES, Sandbox};
use aya::maps::{Array, Map, MapData};
use lb_common::abi::{
    BindingBucket, BindingKey, BindingOp, BindingRecord, BindingSlot, BindingWord, RebindRequest, RebindWhom,
    RecordResult, Status, map,
};
use lb_common::select::{self, Table};
use lb_control::dataplane::{DataPlane, Sizes, xdp::Xdp};
use lb_control::reconcile::{self, ExplainInputs, Health, HealthChange};
use lb_core::health::{Check, Failback, Failure, HealthSpec, Policy, State, Thresholds, Voice, Way};
use lb_core::pool::Desired;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const MANY: u64 = 1_000_000;
const MANY_SIZES: Sizes = Sizes { bindings: 1 << 20, ..SIZES };
/// Slots of one run, as `lbd` asks for them.
const STRETCH: u32 = 8_192;

struct Pool<'a>(&'a [u16], &'a [u16]);

impl Table for Pool<'_> {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.0.get(slot as usize).copied()
    }
    fn member(&self, place: u32) -> Option<u16> {
        self.1.get(place as usize).copied()
    }
    fn mask(&self) -> u32 {
        self.0.len() as u32 - 1
    }
    fn member_count(&self) -> u32 {
        self.1.len() as u32
    }
}

/// What this thread has had of a CPU; programs that are run for it count.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What is desired, with room for a million sessions.
fn roomy() -> Desired {
    let mut wanted = desired();
    wanted.node.bindings = MANY_SIZES.bindings;
    wanted
}

/// The kernel's tables with a million sessions of the first backend, and what is in them besides.
async fn a_million(sandbox: &Sandbox, wanted: Desired) -> (Xdp, ExplainInputs) {
    sandbox.veth("lb0", "peer0");
    let (handle, thread) = reconcile::spawn(Box::new(sandbox.open(MANY_SIZES)), None).expect("starts");
    handle.apply(wanted).await.expect("applied");
    let inputs = handle.explain_inputs("web").await.expect("told");
    drop(handle);
    thread.join().expect("it ends when nobody needs it");

    let mut plane = sandbox.open(MANY_SIZES);
    let (slot, generation) = first(&inputs);
    let record = |session| BindingRecord {
        session,
        word: BindingWord::new(slot, generation, 0).0,
        lifetime: 600_000_000_000,
        service: inputs.service.id,
        op: BindingOp::Put as u8,
        pad: 0,
        home: 0,
    };
    for chunk in 0..MANY / 10_000 {
        let records: Vec<_> = (chunk * 10_000..(chunk + 1) * 10_000).map(record).collect();
        let results = plane.apply_bindings(&records).expect("the program runs");
        assert!(results.iter().all(|&result| result == RecordResult::Applied));
    }
    (plane, inputs)
}

/// Slot and generation of the first backend.
fn first(inputs: &ExplainInputs) -> (u16, u16) {
    (inputs.view.backends[0].slot, inputs.view.backends[0].generation)
}

#[tokio::test]
async fn a_million_sessions_are_moved_within_a_second() {
    let sandbox = Sandbox::new();
    let sizes = MANY_SIZES;
    let (mut plane, inputs) = a_million(&sandbox, roomy()).await;
    let dead = first(&inputs);
    let word = plane.statuses().expect("read")[Status::word(dead.0) as usize];
    plane.put_status(Status::word(dead.0), Status::Down.set(word, dead.0)).expect("written");

    let row = &inputs.service;
    let (wall, cpu, mut longest) = (Instant::now(), cpu_time(), Duration::ZERO);
    let (mut moved, mut left, mut start) = (0, 0, 0);
    let request = |start, whom| RebindRequest {
        start,
        count: STRETCH,
        whom: whom as u32,
        limit: u32::MAX,
        idle: u64::MAX,
        service: row.id,
        table: row.table,
        table_mask: row.table_mask,
        members: row.members,
        member_count: row.member_count,
        ..RebindRequest::default()
    };
    while start < sizes.binding_slots() {
        let request = request(start, RebindWhom::Stranded);
        let run = cpu_time();
        let report = plane.rebind(&request).expect("the program runs");
        longest = longest.max(cpu_time() - run);
        moved += u64::from(report.moved);
        left += u64::from(report.left);
        start += STRETCH;
    }
    let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
    println!("{moved} sessions moved in {cpu:?} of CPU, {wall:?} in all; the longest run took {longest:?}");
    assert_eq!((moved, left), (MANY, 0));
    assert!(cpu < Duration::from_secs(1), "{cpu:?} of CPU");

    let pool = Pool(&inputs.table, &inputs.members);
    for session in (0..MANY).step_by(997) {
        let heir = select::choose(&pool, session, |slot| slot != dead.0);
        let found = plane.binding(&BindingKey::new(row.id, session)).expect("read").expect("bound");
        let word = BindingWord(found.word);
        assert_eq!((Some(word.backend()), word.generation()), (heir, 1), "session {session}");
    }
    // Each goes back to where it was, which the order says of some only.
    plane.put_status(Status::word(dead.0), word).expect("written");
    let (cpu, mut back) = (cpu_time(), 0);
    for start in (0..sizes.binding_slots()).step_by(STRETCH as usize) {
        back +=
            u64::from(plane.rebind(&request(start, RebindWhom::Homeless)).expect("the program runs").moved);
    }
    println!("{back} went back in {:?} of CPU", cpu_time() - cpu);
    assert_eq!(back, MANY);
    for session in (0..MANY).step_by(997) {
        let found = plane.binding(&BindingKey::new(row.id, session)).expect("read").expect("bound");
        let word = BindingWord(found.word);
        assert_eq!((word.backend(), word.generation()), (dead.0, 2), "session {session}");
    }
    plane.detach_all().expect("everything goes");
}

/// From the word that a backend is dead until the kernel's table names another one for each of its sessions, with all that `lbd` does in
/// between.
#[tokio::test]
async fn a_million_sessions_are_with_others_within_a_second_of_the_word() {
    let _precedence = Precedence::take().expect("a real-time priority");
    let sandbox = Sandbox::new();
    let count = |n| NonZero::new(n).expect("not zero");
    let policy = Policy {
        interval: Duration::from_millis(400),
        fast: Duration::from_millis(50),
        slow: Duration::from_secs(2),
        timeout: Duration::from_millis(200),
        rise: count(2),
        fall: count(2),
        jitter: 10,
    };
    let mut wanted = roomy();
    wanted.services[0].health = Some(Arc::new(HealthSpec {
        check: Check::Tcp,
        policy,
        thresholds: Thresholds { minimum_healthy: 1, ejected: 50 },
        port: 0,
        way: Way::Direct,
        quorum: false,
        failback: Failback::Never,
    }));
    let (plane, inputs) = a_million(&sandbox, wanted.clone()).await;
    drop(plane);
    let dead = first(&inputs).0;
    let (handle, thread) = reconcile::spawn(Box::new(sandbox.open(MANY_SIZES)), None).expect("starts");
    handle.apply(wanted).await.expect("applied");

    let pin = MapData::from_pin(sandbox.root.join("maps").join(map::BINDINGS)).expect("it is pinned");
    let table = Array::<_, BindingBucket>::try_from(Map::Array(pin)).expect("an array");
    let owners = |bucket: &BindingBucket| -> Vec<u16> {
        let found = bucket.0.iter().filter_map(BindingSlot::binding);
        found.map(|(_, binding)| BindingWord(binding.word).backend()).collect()
    };
    let bucket = |place: u32| owners(&table.get(&place, 0).expect("read"));
    // The table is walked through from its beginning.
    let last = (0..table.len()).rev().find(|&place| !bucket(place).is_empty()).expect("a session");
    assert!(bucket(last).contains(&dead));

    let reason = Some(Failure::Refused);
    let health = Health { state: State::Down(Voice::Probe), since: SystemTime::now(), reason };
    let change = HealthChange { service: "web".into(), backend: "be1".into(), health: Some(health) };
    let begun = Instant::now();
    handle.health(vec![change]).await.expect("it listens");
    while bucket(last).contains(&dead) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody moves");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begun.elapsed();
    println!("{MANY} sessions are with others after {took:?}");
    let owners: Vec<u16> = table.iter().flat_map(|found| owners(&found.expect("read"))).collect();
    let left = owners.iter().filter(|owner| **owner == dead).count();
    assert_eq!((owners.len() as u64, left), (MANY, 0));
    assert!(took < Duration::from_secs(1), "they moved within {took:?}");
    drop(handle);
    thread.join().expect("it ends when nobody needs it");
    sandbox.open(MANY_SIZES).detach_all().expect("everything goes");
}
