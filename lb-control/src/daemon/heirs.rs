//! The source addresses of nodes that died: one of those that live announces them.
//!
//! Backends of a dead node's connections then get an answer, if only a reset. A node counts as dead when it is not connected and
//! nobody answers at its addresses: while two nodes merely do not hear each other, both keep theirs.

use super::inherit::Inheritance;
use super::peers::answers;
use crate::cluster::heir::heir;
use crate::cluster::identity::Role;
use crate::cluster::membership::Status;
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
    /// Whose addresses this node has, and for how many looks more once their node is back.
    held: BTreeMap<u64, u32>,
    /// Others that are connected.
    connected: usize,
    /// Looks after which hosts of the network need not be told whose the addresses are.
    loud: u32,
    /// Looks for which this node's own addresses may wait for what others have of its connections.
    shy: u32,
    inheritance: Inheritance,
}

/// Looks for which who has another's addresses waits until that one knows of its connections, and the other way round.
const SHY: u32 = 10;
/// Looks at which the hosts of the network are told.
const LOUD: u32 = 5;

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
            loud: LOUD,
            shy: SHY,
        }
    }

    /// Whose addresses are whose now.
    pub(super) async fn look(&mut self, status: &Status) -> Found {
        let mut found = Found::default();
        let (now, own) = (Instant::now(), status.standing.id.number());
        let nodes: Vec<_> = status.standing.peers.iter().filter(|peer| peer.role == Role::Node).collect();
        let members: Vec<u64> = nodes.iter().map(|peer| peer.id.number()).collect();
        let live = live(status);
        // Who is connected anew may have had addresses of this node, or the other way round.
        let others = live.len() - 1;
        if others > self.connected {
            (self.loud, self.shy) = (LOUD, SHY);
        }
        self.connected = others;
        for peer in nodes {
            let id = peer.id.number();
            let block = self.blocks.iter().find(|block| block.node == peer.name);
            let is_heir = !live.contains(&id) && heir(id, &live) == Some(own);
            let Some(block) = block.filter(|_| is_heir) else {
                self.gone.remove(&id);
                if let Some(patience) = self.held.get_mut(&id)
                    && let Some(block) = block.filter(|_| live.contains(&id) && *patience > 0)
                    && !self.inheritance.has_told_all(peer.id).await
                {
                    *patience -= 1;
                    found.inherited.extend(&block.addresses);
                    continue;
                }
                if self.held.remove(&id).is_some() {
                    self.inheritance.give_back(peer.id).await;
                    tracing::info!(
                        node = peer.name,
                        "its source addresses are its own again, or another node's"
                    );
                }
                continue;
            };
            // Once they are here, they answer for themselves.
            if !self.held.contains_key(&id) {
                let since = *self.gone.entry(id).or_insert(now);
                let asked = block.addresses.iter().map(|address| answers(*address));
                if now.duration_since(since) < self.patience || is_any(asked).await {
                    continue;
                }
                // Before anybody answers to them: what nobody knows is reset.
                self.inheritance.take_over(peer.id, true).await;
                tracing::warn!(node = peer.name, "dead: this node announces its source addresses");
                self.held.insert(id, SHY);
                self.loud = LOUD;
            }
            found.inherited.extend(&block.addresses);
        }
        // Also of those that are not connected yet: one of them may be its heir.
        if self.shy > 0 && self.loud == LOUD && !self.inheritance.has_heard_all(&members).await {
            // Its own addresses are another node's for as long as its connections are.
            self.shy -= 1;
            found.claimed.extend(&found.inherited);
        } else if self.loud > 0 {
            self.loud -= 1;
            let own = status.member.as_ref().map(|member| member.name.as_str());
            let own = self.blocks.iter().filter(|block| Some(block.node.as_str()) == own);
            found.claimed.extend(own.flat_map(|block| &block.addresses));
            found.claimed.extend(&found.inherited);
        }
        found
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
