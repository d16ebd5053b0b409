//! The balancer's own addresses come and go: those that ask backends of the other family on the way of the traffic.

use super::ways::Ways;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;
use stickleback_tests::topology::process::eventually;

/// Long enough for several probes of a backend that is well.
const A_WHILE: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(30);

/// A service of one family with backends of the other one, and the balancer's addresses of the service's family.
struct Crossing {
    ways: Ways,
    family: &'static str,
    /// On the interface to the first backend: what is there, and what will be.
    near: &'static str,
    next: &'static str,
    /// On the interface to the clients.
    far: &'static str,
}

impl Crossing {
    fn new(mode: &'static str, is_v6: bool, health: &str) -> Result<Self> {
        let ways = Ways::new(mode, is_v6, !is_v6, health)?;
        let (family, near, next, far) = if is_v6 {
            ("IPv6", "fd02:1::1/64", "fd02:1::9/64", "fd01::1/64")
        } else {
            ("IPv4", "10.2.1.1/24", "10.2.1.9/24", "10.1.0.1/24")
        };
        // Who stays when another address of the network goes.
        ways.site.lb.set("ipv4/conf/l1/promote_secondaries=1")?;
        let (kind, ip, vip) =
            if is_v6 { ("ipv6_addr", "ip6", "fd99::1") } else { ("ipv4_addr", "ip", "10.99.0.1") };
        ways.site.backends[0].namespace.sh(&format!(
            "nft add table inet probes
             nft add set inet probes askers '{{ type {kind}; flags dynamic; size 64; }}'
             nft add chain inet probes in '{{ type filter hook input priority 0; }}'
             nft add rule inet probes in {ip} daddr {vip} update @askers '{{ {ip} saddr }}'"
        ))?;
        Ok(Self { ways, family, near, next, far })
    }

    /// Adds an address of the balancer's, or takes it away.
    fn change(&self, what: &str, address: &str, interface: &str) -> Result<()> {
        let nodad = if what == "add" && address.contains(':') { "nodad" } else { "" };
        self.ways.site.lb.sh(&format!("ip addr {what} {address} dev {interface} {nodad}")).map(drop)
    }

    /// Who asks the first backend on the way of the traffic, for a while from now on.
    fn askers(&self) -> Result<BTreeSet<IpAddr>> {
        let first = &self.ways.site.backends[0].namespace;
        first.sh("nft flush set inet probes askers")?;
        sleep(A_WHILE);
        let told: Value = serde_json::from_str(&first.sh("nft -j list set inet probes askers")?)?;
        let set = told["nftables"].as_array().into_iter().flatten().find(|part| part["set"].is_object());
        let elements = set.with_context(|| format!("no set in {told}"))?["set"]["elem"].as_array();
        let address = |element: &Value| {
            element
                .as_str()
                .and_then(|text| text.parse().ok())
                .with_context(|| format!("{element} is no address"))
        };
        elements.into_iter().flatten().map(address).collect()
    }

    /// Waits until this address asks the first backend, and no other, and the backend answers.
    fn is_asked_by(&self, address: &str) -> Result<()> {
        let address = address.split('/').next().unwrap_or_default().parse()?;
        eventually(PATIENCE, || {
            let askers = self.askers()?;
            ensure!(askers == BTreeSet::from([address]), "{askers:?} ask, not {address}");
            Ok(())
        })?;
        self.ways.wait_for("be1", "healthy")
    }
}

/// Probes come from the nearest address that there is, and go to backends' own addresses while there is none.
fn probes_follow(mode: &'static str, is_v6: bool, health: &str) -> Result<()> {
    let crossing = Crossing::new(mode, is_v6, health)?;
    let Crossing { ways, family, near, next, far } = &crossing;
    // The second backend takes nothing on the way of the traffic.
    ways.wait_for("be2", "down")?;
    crossing.is_asked_by(near)?;

    crossing.change("add", next, "l1")?;
    crossing.change("del", near, "l1")?;
    crossing.is_asked_by(next)?;

    // Nothing is left on that interface: another interface's address asks, to which the backend gets a way back.
    let here = ways.site.lb.sh("ip -6 -o addr show dev l1 scope link")?;
    let here =
        here.split_whitespace().find_map(|word| word.strip_suffix("/64")).context("no link-local address")?;
    let (host, length) = (far.split('/').next().unwrap_or_default(), if is_v6 { 128 } else { 32 });
    let back = format!("ip route add {host}/{length} via inet6 {here} dev eth0");
    ways.site.backends[0].namespace.sh(&back)?;
    crossing.change("del", next, "l1")?;
    crossing.is_asked_by(far)?;
    ensure!(ways.health("be2")?["state"] == "down", "{}", ways.health("be2")?);

    // None anywhere: that is said, and the second backend is well at its own address.
    let flag = if is_v6 { "-6" } else { "-4" };
    for interface in ["l0", "l1", "l2"] {
        ways.site.lb.sh(&format!("ip {flag} addr flush dev {interface} scope global"))?;
    }
    ways.wait_for("be2", "healthy")?;
    ways.wait_for("be1", "healthy")?;
    let said = format!("service web: this host has no {family} address");
    ensure!(ways.balancer.log().contains(&said), "nobody said so:\n{}", ways.balancer.log());
    eventually(PATIENCE, || {
        let askers = crossing.askers()?;
        ensure!(askers.is_empty(), "{askers:?} ask on a way that has no way back");
        Ok(())
    })?;

    crossing.change("add", near, "l1")?;
    crossing.is_asked_by(near)?;
    ways.wait_for("be2", "down")
}

#[test]
fn namespace_health_addresses_v4_in_v6() -> Result<()> {
    probes_follow("ipip", false, "health = \"tcp\"")
}

#[test]
fn namespace_health_addresses_v6_in_v4() -> Result<()> {
    probes_follow("gue", true, "health = { kind = \"http\", path = \"/whoami\" }")
}
