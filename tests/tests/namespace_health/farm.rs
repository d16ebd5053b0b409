//! A site with checked backends, and what is expected of its sessions.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, Balancer, NodeConfig, Site, config, load};

/// Computes where sessions belong.
const PREDICT: &str = include_str!("predict.py");
/// Sessions of one test.
pub(super) const SESSIONS: u16 = 240;

/// Three backends behind one service.
pub(super) struct Farm {
    pub(super) balancer: Balancer,
    pub(super) site: Site,
    pub(super) vip: SocketAddr,
}

/// A session: its backend, and how often it moved.
pub(super) type Sessions = BTreeMap<String, (String, u64)>;

impl Farm {
    /// With these lines for the service.
    pub(super) fn new(lines: &str) -> Result<Self> {
        Self::with_limits(lines, "")
    }

    /// The same with limits for the node.
    pub(super) fn with_limits(lines: &str, limits: &str) -> Result<Self> {
        let site = Site::new(Arms::Two, 3)?;
        let vip = SocketAddr::new("10.99.0.1".parse()?, 80);
        let node = NodeConfig { limits: limits.to_owned(), ..site.node() };
        let balancer = site.balance_with(&node, &[site.service("web", vip, "nat", false).with(lines)])?;
        let farm = Self { balancer, site, vip };
        for n in 0..3 {
            farm.wait_for(n, "healthy")?;
        }
        farm.site.serves(vip)?;
        Ok(farm)
    }

    /// Binds every client's session, by a request of each.
    pub(super) fn bind(&self) -> Result<()> {
        self.everybody().map(drop)
    }

    /// Gives the service other lines.
    pub(super) fn reload(&self, lines: &str) -> Result<()> {
        let service = self.site.service("web", self.vip, "nat", false).with(lines);
        self.balancer.reload(&config::text(&self.site.node(), &[service]))
    }

    /// A request of each client: who answered.
    pub(super) fn everybody(&self) -> Result<BTreeMap<String, String>> {
        let answers = load::each(&self.site.client, self.vip, &self.site.clients(false, SESSIONS))?;
        Ok(answers.into_iter().map(|(client, backend)| (client.to_string(), backend)).collect())
    }

    /// The row of backend `n`, counted from 0.
    pub(super) fn backend(&self, n: usize) -> Result<Value> {
        let name = &self.site.backends[n].name;
        let rows = self.balancer.ask(&["backends"])?;
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == **name));
        row.cloned().with_context(|| format!("no backend {name} in {rows}"))
    }

    /// Waits until the health checks say so of backend `n`.
    pub(super) fn wait_for(&self, n: usize, state: &str) -> Result<()> {
        eventually(Duration::from_secs(20), || {
            let row = self.backend(n)?;
            ensure!(row["health"]["state"] == state, "{} is {}, not {state}", row["name"], row["health"]);
            Ok(())
        })
    }

    /// How long after `since` the daemon said that backend `n` was down, for the last time.
    pub(super) fn found_out(&self, n: usize, since: SystemTime) -> Result<Duration> {
        let name = format!("backend=\"{}\"", self.site.backends[n].name);
        let log = self.balancer.log();
        let line = log.lines().rfind(|line| line.contains("backend is down") && line.contains(&name));
        let line = line.with_context(|| format!("nobody found out:\n{log}"))?;
        let clock = line.split('T').nth(1).and_then(|rest| rest.split('Z').next());
        let mut parts = clock.with_context(|| line.to_owned())?.split(':').map(str::parse::<f64>);
        let mut part = || parts.next().and_then(Result::ok).context("no time of day");
        let said = part()? * 3_600.0 + part()? * 60.0 + part()?;
        let since = since.duration_since(UNIX_EPOCH)?.as_secs_f64() % 86_400.0;
        Ok(Duration::from_secs_f64((said - since).rem_euclid(86_400.0)))
    }

    /// All sessions as the table has them.
    pub(super) fn sessions(&self) -> Result<Sessions> {
        let page = self.balancer.ask(&["sessions", "list", "--limit", "100000"])?;
        let rows = page["sessions"].as_array().with_context(|| format!("no sessions in {page}"))?;
        let session = |row: &Value| {
            let text = |key: &str| row[key].as_str().map(str::to_owned).with_context(|| row.to_string());
            let moved = row["generation"].as_u64().with_context(|| row.to_string())?;
            Ok((text("key")?, (text("backend").unwrap_or_default(), moved)))
        };
        rows.iter().map(session).collect()
    }

    /// Holds every session against where the order says it belongs: before anybody died, and with `dead` gone.
    pub(super) fn holds(&self, before: &Sessions, after: &Sessions, dead: &str) -> Result<usize> {
        let predicted = self.predict(before.keys(), dead)?;
        let mut moved = 0;
        for (key, (owner, generation)) in before {
            let (first, heir) = &predicted[key];
            ensure!(owner == first && *generation == 0, "{key} was bound to {owner}, its first is {first}");
            let now = after.get(key).with_context(|| format!("session {key} is lost"))?;
            let expected = (heir.clone(), u64::from(owner == dead));
            ensure!(
                *now == expected,
                "{key} was with {owner}, is with {now:?}, and should be with {expected:?}"
            );
            moved += usize::from(owner == dead);
        }
        // A third is due; keys are hashed under a secret of its own each time.
        ensure!(moved > before.len() / 24, "only {moved} of {} sessions were {dead}'s", before.len());
        Ok(moved)
    }

    /// First backend and first live one of each session.
    pub(super) fn predict<'a>(
        &self,
        keys: impl Iterator<Item = &'a String>,
        dead: &str,
    ) -> Result<BTreeMap<String, (String, String)>> {
        let script = self.site.directory().join("predict.py");
        std::fs::write(&script, PREDICT)?;
        let servers: BTreeMap<&str, u32> = self.site.backends.iter().map(|b| (b.name.as_str(), 1)).collect();
        let question = json!({ "servers": servers, "dead": [dead], "keys": keys.collect::<Vec<_>>() });
        let order = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/order.py");
        let mut python = Command::new("python3")
            .arg(&script)
            .arg(order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting python3")?;
        python.stdin.take().context("a pipe")?.write_all(question.to_string().as_bytes())?;
        let said = python.wait_with_output()?;
        ensure!(said.status.success(), "predict.py ended with {}", said.status);
        Ok(serde_json::from_slice(&said.stdout)?)
    }
}
