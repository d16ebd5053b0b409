//! What an administrator wants: the validated configuration, free of syntax.

use super::AffinitySpec;
use super::secret::NodeSecrets;
use crate::health::HealthSpec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use lb_common::abi::{Method, Mode};
use std::sync::Arc;

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
    /// Holds that spliced connections share.
    pub held: u32,
    /// SipHash key of session keys longer than 64 bits; the same on every node.
    pub session_secret: [u8; 16],
    /// The one before it, or the one that is about to follow, whose sessions are found, too.
    pub other_secret: Option<[u8; 16]>,
    /// Keys of SYN cookies and sealed segments; the same on every node.
    pub secrets: NodeSecrets,
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
    /// Spliced: how long a request head may take to be complete.
    pub request_head: Duration,
    /// Spliced: how long a backend may take to answer.
    pub connect: Duration,
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
    /// Sessions that are moved a second from backends whose time to drain is over, and by failback.
    pub drain_rate: u32,
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
    /// Whether the first request is preceded by a PROXY protocol header (spliced, with source NAT).
    pub proxy_protocol: bool,
    /// How the backend of a new session is chosen (others than the order: `nat` only).
    pub method: Method,
    /// How long a backend that was down takes to get its whole share of new sessions again; zero = no time.
    pub slow_start: Duration,
    /// Connections that are older than this are mirrored to other nodes (TCP, `nat` only); `None` = none are.
    pub mirror: Option<Duration>,
    /// What keeps its connections where they are.
    pub consistency: Consistency,
    /// How its backends are checked; `None` = they are not.
    pub health: Option<Arc<HealthSpec>>,
    /// Requests that go to pools of their own, by their path (`http-cookie` only).
    pub paths: Vec<PathSpec>,
    /// Backends, by name without repetition.
    pub backends: Vec<BackendSpec>,
}

/// Requests whose path begins so have a pool of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathSpec {
    /// What the path begins with, at most 120 bytes; the longest of a service's that fits counts.
    pub prefix: String,
    /// Name of the pool; unique among services and pools.
    pub name: String,
    /// Id from the name or given; part of the pool's bindings, unique among services and pools.
    pub id: u32,
    /// Backends, by name without repetition.
    pub backends: Vec<BackendSpec>,
}

/// A pool as selection sees it: that of a service, or that of one of its paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSpec {
    /// The service; for a path's pool with the pool's name, id and backends in place of its own, and without paths.
    pub service: ServiceSpec,
    /// The path's prefix; `None` = the service's own pool.
    pub prefix: Option<String>,
}

impl Desired {
    /// Every pool: of each service its own, then those of its paths, the longest prefix first.
    pub fn pools(&self) -> Vec<PoolSpec> {
        self.services.iter().flat_map(ServiceSpec::pools).collect()
    }
}

impl ServiceSpec {
    /// Whether the balancer answers the client's handshake itself and connects when it has read the request.
    pub const fn is_spliced(&self) -> bool {
        match self.affinity {
            AffinitySpec::HttpCookie(_) => true,
            AffinitySpec::Payload(_) => matches!(self.protocol, Protocol::Tcp),
            AffinitySpec::None | AffinitySpec::SourceIp { .. } | AffinitySpec::QuicCid(_) => false,
        }
    }

    /// Its own pool, then those of its paths, the longest prefix first.
    pub fn pools(&self) -> Vec<PoolSpec> {
        let mut paths: Vec<&PathSpec> = self.paths.iter().collect();
        paths.sort_by(|a, b| b.prefix.len().cmp(&a.prefix.len()).then_with(|| a.prefix.cmp(&b.prefix)));
        let own = PoolSpec { service: self.clone(), prefix: None };
        let of_paths = paths.into_iter().map(|path| PoolSpec {
            service: Self {
                name: path.name.clone(),
                id: path.id,
                backends: path.backends.clone(),
                paths: Vec::new(),
                ..self.clone()
            },
            prefix: Some(path.prefix.clone()),
        });
        core::iter::once(own).chain(of_paths).collect()
    }
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

/// What keeps connections where they are when the data plane knows nothing of their sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Consistency {
    /// Bindings, the order, and flows where there are some.
    #[default]
    Tables,
    /// The number of the backend in TCP timestamps, too (a switch, `nat` only).
    Timestamps,
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
    /// Connections at a time beyond which it gets no new sessions (`nat` only); 0 = no limit.
    pub limit: u32,
    /// What the administrator says of it.
    pub admin: Admin,
    /// VLAN of the way to it.
    pub vlan: Vlan,
    /// The text that names it in cookies read as `route` or `sealed-route`; `None` = its name.
    pub route: Option<String>,
    /// Its id in QUIC connection ids; `None` = made of the server number.
    pub server_id: Option<Vec<u8>>,
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
