//! This node's part in a cluster, as the configuration wants it.

use crate::cluster::home::Home;
use crate::cluster::identity::Role;
use crate::cluster::membership::{Membership, MembershipError, Settings};
use crate::config::{DaemonSpec, PlaneSpec};
use crate::reconcile::Handle;
use std::fs;

/// Takes part in the cluster that the state directory names, if it names one.
pub(super) async fn open(daemon: &DaemonSpec, reconciler: &Handle) -> Result<Membership, MembershipError> {
    let spec = &daemon.cluster;
    let settings = Settings {
        listen: spec.listen,
        advertise: spec.advertise.clone(),
        name: spec.name.clone().unwrap_or_else(|| name(daemon)),
        discover: spec.discover.clone(),
        role: match daemon.plane {
            PlaneSpec::Xdp => Role::Node,
            PlaneSpec::P4(_) => Role::Switch,
        },
    };
    Membership::open(Home::in_state(&daemon.state_dir), settings, reconciler.clone()).await
}

/// Name of this node.
pub(super) fn name(daemon: &DaemonSpec) -> String {
    daemon.name.clone().unwrap_or_else(host_name)
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}
