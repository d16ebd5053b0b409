//! What an administrator wants: the validated configuration, free of syntax.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use lb_common::abi::Mode;

/// Everything one node should do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Desired {
    /// What holds for the whole node.
    pub node: NodeSpec,
    /// Services, by name without repetition.
    pub services: Vec<ServiceSpec>,
}

/// What holds for the whole node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// Interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Table sizes; a change migrates the tables.
    pub bindings: u32,
    /// Established flows; half-open ones have room of their own.
    pub flows: u32,
    /// SipHash key of session keys longer than 64 bits; the same on every node.
    pub session_secret: [u8; 16],
    /// Source of tunnel packets to IPv4 backends; `None` = the route's preferred source.
    pub tunnel_v4: Option<Ipv4Addr>,
    /// Source of tunnel packets to IPv6 backends; `None` = the route's preferred source.
    pub tunnel_v6: Option<Ipv6Addr>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Lifetimes of flows.
    pub timeouts: Timeouts,
    /// Rates and quotas.
    pub limits: Limits,
}

/// Lifetimes of flows without traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_half_open: Duration,
    /// Established TCP.
    pub tcp_established: Duration,
    /// TCP after a FIN from either side.
    pub tcp_closing: Duration,
    /// TCP after a reset or both FINs.
    pub tcp_reset: Duration,
    /// UDP seen in one direction.
    pub udp_new: Duration,
    /// UDP seen in both directions.
    pub udp_established: Duration,
}

/// Rates and quotas of the whole node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// ICMP answers and resets a second.
    pub answer_rate: u32,
    /// New bindings of one source prefix in a service per window; 0 = no limit.
    pub prefix_quota: u32,
    /// The window, whole seconds.
    pub prefix_window: Duration,
}

/// A virtual IP, port and protocol with its pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// Unique name.
    pub name: String,
    /// Id from the name or given; unique; part of every binding.
    pub id: u32,
    /// The VIP.
    pub address: IpAddr,
    /// Port; 0 = any port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Forwarding mode.
    pub mode: Mode,
    /// Where the session key comes from.
    pub affinity: AffinitySpec,
    /// Lifetime of a binding without traffic.
    pub lifetime: Duration,
    /// New bindings a second.
    pub binding_rate: u32,
    /// Source NAT from this address (`nat` only; the service's family).
    pub source: Option<IpAddr>,
    /// Clamp the MSS of SYN segments to this.
    pub mss: Option<u16>,
    /// Backends, by name without repetition.
    pub backends: Vec<BackendSpec>,
}

/// Transport protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Where the session key comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AffinitySpec {
    /// The 5-tuple.
    None,
    /// The client's address, cut to a prefix for each family.
    SourceIp {
        /// IPv4 prefix length, 1..=32.
        v4: u8,
        /// IPv6 prefix length, 1..=128.
        v6: u8,
    },
}

/// A server of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendSpec {
    /// Name, unique in its service.
    pub name: String,
    /// Server number from the name or given, unique in its service.
    pub number: u64,
    /// Address; of the service's family for `nat`.
    pub address: IpAddr,
    /// Port for `nat`; 0 = the packet's own.
    pub port: u16,
    /// Share of new sessions, 0..=1000; 0 = no new sessions.
    pub weight: u32,
    /// What the administrator says of it.
    pub admin: Admin,
    /// VLAN of the way to it.
    pub vlan: Vlan,
}

/// What the administrator says of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Admin {
    /// In use.
    #[default]
    Enabled,
    /// No new sessions; bound ones stay.
    Draining,
    /// Neither new nor bound sessions.
    Disabled,
}

/// VLAN tags on the way to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Vlan {
    /// The route's own: the tag of its VLAN interface, else the packet's tags as they came.
    #[default]
    Auto,
    /// No tag.
    Untagged,
    /// This tag, 1..=4094.
    Tagged(u16),
}
