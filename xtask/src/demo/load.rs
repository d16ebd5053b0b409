//! The load generator wrk, from several client addresses at once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::progress::read;
use crate::sandbox::netns;
use crate::sandbox::topology::{self, CLIENT, VIP4, VIP6};

/// Generators in each family.
const GENERATORS: u8 = 3;
/// The first client number whose address a generator has.
const FIRST_CLIENT: u8 = 80;
/// wrk cannot choose its address; it runs as a user whose routes do.
const FIRST_USER: u32 = 61_000;
/// How long a request may take, in seconds: half of the load's time, so that one that takes longer is seen, but not less and not more
/// than this.
const PATIENCE: RangeInclusive<u64> = 2..=15;

/// Notes which backends answered in each of wrk's threads, and prints one JSON object at the end.
const SCRIPT: &str = r#"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) seen = {}; backends = "" end
function response(status, headers, body)
    local backend = body:match('"backend":"(%w+)"') or "unknown"
    if not seen[backend] then
        seen[backend] = true
        backends = backends .. '"' .. backend .. '",'
    end
end
function done(summary, latency, requests)
    local names = ""
    for _, thread in ipairs(threads) do names = names .. thread:get("backends") end
    local errors, failures = summary.errors, {}
    for _, kind in ipairs({"connect", "read", "write", "status", "timeout"}) do
        table.insert(failures, ('"%s":%d'):format(kind, errors[kind]))
    end
    print(('\n@{"requests":%d,"failures":{%s},"seconds":%f,"p50":%f,"p99":%f,"backends":[%s]}'):format(
        summary.requests, table.concat(failures, ","),
        summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, names:sub(1, -2)))
end
"#;

/// Running generators.
pub(super) struct Load {
    generators: Vec<Child>,
}

/// What the generators did together.
#[derive(Default)]
pub(super) struct Outcome {
    /// Requests answered.
    pub(super) requests: u64,
    /// Requests that failed, by what wrk calls it.
    failures: BTreeMap<String, u64>,
    /// Requests a second.
    pub(super) rate: f64,
    /// Generators' addresses that met more than one backend.
    pub(super) violations: u64,
    /// Requests by backend.
    pub(super) per_backend: BTreeMap<String, u64>,
    /// The slowest generator's median, in milliseconds.
    pub(super) p50: f64,
    /// The slowest generator's 99th percentile, in milliseconds.
    pub(super) p99: f64,
}

/// What one generator prints.
#[derive(Deserialize)]
struct Printed {
    requests: u64,
    failures: BTreeMap<String, u64>,
    seconds: f64,
    p50: f64,
    p99: f64,
    backends: Vec<String>,
}

impl Load {
    /// Starts the generators for some seconds.
    pub(super) fn start(time: Duration) -> Result<Self> {
        let script = std::path::Path::new(crate::sandbox::DIRECTORY).join("wrk.lua");
        fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
        let patience = (time.as_secs() / 2).clamp(*PATIENCE.start(), *PATIENCE.end());
        let mut load = Self { generators: Vec::new() };
        for n in 0..GENERATORS {
            for (family, vip) in [("-4", VIP4.to_string()), ("-6", format!("[{VIP6}]"))] {
                let user = FIRST_USER + 2 * u32::from(n) + u32::from(family == "-6");
                address_of_user(family, user, FIRST_CLIENT + n)?;
                let mut wrk = netns::command(CLIENT, "setpriv");
                wrk.arg(format!("--reuid={user}")).args([
                    "--clear-groups",
                    "wrk",
                    "--threads",
                    "1",
                    "--connections",
                    "8",
                ]);
                wrk.arg("--duration").arg(format!("{}s", time.as_secs())).arg("--script").arg(&script);
                wrk.arg("--timeout").arg(format!("{patience}s"));
                wrk.arg(format!("http://{vip}/whoami"))
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null());
                load.generators.push(wrk.spawn().context("cannot start wrk")?);
            }
        }
        Ok(load)
    }

    /// Waits for all of them.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for generator in &mut self.generators {
            let mut text = String::new();
            if let Some(pipe) = &mut generator.stdout {
                pipe.read_to_string(&mut text).context("reading wrk's output")?;
            }
            let status = generator.wait().context("waiting for wrk")?;
            let line = text.lines().find_map(|line| line.strip_prefix('@'));
            let Some(line) = line else { bail!("wrk failed ({status}): {}", text.trim()) };
            let printed: Printed =
                serde_json::from_str(line).context("wrk's script printed something else")?;
            outcome.requests += printed.requests;
            for (kind, count) in printed.failures {
                *outcome.failures.entry(kind).or_default() += count;
            }
            outcome.rate += printed.requests as f64 / printed.seconds.max(0.001);
            outcome.violations += u64::from(printed.backends.len() > 1);
            outcome.p50 = outcome.p50.max(printed.p50);
            outcome.p99 = outcome.p99.max(printed.p99);
            if let Some(backend) = printed.backends.into_iter().next() {
                *outcome.per_backend.entry(backend).or_default() += printed.requests;
            }
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Requests that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How they failed; `None` = none did.
    pub(super) fn trouble(&self) -> Option<String> {
        let failures = self.failures.iter().filter(|(_, count)| **count > 0);
        let kinds: Vec<String> = failures.map(|(kind, count)| format!("{count} of {kind}")).collect();
        (!kinds.is_empty()).then(|| format!("wrk: {}", kinds.join(", ")))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for generator in &mut self.generators {
            // Both fail when it has ended, which is what is wanted.
            let _ = generator.kill();
            let _ = generator.wait();
        }
    }
}

/// Gives what a user sends in the client's namespace one of the clients' addresses.
fn address_of_user(family: &str, user: u32, client: u8) -> Result<()> {
    let (router, source) = match family {
        "-4" => ("10.99.9.1".to_owned(), topology::client4(client).to_string()),
        _ => ("fd99:9::1".to_owned(), topology::client6(client).to_string()),
    };
    let (user, range) = (user.to_string(), format!("{user}-{user}"));
    let ip = || {
        let mut command = Command::new("ip");
        command.args(["-n", CLIENT, family]);
        command
    };
    read(ip().args(["route", "replace", "default", "via", &router, "src", &source, "table", &user]))?;
    read(ip().args(["rule", "add", "uidrange", &range, "lookup", &user])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_requests_failed_is_said() {
        let outcome = |failures: &[(&str, u64)]| Outcome {
            failures: failures.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            ..Outcome::default()
        };
        assert_eq!(outcome(&[("read", 0), ("timeout", 0)]).trouble(), None);
        let some = outcome(&[("connect", 0), ("read", 1), ("timeout", 31)]);
        assert_eq!((some.failed(), some.trouble().as_deref()), (32, Some("wrk: 1 of read, 31 of timeout")));
    }
}
