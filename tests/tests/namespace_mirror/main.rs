//! Balancers as one, of which one dies in the middle of downloads and uploads that another one goes on with.

mod back;
mod death;
mod transfer;

use self::transfer::Transfer;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use stickleback_tests::topology::crossing::{agrees, can_ask, join, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, SOON, ServiceConfig};

const PLAIN: &str = "affinity = \"source-ip\"\nmirror = true";
const COOKIES: &str =
    "affinity = { kind = \"http-cookie\", cookie = \"SESS\" }\nmirror = true\nmirror-age = \"1s\"";
/// Not mirrored.
const ALONE: &str = "affinity = \"source-ip\"";

/// What backends of a service answer to.
#[derive(Clone, Copy)]
enum Source {
    /// An address of the node's in their network.
    Own,
    /// One that their router sends to the node.
    Routed,
    /// The client's: no source NAT.
    Client,
}

/// A service: its address, what its backends answer to, and its lines.
type Row = (&'static str, Source, &'static str);

const OWN: &[Row] = &[("10.99.0.1:80", Source::Own, PLAIN), ("10.99.0.2:8080", Source::Own, COOKIES)];
/// The same over IPv6.
const OWN_V6: &[Row] = &[("[fd99::1]:80", Source::Own, PLAIN), ("[fd99::2]:8080", Source::Own, COOKIES)];
/// Without source NAT.
const CLIENT: &[Row] = &[
    ("10.99.0.5:80", Source::Client, PLAIN),
    ("10.99.0.6:8080", Source::Client, COOKIES),
    ("[fd99::4]:80", Source::Client, PLAIN),
];

/// Where clients find it.
fn vip((address, ..): &Row) -> Result<SocketAddr> {
    Ok(address.parse()?)
}

fn services(crossing: &Crossing, node: usize, rows: &[Row]) -> Result<Vec<ServiceConfig>> {
    let service = |row: &Row| -> Result<ServiceConfig> {
        let (address, source, lines) = row;
        let service = crossing.service(node, address, vip(row)?, "nat");
        let service = match source {
            Source::Own => service,
            Source::Routed => {
                ServiceConfig { lines: format!("source-nat = \"fd05::{}\"\n", node + 1), ..service }
            }
            Source::Client => ServiceConfig { lines: String::new(), ..service },
        };
        let name = format!("at-{}", plainly(address));
        Ok(ServiceConfig { name, ..service }.with(lines))
    };
    rows.iter().map(service).collect()
}

/// An address as part of a name.
fn plainly(address: &str) -> String {
    address.replace(['.', ':', '[', ']'], "-")
}

/// Source addresses of a node in the backends' network, counted from 0.
fn block(node: usize) -> [String; 2] {
    [format!("10.2.0.2{}", node + 1), format!("fd02::2{}", node + 1)]
}

/// Nodes in a cluster that announce on this interface what they take over.
fn cluster(crossing: &Crossing, interface: &str, rows: &[Row]) -> Result<Vec<Balancer>> {
    // Transfers are to be on their way, not in the sockets of those who are in no hurry.
    for end in crossing.backends.iter().map(|(_, backend)| backend).chain([&crossing.client]) {
        end.set("ipv4/tcp_rmem=4096 65536 65536")?;
        end.set("ipv4/tcp_wmem=4096 65536 65536")?;
    }
    let addresses = |node: usize| block(node).into_iter().chain([format!("fd05::{}", node + 1)]).collect();
    let text = crossing.inheritance(interface, addresses);
    let start = |node| -> Result<Balancer> {
        let text = crossing.config(node, &text, &services(crossing, node, rows)?);
        // Small, so that a walk through the connections is short also where the machine is busy.
        crossing.balance(node, &text.replacen("[node]\n", "[node]\nflows = 8192\n", 1))
    };
    let count = crossing.machines.len();
    let nodes = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    nodes[2..].iter().try_for_each(|node| join(&nodes[0], node))?;
    for node in &nodes {
        agrees(node)?;
        can_ask(node, count - 1)?;
    }
    Ok(nodes)
}

fn mirror(node: &Balancer, what: &str) -> Result<u64> {
    let status = node.ask(&["cluster", "status"])?;
    status["node"]["mirror"][what].as_u64().with_context(|| format!("no {what} in {status:#}"))
}

/// Waits until a node says so many of its mirroring, while all of these run.
fn counts(node: &Balancer, what: &str, connections: usize, transfers: &mut [Transfer]) -> Result<()> {
    // On a machine that is busy, `lbd` walks through its connections seldom.
    let counted = eventually(SOON * 2, || {
        let found = mirror(node, what)?;
        ensure!(found == connections as u64, "{found} connections are {what}, not {connections}");
        Ok(())
    });
    // What has ended says why it is not counted.
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    counted
}

/// The addresses of a node's block, counted from 0, that a machine has.
fn has_of(crossing: &Crossing, machine: usize, interface: &str, of: usize) -> Result<Vec<String>> {
    let shown = crossing.machines[machine].sh(&format!("ip -o addr show dev {interface}"))?;
    Ok(block(of).into_iter().filter(|address| shown.contains(&format!(" {address}/"))).collect())
}

/// Waits until one of these nodes has the block of a dead one, and it alone.
fn heir_of(crossing: &Crossing, dead: usize, interface: &str, others: &[usize]) -> Result<usize> {
    eventually(SOON, || {
        let mut heirs = Vec::new();
        for node in others {
            if has_of(crossing, *node, interface, dead)?.len() == block(dead).len() {
                heirs.push(*node);
            }
        }
        let [heir] = heirs[..] else { anyhow::bail!("{heirs:?} of {others:?} have inherited from {dead}") };
        Ok(heir)
    })
}
