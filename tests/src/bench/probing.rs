//! What it costs to probe thousands of backends every second: CPU time of the thread that does, in the kernel too.

use super::report::align;
use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets};
use lb_control::probe::{Backend, Clocks, Prober, Wish};
use lb_core::health::{Check, Failback, HealthSpec, Policy, State, Thresholds, Way};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The names that choose this section.
pub const NAMES: [&str; 1] = [TCP];

const TCP: &str = "probes/tcp/5000";
const BACKENDS: u32 = 5_000;
/// Share of a CPU that it may take at most.
const TARGET: f64 = 0.5;

/// Probes of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct ProbingResult {
    /// Of what kind, and of how many backends.
    pub name: &'static str,
    /// Probes a second.
    pub per_second: f64,
    /// Share of one CPU.
    pub cpu: f64,
    /// CPU time of a probe, in microseconds.
    pub probe_us: f64,
    /// Share that it may take at most.
    pub target_cpu: f64,
}

/// Connects to each of many loopback addresses every second; one listener takes them all.
pub fn run(quick: bool) -> Result<Vec<ProbingResult>> {
    let (count, length) = if quick { (BACKENDS / 10, 2) } else { (BACKENDS, 10) };
    let listener = TcpListener::bind("0.0.0.0:0").context("a port")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || while listener.accept().is_ok() {});

    let interval = Duration::from_secs(1);
    let two = NonZero::new(2).context("not zero")?;
    let policy = Policy {
        interval,
        fast: interval / 8,
        slow: interval,
        timeout: interval / 2,
        rise: two,
        fall: two,
        jitter: 10,
    };
    let thresholds = Thresholds { minimum_healthy: 0, ejected: 50 };
    let (check, failback, way) = (Check::Tcp, Failback::Never, Way::Direct);
    let spec = Arc::new(HealthSpec { check, policy, thresholds, port: 0, way, quorum: false, failback });
    let wish = |n: u32| Wish {
        backend: Backend { service: "all".into(), backend: n.to_string() },
        address: SocketAddr::new(Ipv4Addr::from(0x7f01_0000 + n).into(), port),
        spec: Arc::clone(&spec),
        was_down: false,
        path: None,
        clock: None,
    };
    let (prober, mut reports) = Prober::start(Clocks::default())?;
    prober.watch((0..count).map(wish).collect())?;
    std::thread::sleep(interval + interval / 2);
    let (begun, before) = (Instant::now(), cpu_time("prober")?);
    std::thread::sleep(Duration::from_secs(length));
    let (took, spent) = (begun.elapsed(), cpu_time("prober")? - before);
    let (mut up, mut down) = (0, 0);
    while let Ok(told) = reports.try_recv() {
        for sighting in told.iter().filter_map(|report| report.sighting.as_ref()) {
            up += u32::from(sighting.state == State::Up);
            down += u32::from(!sighting.state.is_healthy());
        }
    }
    ensure!(up >= count && down == 0, "{up} of {count} came up, {down} went down");
    let cpu = spent.as_secs_f64() / took.as_secs_f64();
    let per_second = f64::from(count) / interval.as_secs_f64();
    Ok(vec![ProbingResult {
        name: TCP,
        per_second,
        cpu,
        probe_us: cpu * 1e6 / per_second,
        target_cpu: TARGET,
    }])
}

/// CPU time of the thread of that name, user and system.
fn cpu_time(name: &str) -> Result<Duration> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(entry?.path().join("stat"))?;
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        if head.ends_with(&format!("({name}")) {
            let ticks = |place: usize| {
                rest.split_whitespace().nth(place).context("a number")?.parse::<u64>().context("a number")
            };
            return Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10));
        }
    }
    bail!("no thread {name}")
}

impl ProbingResult {
    /// Prints a table.
    pub fn print(results: &[Self]) {
        println!("\nHealth checks");
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "case",
            "probes/s",
            "% of a CPU",
            "us a probe",
            "",
        ]);
        for result in results {
            table.add_row([
                result.name.to_owned(),
                format!("{:.0}", result.per_second),
                format!("{:.1}", result.cpu * 100.0),
                format!("{:.1}", result.probe_us),
                (if result.cpu <= result.target_cpu { "ok" } else { "over" }).to_owned(),
            ]);
        }
        align(&mut table, &[1, 2, 3]);
        println!("{table}");
    }
}
