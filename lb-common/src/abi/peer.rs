//! The other nodes of a cluster, as far as packets go to them.

use super::{Addr, Be16, Hop};

/// Most other nodes that a packet can visit.
pub const MAX_PEERS: u32 = 16;

/// UDP port on which nodes hand packets to each other, as a rule.
pub const PEER_PORT: u16 = 7118;

/// Another node; rows follow each other in the order in which packets visit nodes, which is one ring for all of them.
///
/// The first row is the node behind this one; a row without an id is free, and so are all behind it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peer {
    /// Its id; 0 = the row is free.
    pub id: u64,
    /// This node's own id.
    pub own: u64,
    /// Its address; packets from there, and only those, are taken out of their tunnels.
    pub address: Addr,
    /// This node's address as that node knows it.
    pub source: Addr,
    /// Way to it; a MAC of zeros = not known.
    pub hop: Hop,
    /// VLAN of the way to it: [`super::VLAN_NONE`] or 1..=4094.
    pub vlan: u16,
    /// UDP port of both ends.
    pub port: Be16,
    /// Packets that this node may ask its peers about in a second; the first row says it.
    pub rate: u32,
    /// Rows in use; the first row says it.
    pub count: u32,
    /// Zero.
    pub pad: u32,
}

/// What stands between the UDP header and a packet that visits another node.
///
/// Numbers are in network order; interface, addresses and tags mean something only to the node that asks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Visit {
    /// [`Self::VERSION`].
    pub version: u8,
    /// [`Self::ASKS`] or [`Self::RETURNS`].
    pub kind: u8,
    /// How many more nodes it may visit.
    pub left: u8,
    /// Zero.
    pub pad: u8,
    /// Interface that it came in on, at the node that asks.
    pub ifindex: u32,
    /// Id of the node that asks.
    pub origin: [u32; 2],
    /// The two MAC addresses of its frame, as they stood there.
    pub addresses: [u32; 3],
    /// The VLAN tags of its frame.
    pub tags: [u32; 2],
    /// Zero.
    pub pad2: u32,
}

impl Visit {
    /// The only version.
    pub const VERSION: u8 = 1;
    /// Whoever knows the packet's flow shall handle it.
    pub const ASKS: u8 = 1;
    /// Nobody knows it: the node that asked shall do what it does with such packets.
    pub const RETURNS: u8 = 2;
    /// Bytes of it.
    pub const LEN: usize = size_of::<Self>();
}

/// What stands behind the UDP header where the other nodes are asked for a session's backend, and in their answer.
///
/// It begins like a [`Visit`]; numbers are in network order.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Question {
    /// [`Visit::VERSION`].
    pub version: u8,
    /// [`Self::ASKS`] or [`Self::ANSWERS`].
    pub kind: u8,
    /// How many more nodes may be asked.
    pub left: u8,
    /// Zero.
    pub pad: u8,
    /// [`super::Service::id`] of the session's pool.
    pub service: u32,
    /// Id of the node that asks.
    pub origin: [u32; 2],
    /// The session key.
    pub session: [u32; 2],
    /// Server number of the session's backend; 0 = nobody knows it.
    pub server: [u32; 2],
    /// Length of the IP packet that became the question.
    pub length: Be16,
    /// Zero.
    pub pad2: u16,
    /// The client's port in the connection that waits for the answer.
    pub source_port: Be16,
    /// The service's.
    pub destination_port: Be16,
    /// The client's address.
    pub source: Addr,
    /// The service's.
    pub destination: Addr,
}

impl Question {
    /// Whoever knows the session's backend shall tell it.
    pub const ASKS: u8 = 3;
    /// What is known of it.
    pub const ANSWERS: u8 = 4;
    /// Bytes of it.
    pub const LEN: usize = size_of::<Self>();
}

super::pod!(Peer: 88, Visit: 40, Question: 72);
