//! Packets that visit the nodes of a cluster: each node is the host's data plane, and frames between them are carried by hand.

use anyhow::{Context, Result, ensure};
use lb_common::abi::Outcome;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stickleback_tests::corpus::{Area, Case, Executor, Host, Tables, Verdict};

/// Interface that clients are on, and the one that nodes are on.
const CLIENTS: u32 = 11;
const NODES: u32 = 12;
/// The MAC of a node on the nodes' network.
const fn mac(node: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0xcc, node as u8]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Nodes of a cluster, each with the others it knows.
struct Cluster {
    nodes: Vec<Host>,
}

impl Cluster {
    /// Node `n` has id n + 1 and knows those that `knows` says, in the order of the ring.
    fn new(count: usize, knows: impl Fn(usize, usize) -> bool) -> Result<Self> {
        let area = Area::read("nat")?;
        let node = |own: usize| -> Result<Host> {
            let others = (1..count).map(|step| (own + step) % count).filter(|other| knows(own, *other));
            let peers: Vec<Value> = others
                .map(|other| {
                    json!({
                        "id": other + 1, "own": own + 1, "address": format!("10.20.0.{}", other + 1),
                        "source": format!("10.20.0.{}", own + 1), "vlan": 0, "port": 7118, "rate": 1000,
                        "hop": {"destination": text(mac(other)), "source": text(mac(own)), "ifindex": NODES, "mtu": 1500}
                    })
                })
                .collect();
            let mut case: Case =
                area.cases.iter().find(|case| case.name == "connection-v4").context("no case")?.clone();
            case.settings.insert("flags".into(), json!(["nat", "peers"]));
            case.peers = serde_json::from_value(Value::Array(peers))?;
            let defaults: Map<String, Value> = area.defaults.clone();
            let mut host = Host::default();
            host.install(&Tables::of(&case, &defaults)?)?;
            Ok(host)
        };
        Ok(Self { nodes: (0..count).map(node).collect::<Result<_>>()? })
    }

    /// Lets a frame from the clients come in at a node and carries what goes on between the nodes; the nodes that it came to, what
    /// left at the end, and where.
    fn carry(&mut self, first: usize, frame: &[u8]) -> Result<(Vec<usize>, Verdict, Vec<u8>)> {
        let (mut at, mut frame, mut ifindex) = (first, frame.to_vec(), CLIENTS);
        let mut seen = vec![first];
        for _ in 0..100 {
            let ran = self.nodes[at].run(&frame, ifindex)?;
            let to_nodes = matches!(ran.verdict, Verdict::Redirect(Some(NODES)))
                || ran.verdict == Verdict::Tx && ifindex == NODES;
            let next = (0..self.nodes.len()).find(|node| ran.frame.starts_with(&mac(*node)));
            let Some(next) = next.filter(|_| to_nodes) else { return Ok((seen, ran.verdict, ran.frame)) };
            (at, frame, ifindex) = (next, ran.frame, NODES);
            seen.push(next);
        }
        anyhow::bail!("the packet goes round and round: {seen:?}")
    }

    /// How often each outcome was counted in all nodes together.
    fn outcomes(&self) -> Result<BTreeMap<&'static str, u64>> {
        let mut sums = BTreeMap::new();
        for node in &self.nodes {
            for (outcome, count) in Outcome::ALL.iter().zip(Outcome::ALL.iter().map(|o| *o as usize)) {
                *sums.entry(outcome.name()).or_default() += node.outcomes()?[count];
            }
        }
        Ok(sums)
    }
}

/// A frame of the case's connection by its number among the steps.
fn frames() -> Result<Vec<Vec<u8>>> {
    let area = Area::read("nat")?;
    let case = area.cases.iter().find(|case| case.name == "connection-v4").context("no case")?;
    let packets = case.steps.iter().filter_map(|step| match step {
        stickleback_tests::corpus::Step::Packet(packet) => Some(packet.frame.clone()),
        _ => None,
    });
    Ok(packets.collect())
}

/// SYN, SYN-ACK, ACK.
const HANDSHAKE: usize = 3;

#[test]
fn what_nobody_knows_is_asked_of_each_node_once_and_then_reset() -> Result<()> {
    let data = &frames()?[HANDSHAKE];
    for count in [2, 3, 5, 9] {
        for first in [0, count - 1] {
            let mut cluster = Cluster::new(count, |_, _| true)?;
            let (seen, verdict, frame) = cluster.carry(first, data)?;
            let mut visited = seen.clone();
            ensure!(visited.pop() == Some(first), "it comes back to the one that asked: {seen:?}");
            visited.sort_unstable();
            ensure!(visited == (0..count).collect::<Vec<_>>(), "each node once: {seen:?}");
            ensure!(verdict == Verdict::Redirect(Some(CLIENTS)), "{verdict:?}");
            ensure!(frame[..6] == data[6..12] && frame[47] & 4 != 0, "the client is reset: {frame:02x?}");
            let counted = cluster.outcomes()?;
            ensure!(counted["asked"] == 1 && counted["reset-sent"] == 1, "{counted:?}");
            ensure!(counted["visit-passed"] == count as u64 - 1, "{counted:?}");
        }
    }
    Ok(())
}

#[test]
fn whoever_knows_it_handles_it_wherever_it_comes_in() -> Result<()> {
    let frames = frames()?;
    for owner in [0, 2] {
        for first in 0..4 {
            let mut cluster = Cluster::new(4, |_, _| true)?;
            for (n, frame) in frames[..HANDSHAKE].iter().enumerate() {
                let ifindex = if n == 1 { NODES } else { CLIENTS };
                cluster.nodes[owner].run(frame, ifindex)?;
            }
            let expected = cluster.nodes[owner].run(&frames[HANDSHAKE], CLIENTS)?;
            let (seen, verdict, frame) = cluster.carry(first, &frames[HANDSHAKE])?;
            ensure!(seen.last() == Some(&owner), "{seen:?} does not end at {owner}");
            ensure!(seen.len() == (owner + 4 - first) % 4 + 1, "not by the ring: {seen:?}");
            ensure!(frame == expected.frame, "it is translated as if it had come there: {frame:02x?}");
            ensure!(!matches!(verdict, Verdict::Drop | Verdict::Pass), "{verdict:?}");
        }
    }
    Ok(())
}

/// While nodes join or leave they do not all know the same others: packets end all the same.
#[test]
fn rings_that_differ_end_every_packet() -> Result<()> {
    let data = &frames()?[HANDSHAKE];
    let count = 5;
    for pattern in 0_u64..8 {
        let knows = |a: usize, b: usize| {
            let bit = (pattern.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (a * 5 + b)) & 1;
            bit == 0
        };
        for first in [0, 3] {
            let mut cluster = Cluster::new(count, knows)?;
            let (seen, _, _) = cluster.carry(first, data)?;
            ensure!(seen.len() <= count + 1, "pattern {pattern}: {seen:?}");
        }
    }
    Ok(())
}
