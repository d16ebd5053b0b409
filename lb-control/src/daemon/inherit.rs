//! Takes over mirrored connections of nodes that died, and this node's own when it was away.

use super::way::translate;
use crate::admin::error::chain;
use crate::cluster::identity::NodeId;
use crate::cluster::membership::Membership;
use crate::net::hops::Hops;
use crate::reconcile::mirror::{Heirloom, Taken};
use crate::reconcile::{Handle, ResolvedHop};
use lb_core::mirror::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the ways to clients may take to be found.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether connections have come back.
const LOOK: Duration = Duration::from_millis(250);

/// Who takes connections over; clones are cheap.
#[derive(Clone)]
pub(super) struct Inheritance(Arc<Inner>);

struct Inner {
    reconciler: Handle,
    cluster: Membership,
    /// One at a time: who comes second finds that everything is done.
    turn: Mutex<()>,
    /// Nodes that have not been connected for a while, and did not answer pings.
    silent: std::sync::Mutex<BTreeSet<u64>>,
}

impl Inheritance {
    /// Nothing is taken over yet, but what comes back is, from now on.
    pub(super) fn start(reconciler: &Handle, cluster: &Membership, tasks: &mut JoinSet<()>) -> Self {
        let inner = Inner {
            reconciler: reconciler.clone(),
            cluster: cluster.clone(),
            turn: Mutex::default(),
            silent: std::sync::Mutex::default(),
        };
        let inheritance = Self(Arc::new(inner));
        let own = inheritance.clone();
        tasks.spawn(async move {
            loop {
                sleep(LOOK).await;
                own.take_home().await;
            }
        });
        inheritance
    }

    /// Goes on with the connections that a dead node mirrored to this one: all of them as its heir, else those that any node can go on
    /// with, since backends answer to their clients' own addresses.
    pub(super) async fn take_over(&self, dead: NodeId, is_heir: bool) {
        let Some(mirrors) = self.0.cluster.mirrors().await else { return };
        let _turn = self.0.turn.lock().await;
        let all = mirrors.take(dead, |record| is_heir || !record.has_source_nat());
        if all.is_empty() {
            return;
        }
        let count = all.len();
        let taken = self.adopt(all, is_heir).await;
        mirrors.note(taken.adopted, taken.lost);
        let Taken { adopted, known, lost } = taken;
        tracing::warn!(node = %dead, count, adopted, known, lost, "dead: its mirrored connections go on here");
    }

    /// Notes who is silent.
    pub(super) fn note_silent(&self, nodes: BTreeSet<u64>) {
        *self.silent() = nodes;
    }

    /// Whether a node has been silent for a while.
    pub(super) fn is_silent(&self, node: u64) -> bool {
        self.silent().contains(&node)
    }

    /// Addresses of nodes that are gone, whose connections are to come here when others have gone on with them.
    pub(super) async fn expect(&self, addresses: BTreeMap<IpAddr, u64>) {
        if let Some(mirrors) = self.0.cluster.mirrors().await {
            mirrors.expect(addresses);
        }
    }

    /// A node inherits what this one has inherited, and has to be told.
    pub(super) async fn owe(&self, to: NodeId) {
        if let Some(mirrors) = self.0.cluster.mirrors().await {
            mirrors.owe(to);
        }
    }

    /// Whether a dead node's packets should wait for whoever takes its connections over.
    pub(super) async fn is_on(&self) -> bool {
        self.0.cluster.mirrors().await.is_some_and(|mirrors| mirrors.is_on())
    }

    /// Whether a node that was dead, or is [owed](Self::owe), has been told what this one has.
    pub(super) async fn has_told_all(&self, to: NodeId) -> bool {
        self.0.cluster.mirrors().await.is_none_or(|mirrors| mirrors.has_told_all(to))
    }

    /// Whether what these nodes have of this node's connections is here.
    pub(super) async fn has_heard_all(&self, of: &[u64]) -> bool {
        let Some(mirrors) = self.0.cluster.mirrors().await else { return true };
        // Not while they are being written.
        let _turn = self.0.turn.lock().await;
        mirrors.has_heard_all(of)
    }

    /// A node that is back has its addresses again.
    pub(super) async fn give_back(&self, to: NodeId) {
        if let Some(mirrors) = self.0.cluster.mirrors().await {
            mirrors.give_back(to);
        }
    }

    fn silent(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_home(&self) {
        let Some(mirrors) = self.0.cluster.mirrors().await else { return };
        let _turn = self.0.turn.lock().await;
        let all = mirrors.take_home();
        if all.is_empty() {
            return;
        }
        let taken = self.adopt(all, true).await;
        mirrors.note(taken.adopted, taken.lost);
        if taken.adopted > 0 {
            let Taken { adopted, known, lost } = taken;
            tracing::info!(adopted, known, lost, "connections that another node went on with are here again");
        }
    }

    async fn adopt(&self, all: Vec<Record>, is_counted: bool) -> Taken {
        let ways = ways(all.iter().map(|record| record.client.0).collect()).await;
        let count = all.len();
        let heirlooms: Vec<Heirloom> = all
            .into_iter()
            .filter_map(|record| Some(Heirloom { way: *ways.get(&record.client.0)?, record, is_counted }))
            .collect();
        let (found, nowhere) = (heirlooms.len() as u64, (count - heirlooms.len()) as u64);
        match self.0.reconciler.adopt(heirlooms).await {
            Ok(taken) => Taken { lost: taken.lost + nowhere, ..taken },
            Err(error) => {
                tracing::error!(error = chain(&error), "connections cannot be taken over");
                Taken { lost: found + nowhere, ..Taken::default() }
            }
        }
    }
}

/// The ways to these addresses, as far as there are any.
async fn ways(addresses: BTreeSet<IpAddr>) -> HashMap<IpAddr, ResolvedHop> {
    let until = Instant::now() + PATIENCE;
    let (mut known, mut ways) = (HashSet::new(), HashMap::new());
    let count = addresses.len();
    let (targets, wanted) = watch::channel(addresses);
    let (mut changes, follower) = Hops::start(wanted);
    while known.len() < count {
        let Ok(Some(change)) = timeout_at(until, changes.recv()).await else { break };
        known.insert(change.address);
        match translate(change).hop {
            Some(way) => drop(ways.insert(change.address, way)),
            None => drop(ways.remove(&change.address)),
        }
    }
    drop((targets, changes));
    let _ = follower.await;
    ways
}
