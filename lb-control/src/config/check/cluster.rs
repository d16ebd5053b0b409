//! `[cluster]`.

use crate::config::document::Findings;
use crate::config::field::{Field, Owner};
use crate::config::file::{Announce, Cluster, File};
use crate::config::problem::Finding;
use crate::config::value::spell;
use crate::config::{AnnounceSpec, ClusterSpec, defaults};
use core::time::Duration;
use std::collections::HashSet;

/// Addresses that a member may have.
const ADDRESSES: usize = 8;
/// Shortest and longest time that an announced address stays without being renewed.
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(3_600));

/// Checks how the node is one of several.
pub(super) fn check(file: &File, findings: &Findings) -> ClusterSpec {
    let absent = Cluster::default();
    let (cluster, span) = file.cluster.located().unwrap_or((&absent, 0..0));
    let owner = Owner { span, object: "[cluster]", findings };
    let default = ClusterSpec::default();
    ClusterSpec {
        listen: cluster.listen.get().map_or(default.listen, |listen| listen.0),
        advertise: advertise(cluster, &owner),
        name: cluster.name.get().map(|name| name.0.clone()),
        discover: cluster.discover.get().map(|endpoint| endpoint.0.clone()),
        announce: announce(&cluster.announce, findings),
    }
}

fn advertise(cluster: &Cluster, owner: &Owner<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut addresses = Vec::new();
    for (endpoint, span) in cluster.advertise.get().into_iter().flatten().filter_map(Field::located) {
        if seen.insert(&endpoint.0) {
            addresses.push(endpoint.0.clone());
        } else {
            owner.report(Finding::error(span, format!("address `{}` is there twice", endpoint.0)));
        }
    }
    if addresses.len() > ADDRESSES
        && let Some(span) = cluster.advertise.span()
    {
        owner.report(
            Finding::error(span, format!("there are {} addresses", addresses.len()))
                .expected(format!("at most {ADDRESSES}")),
        );
    }
    addresses
}

fn announce(announce: &Field<Announce>, findings: &Findings) -> Option<AnnounceSpec> {
    let (announce, span) = announce.located()?;
    let owner = Owner { span, object: "[cluster.announce]", findings };
    let interface = announce.interface.required("interface", "\"lo\"", &owner);
    let lifetime = announce.lifetime.located().map_or(defaults::ANNOUNCE_LIFETIME, |(lifetime, span)| {
        let (least, most) = LIFETIMES;
        if lifetime.0.subsec_nanos() != 0 || !(least..=most).contains(&lifetime.0) {
            owner.report(
                Finding::error(span, format!("`lifetime` cannot be {}", spell(lifetime.0)))
                    .expected(format!("whole seconds from {} to {}", spell(least), spell(most))),
            );
        }
        lifetime.0
    });
    Some(AnnounceSpec { interface: interface?.0.0.clone(), lifetime })
}
