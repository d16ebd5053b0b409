//! Carries what the network knows to the reconciler: next hops of the backends it wants.

use crate::net::hops::{self, Hops};
use crate::reconcile::{Handle, HopChange, ResolvedHop};
use tokio::task::JoinSet;

/// Starts to follow the ways to the reconciler's backends; ends with the reconciler.
pub(super) fn start(reconciler: &Handle, tasks: &mut JoinSet<()>) {
    let (mut changes, follower) = Hops::start(reconciler.addresses());
    let reconciler = reconciler.clone();
    tasks.spawn(async move {
        while let Some(change) = changes.recv().await {
            if reconciler.hop(translate(change)).await.is_err() {
                break;
            }
        }
        drop(changes);
        let _ = follower.await;
    });
}

pub(super) fn translate(change: hops::HopChange) -> HopChange {
    HopChange {
        address: change.address,
        hop: change.way.map(|way| ResolvedHop {
            hop: way.hop,
            source: (!way.local.is_unspecified()).then_some(way.local),
            vlan: way.vlan,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::Hop;
    use std::net::IpAddr;

    #[test]
    fn unspecified_source_is_none() {
        let way = hops::Way { hop: Hop::default(), local: IpAddr::from([0, 0, 0, 0]), vlan: Some(7) };
        let address = IpAddr::from([10, 0, 0, 1]);
        let told = translate(hops::HopChange { address, way: Some(way) });
        assert_eq!(told.hop.map(|h| (h.source, h.vlan)), Some((None, Some(7))));
        assert_eq!(translate(hops::HopChange { address, way: None }).hop, None);
    }
}
