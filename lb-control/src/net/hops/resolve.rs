//! From a route and a picture of the network to a way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::{Hop, Mac};

use super::Way;
use super::view::{Link, LinkKind, Neighbour, NextHop, View};

/// What the kernel answers when asked for the route to a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// One or several ways out, never none.
    Paths(Vec<Path>),
    /// No way.
    Nowhere(NoWay),
}

/// One way out of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    /// Output interface.
    pub(super) interface: u32,
    /// Gateway, perhaps of the other address family; `None` = on the link.
    pub(super) gateway: Option<IpAddr>,
    /// Share of the targets, at least 1.
    pub(super) weight: u32,
    /// Preferred source address.
    pub(super) source: Option<IpAddr>,
    /// MTU of the route (or learned for the path), where it is below the interface's.
    pub(super) mtu: Option<u32>,
}

/// Why there is no way to an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoWay {
    /// The routing tables have nothing.
    #[error("no route; add one (`ip route add`)")]
    NoRoute,
    /// A route says that nothing is to be sent there.
    #[error("the route is of type {0}; a unicast route is needed")]
    Refused(&'static str),
    /// The address is one of ours.
    #[error("the address is local to this machine; a backend has to be another host")]
    Local,
    /// The route pushes headers that XDP does not write.
    #[error("the route encapsulates (MPLS, SRv6 or another tunnel); a plain route is needed")]
    Encapsulated,
    /// The output interface is down or has no carrier.
    #[error("interface {0} is down or has no carrier")]
    Down(String),
    /// The output interface does not carry Ethernet frames.
    #[error("interface {0} does not carry Ethernet frames; XDP cannot send there")]
    NotEthernet(String),
    /// Tags that the data plane does not write.
    #[error("interface {0} is a stacked or 802.1ad VLAN device; one 802.1Q tag is supported")]
    Tags(String),
    /// The neighbour does not answer.
    #[error("{0} does not answer on interface {1}")]
    Unresolved(IpAddr, String),
    /// The kernel did not take the question.
    #[error("the kernel refused the route query: {0}")]
    Query(String),
}

/// What is known about a way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// This one.
    Way(Way),
    /// The neighbour is being asked for; what was known before holds until the answer.
    Waiting,
    /// None.
    Nowhere(NoWay),
}

/// The outcome, and the neighbours it hangs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Resolution {
    pub(super) outcome: Outcome,
    pub(super) next_hops: Vec<NextHop>,
}

/// Finds the way to `target`.
///
/// Among several paths each target has an order of its own, by weighted rendezvous hashing: it takes the
/// first that works, so a path that comes or goes moves only the targets that prefer it.
pub(super) fn resolve(target: IpAddr, route: &Route, view: &View) -> Resolution {
    let paths = match route {
        Route::Paths(paths) => paths,
        Route::Nowhere(reason) => {
            return Resolution { outcome: Outcome::Nowhere(reason.clone()), next_hops: Vec::new() };
        }
    };
    let mut ranked: Vec<&Path> = paths.iter().collect();
    ranked.sort_by(|a, b| cost(target, a).total_cmp(&cost(target, b)));

    let mut best = Outcome::Nowhere(NoWay::NoRoute);
    let mut next_hops = Vec::new();
    for (place, path) in ranked.into_iter().enumerate() {
        let outcome = match follow(target, path, view) {
            Ok((next_hop, outcome)) => {
                next_hops.push(next_hop);
                outcome
            }
            Err(reason) => Outcome::Nowhere(reason),
        };
        best = match (best, outcome) {
            (Outcome::Way(way), _) => Outcome::Way(way),
            (Outcome::Waiting, Outcome::Way(way)) => Outcome::Way(way),
            (Outcome::Waiting, Outcome::Waiting | Outcome::Nowhere(_)) => Outcome::Waiting,
            (Outcome::Nowhere(first), Outcome::Nowhere(reason)) => {
                Outcome::Nowhere(if place == 0 { reason } else { first })
            }
            (Outcome::Nowhere(_), found @ (Outcome::Way(_) | Outcome::Waiting)) => found,
        };
    }
    Resolution { outcome: best, next_hops }
}

/// Follows one path to its neighbour.
fn follow(target: IpAddr, path: &Path, view: &View) -> Result<(NextHop, Outcome), NoWay> {
    let next_hop = NextHop { interface: path.interface, address: path.gateway.unwrap_or(target) };
    // The answer to the route query may run ahead of the link's event.
    let Some(link) = view.link(path.interface) else { return Ok((next_hop, Outcome::Waiting)) };
    let source = ethernet(link)?;
    let (ifindex, vlan, mtu) = match link.kind {
        LinkKind::Plain => (path.interface, None, link.mtu),
        LinkKind::OtherVlan => return Err(NoWay::Tags(link.name.clone())),
        LinkKind::Vlan { below, id } => {
            let Some(real) = view.link(below) else { return Ok((next_hop, Outcome::Waiting)) };
            ethernet(real)?;
            match real.kind {
                LinkKind::Plain => (below, Some(id), link.mtu.min(real.mtu)),
                LinkKind::Vlan { .. } | LinkKind::OtherVlan => return Err(NoWay::Tags(link.name.clone())),
            }
        }
    };
    let neighbour = view.neighbour(next_hop);
    let destination = match neighbour {
        Neighbour::Fresh(mac) | Neighbour::Stale(mac) | Neighbour::Fixed(mac) => mac,
        Neighbour::Absent | Neighbour::Resolving => return Ok((next_hop, Outcome::Waiting)),
        Neighbour::Failed => {
            let reason = NoWay::Unresolved(next_hop.address, link.name.clone());
            return Ok((next_hop, Outcome::Nowhere(reason)));
        }
    };
    let mtu = path.mtu.map_or(mtu, |route| route.min(mtu));
    let hop =
        Hop { destination, mtu: u16::try_from(mtu).unwrap_or(u16::MAX), source, pad: 0, ifindex, pad2: 0 };
    let unspecified = match target {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let way = Way { hop, local: path.source.unwrap_or(unspecified), vlan };
    Ok((next_hop, Outcome::Way(way)))
}

/// The MAC of a link that is up and carries Ethernet.
fn ethernet(link: &Link) -> Result<Mac, NoWay> {
    match link.mac {
        None => Err(NoWay::NotEthernet(link.name.clone())),
        Some(_) if !link.up => Err(NoWay::Down(link.name.clone())),
        Some(mac) => Ok(mac),
    }
}

/// Rendezvous cost of a path for a target: the smallest wins, in proportion to the weights.
fn cost(target: IpAddr, path: &Path) -> f64 {
    let mut state = u64::from(path.interface);
    for address in [Some(target), path.gateway].into_iter().flatten() {
        let bits = match address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        state = mix(state ^ (bits >> 64) as u64);
        state = mix(state ^ bits as u64);
    }
    // 53 bits, shifted by half a step so that the logarithm is finite.
    let unit = ((mix(state) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -unit.ln() / f64::from(path.weight.max(1))
}

/// A bijective 64-bit mixer (multiply and xor-shift); the same in every release.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ (value >> 32)
}

#[cfg(test)]
mod tests;
