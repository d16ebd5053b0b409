//! Carries what other nodes say of backends to the reconciler.

use crate::cluster::membership::Membership;
use crate::reconcile::{Handle, OtherViews};
use std::time::Duration;
use tokio::task::JoinSet;

/// Time between two looks; others say it with their next sign of life.
const LOOK: Duration = Duration::from_millis(100);

/// Starts to carry; ends with the reconciler.
pub(super) fn start(reconciler: &Handle, cluster: &Membership, tasks: &mut JoinSet<()>) {
    let (reconciler, cluster) = (reconciler.clone(), cluster.clone());
    tasks.spawn(async move {
        let mut told = OtherViews::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let views = views(&cluster).await;
            if views != told {
                if reconciler.other_views(views.clone()).await.is_err() {
                    return;
                }
                told = views;
            }
        }
    });
}

async fn views(cluster: &Membership) -> OtherViews {
    let mut views = OtherViews::default();
    // A node that hears nobody goes by its own word.
    let Ok(Some(status)) = cluster.status().await else { return views };
    let (own, is_ready) = (status.standing.id, status.is_ready && !status.is_removed);
    let nodes: Vec<_> = status.standing.peers.into_iter().filter(|peer| peer.replication.is_some()).collect();
    let all = 1 + nodes.len();
    views.is_first = is_ready;
    for peer in nodes.into_iter().filter(|peer| peer.connection.contact.is_some()) {
        let Some(failed) = peer.replication.and_then(|replication| replication.failed) else { continue };
        views.nodes += 1;
        views.is_first &= own < peer.id;
        failed.into_iter().for_each(|server| *views.failed.entry(server).or_default() += 1);
    }
    views.is_majority = (1 + views.nodes) * 2 > all;
    views
}
