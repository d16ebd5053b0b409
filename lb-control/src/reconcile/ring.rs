//! The other nodes of the cluster, as the data plane asks them.

use super::ResolvedHop;
use lb_common::abi::{Addr, Be16, MAX_PEERS, PEER_PORT, Peer, VLAN_NONE};
use std::{collections::HashMap, net::IpAddr};

/// Packets that a node may ask the others about in a second.
///
/// After the router has spread connections anew, all packets of those that moved are asked about: more than floods
/// of packets that nobody knows are worth.
const RATE: u32 = 1_000_000;

/// The other nodes that can be asked, in the order in which packets visit them: one ring for all nodes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PeerRing {
    /// This node's id.
    pub own: u64,
    /// The others, the one behind this node first.
    pub nodes: Vec<PeerNode>,
    /// Whether connections go on elsewhere when their node dies: from the moment when it has no way any more until it is found dead,
    /// nobody else can be asked for them.
    pub is_mirrored: bool,
}

/// Another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerNode {
    /// Its id.
    pub id: u64,
    /// Its address.
    pub address: IpAddr,
    /// This node's address as the others know it, of the same family.
    pub source: IpAddr,
}

impl PeerRing {
    /// The ring of `nodes` from `own` on, by id; at most as many as the data plane has room for.
    pub fn new(own: u64, mut nodes: Vec<PeerNode>, is_mirrored: bool) -> Self {
        nodes.retain(|node| node.id != own && node.id != 0);
        nodes.sort_by_key(|node| (node.id < own, node.id));
        nodes.dedup_by_key(|node| node.id);
        nodes.truncate(MAX_PEERS as usize);
        Self { own, nodes, is_mirrored }
    }

    /// The rows of those that a way is known to.
    pub(super) fn rows(&self, ways: &HashMap<IpAddr, ResolvedHop>) -> Vec<Peer> {
        // Packets that nobody is asked about are dropped, and come again; what all that are left do not know is reset.
        if self.is_mirrored && self.nodes.iter().any(|node| !ways.contains_key(&node.address)) {
            return Vec::new();
        }
        let known = self.nodes.iter().filter_map(|node| Some((node, ways.get(&node.address)?)));
        let mut rows: Vec<Peer> = known
            .map(|(node, way)| Peer {
                id: node.id,
                own: self.own,
                address: Addr::from(node.address),
                source: Addr::from(node.source),
                hop: way.hop,
                vlan: way.vlan.unwrap_or(VLAN_NONE),
                port: Be16::new(PEER_PORT),
                rate: RATE,
                count: 0,
                pad: 0,
            })
            .collect();
        let count = u32::try_from(rows.len()).unwrap_or(MAX_PEERS);
        rows.iter_mut().for_each(|row| row.count = count);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::Hop;

    fn node(id: u64) -> PeerNode {
        let address = |last: u64| IpAddr::from([10, 0, 0, last as u8]);
        PeerNode { id, address: address(id), source: address(200) }
    }

    #[test]
    fn every_node_has_the_same_ring_from_itself_on() {
        let ring = |own: u64| {
            let nodes = [30, 10, 40, 20].into_iter().map(node).collect();
            PeerRing::new(own, nodes, false).nodes.iter().map(|node| node.id).collect::<Vec<_>>()
        };
        assert_eq!(ring(10), [20, 30, 40]);
        assert_eq!(ring(30), [40, 10, 20]);
        assert_eq!(ring(40), [10, 20, 30]);
    }

    #[test]
    fn who_has_no_way_is_left_out() {
        let ring = PeerRing::new(1, vec![node(2), node(3), node(4)], false);
        let way = ResolvedHop { hop: Hop { ifindex: 7, ..Hop::default() }, source: None, vlan: Some(9) };
        let ways = [2, 4].map(|id| (node(id).address, way)).into_iter().collect();
        let rows = ring.rows(&ways);
        assert_eq!(
            rows.iter().map(|row| (row.id, row.own, row.count)).collect::<Vec<_>>(),
            [(2, 1, 2), (4, 1, 2)]
        );
        assert_eq!((rows[0].vlan, rows[0].hop.ifindex), (9, 7));
        assert!(ring.rows(&HashMap::new()).is_empty());
    }

    #[test]
    fn where_connections_go_on_elsewhere_nobody_is_asked_while_the_way_to_one_is_lost() {
        let mut ring = PeerRing::new(1, vec![node(2), node(3)], true);
        let way = ResolvedHop { hop: Hop::default(), source: None, vlan: None };
        let mut ways: HashMap<_, _> = [2, 3].map(|id| (node(id).address, way)).into_iter().collect();
        assert_eq!(ring.rows(&ways).len(), 2);
        // The kernel may have lost it before anybody else misses the node.
        ways.remove(&node(2).address);
        assert!(ring.rows(&ways).is_empty(), "what the other does not know may be the lost one's");
        ring.nodes.remove(0);
        assert_eq!(ring.rows(&ways).len(), 1, "it is dead, and its heir has what it had");
    }

    #[test]
    fn more_nodes_than_there_is_room_for() {
        assert_eq!(PeerRing::new(1, (2..100).map(node).collect(), false).nodes.len(), MAX_PEERS as usize);
    }
}
