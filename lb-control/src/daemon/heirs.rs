//! The source addresses of nodes that died: one of those that live announces them.
//!
//! Backends of a dead node's connections then get an answer, if only a reset. A node counts as dead when it is not connected and
//! nobody answers at its addresses: while two nodes merely do not hear each other, both keep theirs.

use super::peers::answers;
use crate::cluster::identity::Role;
use crate::cluster::membership::Status;
use crate::config::BlockSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// What this node has of others.
pub(super) struct Heirs {
    blocks: Vec<BlockSpec>,
    /// How long a node must be gone.
    patience: Duration,
    /// Since when which node has been gone.
    gone: BTreeMap<u64, Instant>,
    /// Whose addresses this node has.
    held: BTreeSet<u64>,
    /// Others that are connected.
    connected: usize,
    /// Looks after which hosts of the network need not be told whose the addresses are.
    loud: u32,
}

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
    pub(super) const fn new(blocks: Vec<BlockSpec>, patience: Duration) -> Self {
        Self { blocks, patience, gone: BTreeMap::new(), held: BTreeSet::new(), connected: 0, loud: LOUD }
    }

    /// Whose addresses are whose now.
    pub(super) async fn look(&mut self, status: &Status) -> Found {
        let mut found = Found::default();
        let (now, own) = (Instant::now(), status.standing.id.number());
        let nodes: Vec<_> = status.standing.peers.iter().filter(|peer| peer.role == Role::Node).collect();
        let connected = nodes.iter().filter(|peer| peer.connection.contact.is_some());
        let live: Vec<u64> = connected.map(|peer| peer.id.number()).chain([own]).collect();
        // Who is connected anew may have had addresses of this node, or the other way round.
        let others = live.len() - 1;
        if others > self.connected {
            self.loud = LOUD;
        }
        self.connected = others;
        for peer in nodes {
            let id = peer.id.number();
            let block = self.blocks.iter().find(|block| block.node == peer.name);
            let Some(block) = block.filter(|_| !live.contains(&id) && heir(id, &live) == Some(own)) else {
                self.gone.remove(&id);
                if self.held.remove(&id) {
                    tracing::info!(
                        node = peer.name,
                        "its source addresses are its own again, or another node's"
                    );
                }
                continue;
            };
            // Once they are here, they answer for themselves.
            if !self.held.contains(&id) {
                let since = *self.gone.entry(id).or_insert(now);
                if now.duration_since(since) < self.patience || is_anybody_there(block).await {
                    continue;
                }
                tracing::warn!(node = peer.name, "dead: this node announces its source addresses");
                self.held.insert(id);
                self.loud = LOUD;
            }
            found.inherited.extend(&block.addresses);
        }
        if self.loud > 0 {
            self.loud -= 1;
            let own = status.member.as_ref().map(|member| member.name.as_str());
            let own = self.blocks.iter().filter(|block| Some(block.node.as_str()) == own);
            found.claimed.extend(own.flat_map(|block| &block.addresses));
            found.claimed.extend(&found.inherited);
        }
        found
    }
}

async fn is_anybody_there(block: &BlockSpec) -> bool {
    for address in &block.addresses {
        if answers(*address).await {
            return true;
        }
    }
    false
}

/// Which of those that live inherits from a dead node: each of them finds the same one, and several dead nodes' blocks go
/// to several heirs.
fn heir(dead: u64, live: &[u64]) -> Option<u64> {
    live.iter().copied().max_by_key(|id| (weight(dead, *id), *id))
}

/// A mixture of two ids (the finalizer of SplitMix64).
const fn weight(dead: u64, id: u64) -> u64 {
    let z = dead.rotate_left(32) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_heir_and_all_agree() {
        let nodes: Vec<u64> = (1..=8).map(|n| n * 0x1234_5678_9abc).collect();
        let mut heirs = BTreeSet::new();
        for dead in &nodes {
            let mut live: Vec<u64> = nodes.iter().copied().filter(|id| id != dead).collect();
            let first = heir(*dead, &live);
            live.reverse();
            assert_eq!(heir(*dead, &live), first, "the order does not matter");
            heirs.extend(first);
            // Another node's death moves the block only when that node had it.
            for also in live.clone() {
                let rest: Vec<u64> = live.iter().copied().filter(|id| *id != also).collect();
                assert_eq!(heir(*dead, &rest) == first, Some(also) != first);
            }
        }
        assert!(heirs.len() > 2, "not all blocks go to the same node: {heirs:?}");
        assert_eq!(heir(1, &[]), None);
    }
}
