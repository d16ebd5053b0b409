//! Backends that answer, but not what comes on the way of the traffic.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, Balancer, Process, Site, Testbed, load};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Takes the webhook's messages and writes each into a line of its log.
const HOOK: &str = include_str!("hook.py");
const HOOK_PORT: &str = "9099";
/// Answers datagrams without summing them up.
const BARE: &str = include_str!("bare.py");

/// Two backends, of which only the first takes what the mode brings; the balancer has the service's address itself.
pub(super) struct Ways {
    pub(super) balancer: Balancer,
    hook: Process,
    mode: &'static str,
    is_v6: bool,
    vip: SocketAddr,
    decapsulators: Vec<Testbed>,
    pub(super) site: Site,
}

impl Ways {
    pub(super) fn new(mode: &'static str, is_v6: bool, to_v6: bool, health: &str) -> Result<Self> {
        let mut site = Site::with_mtu(Arms::Two, 2, 1_600)?;
        let address: IpAddr = if is_v6 { "fd99::1".parse()? } else { "10.99.0.1".parse()? };
        let vip = SocketAddr::new(address, 80);
        site.echo(vip.port(), &[address])?;
        let mut decapsulators = Vec::new();
        if mode != "l2" {
            decapsulators.push(Testbed::decapsulate(&site.backends[0].namespace, "eth0")?);
        }
        Self::announce(&site, is_v6, true)?;
        let script = site.directory().join("hook.py");
        std::fs::write(&script, HOOK)?;
        let script = script.display().to_string();
        let hook = site.lb.start(&["python3", &script, HOOK_PORT], &site.directory().join("hook.log"))?;
        let mut node = site.node();
        node.node += &format!("[events]\nwebhook = {{ url = \"http://127.0.0.1:{HOOK_PORT}/hook\" }}\n");
        let service = site.service("web", vip, mode, to_v6).with(health);
        if mode == "l2" {
            Self::set_vip(&site, is_v6, "del")?;
        }
        let balancer = site.balance_with(&node, &[service])?;
        Ok(Self { balancer, hook, mode, is_v6, vip, decapsulators, site })
    }

    /// Lets the balancer itself have the service's address, as it does while it announces it, or no longer.
    fn announce(site: &Site, is_v6: bool, does: bool) -> Result<()> {
        let what = if does { "add" } else { "del" };
        let address = if is_v6 { "fd99::1/128 dev lo nodad" } else { "10.99.0.1/32 dev lo" };
        site.lb.sh(&format!("ip addr {what} {address}")).map(drop)
    }

    /// Gives the second backend the service's addresses, or takes them from it.
    fn set_vip(site: &Site, is_v6: bool, what: &str) -> Result<()> {
        let network = if is_v6 { "fd99::/64" } else { "10.99.0.0/24" };
        let line = format!("ip route {what} local {network} dev lo table local");
        site.backends[1].namespace.sh(&line).map(drop)
    }

    /// Lets the second backend take what the mode brings, or no longer.
    fn connect(&mut self, is_connected: bool) -> Result<()> {
        match (self.mode, is_connected) {
            ("l2", true) => Self::set_vip(&self.site, self.is_v6, "add"),
            ("l2", false) => Self::set_vip(&self.site, self.is_v6, "del"),
            (_, true) => {
                let second = &self.site.backends[1].namespace;
                self.decapsulators.push(Testbed::decapsulate(second, "eth0")?);
                Ok(())
            }
            (_, false) => {
                drop(self.decapsulators.pop());
                Ok(())
            }
        }
    }

    pub(super) fn health(&self, name: &str) -> Result<Value> {
        let rows = self.balancer.ask(&["backends"])?;
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        Ok(row.context("no such backend")?["health"].clone())
    }

    pub(super) fn wait_for(&self, name: &str, state: &str) -> Result<()> {
        eventually(PATIENCE, || {
            let health = self.health(name)?;
            ensure!(health["state"] == state, "{name} is {health}, not {state}\n{}", self.balancer.log());
            Ok(())
        })
    }
}

/// A backend that answers directly but not on the way of the traffic is down, and up as soon as it does. The service is of one family,
/// and the backends of the same or the other one.
fn only_the_way_of_the_traffic_counts(
    mode: &'static str,
    is_v6: bool,
    to_v6: bool,
    health: &str,
) -> Result<()> {
    let mut ways = Ways::new(mode, is_v6, to_v6, health)?;
    let follower = ways.site.directory().join("follow.log");
    let follower = ways.balancer.start_ctl(&["-o", "json", "events", "--follow"], &follower)?;
    ways.wait_for("be1", "healthy")?;
    ways.wait_for("be2", "down")?;
    let direct = if to_v6 { "[fd02:2::2]" } else { "10.2.2.2" };
    ways.site.lb.sh(&format!("curl -sf --noproxy '*' --max-time 5 http://{direct}/whoami"))?;
    // Everybody is served, since nobody is sent to the one that gets nothing. The balancer is the backends' router here, too, which
    // would not pass on what comes from an address of its own.
    Ways::announce(&ways.site, is_v6, false)?;
    ways.site.serves(ways.vip)?;
    let clients = ways.site.clients(is_v6, 24);
    let answers = load::each(&ways.site.client, ways.vip, &clients)?;
    ensure!(answers.values().all(|name| name == "be1"), "{answers:?}");

    Ways::announce(&ways.site, is_v6, true)?;
    ways.connect(true)?;
    ways.wait_for("be2", "healthy")?;
    ways.connect(false)?;
    ways.wait_for("be2", "down")?;
    ensure!(ways.health("be1")?["state"] == "healthy", "{}", ways.health("be1")?);

    // The same in the events, as they stand and as they came, in the metrics, in the log, and at the webhook.
    let verdicts = verdicts(ways.balancer.ask(&["events", "--limit", "1000"])?.as_array().context("a list")?);
    ensure!(verdicts.starts_with(&["down", "up", "down"].map(str::to_owned)), "{verdicts:?}");
    let status = ways.balancer.ask(&["status"])?;
    ensure!(status["backends_up"] == 1, "{status}");
    let times = |kind: &str| verdicts.iter().filter(|verdict| *verdict == kind).count();
    let metrics = ways.balancer.metrics()?;
    for (state, kind) in [("down", "down"), ("healthy", "up")] {
        let labels = format!("service=\"web\",backend=\"be2\",to=\"{state}\"");
        let line = format!("stickleback_backend_health_changes_total{{{labels}}} {}", times(kind));
        ensure!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    let log = ways.balancer.log();
    let logged = log.lines().filter(|line| line.contains("backend is down") && line.contains("be2")).count();
    ensure!(logged == times("down"), "{logged} of {verdicts:?} are in the log:\n{log}");
    eventually(PATIENCE, || {
        let followed = self::verdicts(&lines(&follower));
        ensure!(followed == verdicts, "`--follow` showed {followed:?}, not {verdicts:?}: {}", follower.log());
        let events = lines(&ways.hook).into_iter().map(|mut message| message["events"].take());
        let events: Vec<Value> = events.filter_map(|events| events.as_array().cloned()).flatten().collect();
        let told = self::verdicts(&events);
        ensure!(told == verdicts, "the webhook was told {told:?}, not {verdicts:?}: {}", ways.hook.log());
        Ok(())
    })
}

/// Everything that a process has written as lines of JSON.
fn lines(process: &Process) -> Vec<Value> {
    process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What events say of the second backend's death and life, in their order.
fn verdicts(events: &[Value]) -> Vec<String> {
    let of_be2 = events.iter().filter(|row| row["backend"] == "be2" && row["health"].is_object());
    let kinds = of_be2.filter_map(|event| event["kind"].as_str()).filter(|kind| *kind != "health");
    kinds.map(str::to_owned).collect()
}

const TCP: &str = "health = \"tcp\"";
const HTTP: &str = "health = { kind = \"http\", path = \"/whoami\", body = \"be\" }";

#[test]
fn namespace_health_way_ipip_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("ipip", false, false, TCP)
}

#[test]
fn namespace_health_way_ipip_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("ipip", true, true, HTTP)
}

#[test]
fn namespace_health_way_gue_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("gue", false, false, HTTP)
}

#[test]
fn namespace_health_way_gue_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("gue", true, true, TCP)
}

#[test]
fn namespace_health_way_l2_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("l2", false, false, HTTP)
}

#[test]
fn namespace_health_way_l2_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("l2", true, true, TCP)
}

#[test]
fn namespace_health_way_ipip_v6_in_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("ipip", true, false, HTTP)
}

#[test]
fn namespace_health_way_ipip_v4_in_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("ipip", false, true, TCP)
}

#[test]
fn namespace_health_way_gue_v6_in_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("gue", true, false, TCP)
}

#[test]
fn namespace_health_way_gue_v4_in_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("gue", false, true, HTTP)
}

#[test]
fn namespace_health_way_l2_v6_at_v4() -> Result<()> {
    only_the_way_of_the_traffic_counts("l2", true, false, HTTP)
}

#[test]
fn namespace_health_way_l2_v4_at_v6() -> Result<()> {
    only_the_way_of_the_traffic_counts("l2", false, true, HTTP)
}

/// Pings through the tunnel; and the backend's own address, where that is wanted.
#[test]
fn namespace_health_way_pings_and_direct() -> Result<()> {
    for (is_v6, to_v6, mode) in
        [(false, false, "ipip"), (true, true, "gue"), (true, false, "ipip"), (false, true, "gue")]
    {
        let ways = Ways::new(mode, is_v6, to_v6, "health = \"icmp\"")?;
        ways.wait_for("be1", "healthy")?;
        ways.wait_for("be2", "down")?;
        drop(ways);
        let direct = Ways::new(mode, is_v6, to_v6, "health = { kind = \"tcp\", way = \"direct\" }")?;
        direct.wait_for("be1", "healthy")?;
        direct.wait_for("be2", "healthy")?;
    }
    Ok(())
}

/// Datagrams on every kind of way.
#[test]
fn namespace_health_way_datagrams() -> Result<()> {
    for (mode, is_v6, to_v6) in [
        ("ipip", false, false),
        ("gue", true, true),
        ("ipip", true, false),
        ("gue", false, true),
        ("l2", true, false),
        ("l2", false, true),
    ] {
        let health = "health = { kind = \"udp\", request = \"who\", response = \"be\" }";
        let mut ways = Ways::new(mode, is_v6, to_v6, health)?;
        ways.wait_for("be1", "healthy")?;
        ways.wait_for("be2", "down")?;
        ways.connect(true)?;
        ways.wait_for("be2", "healthy").with_context(|| format!("{mode}, {is_v6}, {to_v6}"))?;
    }
    Ok(())
}

/// Over IPv4 an answer need not have a checksum; where the probe is of IPv6 it is none the worse for that.
#[test]
fn namespace_health_way_datagrams_without_checksums() -> Result<()> {
    let health = "health = { kind = \"udp\", port = 7777, request = \"who\", response = \"bare\" }";
    let ways = Ways::new("ipip", false, true, health)?;
    ways.wait_for("be1", "down")?;
    let script = ways.site.directory().join("bare.py");
    std::fs::write(&script, BARE)?;
    let (script, log) = (script.display().to_string(), ways.site.directory().join("bare.log"));
    let first = &ways.site.backends[0].namespace;
    let _server = first.start(&["python3", &script, &ways.vip.ip().to_string(), "7777"], &log)?;
    ways.wait_for("be1", "healthy")
}
