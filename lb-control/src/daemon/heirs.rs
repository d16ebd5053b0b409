//! The source addresses of nodes that died: one of those that live announces them.
//!
//! Backends of a dead node's connections then get an answer, if only a reset. A node counts as dead when it is not connected and
//! nobody answers at its addresses: while two nodes merely do not hear each other, both keep theirs.

mod claims;

use self::claims::{Claims, Told};
use super::inherit::Inheritance;
use super::peers::answers;
use crate::cluster::heir::heir;
use crate::cluster::identity::{NodeId, Role};
use crate::cluster::membership::Status;
use crate::cluster::replica::Peer;
use crate::config::BlockSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What this node has of others.
pub(super) struct Heirs {
    blocks: Vec<BlockSpec>,
    /// How long a node must be gone.
    patience: Duration,
    /// Since when which node has been gone.
    gone: BTreeMap<u64, Instant>,
    /// Whose addresses this node has.
    held: BTreeMap<u64, Held>,
    /// Others that are connected.
    connected: usize,
    claims: Claims,
    inheritance: Inheritance,
}

/// Looks for which who has another's addresses waits until whoever has them next knows of their connections.
const SHY: u32 = 10;

/// Addresses of another node.
#[derive(Default)]
struct Held {
    /// Looks for which they have stayed here since they were to be another node's.
    stayed: u32,
    /// A third node that inherits them now, and has been promised to be told.
    promised: Option<u64>,
}

/// What is to be done now.
#[derive(Default)]
pub(super) struct Found {
    /// Addresses of others that this node has to announce.
    pub(super) inherited: BTreeSet<IpAddr>,
    /// Addresses that the hosts of the network have to be told of, since other machines may have had them.
    pub(super) claimed: BTreeSet<IpAddr>,
}

impl Heirs {
    /// Nobody is dead yet.
    pub(super) const fn new(blocks: Vec<BlockSpec>, patience: Duration, inheritance: Inheritance) -> Self {
        Self {
            blocks,
            patience,
            inheritance,
            gone: BTreeMap::new(),
            held: BTreeMap::new(),
            connected: 0,
            claims: Claims::new(),
        }
    }

    /// Whose addresses are whose now.
    pub(super) async fn look(&mut self, status: &Status) -> Found {
        let mut found = Found::default();
        let own = status.standing.id.number();
        let nodes: Vec<_> = status.standing.peers.iter().filter(|peer| peer.role == Role::Node).collect();
        let live = live(status);
        let others: Vec<u64> = live.iter().copied().filter(|id| *id != own).collect();
        if others.len() > self.connected {
            self.claims.meet();
        }
        self.connected = others.len();
        self.expect(&nodes, &live, own).await;
        for peer in &nodes {
            let id = peer.id.number();
            let block = self.blocks.iter().find(|block| block.node == peer.name).cloned();
            let Some(block) = block else { continue };
            let next = if live.contains(&id) { Some(id) } else { heir(id, &live) };
            let is_here = match next {
                Some(next) if next == own => self.inherits(peer, &block, &others).await,
                next => self.keeps(peer, next.unwrap_or(id)).await,
            };
            if is_here {
                found.inherited.extend(&block.addresses);
            }
        }
        let told = self.claims.look(!self.claims.is_waiting() || self.has_heard_all(&nodes, &live).await);
        match told {
            Told::Nothing => {}
            Told::Inherited => found.claimed.extend(&found.inherited),
            Told::All => {
                let own = status.member.as_ref().map(|member| member.name.as_str());
                let own = self.blocks.iter().filter(|block| Some(block.node.as_str()) == own);
                found.claimed.extend(own.flat_map(|block| &block.addresses));
                found.claimed.extend(&found.inherited);
            }
        }
        found
    }

    /// Says what is to come here when its node is dead: others may have gone on with connections of it while this one was away.
    async fn expect(&self, nodes: &[&Peer], live: &[u64], own: u64) {
        // Alone, it would be everybody's heir.
        let gone = nodes.iter().filter(|peer| live.len() > 1 && !live.contains(&peer.id.number()));
        let mine = gone.filter(|peer| heir(peer.id.number(), live) == Some(own));
        let addresses = mine.flat_map(|peer| {
            let block = self.blocks.iter().find(|block| block.node == peer.name);
            let addresses = block.into_iter().flat_map(|block| &block.addresses);
            addresses.map(|address| (*address, peer.id.number()))
        });
        self.inheritance.expect(addresses.collect()).await;
    }

    /// Whether the addresses of a node that this one is the heir of are here.
    async fn inherits(&mut self, peer: &Peer, block: &BlockSpec, others: &[u64]) -> bool {
        let id = peer.id.number();
        // Once they are here, they answer for themselves.
        if let Some(held) = self.held.get_mut(&id) {
            *held = Held::default();
            return true;
        }
        let now = Instant::now();
        let since = *self.gone.entry(id).or_insert(now);
        let asked = block.addresses.iter().map(|address| answers(*address));
        if now.duration_since(since) < self.patience || is_any(asked).await {
            return false;
        }
        // Another one was its heir, if this node has not been there for long.
        if self.claims.is_waiting() && !self.inheritance.has_heard_all(others).await {
            return false;
        }
        // Before anybody answers to them: what nobody knows is reset.
        self.inheritance.take_over(peer.id, true).await;
        tracing::warn!(node = peer.name, "dead: this node announces its source addresses");
        self.held.insert(id, Held::default());
        self.claims.inherit();
        true
    }

    /// Whether the addresses of a node stay here a little longer, although they are the next one's: its own, or another heir's.
    async fn keeps(&mut self, peer: &Peer, next: u64) -> bool {
        let id = peer.id.number();
        self.gone.remove(&id);
        let Some(held) = self.held.get_mut(&id) else { return false };
        let Some(to) = NodeId::new(next) else { return false };
        if next != id && held.promised != Some(next) {
            held.promised = Some(next);
            self.inheritance.owe(to).await;
        }
        if held.stayed < SHY && !self.inheritance.has_told_all(to).await {
            held.stayed += 1;
            return true;
        }
        self.held.remove(&id);
        self.inheritance.give_back(to).await;
        tracing::info!(node = peer.name, "its source addresses are its own again, or another node's");
        false
    }

    /// Whether what others have of this node's connections is here.
    async fn has_heard_all(&self, nodes: &[&Peer], live: &[u64]) -> bool {
        // Also of those that are not connected yet: one of them may be its heir. But whoever is silent while others are there is dead.
        let is_awaited = |id: &u64| live.len() == 1 || live.contains(id) || !self.inheritance.is_silent(*id);
        let awaited: Vec<u64> = nodes.iter().map(|peer| peer.id.number()).filter(is_awaited).collect();
        self.inheritance.has_heard_all(&awaited).await
    }
}

/// The nodes that are connected, and this one.
pub(super) fn live(status: &Status) -> Vec<u64> {
    let nodes = status.standing.peers.iter().filter(|peer| peer.role == Role::Node);
    let connected = nodes.filter(|peer| peer.connection.contact.is_some());
    connected.map(|peer| peer.id.number()).chain([status.standing.id.number()]).collect()
}

/// Whether one of them says yes; all are asked at once, for nobody at all keeps each of them waiting.
async fn is_any<F: Future<Output = bool> + Send + 'static>(asked: impl Iterator<Item = F>) -> bool {
    let mut asked: JoinSet<bool> = asked.collect();
    while let Some(answer) = asked.join_next().await {
        if answer.unwrap_or(false) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_large_block_is_found_dead_as_soon_as_a_small_one() {
        let asked = |yes: u64| (0..20).map(move |n| answer(n == yes));
        let began = Instant::now();
        assert!(!is_any(asked(99)).await);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(is_any(asked(7)).await);
    }

    async fn answer(is_there: bool) -> bool {
        sleep(Duration::from_secs(1)).await;
        is_there
    }
}
