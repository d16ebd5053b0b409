//! What a request costs from end to end, through namespaces with real servers, beside peers in the same run.
//!
//! Every peer stands where the balancer stands: between the same clients and the same three web servers. The
//! balancer's programs are attached only while it is measured, and so are the peers' rules.

use super::report::align;
use crate::topology::process::eventually;
use crate::topology::{Arms, Balancer, Process, SOON, Site, Testbed};
use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

/// The names that choose this section; it is measured as a whole.
pub const NAMES: [&str; 2] = ["path/keep-alive/", "path/connect/"];

/// Backends behind each way.
const BACKENDS: u8 = 3;
/// Connections that wrk keeps open.
const CONNECTIONS: u32 = 64;
/// The peer that ratios are given to.
const PEER: &str = "kernel-nat";

/// One way through the site with one kind of load.
#[derive(Clone, Debug, Serialize)]
pub struct PathResult {
    /// `path/load/way`.
    pub name: String,
    /// Requests a second.
    pub requests_per_second: f64,
    /// CPU time of the whole machine a request, clients and servers included, in microseconds.
    pub cpu_us_per_request: f64,
    /// 99 of 100 requests were answered within this many milliseconds.
    pub p99_ms: f64,
    /// Requests that failed, in all rounds.
    pub failed: u64,
    /// The way that it is to be compared with.
    pub peer: String,
}

/// The ways through the site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The clients ask one server; the balancer's place is a plain router.
    Direct,
    /// nftables `dnat` with connection tracking.
    KernelNat,
    /// HAProxy in HTTP mode with connections to servers kept open.
    Haproxy,
    /// The product, `nat`.
    Nat,
    /// The product, `ipip` with direct return.
    Ipip,
}

/// Kinds of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Connections stay.
    KeepAlive,
    /// A connection for each request.
    Connect,
}

impl Way {
    const ALL: [Self; 5] = [Self::Direct, Self::KernelNat, Self::Haproxy, Self::Nat, Self::Ipip];

    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::KernelNat => PEER,
            Self::Haproxy => "haproxy",
            Self::Nat => "stickleback-nat",
            Self::Ipip => "stickleback-ipip",
        }
    }

    /// What clients connect to.
    fn address(self) -> SocketAddr {
        match self {
            Self::Direct => SocketAddr::from(([10, 2, 1, 2], 80)),
            Self::KernelNat => SocketAddr::from(([10, 97, 0, 1], 80)),
            Self::Haproxy => SocketAddr::from(([10, 1, 0, 1], 80)),
            Self::Nat => SocketAddr::from(([10, 99, 0, 1], 80)),
            Self::Ipip => SocketAddr::from(([10, 99, 0, 2], 80)),
        }
    }
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

/// What one run of wrk found.
struct Run {
    way: Way,
    kind: Kind,
    rate: f64,
    cpu_us: f64,
    p99_ms: f64,
    failed: u64,
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
    let has_haproxy = site.lb.try_sh("command -v haproxy", SOON)?.status.success();
    let has_nft = site.lb.try_sh("command -v nft", SOON)?.status.success();
    let progress = std::io::stderr().is_terminal();
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for way in Way::ALL {
            if (way == Way::Haproxy && !has_haproxy) || (way == Way::KernelNat && !has_nft) {
                continue;
            }
            let _standing = Standing::set_up(&site, way)?;
            for kind in Kind::ALL {
                if progress {
                    eprint!("\r\x1b[Kround {round}/{rounds}  path/{}/{}", kind.name(), way.name());
                }
                runs.push(measure(&site, way, kind, seconds)?);
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
            "p99 ms",
            "failed",
        ]);
        for result in results {
            table.add_row([
                result.name.clone(),
                format!("{:.0}", result.requests_per_second),
                format!("{:.1}", result.cpu_us_per_request),
                format!("{:.2}", result.p99_ms),
                result.failed.to_string(),
            ]);
        }
        align(&mut table, &[1, 2, 3, 4]);
        println!("{table}");
    }
}

/// What stands between clients and servers; taken down when dropped.
enum Standing<'a> {
    Router,
    KernelNat(&'a Site),
    Haproxy { _process: Process },
    Stickleback(Balancer),
}

impl<'a> Standing<'a> {
    fn set_up(site: &'a Site, way: Way) -> Result<Self> {
        let standing = match way {
            Way::Direct => Self::Router,
            Way::KernelNat => {
                let servers: Vec<String> =
                    (0..).zip(&site.backends).map(|(n, b)| format!("{n} : {}", b.v4)).collect();
                site.lb.sh(&format!(
                    "nft add table ip peer
                     nft 'add chain ip peer pre {{ type nat hook prerouting priority -100 ; }}'
                     nft 'add rule ip peer pre ip daddr {} tcp dport 80 dnat to numgen inc mod {BACKENDS} map {{ {} }}'",
                    way.address().ip(),
                    servers.join(", ")
                ))?;
                Self::KernelNat(site)
            }
            Way::Haproxy => Self::Haproxy { _process: haproxy(site, way.address())? },
            Way::Nat | Way::Ipip => {
                let service = |way: Way, mode| {
                    site.service(way.name(), way.address(), mode, false).with("affinity = \"none\"")
                };
                let services = [service(Way::Nat, "nat"), service(Way::Ipip, "ipip")];
                Self::Stickleback(site.balance(&services)?)
            }
        };
        let address = way.address();
        eventually(SOON, || {
            site.client.sh(&format!("curl -sf --noproxy '*' --max-time 2 http://{address}/whoami"))
        })
        .with_context(|| format!("{} does not serve", way.name()))?;
        Ok(standing)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        match self {
            Self::Router | Self::Haproxy { .. } => {}
            Self::KernelNat(site) => {
                if let Err(error) = site.lb.sh("nft delete table ip peer") {
                    eprintln!("the peer's rules stay: {error:#}");
                }
            }
            Self::Stickleback(balancer) => {
                if let Err(error) = balancer.ctl(&["detach", "--yes"]) {
                    eprintln!("the balancer stays attached: {error:#}");
                }
            }
        }
    }
}

fn haproxy(site: &Site, at: SocketAddr) -> Result<Process> {
    let mut text = format!(
        "global\n  nbthread 2\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend front\n  bind {at}\n  default_backend servers\nbackend servers\n  \
         balance roundrobin\n  http-reuse always\n"
    );
    for backend in &site.backends {
        text.push_str(&format!("  server {} {}:8080\n", backend.name, backend.v4));
    }
    let file = site.directory().join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let path = file.to_str().context("path is not UTF-8")?;
    site.lb.start(&["haproxy", "-db", "-f", path], &site.directory().join("haproxy.log"))
}

fn measure(site: &Site, way: Way, kind: Kind, seconds: u64) -> Result<Run> {
    let header = if kind == Kind::Connect { "-H 'Connection: close'" } else { "" };
    let command =
        format!("wrk -t 2 -c {CONNECTIONS} -d {seconds}s --latency {header} http://{}/whoami", way.address());
    let before = busy()?;
    let out = site.client.sh_within(&command, Duration::from_secs(seconds + 30))?;
    let spent = busy()? - before;
    let requests: f64 = word_before(&out, " requests in ").context("wrk counts no requests")?;
    ensure!(requests > 0.0, "no request through {} was answered:\n{out}", way.name());
    let p99 = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("99%"))
        .and_then(milliseconds)
        .context("wrk gives no 99 % line")?;
    let rate = out
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))
        .context("wrk gives no rate")?
        .trim()
        .parse()?;
    Ok(Run { way, kind, rate, cpu_us: spent * 1e6 / requests, p99_ms: p99, failed: failures(&out) })
}

/// Failed requests that wrk reports: socket errors of any kind and other answers than 2xx and 3xx.
fn failures(out: &str) -> u64 {
    let sockets = out
        .lines()
        .find(|line| line.contains("Socket errors:"))
        .map_or(0, |line| line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum());
    let answers = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses:"))
        .and_then(|count| count.trim().parse::<u64>().ok());
    sockets + answers.unwrap_or(0)
}

fn summary(runs: &[Run]) -> Vec<PathResult> {
    let mut results = Vec::new();
    for kind in Kind::ALL {
        for way in Way::ALL {
            let of = |f: fn(&Run) -> f64| -> Option<f64> {
                let mut values: Vec<f64> =
                    runs.iter().filter(|run| run.way == way && run.kind == kind).map(f).collect();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).copied()
            };
            let (Some(rate), Some(cpu), Some(p99)) = (of(|r| r.rate), of(|r| r.cpu_us), of(|r| r.p99_ms))
            else {
                continue;
            };
            let failed = runs.iter().filter(|run| run.way == way && run.kind == kind).map(|run| run.failed);
            results.push(PathResult {
                name: format!("path/{}/{}", kind.name(), way.name()),
                requests_per_second: rate,
                cpu_us_per_request: cpu,
                p99_ms: p99,
                failed: failed.sum(),
                peer: format!("path/{}/{PEER}", kind.name()),
            });
        }
    }
    results
}

/// CPU seconds that this machine has been busy, interrupts included.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    ensure!(fields.len() >= 7, "/proc/stat has {} fields", fields.len());
    // user, nice, system, idle, iowait, irq, softirq; in hundredths of a second.
    Ok([0, 1, 2, 5, 6].iter().map(|&place| fields[place]).sum::<f64>() / 100.0)
}

/// The number that stands before `mark`.
fn word_before(text: &str, mark: &str) -> Option<f64> {
    text.split_once(mark)?.0.split_whitespace().next_back()?.parse().ok()
}

/// A time as wrk writes it, in milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "  2 threads and 64 connections
  Latency Distribution
     50%    3.04ms
     99%  950.00us
  47230 requests in 3.10s, 10.13MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:  15235.29
Transfer/sec:      3.27MB
";

    #[test]
    fn words_of_wrk_are_understood() {
        assert_eq!(word_before(WRK, " requests in "), Some(47_230.0));
        assert_eq!(failures(WRK), 17);
        assert_eq!(milliseconds("  500.00us"), Some(0.5));
        assert_eq!(milliseconds("1.50s"), Some(1_500.0));
    }
}
