//! What `lbd` does with the switch: backends that fail, switches and daemons that start again, and two daemons.

use super::{CLIENTS, balance, node, sessions, site, vip};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use stickleback_tests::topology::config::text;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{BackendConfig, Balancer, SOON, load};

/// Waits until an `lbd` has compared the switch with what it wants so often; answers how much differed the last time.
pub(super) fn compared(switch: &Balancer, times: usize) -> Result<u64> {
    eventually(SOON, || {
        let log = switch.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("compared with the switch")).collect();
        ensure!(lines.len() >= times, "compared {} times", lines.len());
        let number =
            lines[lines.len() - 1].split("differences=").nth(1).context("a number of differences")?;
        Ok(number.split_whitespace().next().context("a number")?.parse()?)
    })
}

/// A backend that dies loses its sessions to the next of their orders, and no other session moves.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_failover() -> Result<()> {
    let (mut site, switch) = site(1_500)?;
    let vip = vip(false);
    let health = "affinity = \"source-ip\"\nhealth = { kind = \"tcp\", interval = \"200ms\", timeout = \"1s\", fall = 2, rise = 1 }";
    let service = site.service("web", vip, "nat", false).with(health);
    let balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let clients = site.clients(false, CLIENTS);
    let before = eventually(SOON, || {
        let served = load::each(&site.client, vip, &clients)?;
        ensure!(served.values().collect::<BTreeSet<_>>().len() == 3, "not all backends serve: {served:?}");
        Ok(served)
    })?;
    eventually(SOON, || {
        ensure!(sessions(&balancer)? >= clients.len(), "not all sessions are bound");
        Ok(())
    })?;
    site.server(0).kill();
    let begun = Instant::now();
    let after = eventually(SOON, || load::each(&site.client, vip, &clients))?;
    eprintln!("all served again after {:?}", begun.elapsed());
    for (client, backend) in &before {
        let now = &after[client];
        ensure!(now != "be1", "{client} is sent to a dead backend");
        ensure!(backend == "be1" || backend == now, "{client} moved from {backend} to {now}");
    }
    Ok(())
}

/// The switch loses power; what it had comes back, sessions too. `lbd` dies; nothing moves, and its heir knows every session.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_restarts() -> Result<()> {
    let (site, mut switch) = site(1_500)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with("affinity = \"source-ip\"");
    let mut balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let clients = site.clients(false, CLIENTS);
    let before = load::each(&site.client, vip, &clients)?;
    eventually(SOON, || {
        ensure!(sessions(&balancer)? >= clients.len(), "not all sessions are bound");
        Ok(())
    })?;

    switch.restart()?;
    let begun = Instant::now();
    let after = eventually(SOON, || load::each(&site.client, vip, &clients))?;
    eprintln!("served again {:?} after the switch", begun.elapsed());
    ensure!(before == after, "sessions moved: {before:?}, then {after:?}");

    balancer.kill();
    let alone = load::each(&site.client, vip, &clients)?;
    ensure!(before == alone, "sessions moved: {before:?}, then {alone:?}");
    balancer.restart()?;
    eventually(SOON, || {
        let known = sessions(&balancer)?;
        ensure!(known >= clients.len(), "the heir knows {known} sessions");
        Ok(())
    })?;
    ensure!(before == load::each(&site.client, vip, &clients)?, "sessions moved with the heir");
    Ok(())
}

/// Idle sessions end on the switch and in what `lbd` lists.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_idle_sessions_end() -> Result<()> {
    let (site, switch) = site(1_500)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with("affinity = \"source-ip\"\nlifetime = \"2s\"");
    let balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let clients = site.clients(false, 4);
    eventually(SOON, || {
        load::each(&site.client, vip, &clients)?;
        ensure!(sessions(&balancer)? >= 4, "not all sessions are bound");
        Ok(())
    })?;
    std::thread::sleep(Duration::from_secs(2));
    eventually(SOON, || {
        let bound = sessions(&balancer)?;
        ensure!(bound == 0, "{bound} sessions are still bound");
        Ok(())
    })?;
    // A connection on which nothing happens stays, too.
    std::thread::sleep(Duration::from_secs(25));
    let log = balancer.log();
    let connected = log.lines().filter(|line| line.contains("connected switch=")).count();
    ensure!(connected == 1, "connected {connected} times: {log}");
    Ok(())
}

/// `lbd` starts again while a backend does not answer who asks for its MAC: its sessions go on as the switch had them.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_unresolved_backend_keeps_its_way() -> Result<()> {
    let (site, switch) = site(1_500)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with("affinity = \"source-ip\"");
    let mut balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;
    let clients = site.clients(false, CLIENTS);
    let before = load::each(&site.client, vip, &clients)?;
    ensure!(before.values().any(|backend| backend == "be1"), "be1 serves nobody: {before:?}");

    balancer.kill();
    let silent = &site.backends[0];
    let gateway = site.lb.sh("cat /sys/class/net/l1/address || ip -o link show dev l1")?;
    let gateway =
        gateway.split_whitespace().find(|word| word.len() == 17).context("l1 has a MAC")?.to_owned();
    let via = silent.namespace.sh("ip -4 route show default")?;
    let via = via.split_whitespace().nth(2).context("be1 has a default route")?.to_owned();
    silent.namespace.sh(&format!("ip neigh replace {via} lladdr {gateway} dev eth0 nud permanent"))?;
    silent.namespace.set("ipv4/conf/all/arp_ignore=8")?;
    site.lb.sh(&format!("ip neigh del {} dev l1", silent.v4))?;
    balancer.restart()?;
    compared(&balancer, 2)?;
    // Longer than the kernel asks.
    std::thread::sleep(Duration::from_secs(4));
    let known = site.lb.sh(&format!("ip neigh show {} dev l1", silent.v4))?;
    ensure!(!known.contains("lladdr"), "the kernel knows be1: {known}");
    let after = load::each(&site.client, vip, &clients)?;
    ensure!(before == after, "sessions moved: {before:?}, then {after:?}");

    silent.namespace.set("ipv4/conf/all/arp_ignore=0")?;
    let found = load::each(&site.client, vip, &clients)?;
    ensure!(before == found, "sessions moved: {before:?}, then {found:?}");
    Ok(())
}

/// Two daemons that came to the same configuration by different ways write the same: the heir changes nothing, and nothing moves.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_two_daemons_write_the_same() -> Result<()> {
    let (site, switch) = site(1_500)?;
    let vip = vip(false);
    let web = site.service("web", vip, "nat", false).with("affinity = \"source-ip\"");
    let mut less = web.clone();
    less.backends.remove(0);
    let mut other = site.service("other", std::net::SocketAddr::new(vip.ip(), 81), "l2", false);
    other.backends =
        vec![BackendConfig { name: "gone".into(), lines: String::new(), ..web.backends[0].clone() }];
    let config =
        |election| Ok::<_, anyhow::Error>(text(&node(&site, &switch, election)?, std::slice::from_ref(&web)));

    let mut first = site.balance_with(&node(&site, &switch, 2)?, &[other, less])?;
    first.reload(&config(2)?)?;
    // Others than those that are counted, and each time others: who came too early stays with whom he got.
    let mut early = 100;
    eventually(SOON, || {
        early += CLIENTS;
        let served = load::each(&site.client, vip, &site.clients_from(false, early, CLIENTS))?;
        ensure!(served.values().any(|backend| backend == "be1"), "be1 does not serve yet");
        Ok(())
    })?;
    let second = site.directory().join("second");
    let second = Balancer::start(&site.lb, &second, &second.join("pins"), &config(1)?)?;
    let clients = site.clients(false, CLIENTS);
    let before = load::each(&site.client, vip, &clients)?;
    ensure!(before.values().collect::<BTreeSet<_>>().len() == 3, "not all backends serve: {before:?}");
    eventually(SOON, || {
        ensure!(sessions(&first)? >= clients.len(), "not all sessions are bound");
        Ok(())
    })?;
    ensure!(sessions(&second)? == 0, "the one that waits has sessions");

    first.kill();
    let begun = Instant::now();
    ensure!(compared(&second, 1)? == 0, "the heir found differences: {}", second.log());
    eprintln!("the second was master {:?} after the first", begun.elapsed());
    ensure!(before == load::each(&site.client, vip, &clients)?, "sessions moved to the second");
    eventually(SOON, || {
        ensure!(sessions(&second)? >= clients.len(), "the heir knows {} sessions", sessions(&second)?);
        Ok(())
    })?;

    // The first comes back, and takes over again.
    first.restart()?;
    ensure!(compared(&first, 2)? == 0, "the first found differences: {}", first.log());
    ensure!(before == load::each(&site.client, vip, &clients)?, "sessions moved back to the first");
    eventually(SOON, || {
        ensure!(sessions(&first)? >= clients.len(), "the first knows {} sessions", sessions(&first)?);
        Ok(())
    })
}
