//! What a request costs from end to end, through namespaces with real servers, beside peers in the same run.
//!
//! Every peer stands where the balancer stands: between the same clients and the same three web servers. The
//! balancer's programs are attached only while it is measured, and so are the peers' rules. Every request carries a
//! session cookie, so that the same bytes go through all of them.

mod standing;
mod way;
mod wrk;

use super::report::align;
use crate::topology::{Arms, Site, Testbed};
use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;
use standing::Standing;
use std::io::IsTerminal as _;
use way::Way;
use wrk::{CONNECTIONS, Run};

/// The names that choose this section; it is measured as a whole.
pub const NAMES: [&str; 2] = ["path/keep-alive/", "path/connect/"];

/// Backends behind each way.
const BACKENDS: u8 = 3;

/// One way through the site with one kind of load.
#[derive(Clone, Debug, Serialize)]
pub struct PathResult {
    /// `path/load/way`.
    pub name: String,
    /// Requests a second.
    pub requests_per_second: f64,
    /// CPU time of the whole machine a request, clients and servers included, in microseconds.
    pub cpu_us_per_request: f64,
    /// The same without what the request costs when it is sent directly: what stands between costs that much.
    pub net_us_per_request: f64,
    /// 99 of 100 requests were answered within this many milliseconds.
    pub p99_ms: f64,
    /// Requests that failed, in all rounds.
    pub failed: u64,
    /// The way that it is to be compared with.
    pub peer: String,
}

/// Kinds of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Connections stay.
    KeepAlive,
    /// A connection for each request.
    Connect,
}

impl Kind {
    const ALL: [Self; 2] = [Self::KeepAlive, Self::Connect];

    const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Connect => "connect",
        }
    }
}

/// Measures every way with every kind of load, in interleaved rounds.
pub fn run(quick: bool) -> Result<Vec<PathResult>> {
    let (rounds, seconds) = if quick { (1, 1) } else { (5, 3) };
    let site = Site::with_mtu(Arms::Two, BACKENDS, 1_600)?;
    let _decapsulators = site
        .backends
        .iter()
        .map(|backend| Testbed::decapsulate(&backend.namespace, "eth0"))
        .collect::<Result<Vec<_>>>()?;
    let progress = std::io::stderr().is_terminal();
    let mut ways = Vec::new();
    for way in Way::ALL {
        if way.is_possible(&site)? {
            ways.push(way);
        }
    }
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for &way in &ways {
            let _standing = Standing::set_up(&site, way)?;
            for kind in Kind::ALL {
                if progress {
                    eprint!("\r\x1b[Kround {round}/{rounds}  path/{}/{}", kind.name(), way.name());
                }
                runs.push(wrk::measure(&site, way, kind, seconds)?);
            }
        }
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    Ok(summary(&runs))
}

impl PathResult {
    /// Prints a table.
    pub fn print(results: &[Self]) {
        println!("\nRequests from end to end (wrk, {CONNECTIONS} connections, {BACKENDS} x nginx)");
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "way",
            "requests/s",
            "CPU us/request",
            "net us/request",
            "p99 ms",
            "failed",
        ]);
        for result in results {
            table.add_row([
                result.name.clone(),
                format!("{:.0}", result.requests_per_second),
                format!("{:.1}", result.cpu_us_per_request),
                format!("{:.1}", result.net_us_per_request),
                format!("{:.2}", result.p99_ms),
                result.failed.to_string(),
            ]);
        }
        align(&mut table, &[1, 2, 3, 4, 5]);
        println!("{table}");
    }
}

fn summary(runs: &[Run]) -> Vec<PathResult> {
    let mut results = Vec::new();
    for kind in Kind::ALL {
        let of = |way: Way, f: fn(&Run) -> f64| {
            let mut values: Vec<f64> =
                runs.iter().filter(|run| run.way == way && run.kind == kind).map(f).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let direct = of(Way::Direct, |run| run.cpu_us).unwrap_or_default();
        for way in Way::ALL {
            let (Some(rate), Some(cpu), Some(p99)) =
                (of(way, |r| r.rate), of(way, |r| r.cpu_us), of(way, |r| r.p99_ms))
            else {
                continue;
            };
            let failed = runs.iter().filter(|run| run.way == way && run.kind == kind).map(|run| run.failed);
            results.push(PathResult {
                name: format!("path/{}/{}", kind.name(), way.name()),
                requests_per_second: rate,
                cpu_us_per_request: cpu,
                net_us_per_request: cpu - direct,
                p99_ms: p99,
                failed: failed.sum(),
                peer: format!("path/{}/{}", kind.name(), way.peer().name()),
            });
        }
    }
    results
}
