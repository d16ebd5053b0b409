//! Carries what nodes tell a switch of their connections to the data plane, which goes on with those that it can.

use super::complaint::Complaint;
use crate::admin::error::chain;
use crate::cluster::membership::Membership;
use crate::reconcile::{Handle, QueryError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Time between two looks; nodes tell twice a second.
const LOOK: Duration = Duration::from_millis(250);

/// Starts to carry; ends with the reconciler.
pub(super) fn start(reconciler: &Handle, cluster: &Membership, tasks: &mut JoinSet<()>) {
    let (reconciler, cluster) = (reconciler.clone(), cluster.clone());
    tasks.spawn(async move {
        let mut complaint = Complaint::default();
        loop {
            // Those of a node that is not connected any more are not among them.
            let all = cluster.hearing().await.map_or_else(Vec::new, |hearing| hearing.connections());
            match reconciler.offload(all).await {
                Ok(()) => complaint.settle(),
                Err(QueryError::Gone(_)) => return,
                Err(error) => {
                    if complaint.is_news(chain(&error)) {
                        tracing::warn!(
                            error = chain(&error),
                            "connections stay with their nodes; trying again"
                        );
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}
