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

/// Two backends, of which only the first takes what the mode brings; the balancer has the service's address itself.
struct Ways {
    balancer: Balancer,
    hook: Process,
    mode: &'static str,
    is_v6: bool,
    vip: SocketAddr,
    decapsulators: Vec<Testbed>,
    site: Site,
}

impl Ways {
    fn new(mode: &'static str, is_v6: bool, to_v6: bool, health: &str) -> Result<Self> {
        let site = Site::with_mtu(Arms::Two, 2, 1_600)?;
        let address: IpAddr = if is_v6 { "fd99::1".parse()? } else { "10.99.0.1".parse()? };
        let vip = SocketAddr::new(address, 80);
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

    fn health(&self, name: &str) -> Result<Value> {
        let rows = self.balancer.ask(&["backends"])?;
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        Ok(row.context("no such backend")?["health"].clone())
    }

    fn wait_for(&self, name: &str, state: &str) -> Result<()> {
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

    // The same in the events, in the metrics, and at the webhook.
    let events = ways.balancer.ask(&["events", "--limit", "1000"])?;
    let of_be2 = |row: &&Value| row["backend"] == "be2" && row["health"].is_object();
    let kinds: Vec<&str> = events
        .as_array()
        .context("a list")?
        .iter()
        .filter(of_be2)
        .filter_map(|e| e["kind"].as_str())
        .collect();
    let verdicts: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "health").collect();
    ensure!(verdicts.starts_with(&["down", "up", "down"]), "{events}");
    let socket = ways.balancer.ask(&["status"])?;
    ensure!(socket["backends_up"] == 1, "{socket}");
    eventually(PATIENCE, || {
        let told = ways.hook.log();
        let messages = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut kinds = Vec::new();
        for message in messages {
            for event in message["events"].as_array().context("no events")? {
                if event["backend"] == "be2" {
                    kinds.push(event["kind"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        ensure!(kinds == verdicts, "the webhook was told {kinds:?}, not {verdicts:?}: {told}");
        Ok(())
    })
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
