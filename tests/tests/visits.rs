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
        Self::of(count, knows, |_| ("nat", "connection-v4"))
    }

    /// The same; node `n` has the tables of a case of the corpus.
    fn of(
        count: usize,
        knows: impl Fn(usize, usize) -> bool,
        tables: impl Fn(usize) -> (&'static str, &'static str),
    ) -> Result<Self> {
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
            let (area, name) = tables(own);
            let area = Area::read(area)?;
            let mut case: Case = area.cases.iter().find(|case| case.name == name).context("no case")?.clone();
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
    frames_of("nat", "connection-v4")
}

fn frames_of(area: &str, name: &str) -> Result<Vec<Vec<u8>>> {
    let area = Area::read(area)?;
    let case = area.cases.iter().find(|case| case.name == name).context("no case")?;
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

/// Where the session of the request is bound; and where it is not.
const KNOWN: (&str, &str) = ("peers", "session-answered-v4-in-v4");
const UNKNOWN: (&str, &str) = ("peers", "session-told-v4-in-v4");

#[test]
fn whoever_knows_a_session_tells_its_backend() -> Result<()> {
    let frames = frames_of(UNKNOWN.0, UNKNOWN.1)?;
    let (handshake, request) = (&frames[..2], &frames[2]);
    let mut cluster = Cluster::of(1, |_, _| true, |_| KNOWN)?;
    handshake.iter().try_for_each(|frame| cluster.nodes[0].run(frame, CLIENTS).map(drop))?;
    let (_, _, at_home) = cluster.carry(0, request)?;
    for count in [2, 4, 9] {
        for (first, owner) in [(0, 1), (0, count - 1), (count - 1, 0), (1, 0)] {
            let mut cluster =
                Cluster::of(count, |_, _| true, |node| if node == owner { KNOWN } else { UNKNOWN })?;
            handshake.iter().try_for_each(|frame| cluster.nodes[first].run(frame, CLIENTS).map(drop))?;
            let (seen, verdict, frame) = cluster.carry(first, request)?;
            let mut path: Vec<usize> =
                (0..=(owner + count - first) % count).map(|n| (first + n) % count).collect();
            path.push(first);
            ensure!(seen == path, "{seen:?}, not {path:?}");
            ensure!(frame == at_home && verdict == Verdict::Tx, "the SYN to its backend: {frame:02x?}");
            let counted = cluster.outcomes()?;
            ensure!(counted["session-asked"] == 1 && counted["session-told"] == 1, "{counted:?}");
            ensure!(counted["session-answered"] == 1, "{counted:?}");
        }
    }
    Ok(())
}

#[test]
fn what_no_node_knows_is_chosen_where_it_was_asked() -> Result<()> {
    let frames = frames_of(UNKNOWN.0, UNKNOWN.1)?;
    let mut alone = Cluster::of(1, |_, _| true, |_| UNKNOWN)?;
    frames[..2].iter().try_for_each(|frame| alone.nodes[0].run(frame, CLIENTS).map(drop))?;
    let (_, verdict, chosen) = alone.carry(0, &frames[2])?;
    ensure!(verdict == Verdict::Redirect(Some(NODES)), "nobody to ask: {verdict:?}");
    let count = 5;
    for pattern in 0_u64..9 {
        // Pattern 0: all know each other. Else rings differ, and a question may be lost, but ends.
        let knows =
            |a: usize, b: usize| (pattern.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (a * 5 + b)) & 1 == 0;
        for first in [0, 3] {
            let mut cluster = Cluster::of(count, knows, |_| UNKNOWN)?;
            frames[..2].iter().try_for_each(|frame| cluster.nodes[first].run(frame, CLIENTS).map(drop))?;
            let (seen, _, frame) = cluster.carry(first, &frames[2])?;
            ensure!(seen.len() <= count + 1, "pattern {pattern}: {seen:?}");
            if pattern == 0 {
                ensure!(seen.len() == count + 1 && frame == chosen, "{seen:?}: {frame:02x?}");
            }
            if seen.last() != Some(&first) {
                // It was lost on the way: what the client sends again is not asked about.
                let (seen, _, frame) = cluster.carry(first, &frames[2])?;
                ensure!(seen == [first] && frame == chosen, "pattern {pattern}: {seen:?}");
            }
        }
    }
    Ok(())
}
