//! How long it takes until every session of a backend that failed has its new backend in the kernel's table.

use anyhow::{Context, Result, ensure};
use lb_common::abi::{
    BindingKey, BindingOp, BindingRecord, BindingWord, REBIND_MAX, RebindRequest, RebindWhom, RecordResult,
    Status,
};
use lb_control::dataplane::{
    DataPlane, Sizes,
    xdp::{Options, Xdp},
};
use lb_control::{config, reconcile};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The name that chooses this section.
pub const NAME: &str = "rebind/1m";
/// Slots of one run, as `lbd` asks for them.
const STRETCH: u32 = 8_192;
const _: () = assert!(STRETCH <= REBIND_MAX);
/// Four backends; the first one dies.
const CONFIGURATION: &str = "
    [[service]]
    name = \"web\"
    address = \"192.0.2.1\"
    port = 80
    mode = \"nat\"
    health = \"none\"
    backend = [
        { name = \"a\", address = \"198.51.100.1\" },
        { name = \"b\", address = \"198.51.100.2\" },
        { name = \"c\", address = \"198.51.100.3\" },
        { name = \"d\", address = \"198.51.100.4\" },
    ]
    ";

/// Sessions moved in one go.
#[derive(Clone, Debug, Serialize)]
pub struct RebindResult {
    /// Sessions that moved.
    pub sessions: u64,
    /// From the decision to the last one in the table, in milliseconds.
    pub wall_ms: f64,
    /// CPU time of that, in milliseconds.
    pub cpu_ms: f64,
    /// The longest that packets of one CPU had to wait meanwhile, in milliseconds of CPU time.
    pub longest_ms: f64,
}

/// Fills a table with sessions of one backend, lets that backend fail, and moves them as `lbd` does.
pub(super) fn run(quick: bool) -> Result<RebindResult> {
    let sessions: u64 = if quick { 50_000 } else { 1_000_000 };
    let root = PathBuf::from(format!("/sys/fs/bpf/stickleback-rebind-{}", std::process::id()));
    let sizes = Sizes { bindings: u32::try_from(sessions)?, flows: 1_024, arena: 256, holds: 64 };
    let open = || Xdp::open(Options { root: root.clone(), ..Options::default() }, sizes);
    let (row, dead) = pool(open()?.0)?;
    let (mut plane, _) = open()?;
    let bound = fill(&mut plane, row.id, dead, sessions)?;

    // The decision.
    let (wall, cpu, mut longest) = (Instant::now(), cpu_time(), Duration::ZERO);
    let word = plane.statuses()?[Status::word(dead.0) as usize];
    plane.put_status(Status::word(dead.0), Status::Down.set(word, dead.0))?;
    let (mut moved, mut start) = (0, 0);
    while start < sizes.binding_slots() {
        let request = RebindRequest {
            start,
            count: STRETCH,
            whom: RebindWhom::Stranded as u32,
            limit: u32::MAX,
            service: row.id,
            table: row.table,
            table_mask: row.table_mask,
            members: row.members,
            member_count: row.member_count,
            ..RebindRequest::default()
        };
        let run = cpu_time();
        moved += u64::from(plane.rebind(&request)?.moved);
        longest = longest.max(cpu_time().saturating_sub(run));
        start += STRETCH;
    }
    let (wall, cpu) = (wall.elapsed(), cpu_time().saturating_sub(cpu));
    let found = plane.binding(&BindingKey::new(row.id, 0))?.context("session 0 is lost")?;
    plane.detach_all()?;
    ensure!(moved == bound, "{moved} of {bound} sessions moved");
    ensure!(BindingWord(found.word).backend() != dead.0, "session 0 is with the dead backend");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(RebindResult { sessions: moved, wall_ms: ms(wall), cpu_ms: ms(cpu), longest_ms: ms(longest) })
}

/// Makes the pool's tables; the pool, and slot and generation of its first backend.
fn pool(plane: Xdp) -> Result<(lb_common::abi::Service, (u16, u16))> {
    let desired = config::parse(CONFIGURATION, "bench").map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (handle, thread) = reconcile::spawn(Box::new(plane), None)?;
    let inputs = runtime.block_on(async {
        let mut wanted = desired.desired([0; 16]);
        let sizes = handle.view().await?.sizes;
        (wanted.node.bindings, wanted.node.flows, wanted.node.held) =
            (sizes.bindings, sizes.flows, sizes.holds);
        handle.apply(wanted).await?;
        anyhow::Ok(handle.explain_inputs("web").await?)
    })?;
    drop(handle);
    thread.join().ok().context("the reconciler's thread panicked")?;
    let first = inputs.view.backends.first().context("no backends")?;
    Ok((inputs.service, (first.slot, first.generation)))
}

fn fill(plane: &mut Xdp, service: u32, (slot, generation): (u16, u16), sessions: u64) -> Result<u64> {
    let record = |session| BindingRecord {
        session,
        word: BindingWord::new(slot, generation, 0).0,
        lifetime: 3_600_000_000_000,
        service,
        op: BindingOp::Put as u8,
        pad: 0,
        home: 0,
    };
    let records: Vec<BindingRecord> = (0..sessions).map(record).collect();
    let mut applied = 0;
    for part in records.chunks(4_096) {
        let results = plane.apply_bindings(part)?;
        applied += results.iter().filter(|result| **result == RecordResult::Applied).count() as u64;
    }
    ensure!(applied * 1_000 >= sessions * 999, "only {applied} of {sessions} bindings found room");
    Ok(applied)
}

/// What this thread has had of a CPU; programs that are run for it count.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

impl RebindResult {
    /// Prints a line.
    pub(super) fn print(&self) {
        let Self { sessions, wall_ms, cpu_ms, longest_ms } = self;
        println!(
            "\n{NAME}: {sessions} sessions of a failed backend have another one after {wall_ms:.0} ms ({cpu_ms:.0} ms of CPU; the longest run {longest_ms:.1} ms)"
        );
    }
}
