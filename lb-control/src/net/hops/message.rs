//! From netlink messages to what the follower knows.

use std::net::IpAddr;

use lb_common::abi::Mac;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    VlanProtocol,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteLwEnCapType, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    RouteVia,
};

use super::resolve::{NoWay, Path};
use super::view::{Link, LinkKind, Neighbour, NextHop};

/// The link of a message; `None` for messages about a link's role in a bridge.
pub(super) fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        name: message.header.index.to_string(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        kind: LinkKind::Plain,
    };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (mut below, mut is_vlan, mut id, mut protocol) = (None, false, None, VlanProtocol::Ieee8021Q);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if ethernet => link.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Vlan) => is_vlan = true,
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            for datum in data {
                                match datum {
                                    InfoVlan::Id(value) => id = Some(*value),
                                    InfoVlan::Protocol(value) => protocol = *value,
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if is_vlan {
        link.kind = match (below, id, protocol) {
            (Some(below), Some(id), VlanProtocol::Ieee8021Q) => LinkKind::Vlan { below, id },
            _ => LinkKind::OtherVlan,
        };
    }
    Some((message.header.index, link))
}

/// The neighbour of a message; `None` for forwarding entries of bridges, proxies and the like.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(NextHop, Neighbour)> {
    let header = &message.header;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    let (mut address, mut known) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => known = mac(bytes),
            _ => {}
        }
    }
    let learned = header.flags.contains(NeighbourFlags::ExtLearned);
    let neighbour = match (header.state, known) {
        (NeighbourState::Failed, _) => Neighbour::Failed,
        (NeighbourState::None, _) => Neighbour::Absent,
        (NeighbourState::Incomplete, _) | (_, None) => Neighbour::Resolving,
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Neighbour::Fixed(mac),
        (_, Some(mac)) if learned => Neighbour::Fixed(mac),
        (NeighbourState::Stale, Some(mac)) => Neighbour::Stale(mac),
        (_, Some(mac)) => Neighbour::Fresh(mac),
    };
    Some((NextHop { interface: header.ifindex, address: address? }, neighbour))
}

/// The destinations a route event is about: address and prefix length.
pub(super) fn prefix(message: &RouteMessage) -> Option<(IpAddr, u8)> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(ip) => address(ip),
        _ => None,
    });
    Some((destination.unwrap_or(unspecified), message.header.destination_prefix_length))
}

/// The path that the kernel would take now, from the answer to a route query.
pub(super) fn path(message: &RouteMessage) -> Result<Path, NoWay> {
    unicast(message)?;
    let mut found = Path { interface: 0, gateway: None, weight: 1, source: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.interface = *index,
            RouteAttribute::PrefSource(ip) => found.source = address(ip),
            RouteAttribute::Metrics(metrics) => {
                found.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    found.gateway = gateway(&message.attributes)?;
    if found.interface == 0 { Err(NoWay::NoRoute) } else { Ok(found) }
}

/// All live paths of the route that matched, where it has several; source and MTU are not in that answer.
pub(super) fn multipath(message: &RouteMessage) -> Vec<Path> {
    let hops = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    hops.into_iter()
        .flatten()
        .filter(|hop| !hop.flags.intersects(dead))
        .filter_map(|hop| {
            let gateway = gateway(&hop.attributes).ok()?;
            let weight = u32::from(hop.hops) + 1;
            Some(Path { interface: hop.interface_index, gateway, weight, source: None, mtu: None })
        })
        .collect()
}

/// Whether the route is one that packets can be sent along.
fn unicast(message: &RouteMessage) -> Result<(), NoWay> {
    match message.header.kind {
        RouteType::Unicast | RouteType::Unspec => Ok(()),
        RouteType::Local | RouteType::Anycast => Err(NoWay::Local),
        RouteType::Broadcast => Err(NoWay::Refused("broadcast")),
        RouteType::Multicast => Err(NoWay::Refused("multicast")),
        RouteType::BlackHole => Err(NoWay::Refused("blackhole")),
        RouteType::Unreachable => Err(NoWay::Refused("unreachable")),
        RouteType::Prohibit => Err(NoWay::Refused("prohibit")),
        _ => Err(NoWay::Refused("special")),
    }
}

/// Gateway of either family; refuses paths that push headers.
fn gateway(attributes: &[RouteAttribute]) -> Result<Option<IpAddr>, NoWay> {
    let mut found = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(ip) => found = address(ip),
            RouteAttribute::Via(RouteVia::Inet(ip)) => found = Some(IpAddr::V4(*ip)),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => found = Some(IpAddr::V6(*ip)),
            RouteAttribute::EncapType(RouteLwEnCapType::None) => {}
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return Err(NoWay::Encapsulated),
            _ => {}
        }
    }
    Ok(found.filter(|ip| !ip.is_unspecified()))
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VLAN device's report as the kernel sends it (little endian), decoded like any event.
    #[test]
    fn vlan_device_from_bytes() {
        fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
            let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        }
        let report = |protocol: [u8; 2]| {
            // struct ifinfomsg: family, pad, type Ethernet, index 7, flags UP | LOWER_UP, change.
            let mut bytes = vec![0, 0];
            bytes.extend(1_u16.to_ne_bytes());
            bytes.extend(7_u32.to_ne_bytes());
            bytes.extend((1_u32 | 1 << 16).to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(attribute(3, b"eth0.100\0"));
            bytes.extend(attribute(1, &[2, 0, 0, 0, 0, 9]));
            bytes.extend(attribute(4, &1496_u32.to_ne_bytes()));
            bytes.extend(attribute(5, &2_u32.to_ne_bytes()));
            let data = [attribute(1, &100_u16.to_ne_bytes()), attribute(5, &protocol)].concat();
            let info = [attribute(1, b"vlan\0"), attribute(2, &data)].concat();
            bytes.extend(attribute(18, &info));
            bytes
        };
        let decode = |bytes: &[u8]| {
            use rtnetlink::packet_core::ParseableParametrized as _;
            use rtnetlink::packet_route::RouteNetlinkMessage;
            match RouteNetlinkMessage::parse_with_param(bytes, 16).unwrap() {
                RouteNetlinkMessage::NewLink(message) => link(&message).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let (index, found) = decode(&report([0x81, 0x00]));
        let expected = Link {
            name: "eth0.100".into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            mtu: 1496,
            up: true,
            kind: LinkKind::Vlan { below: 2, id: 100 },
        };
        assert_eq!((index, found), (7, expected));
        assert_eq!(decode(&report([0x88, 0xa8])).1.kind, LinkKind::OtherVlan);
    }
}
