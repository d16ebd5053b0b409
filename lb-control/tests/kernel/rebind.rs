//! All sessions of a backend that failed are moved at once.

use crate::reconcile::desired;
use crate::sandbox::{SIZES, Sandbox};
use lb_common::abi::{
    BindingKey, BindingOp, BindingRecord, BindingWord, RebindRequest, RebindWhom, RecordResult, Status,
};
use lb_common::select::{self, Table};
use lb_control::dataplane::{DataPlane, Sizes};
use lb_control::reconcile;
use std::time::{Duration, Instant};

const MANY: u64 = 1_000_000;
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

#[tokio::test]
async fn a_million_sessions_are_moved_within_a_second() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    let sizes = Sizes { bindings: 1 << 20, ..SIZES };
    let mut wanted = desired();
    wanted.node.bindings = sizes.bindings;
    let (handle, thread) = reconcile::spawn(Box::new(sandbox.open(sizes)), None).expect("starts");
    handle.apply(wanted).await.expect("applied");
    let inputs = handle.explain_inputs("web").await.expect("told");
    let dead = (inputs.view.backends[0].slot, inputs.view.backends[0].generation);
    drop(handle);
    thread.join().expect("it ends when nobody needs it");

    let mut plane = sandbox.open(sizes);
    let record = |session| BindingRecord {
        session,
        word: BindingWord::new(dead.0, dead.1, 0).0,
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
