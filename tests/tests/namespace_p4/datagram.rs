//! UDP, connections without sessions, pings and strangers through the switch.

use super::{balance, mac, script, sessions, site, vip};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Bmv2, SOON, ServiceConfig, Site, load};

pub(crate) const PORT: u16 = 9_000;

/// A UDP service with echo servers behind it.
pub(crate) fn echo(mode: &'static str, v6: bool, affinity: &str) -> Result<(Site, Bmv2, Balancer)> {
    let (mut site, switch) = site(1_500)?;
    site.echo(PORT, &[vip(false).ip(), vip(true).ip()])?;
    let balancer = service(&site, &switch, mode, v6, affinity)?;
    Ok((site, switch, balancer))
}

/// A UDP service.
pub(crate) fn service(
    site: &Site,
    switch: &Bmv2,
    mode: &'static str,
    v6: bool,
    affinity: &str,
) -> Result<Balancer> {
    let service = site.service("echo", SocketAddr::new(vip(v6).ip(), PORT), mode, v6).with(affinity);
    balance(site, switch, ServiceConfig { protocol: "udp", ..service })
}

/// Sends datagrams from one socket of each client: who answered whom.
fn talk(site: &Site, clients: &[IpAddr], count: usize) -> Result<BTreeMap<IpAddr, String>> {
    let path = site.directory().join("talk.py");
    std::fs::write(&path, include_str!("../talk.py"))?;
    let vip = vip(clients.first().is_some_and(IpAddr::is_ipv6)).ip();
    let names: Vec<String> = clients.iter().map(IpAddr::to_string).collect();
    let command = format!("python3 {} {vip} {PORT} 100 {count} {}", path.display(), names.join(" "));
    let out = site.client.sh_within(&command, Duration::from_secs(60))?;
    let pairs = out.lines().map(|line| {
        let (client, backend) = line.split_once(' ').context("talk.py prints pairs")?;
        Ok((client.parse()?, backend.to_owned()))
    });
    pairs.collect()
}

/// Datagrams of a client go to one backend, and make a session with the second one.
fn datagrams(mode: &'static str, v6: bool) -> Result<()> {
    let (site, _switch, balancer) = echo(mode, v6, "affinity = \"source-ip\"")?;
    let clients = site.clients(v6, 24);
    let first = eventually(SOON, || talk(&site, &clients, 5))?;
    eventually(SOON, || {
        let bound = sessions(&balancer)?;
        ensure!(bound >= clients.len(), "only {bound} sessions are bound");
        Ok(())
    })?;
    let again = talk(&site, &clients, 2)?;
    ensure!(first == again, "sessions moved: {first:?}, then {again:?}");
    let used: BTreeSet<&String> = first.values().collect();
    ensure!(used.len() == 3, "only {used:?} served");
    Ok(())
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_udp_nat_v4() -> Result<()> {
    datagrams("nat", false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_udp_l2_v6() -> Result<()> {
    datagrams("l2", true)
}

/// A session key at a fixed place of each datagram: its backend serves it whoever sends it, from whatever socket.
fn payload(mode: &'static str, v6: bool) -> Result<()> {
    /// All of 24 but the one with which every socket begins: its datagrams are the first of their flows.
    const BOUND: usize = 23;
    let affinity = "affinity = { kind = \"payload\", offset = 3, mask = \"ffffff0f\" }";
    let (site, _switch, balancer) = echo(mode, v6, affinity)?;
    let script = site.directory().join("keys.py");
    std::fs::write(&script, include_str!("../keys.py"))?;
    let clients: Vec<String> = site.clients(v6, 4).iter().map(IpAddr::to_string).collect();
    let line = format!("python3 {} {} {PORT} 24 {}", script.display(), vip(v6).ip(), clients.join(" "));
    eventually(SOON, || site.client.sh(&line))?;
    eventually(SOON, || {
        ensure!(sessions(&balancer)? == BOUND, "{} sessions are bound", sessions(&balancer)?);
        Ok(())
    })?;
    let said = site.client.sh(&line)?;
    let mut used = BTreeSet::new();
    for line in said.lines() {
        let (session, backends) = line.split_once(' ').context("keys.py prints a session and backends")?;
        ensure!(!backends.contains(' '), "session {session} was served by {backends}");
        used.insert(backends);
    }
    ensure!(said.lines().count() == 24 && used.len() == 3, "{said}");
    ensure!(sessions(&balancer)? == BOUND, "{} sessions of 24 keys", sessions(&balancer)?);
    Ok(())
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_payload_nat_v6() -> Result<()> {
    payload("nat", true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_payload_l2_v4() -> Result<()> {
    payload("l2", false)
}

/// Without an affinity connections are spread, each stays where it began, and nothing is bound.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_connections_without_sessions() -> Result<()> {
    let (site, switch) = site(1_500)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with("affinity = \"none\"");
    let balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let client = site.clients(false, 1);
    let mut used = BTreeSet::new();
    for _ in 0..24 {
        used.extend(load::each(&site.client, vip, &client)?.into_values());
    }
    ensure!(used.len() == 3, "only {used:?} served");
    ensure!(sessions(&balancer)? == 0, "connections are bound");
    let answered = site.client.sh("ping -c 3 -i 0.2 -W 5 10.99.0.1")?;
    ensure!(answered.contains("3 received"), "{answered}");
    Ok(())
}

/// Strangers that never come back are told of no faster than the service allows, and those who are known are served meanwhile.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_strangers_are_limited() -> Result<()> {
    const RATE: usize = 50;
    const STRANGERS: usize = 4_000;
    let (site, switch) = site(1_500)?;
    let vip = vip(false);
    let lines = format!("affinity = \"source-ip\"\nbinding-rate = {RATE}");
    let service = site.service("web", vip, "l2", false).with(&lines);
    let balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let clients = site.clients(false, 8);
    let before = load::each(&site.client, vip, &clients)?;
    eventually(SOON, || {
        load::each(&site.client, vip, &clients)?;
        ensure!(sessions(&balancer)? >= clients.len(), "not all sessions are bound");
        Ok(())
    })?;
    let script = script(&site, "strangers.py", include_str!("strangers.py"))?;
    let begun = Instant::now();
    site.client.sh(&format!("python3 {} eth0 {} {} {STRANGERS}", script.display(), mac(&site)?, vip.ip()))?;
    let during = load::each(&site.client, vip, &clients)?;
    ensure!(before == during, "known sessions moved: {before:?}, then {during:?}");
    // Until all of them have come through: the switch is slower than who sends.
    let passed = || -> Result<u64> {
        let services = balancer.ask(&["services"])?;
        let text = services.to_string();
        let packets = text.split("\"packets\":").nth(1).context("a count of packets")?;
        Ok(packets.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse()?)
    };
    eventually(Duration::from_secs(60), || {
        let packets = passed()?;
        ensure!(packets >= STRANGERS as u64, "{packets} packets have passed");
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let (seconds, made) = (begun.elapsed().as_secs_f64(), sessions(&balancer)?);
    eprintln!("{made} of {STRANGERS} strangers were bound in {seconds:.1} s");
    let most = (RATE as f64 * seconds * 1.5) as usize + 2 * RATE;
    ensure!(made > clients.len() && made <= most, "{made} sessions in {seconds:.1} s at {RATE} a second");
    Ok(())
}
