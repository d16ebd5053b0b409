//! What it costs to bring bindings to another node, beside HAProxy's peers in the same run.
//!
//! Nodes are processes that talk over loopback, encrypted and with a journal; what a data plane would be told is taken and dropped.
//! The tables of the kernel are filled apart from that.

mod haproxy;
mod logic;
pub(in crate::bench) mod node;

use super::report::align;
use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use haproxy::Haproxy;
use lb_common::abi::{BindingOp, BindingRecord, BindingWord, RecordResult};
use lb_control::dataplane::{
    DataPlane as _, Sizes,
    xdp::{Options, Xdp},
};
use node::{Node, Use};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The names that choose this section.
pub const NAMES: [&str; 6] = [SNAPSHOT, EVENTS, LOGIC, SUSTAINED, KERNEL, PEER];

const SNAPSHOT: &str = "replication/snapshot";
const EVENTS: &str = "replication/events";
const LOGIC: &str = "replication/logic";
const SUSTAINED: &str = "replication/sustained";
const KERNEL: &str = "replication/kernel-tables";
const PEER: &str = "replication/haproxy-snapshot";

/// New bindings a second that are sustained.
const RATE: u64 = 100_000;

/// One way to bring entries somewhere.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicationResult {
    /// What was brought where.
    pub name: &'static str,
    /// How many.
    pub entries: u64,
    /// Entries a second, from the start of the receiver or of the first event to the last one.
    pub per_second: f64,
    /// CPU time of the sender an entry, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_us: Option<f64>,
    /// CPU time of the receiver an entry, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver_us: Option<f64>,
    /// By how many bytes the receiver grew, an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver_bytes: Option<f64>,
    /// Milliseconds from an entry's making to its being told to the data plane of the slower receiver, 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// Measures what is wanted.
pub(super) fn run(quick: bool, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<ReplicationResult>> {
    let entries = if quick { 50_000 } else { 1_000_000 };
    let mut results = Vec::new();
    if wanted(SNAPSHOT) || wanted(EVENTS) {
        results.extend(nodes(entries)?);
    }
    if wanted(LOGIC) {
        results.push(ReplicationResult::alone(LOGIC, entries, logic::run(entries)?));
    }
    if wanted(SUSTAINED) {
        results.push(sustained(if quick { 2 } else { 10 })?);
    }
    if wanted(PEER) && haproxy::is_installed() {
        results.push(peers(entries)?);
    }
    if wanted(KERNEL) {
        results.push(kernel(entries)?);
    }
    Ok(results)
}

/// A directory that goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("stickleback-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left says its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node that has bindings is joined by one that has none; then bindings are made while both run.
fn nodes(entries: u64) -> Result<[ReplicationResult; 2]> {
    let (one, two) = (Directory::new("one")?, Directory::new("two")?);
    let mut first = Node::start(&one.0, None)?;
    first.ready()?;
    first.bind(0, entries)?;
    // Its checkpoint is written then.
    std::thread::sleep(Duration::from_secs(2));

    let before = first.used()?;
    let begin = Instant::now();
    let mut second = Node::start(&two.0, Some(&mut first))?;
    second.wait(entries)?;
    let took = begin.elapsed();
    let fresh = Use { cpu: Duration::ZERO, resident: 0 };
    let snapshot =
        ReplicationResult::new(SNAPSHOT, entries, took, [before, first.used()?], [fresh, second.used()?]);

    std::thread::sleep(Duration::from_secs(2));
    let before = [first.used()?, second.used()?];
    let begin = Instant::now();
    first.bind(entries, entries)?;
    second.wait(2 * entries)?;
    let took = begin.elapsed();
    let events = ReplicationResult::new(
        EVENTS,
        entries,
        took,
        [before[0], first.used()?],
        [before[1], second.used()?],
    );
    Ok([snapshot, events])
}

/// Bindings are made at a steady rate while two others are told of them.
fn sustained(seconds: u64) -> Result<ReplicationResult> {
    let directories = [Directory::new("one")?, Directory::new("two")?, Directory::new("three")?];
    let mut first = Node::start(&directories[0].0, None)?;
    first.ready()?;
    let mut others = [
        Node::start(&directories[1].0, Some(&mut first))?,
        Node::start(&directories[2].0, Some(&mut first))?,
    ];
    others.iter_mut().try_for_each(Node::ready)?;
    // Everyone is connected to everyone.
    std::thread::sleep(Duration::from_secs(3));
    let before = [first.used()?, others[0].used()?];
    let entries = RATE * seconds;
    let took = first.pace(RATE, seconds)?;
    for other in &mut others {
        other.wait(entries)?;
    }
    let mut result = ReplicationResult::new(
        SUSTAINED,
        entries,
        took,
        [before[0], first.used()?],
        [before[1], others[0].used()?],
    );
    let mut slowest = Duration::ZERO;
    for other in &mut others {
        slowest = slowest.max(other.ninety_nine(entries)?);
    }
    // What is noted of each entry is the benchmark's own.
    result.receiver_bytes = None;
    result.p99_ms = Some(slowest.as_secs_f64() * 1e3);
    Ok(result)
}

/// The same with two processes of HAProxy.
fn peers(entries: u64) -> Result<ReplicationResult> {
    let directory = Directory::new("haproxy")?;
    let ports = haproxy::ports()?;
    let first = Haproxy::start(&directory.0, ports, 0, entries)?;
    first.fill(entries)?;
    let before = first.used()?;
    let begin = Instant::now();
    let second = Haproxy::start(&directory.0, ports, 1, entries)?;
    second.wait(entries)?;
    let took = begin.elapsed();
    let fresh = Use { cpu: Duration::ZERO, resident: 0 };
    Ok(ReplicationResult::new(PEER, entries, took, [before, first.used()?], [fresh, second.used()?]))
}

/// Fills the kernel's table of bindings.
fn kernel(entries: u64) -> Result<ReplicationResult> {
    let root = PathBuf::from(format!("/sys/fs/bpf/stickleback-bench-{}", std::process::id()));
    let options = Options { root, ..Options::default() };
    let sizes = Sizes { bindings: u32::try_from(entries)?, flows: 1_024, arena: 256, holds: 64 };
    let (mut plane, _) = Xdp::open(options, sizes)?;
    let records: Vec<BindingRecord> = (0..entries)
        .map(|entry| BindingRecord {
            session: entry.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            word: BindingWord::new(1, 1, 0).0,
            lifetime: 3_600_000_000_000,
            service: 7,
            op: BindingOp::Settle as u8,
            pad: 0,
            home: 0,
        })
        .collect();
    let before = Use::of(std::process::id())?;
    let begin = Instant::now();
    let mut applied = 0;
    for part in records.chunks(4_096) {
        let results = plane.apply_bindings(part)?;
        applied += results.iter().filter(|result| **result == RecordResult::Applied).count();
    }
    let took = begin.elapsed();
    let after = Use::of(std::process::id())?;
    plane.detach_all()?;
    ensure!(applied as u64 * 1_000 >= entries * 999, "only {applied} of {entries} bindings found room");
    let mut result = ReplicationResult::new(KERNEL, entries, took, [before, after], [before, after]);
    (result.sender_us, result.receiver_bytes) = (None, None);
    Ok(result)
}

impl ReplicationResult {
    fn new(name: &'static str, entries: u64, took: Duration, sender: [Use; 2], receiver: [Use; 2]) -> Self {
        let each =
            |used: [Use; 2]| (used[1].cpu.saturating_sub(used[0].cpu)).as_secs_f64() * 1e6 / entries as f64;
        let grown = receiver[1].resident.saturating_sub(receiver[0].resident);
        Self {
            name,
            entries,
            per_second: entries as f64 / took.as_secs_f64(),
            sender_us: Some(each(sender)),
            receiver_us: Some(each(receiver)),
            receiver_bytes: Some(grown as f64 / entries as f64),
            p99_ms: None,
        }
    }

    /// Of one thread that does nothing else.
    fn alone(name: &'static str, entries: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self {
            name,
            entries,
            per_second: entries as f64 / seconds,
            sender_us: None,
            receiver_us: Some(seconds * 1e6 / entries as f64),
            receiver_bytes: None,
            p99_ms: None,
        }
    }

    /// Prints a table.
    pub(super) fn print(all: &[Self]) {
        println!("\nBindings brought to another node");
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "case",
            "entries",
            "entries/s",
            "sender us",
            "receiver us",
            "receiver bytes",
            "p99 ms",
        ]);
        let figure = |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.2}"));
        for result in all {
            table.add_row([
                result.name.to_owned(),
                result.entries.to_string(),
                format!("{:.0}", result.per_second),
                figure(result.sender_us),
                figure(result.receiver_us),
                figure(result.receiver_bytes),
                figure(result.p99_ms),
            ]);
        }
        align(&mut table, &[1, 2, 3, 4, 5, 6]);
        println!("{table}");
    }
}
