//! Carries what administrators say of backends between the nodes of a cluster: said to one, it holds on all.

use crate::cluster::membership::Membership;
use crate::reconcile::{Handle, Overrides};
use std::time::Duration;
use tokio::task::JoinSet;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two attempts to do what could not be done.
const AGAIN: u32 = 10;

/// Starts to carry; ends with the reconciler.
pub(super) fn start(reconciler: &Handle, cluster: &Membership, tasks: &mut JoinSet<()>) {
    let (reconciler, cluster) = (reconciler.clone(), cluster.clone());
    tasks.spawn(async move {
        // What was heard and could not be done yet.
        let mut left = Vec::new();
        for look in 0_u32.. {
            tokio::time::sleep(LOOK).await;
            let Ok(own) = reconciler.overrides().await else { return };
            let text = match own.backends.is_empty() {
                true => String::new(),
                false => own.text().ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default(),
            };
            let heard = cluster.exchange_orders(&text).await;
            if !heard.is_empty() || look.is_multiple_of(AGAIN) {
                left.extend(heard);
                left = take(&reconciler, left).await;
            }
        }
    });
}

/// Takes over what others know; what could not be done is tried again.
async fn take(reconciler: &Handle, heard: Vec<String>) -> Vec<String> {
    let mut left = Vec::new();
    for text in heard {
        match Overrides::parse(text.as_bytes()) {
            Ok(others) => match reconciler.merge_overrides(others).await {
                Ok(true) => {
                    tracing::info!("an administrator said on another node how backends are to be used")
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "what was said on another node cannot be done yet; trying again");
                    left.push(text);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "what another node knows of administrators is not understood")
            }
        }
    }
    left
}
