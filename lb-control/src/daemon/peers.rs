//! Which other nodes are asked about packets that this one does not know: those that are there.
//!
//! A node whose daemon is away still has its flows, so it counts for as long as it answers pings.

use super::heirs::live;
use super::inherit::Inheritance;
use crate::admin::error::chain;
use crate::cluster::heir::heir;
use crate::cluster::identity::Role;
use crate::cluster::membership::{Membership, Status};
use crate::cluster::replica::Peer;
use crate::probe;
use crate::reconcile::{Handle, PeerNode, PeerRing};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pings in a row that may be lost.
const MISSES: u32 = 2;
/// Further ones of a node whose connections another one may be taking over.
const LINGERS: u32 = 3;
/// Pings in a row, from the first one on, that must be lost before nobody waits for what a node might tell.
const LOST: u32 = 2;

/// Starts to tell the reconciler who can be asked; ends with the reconciler.
pub(super) fn start(
    reconciler: &Handle,
    cluster: &Membership,
    inheritance: &Inheritance,
    tasks: &mut JoinSet<()>,
) {
    let (reconciler, cluster, inheritance) = (reconciler.clone(), cluster.clone(), inheritance.clone());
    tasks.spawn(async move {
        let (mut known, mut misses) = (None, BTreeMap::new());
        loop {
            match cluster.status().await {
                Ok(status) => {
                    let ring = match &status {
                        Some(status) => ring(status, &mut misses, &inheritance).await,
                        None => PeerRing::default(),
                    };
                    if known.as_ref() != Some(&ring) {
                        let ids = ring.nodes.iter().map(|node| node.address.to_string());
                        tracing::info!(
                            nodes = ids.collect::<Vec<_>>().join(", "),
                            "these can be asked about packets"
                        );
                        if reconciler.ring(ring.clone()).await.is_err() {
                            return;
                        }
                        known = Some(ring);
                    }
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "who can be asked is not known; trying again")
                }
            }
            sleep(LOOK).await;
        }
    });
}

/// The ring of those that are there.
async fn ring(status: &Status, misses: &mut BTreeMap<u64, u32>, inheritance: &Inheritance) -> PeerRing {
    let own = status.standing.id.number();
    let is_alone = status.is_removed || status.is_switch();
    let Some(member) = status.member.as_ref().filter(|_| !is_alone) else {
        return PeerRing::new(own, Vec::new(), false);
    };
    let sources = addresses(&member.addresses).await;
    let mut nodes = Vec::new();
    let (live, is_mirrored) = (live(status), inheritance.is_on().await);
    for peer in status.standing.peers.iter().filter(|peer| peer.role == Role::Node) {
        let Some((address, source)) = pair(&addresses(&peer.addresses).await, &sources) else { continue };
        let id = peer.id.number();
        // Nobody waits for the heir of one that has not been there.
        let missed = misses.entry(id).or_insert(MISSES + LINGERS);
        *missed = if is_there(peer, address).await { 0 } else { missed.saturating_add(1) };
        let is_heir = heir(id, &live) == Some(own);
        if *missed > MISSES {
            inheritance.take_over(peer.id, is_heir).await;
        }
        let most = if is_mirrored && !is_heir { MISSES + LINGERS } else { MISSES };
        if *missed <= most {
            nodes.push(PeerNode { id, address, source });
        }
    }
    let silent = misses.iter().filter(|(_, missed)| **missed >= MISSES + LINGERS + LOST);
    inheritance.note_silent(silent.map(|(id, _)| *id).collect());
    PeerRing::new(own, nodes, is_mirrored)
}

/// Whether a node is connected, or its machine answers.
async fn is_there(peer: &Peer, address: IpAddr) -> bool {
    peer.connection.contact.is_some() || answers(address).await
}

/// Whether something answers pings at an address.
pub(super) async fn answers(address: IpAddr) -> bool {
    timeout(PATIENCE, probe::ping(address)).await.is_ok_and(|answer| answer.is_ok())
}

/// The addresses behind `host:port`.
async fn addresses(listed: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for text in listed {
        match text.parse::<SocketAddr>() {
            Ok(address) => found.push(address.ip().to_canonical()),
            Err(_) => {
                let asked = timeout(PATIENCE, tokio::net::lookup_host(text)).await;
                found
                    .extend(asked.into_iter().flatten().flatten().map(|address| address.ip().to_canonical()));
            }
        }
    }
    found
}

/// The first address of each, of a family that both have: both nodes find the same pair.
fn pair(theirs: &[IpAddr], ours: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    let first = |of: &[IpAddr], v4: bool| of.iter().copied().find(|address| address.is_ipv4() == v4);
    [true, false].into_iter().find_map(|v4| Some((first(theirs, v4)?, first(ours, v4)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_find_the_same_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (a, b) = ([ip("2001:db8::1"), ip("10.0.0.1")], [ip("10.0.0.2"), ip("10.0.0.3")]);
        assert_eq!(pair(&b, &a), Some((ip("10.0.0.2"), ip("10.0.0.1"))));
        assert_eq!(pair(&a, &b), Some((ip("10.0.0.1"), ip("10.0.0.2"))));
        assert_eq!(pair(&a[..1], &b), None);
        assert_eq!(pair(&a[..1], &a), Some((a[0], a[0])));
    }

    #[tokio::test]
    async fn addresses_are_read_as_they_are_listed() {
        let listed = ["10.0.0.1:7117".to_owned(), "[2001:db8::1]:99".to_owned()];
        let expected: Vec<IpAddr> =
            vec!["10.0.0.1".parse().expect("one"), "2001:db8::1".parse().expect("one")];
        assert_eq!(addresses(&listed).await, expected);
    }
}
