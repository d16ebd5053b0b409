//! Three nodes that probe each for itself, and agree on who is dead.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use stickleback_tests::topology::crossing::{agrees, join, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, load};

const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// Three nodes by quorum, and three backends.
struct Council {
    nodes: Vec<Balancer>,
    crossing: Crossing,
    vip: SocketAddr,
}

impl Council {
    fn new() -> Result<Self> {
        let crossing = Crossing::of(NODES, 3)?;
        let vip = SocketAddr::new("10.99.0.1".parse()?, 80);
        let start = |node| {
            let service = crossing.service(node, "web", vip, "nat");
            let service = service.with("health = { kind = \"tcp\", quorum = true }");
            crossing.balance(node, &crossing.config(node, "", &[service]))
        };
        let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
        unite(&nodes[0], &nodes[1])?;
        join(&nodes[0], &nodes[2])?;
        nodes.iter().try_for_each(agrees)?;
        Ok(Self { nodes, crossing, vip })
    }

    /// Lets a node's probes of the second backend get lost, or no longer; its traffic goes on.
    fn blind(&self, node: usize, is_blind: bool) -> Result<()> {
        let rules = if is_blind {
            "nft add table inet blind
             nft add chain inet blind out '{ type filter hook output priority 0; }'
             nft add rule inet blind out ip daddr 10.2.0.102 tcp dport 8080 drop"
        } else {
            "nft delete table inet blind"
        };
        self.crossing.machines[node].sh(rules).map(drop)
    }

    /// Waits until every node says so of the second backend: what becomes of it, and which nodes do not see it.
    fn agree(&self, state: &str, blind: &[usize]) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            eventually(PATIENCE, || {
                let rows = node.ask(&["backends"])?;
                let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "be2"));
                let row = row.with_context(|| format!("no be2 in {rows}"))?;
                ensure!(row["state"] == state, "lb{} says {row}", number + 1);
                let own = if blind.contains(&number) { "down" } else { "healthy" };
                ensure!(row["health"]["state"] == own, "lb{} sees {row}", number + 1);
                let others = row["nodes"].as_array().context("no nodes")?;
                ensure!(others.len() == NODES - 1, "{row}");
                for other in (0..NODES).filter(|other| *other != number) {
                    let view = others.iter().find(|view| view["node"] == format!("lb{}", other + 1));
                    let serves = view.map(|view| view["serves"].clone());
                    ensure!(
                        serves == Some(Value::Bool(!blind.contains(&other))),
                        "lb{} hears {row}",
                        number + 1
                    );
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Who answers forty clients through one node.
    fn answer(&self, node: usize, first: u16) -> Result<Vec<String>> {
        self.crossing.reshuffle(&[node])?;
        let clients = self.crossing.clients_from(first, 40);
        let answers = eventually(PATIENCE, || load::each(&self.crossing.client, self.vip, &clients))?;
        Ok(answers.into_values().collect())
    }
}

#[test]
fn namespace_health_most_nodes_decide() -> Result<()> {
    let council = Council::new()?;
    council.agree("up", &[])?;
    // One of three is wrong: it says so, the others hear it, and all go on, that one too.
    council.blind(2, true)?;
    council.agree("up", &[2])?;
    let table = council.nodes[0].ctl(&["backends"])?;
    ensure!(table.contains("lb3: down"), "the split does not show:\n{table}");
    for node in 0..NODES {
        let answers = council.answer(node, 1)?;
        ensure!(answers.iter().any(|backend| backend == "be2"), "lb{} spares it: {answers:?}", node + 1);
    }
    // Two of three are right, whatever the third one sees.
    council.blind(1, true)?;
    council.agree("down", &[1, 2])?;
    for node in 0..NODES {
        // Those that were bound, and new ones.
        for first in [1, 101] {
            let answers = council.answer(node, first)?;
            ensure!(!answers.iter().any(|backend| backend == "be2"), "lb{} uses it: {answers:?}", node + 1);
        }
    }
    council.blind(1, false)?;
    council.agree("up", &[2])?;
    council.blind(2, false)?;
    council.agree("up", &[])?;
    let answers = council.answer(2, 201)?;
    ensure!(answers.iter().any(|backend| backend == "be2"), "it gets no new sessions: {answers:?}");
    Ok(())
}
