//! The program for switches in bmv2, driven by `lbd`, with real web servers and real clients.
//!
//! `cargo xtask test --p4` runs these tests, and no other command does: they need `simple_switch_grpc`, and fail without it.

mod control;
mod datagram;
mod errors;
mod express;
mod fixtures;
mod nodes;
mod quic;
mod rate;
mod timestamps;

use anyhow::{Context, Result, ensure};
use lb_core::pool::identity::server_number;
use lb_core::pool::table::{Selection, Share};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use stickleback_tests::bench::template::decap;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{
    Arms, Balancer, Bmv2, NodeConfig, SOON, ServiceConfig, Site, Testbed, load,
};

/// Clients of a test; with three backends, each of them serves some.
const CLIENTS: u16 = 24;

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, 80)
}

/// A site with the switch in place of the kernel.
fn site(mtu: u16) -> Result<(Site, Bmv2)> {
    let site = Site::with_mtu(Arms::Two, 3, mtu)?;
    let switch = Bmv2::start(&site)?;
    Ok((site, switch))
}

fn node(site: &Site, switch: &Bmv2, election: u64) -> Result<NodeConfig> {
    let mut node = site.node();
    node.node.push_str(&switch.config(&site.client, election)?);
    Ok(node)
}

fn balance(site: &Site, switch: &Bmv2, service: ServiceConfig) -> Result<Balancer> {
    site.balance_with(&node(site, switch, 1)?, &[service])
}

/// Writes a script that sends segments of its own, and what it makes them with.
fn script(site: &Site, name: &str, text: &str) -> Result<PathBuf> {
    std::fs::write(site.directory().join("segment.py"), include_str!("segment.py"))?;
    let path = site.directory().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The MAC of the switch's port to the clients.
fn mac(site: &Site) -> Result<String> {
    let shown = site.lb.sh("ip -o link show dev l0")?;
    let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    Ok(mac.context("l0 has a MAC")?.to_owned())
}

/// Backends by client, as `docs/order.md` says.
fn chosen(site: &Site, clients: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    let named = site.backends.iter().map(|backend| (server_number(&backend.name), &backend.name[..]));
    let names: BTreeMap<u64, &str> = named.collect();
    let selection = Selection::new(names.keys().map(|&number| Share { number, weight: 1 }))?;
    let first = clients.iter().map(|client| {
        let key = match client {
            IpAddr::V4(ip) => u64::from(u32::from(*ip)),
            IpAddr::V6(ip) => (u128::from(*ip) >> 64) as u64,
        };
        let place = *selection.order(key).first().context("an order names every member")?;
        Ok((*client, names[&selection.members()[usize::from(place)].number].to_owned()))
    });
    first.collect()
}

fn sessions(balancer: &Balancer) -> Result<usize> {
    let listed = balancer.ask(&["sessions", "list", "--limit", "1000"])?;
    listed["sessions"].as_array().map(Vec::len).with_context(|| format!("no list of sessions in {listed}"))
}

/// Requests of many clients reach all backends, each client always the one that its session's order names.
fn forwards(mode: &'static str, v6: bool, backends_v6: bool) -> Result<()> {
    let (site, switch) = site(1_600)?;
    let mut decapsulators = Vec::new();
    if mode == "ipip" {
        for backend in &site.backends {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let vip = vip(v6);
    let service = site.service("web", vip, mode, backends_v6).with("affinity = \"source-ip\"");
    let balancer = balance(&site, &switch, service)?;
    site.serves(vip)?;

    let clients = site.clients(v6, CLIENTS);
    let first = load::each(&site.client, vip, &clients)?;
    let again = load::each(&site.client, vip, &clients)?;
    ensure!(first == again, "sessions moved: {first:?}, then {again:?}");
    let used: BTreeSet<&String> = first.values().collect();
    ensure!(used.len() == 3, "only {used:?} served");
    ensure!(first == chosen(&site, &clients)?, "the switch chose otherwise than XDP would");
    eventually(SOON, || {
        let bound = sessions(&balancer)?;
        ensure!(bound >= clients.len(), "only {bound} sessions are bound");
        Ok(())
    })?;
    let bound = load::each(&site.client, vip, &clients)?;
    ensure!(first == bound, "binding moved sessions: {first:?}, then {bound:?}");

    if mode == "ipip" {
        let mut sum = [0; decap::COUNT as usize];
        for decapsulator in &decapsulators {
            for (sum, count) in sum.iter_mut().zip(decapsulator.decapsulated()?) {
                *sum += count;
            }
        }
        ensure!(sum[decap::BAD as usize] == 0, "{} outer headers were wrong", sum[decap::BAD as usize]);
        ensure!(
            sum[decap::IPIP as usize] > 100,
            "only {} packets came through the tunnel",
            sum[decap::IPIP as usize]
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_nat_v4() -> Result<()> {
    forwards("nat", false, false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_nat_v6() -> Result<()> {
    forwards("nat", true, true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_l2_v4() -> Result<()> {
    forwards("l2", false, false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_l2_v6() -> Result<()> {
    forwards("l2", true, true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_ipip_4in4() -> Result<()> {
    forwards("ipip", false, false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_ipip_6in6() -> Result<()> {
    forwards("ipip", true, true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_ipip_6in4() -> Result<()> {
    forwards("ipip", true, false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_ipip_4in6() -> Result<()> {
    forwards("ipip", false, true)
}
