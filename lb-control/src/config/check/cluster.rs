//! `[cluster]`.

use crate::config::document::Findings;
use crate::config::field::{Field, Owner};
use crate::config::file::{Announce, Cluster, File};
use crate::config::problem::Finding;
use crate::config::value::spell;
use crate::config::{AnnounceSpec, BlockSpec, ClusterSpec, DaemonSpec, defaults};
use core::time::Duration;
use lb_common::abi::Mode;
use lb_core::pool::ServiceSpec;
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
        blocks: blocks(cluster, findings),
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

/// Source addresses by node; no address and no node may be there twice.
fn blocks(cluster: &Cluster, findings: &Findings) -> Vec<BlockSpec> {
    let (mut nodes, mut taken) = (HashSet::new(), HashSet::new());
    let mut blocks = Vec::new();
    for (block, span) in cluster.block.get().into_iter().flatten().filter_map(Field::located) {
        let owner = Owner { span, object: "[cluster], block", findings };
        let node = block.node.required("node", "\"lb1\"", &owner);
        let listed = block.addresses.required("addresses", "[\"192.0.2.21\"]", &owner);
        let (Some((node, at)), Some((listed, place))) = (node, listed) else { continue };
        if !nodes.insert(node.0.clone()) {
            owner.report(Finding::error(at, format!("node `{}` has two blocks", node.0)));
        }
        if listed.is_empty() {
            owner.report(Finding::error(place, "`addresses` is empty").expected("one address or more"));
        }
        let mut addresses = Vec::new();
        for (address, span) in listed.iter().filter_map(Field::located) {
            if taken.insert(address.0) {
                addresses.push(address.0);
            } else {
                owner.report(Finding::error(span, format!("address `{}` is there twice", address.0)));
            }
        }
        blocks.push(BlockSpec { node: node.0.clone(), addresses });
    }
    if let Some(span) =
        cluster.block.span().filter(|_| !blocks.is_empty() && cluster.announce.span().is_none())
    {
        let owner = Owner { span: span.clone(), object: "[cluster]", findings };
        owner.report(
            Finding::error(span, "a dead node's addresses cannot be announced")
                .expected("`announce` with the interface for them"),
        );
    }
    blocks
}

/// Services must translate to addresses that are this node's alone, or replies find another node.
pub(super) fn sources(file: &File, daemon: &DaemonSpec, services: &[ServiceSpec], findings: &Findings) {
    let blocks = &daemon.cluster.blocks;
    let Some(span) = file.cluster.get().and_then(|cluster| cluster.block.span()) else { return };
    // Without a name the host's holds, which is not known here.
    let Some(name) = daemon.cluster.name.as_ref().or(daemon.name.as_ref()) else { return };
    let own = blocks.iter().find(|block| &block.node == name);
    let own = own.map(|block| block.addresses.as_slice()).unwrap_or_default();
    let owner = Owner { span: span.clone(), object: "[cluster]", findings };
    for service in services.iter().filter(|service| service.mode == Mode::Nat) {
        if let Some(source) = service.source.filter(|source| !own.contains(source)) {
            let found = format!(
                "service `{}` translates to {source}, which is not in the block of `{name}`",
                service.name
            );
            owner.report(
                Finding::error(span.clone(), found)
                    .expected("an address of this node alone, or replies find another one"),
            );
        }
    }
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
