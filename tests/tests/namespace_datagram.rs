//! UDP, fragments, ping and hop limits.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, ServiceConfig, Site, Testbed};

const PORT: u16 = 9_000;

fn vip(v6: bool) -> IpAddr {
    if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() }
}

fn service(site: &Site, mode: &'static str, v6: bool) -> ServiceConfig {
    let name = if v6 { "echo-v6" } else { "echo-v4" };
    let address = SocketAddr::new(vip(v6), PORT);
    let service = site.service(name, address, mode, v6).with("affinity = \"source-ip\"");
    ServiceConfig { protocol: "udp", ..service }
}

/// Sends `count` datagrams of `size` bytes from one socket of each client: who answered whom.
fn talk(site: &Site, clients: &[IpAddr], size: usize, count: usize) -> Result<BTreeMap<IpAddr, String>> {
    let path = site.directory().join("talk.py");
    std::fs::write(&path, include_str!("talk.py"))?;
    let vip = vip(clients.first().is_some_and(IpAddr::is_ipv6));
    let clients: Vec<String> = clients.iter().map(IpAddr::to_string).collect();
    let command = format!("python3 {} {vip} {PORT} {size} {count} {}", path.display(), clients.join(" "));
    let out = site.client.sh_within(&command, Duration::from_secs(60))?;
    out.lines()
        .map(|line| {
            let (client, backend) = line.split_once(' ').context("talk.py prints pairs")?;
            Ok((client.parse()?, backend.to_owned()))
        })
        .collect()
}

fn datagrams(mode: &'static str, size: usize) -> Result<()> {
    let mut site = Site::with_mtu(Arms::Two, 3, 1_600)?;
    site.echo(PORT, &[vip(false), vip(true)])?;
    let mut decapsulators = Vec::new();
    if matches!(mode, "ipip" | "gue") {
        for backend in &site.backends {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let services = [service(&site, mode, false), service(&site, mode, true)];
    let _balancer = site.balance(&services)?;
    for v6 in [false, true] {
        let clients = site.clients(v6, 24);
        eventually(Duration::from_secs(10), || talk(&site, &clients, 100, 1))?;
        let first = talk(&site, &clients, size, 5)?;
        let again = talk(&site, &clients, size, 1)?;
        ensure!(first == again, "sessions moved: {first:?}, then {again:?}");
        let used: BTreeSet<&String> = first.values().collect();
        ensure!(used.len() == 3, "only {used:?} served");
    }
    Ok(())
}

#[test]
fn namespace_udp_nat() -> Result<()> {
    datagrams("nat", 100)
}

#[test]
fn namespace_udp_l2() -> Result<()> {
    datagrams("l2", 100)
}

#[test]
fn namespace_udp_ipip() -> Result<()> {
    datagrams("ipip", 100)
}

#[test]
fn namespace_udp_gue() -> Result<()> {
    datagrams("gue", 100)
}

/// A session key at a fixed place of each datagram: its backend serves it whoever sends it, from whatever socket.
fn payload(mode: &'static str) -> Result<()> {
    let mut site = Site::new(Arms::Two, 3)?;
    site.echo(PORT, &[vip(false), vip(true)])?;
    let services = [false, true].map(|v6| {
        let name = if v6 { "echo-v6" } else { "echo-v4" };
        let service = site.service(name, SocketAddr::new(vip(v6), PORT), mode, v6);
        let service = service.with("affinity = { kind = \"payload\", offset = 3, mask = \"ffffff0f\" }");
        ServiceConfig { protocol: "udp", ..service }
    });
    let _balancer = site.balance(&services)?;
    let script = site.directory().join("keys.py");
    std::fs::write(&script, include_str!("keys.py"))?;
    for v6 in [false, true] {
        let clients: Vec<String> = site.clients(v6, 4).iter().map(IpAddr::to_string).collect();
        let line = format!("python3 {} {} {PORT} 24 {}", script.display(), vip(v6), clients.join(" "));
        eventually(Duration::from_secs(10), || site.client.sh(&line))?;
        let said = site.client.sh(&line)?;
        let mut used = BTreeSet::new();
        for line in said.lines() {
            let (session, backends) =
                line.split_once(' ').context("keys.py prints a session and backends")?;
            ensure!(!backends.contains(' '), "session {session} was served by {backends}");
            used.insert(backends);
        }
        ensure!(said.lines().count() == 24 && used.len() == 3, "{said}");
    }
    Ok(())
}

#[test]
fn namespace_udp_payload_nat() -> Result<()> {
    payload("nat")
}

#[test]
fn namespace_udp_payload_l2() -> Result<()> {
    payload("l2")
}

#[test]
fn namespace_fragments_nat() -> Result<()> {
    datagrams("nat", 4_000)
}

#[test]
fn namespace_fragments_l2() -> Result<()> {
    datagrams("l2", 4_000)
}

#[test]
fn namespace_fragments_ipip() -> Result<()> {
    datagrams("ipip", 4_000)
}

#[test]
fn namespace_ping_is_answered() -> Result<()> {
    let mut site = Site::new(Arms::Two, 1)?;
    site.echo(PORT, &[vip(false), vip(true)])?;
    let services = [service(&site, "nat", false), service(&site, "nat", true)];
    let balancer = site.balance(&services)?;
    for v6 in [false, true] {
        let out = site.client.sh(&format!("ping -c 5 -i 0.1 -W 1 {}", vip(v6)))?;
        ensure!(out.contains("5 received"), "{out}");
        let other: IpAddr = if v6 { "fd99::77".parse()? } else { "10.99.0.77".parse()? };
        let other = site.client.try_sh(&format!("ping -c 1 -W 1 {other}"), Duration::from_secs(5))?;
        ensure!(!other.status.success(), "an address without a service answers: {}", other.stdout);
    }
    let status = balancer.ask(&["status"])?;
    ensure!(status.to_string().contains("echo-answered"), "nothing was counted: {status}");
    Ok(())
}

/// The balancer shows up in a trace of the route, under the VIP, and the backend one hop behind it.
#[test]
fn namespace_hop_limit_used_up_is_told() -> Result<()> {
    let mut site = Site::new(Arms::Two, 1)?;
    site.echo(PORT, &[vip(false), vip(true)])?;
    let services = [service(&site, "nat", false), service(&site, "nat", true)];
    let balancer = site.balance(&services)?;
    let script = site.directory().join("trace.py");
    std::fs::write(&script, include_str!("trace.py"))?;
    for v6 in [false, true] {
        let trace = |hops: u8| {
            let client = site.clients(v6, 1)[0];
            site.client.sh(&format!("python3 {} {client} {} {PORT} {hops}", script.display(), vip(v6)))
        };
        eventually(Duration::from_secs(10), || trace(64))?;
        let first = trace(1)?;
        ensure!(first.trim() == format!("time-exceeded {}", vip(v6)), "hop 1: {first}");
        let second = trace(2)?;
        ensure!(second.trim() == "answer be1", "hop 2: {second}");
    }
    let status = balancer.ask(&["status"])?;
    ensure!(status.to_string().contains("time-exceeded-sent"), "nothing was counted: {status}");
    Ok(())
}
