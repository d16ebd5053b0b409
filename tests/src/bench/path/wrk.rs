//! Load by wrk, and what it reports.

use super::Kind;
use super::way::Way;
use crate::topology::Site;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Connections that wrk keeps open.
pub(super) const CONNECTIONS: u32 = 64;
/// Threads of wrk. Each is a session of its own, so that there are some for every server.
const THREADS: u32 = 16;
/// Gives each thread its own session.
const SCRIPT: &str = "local n = 0
function setup(thread) thread:set('session', n) n = n + 1 end
function init(arguments) wrk.headers['Cookie'] = 'theme=dark; SESS=' .. string.format('%016x', session * 7919 + 1) end
";

/// What one run of wrk found.
pub(super) struct Run {
    pub(super) way: Way,
    pub(super) kind: Kind,
    pub(super) rate: f64,
    pub(super) cpu_us: f64,
    pub(super) p99_ms: f64,
    pub(super) failed: u64,
}

/// Sends requests for some seconds.
pub(super) fn measure(site: &Site, way: Way, kind: Kind, seconds: u64) -> Result<Run> {
    let header = if kind == Kind::Connect { "-H 'Connection: close'" } else { "" };
    let script = site.directory().join("session.lua");
    std::fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
    let command = format!(
        "wrk -t {THREADS} -c {CONNECTIONS} -d {seconds}s --latency -s {} {header} http://{}/whoami",
        script.display(),
        way.address()
    );
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

/// CPU seconds that this machine has been busy, interrupts included; where this process has an ordinary priority or a
/// higher one, without what others do at a lower one.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    ensure!(fields.len() >= 7, "/proc/stat has {} fields", fields.len());
    // user, nice, system, idle, iowait, irq, softirq; in hundredths of a second.
    // SAFETY: a call without pointers.
    let low = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } > 0;
    Ok([0, 1, 2, 5, 6].iter().filter(|&&place| low || place != 1).map(|&place| fields[place]).sum::<f64>()
        / 100.0)
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
