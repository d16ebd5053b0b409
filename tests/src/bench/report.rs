//! The report: JSON for programs, a table for people.

use super::memory::Memory;
use super::path::PathResult;
use super::probing::ProbingResult;
use super::rebind::RebindResult;
use super::reference;
use super::replication::ReplicationResult;
use super::rounds::Outcome;
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Everything one run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Cost of a packet, case by case.
    pub cases: Vec<CaseResult>,
    /// Kernel memory of the tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Cost of a request from end to end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathResult>,
    /// Cost of a binding that is brought to another node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replication: Vec<ReplicationResult>,
    /// Cost of health checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probing: Vec<ProbingResult>,
    /// Sessions of a backend that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebind: Option<RebindResult>,
    /// Where it ran.
    pub environment: Environment,
}

/// One case; nanoseconds a packet.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// `mode/what/how many`.
    pub name: String,
    /// Time in wrapper and program, as the kernel counts it.
    pub ns: f64,
    /// The same for the MAC swap on the same frames.
    pub floor_ns: f64,
    /// What the program costs above the floor.
    pub net_ns: f64,
    /// The same from the fastest rounds.
    pub net_min_ns: f64,
    /// Cross-check in plain repeat mode.
    pub net_plain_ns: f64,
    /// Million packets a second on one CPU, sending included.
    pub mpps: f64,
    /// `ns` / `floor_ns`.
    pub ratio_to_floor: f64,
    /// `net_ns` / that of the one-look-up reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_reference: Option<f64>,
    /// Net nanoseconds it may cost at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ns: Option<f64>,
    /// The case that it is to be compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'static str>,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// One-minute load average when the run ended: other work on the machine makes figures worse.
    pub load: String,
}

impl Environment {
    /// This machine.
    pub fn of_this_machine() -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            load: load.split(' ').next().unwrap_or("?").to_owned(),
        })
    }
}

impl Report {
    /// Puts the report together.
    pub fn new(
        environment: Environment,
        outcomes: Vec<Outcome>,
        memory: Option<Memory>,
        path: Vec<PathResult>,
        replication: Vec<ReplicationResult>,
        (probing, rebind): (Vec<ProbingResult>, Option<RebindResult>),
    ) -> Self {
        let reference = outcomes.iter().find(|o| o.case.name == reference::NAME).map(|o| o.net);
        let cases = outcomes.into_iter().map(|o| CaseResult::new(o, reference)).collect();
        Self { cases, memory, path, replication, rebind, probing, environment }
    }

    /// Prints tables.
    pub fn print(&self) {
        let Environment { kernel, cpu, cpus, load } = &self.environment;
        println!("Kernel {kernel}, {cpus} x {cpu}, load {load}\n");
        if !self.cases.is_empty() {
            self.print_cases();
        }
        if let Some(memory) = &self.memory {
            memory.print();
        }
        if !self.path.is_empty() {
            PathResult::print(&self.path);
        }
        if !self.replication.is_empty() {
            ReplicationResult::print(&self.replication);
        }
        if let Some(rebind) = &self.rebind {
            rebind.print();
        }
        if !self.probing.is_empty() {
            ProbingResult::print(&self.probing);
        }
    }

    fn print_cases(&self) {
        println!("Nanoseconds a packet; net = above the MAC-swap floor of the same frames");
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "case",
            "ns",
            "floor",
            "net",
            "net min",
            "net plain",
            "target",
            "",
            "x floor",
            "x ref",
            "Mpps",
        ]);
        for case in &self.cases {
            let verdict = case.target_ns.map(|target| if case.net_ns <= target { "ok" } else { "over" });
            table.add_row([
                case.name.clone(),
                format!("{:.1}", case.ns),
                format!("{:.1}", case.floor_ns),
                format!("{:.1}", case.net_ns),
                format!("{:.1}", case.net_min_ns),
                format!("{:.1}", case.net_plain_ns),
                case.target_ns.map_or_else(String::new, |t| format!("{t:.0}")),
                verdict.unwrap_or_default().to_owned(),
                format!("{:.2}", case.ratio_to_floor),
                case.ratio_to_reference.map_or_else(String::new, |r| format!("{r:.2}")),
                format!("{:.2}", case.mpps),
            ]);
        }
        align(&mut table, &[1, 2, 3, 4, 5, 6, 8, 9, 10]);
        println!("{table}");
    }
}

impl CaseResult {
    fn new(outcome: Outcome, reference: Option<f64>) -> Self {
        let of_reference =
            outcome.case.name.starts_with("reference/") || outcome.case.name.starts_with("floor/");
        Self {
            ratio_to_reference: reference.filter(|r| *r > 0.0).map(|r| outcome.net / r),
            ratio_to_floor: outcome.program / outcome.floor,
            ns: outcome.program,
            floor_ns: outcome.floor,
            net_ns: outcome.net,
            net_min_ns: outcome.net_min,
            net_plain_ns: outcome.net_plain,
            mpps: 1_000.0 / outcome.whole,
            target_ns: outcome.case.target,
            peer: (!of_reference).then_some(reference::NAME),
            name: outcome.case.name,
        }
    }
}

/// Right-aligns columns of numbers.
pub fn align(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
