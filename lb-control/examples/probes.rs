//! Measures what probing costs: `cargo run --release -p lb-control --example probes -- 5000 2 10`.
//!
//! Connects to so many addresses in 127.0.0.0/8, each every so many seconds, for so many seconds; one listener takes them all. Tells the
//! CPU time of the thread that probes, in the kernel too.

use anyhow::{Context, Result, ensure};
use lb_control::probe::{Backend, Prober, Wish};
use lb_core::health::{Check, Failback, HealthSpec, Policy, State, Thresholds, Way};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// CPU time of the thread of that name, user and system.
fn cpu_time(name: &str) -> Result<Duration> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(entry?.path().join("stat"))?;
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        if head.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
            return Ok(Duration::from_millis(ticks * 10));
        }
    }
    anyhow::bail!("no thread {name}")
}

fn main() -> Result<()> {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (count, every, length) = match numbers[..] {
        [count, every, length] => (count, every, length),
        _ => (5_000, 2, 10),
    };
    let listener = std::net::TcpListener::bind("0.0.0.0:0").context("a port")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || while listener.accept().is_ok() {});

    let interval = Duration::from_secs(every.into());
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
    let spec = HealthSpec {
        check: Check::Tcp,
        policy,
        thresholds,
        port: 0,
        way: Way::Direct,
        failback: Failback::Never,
    };
    let spec = Arc::new(spec);
    let wish = |n: u32| Wish {
        backend: Backend { service: "all".into(), backend: n.to_string() },
        address: SocketAddr::new(Ipv4Addr::from(0x7f01_0000 + n).into(), port),
        spec: Arc::clone(&spec),
        was_down: false,
        path: None,
    };
    let (prober, mut reports) = Prober::start()?;
    prober.watch((0..count).map(wish).collect())?;
    std::thread::sleep(interval + interval / 2);
    let (begun, before) = (Instant::now(), cpu_time("prober")?);
    std::thread::sleep(Duration::from_secs(length.into()));
    let (took, spent) = (begun.elapsed(), cpu_time("prober")? - before);
    let mut up = 0;
    let mut down = 0;
    while let Ok(told) = reports.try_recv() {
        let states = told.iter().filter_map(|report| report.sighting.as_ref()).map(|sighting| sighting.state);
        for state in states {
            up += u32::from(state == State::Up);
            down += u32::from(!state.is_healthy());
        }
    }
    ensure!(up >= count && down == 0, "{up} of {count} came up, {down} went down");
    let share = spent.as_secs_f64() / took.as_secs_f64();
    let rate = f64::from(count) / f64::from(every);
    println!(
        "{count} backends, {rate:.0} probes a second: {:.1} % of a CPU, {:.1} us a probe",
        share * 100.0,
        share * 1e6 / rate
    );
    Ok(())
}
