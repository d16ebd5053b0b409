//! What runs, as JSON.

use crate::admin::explain::{mode_name, protocol_name};
use crate::admin::row::AdminState;
use crate::config::{affinity_words, consistency_word, health_words, method_word};
use lb_core::pool::{BackendSpec, Desired, Fallback, NodeSpec, PathSpec, ServiceSpec, Vlan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The whole configuration; secrets are not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigRow {
    /// What holds for the whole node.
    pub node: NodeRow,
    /// Services.
    pub services: Vec<ConfiguredService>,
}

/// What holds for the whole node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeRow {
    /// Interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Room for bindings.
    pub bindings: u32,
    /// Room for flows.
    pub flows: u32,
    /// Holds that connections share.
    pub held: u32,
    /// Source of tunnel packets to IPv4 backends; absent = the route's own.
    pub tunnel_source_v4: Option<String>,
    /// Source of tunnel packets to IPv6 backends; absent = the route's own.
    pub tunnel_source_v6: Option<String>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Lifetimes of flows without traffic.
    pub timeouts: TimeoutsRow,
    /// ICMP answers and resets a second.
    pub answer_rate: u32,
    /// New bindings of one source prefix in a service per window; 0 = no limit.
    pub prefix_quota: u32,
    /// The window in seconds.
    pub prefix_window_seconds: u64,
    /// Sessions that are moved a second from backends whose time to drain is over, and by failback.
    pub drain_rate: u32,
}

/// Lifetimes of flows without traffic, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeoutsRow {
    /// TCP before the handshake is complete.
    pub tcp_half_open: f64,
    /// Established TCP.
    pub tcp_established: f64,
    /// TCP after a FIN from either side.
    pub tcp_closing: f64,
    /// TCP after a reset or both FINs.
    pub tcp_reset: f64,
    /// UDP seen in one direction.
    pub udp_new: f64,
    /// UDP seen in both directions.
    pub udp_established: f64,
    /// A request head until it is complete.
    pub request_head: f64,
    /// The balancer's own handshake with a backend.
    pub connect: f64,
}

/// A configured service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfiguredService {
    /// Unique name.
    pub name: String,
    /// Id from the name or given.
    pub id: u32,
    /// The VIP.
    pub address: String,
    /// Port; 0 = any port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Forwarding mode.
    pub mode: String,
    /// `none`, `source-ip`, `http-cookie`, `quic-cid` or `payload`.
    pub affinity: String,
    /// The affinity with its details, in words.
    pub affinity_details: String,
    /// IPv4 prefix length of the session key, for `source-ip` as affinity or as fallback.
    pub prefix_v4: Option<u8>,
    /// IPv6 prefix length of the session key, for `source-ip` as affinity or as fallback.
    pub prefix_v6: Option<u8>,
    /// How its backends are checked, in words.
    #[schema(
        example = "tcp (every 400ms, 50ms, 2s, within 200ms, rise 2, fall 2, jitter 10, minimum-healthy 1, max-ejected 50)"
    )]
    pub health: String,
    /// Lifetime of a binding without traffic, in seconds.
    pub lifetime_seconds: u64,
    /// New bindings a second.
    pub binding_rate: u32,
    /// Address that sources are translated to.
    pub source: Option<String>,
    /// Largest MSS of SYN segments.
    pub mss: Option<u16>,
    /// Backends get a PROXY protocol header.
    pub proxy_protocol: bool,
    /// How the backend of a new session is chosen: `order`, `two-choices`, `least-connections` or `least-time`.
    pub method: String,
    /// How long a backend that was down takes to get its whole share again, in milliseconds; 0 = no time.
    pub slow_start_ms: u64,
    /// Age from which on connections are mirrored, in milliseconds; `null` = they are not.
    pub mirror_age_ms: Option<u64>,
    /// What keeps connections where they are: `tables` or `timestamps`.
    pub consistency: String,
    /// Pools of requests by their path.
    pub paths: Vec<ConfiguredPath>,
    /// Backends.
    pub backends: Vec<ConfiguredBackend>,
}

/// A configured pool of requests by their path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfiguredPath {
    /// What the path begins with.
    pub prefix: String,
    /// Name of the pool.
    pub name: String,
    /// Id from the name or given.
    pub id: u32,
    /// Backends.
    pub backends: Vec<ConfiguredBackend>,
}

/// A configured backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfiguredBackend {
    /// Name, unique in its service.
    pub name: String,
    /// Server number, hexadecimal.
    pub number: String,
    /// Its address.
    pub address: String,
    /// Destination port for `nat`; 0 = the packet's own.
    pub port: u16,
    /// Share of new sessions.
    pub weight: u32,
    /// Connections at a time beyond which it gets no new sessions; 0 = no limit.
    pub max_connections: u32,
    /// What the file says of it.
    pub admin: AdminState,
    /// `auto`, `untagged` or a VLAN id.
    pub vlan: String,
    /// What names it in cookies; its name when absent.
    pub route: Option<String>,
    /// Its id in QUIC connection ids, hexadecimal; made of the number when absent.
    pub server_id: Option<String>,
}

impl From<&Desired> for ConfigRow {
    fn from(desired: &Desired) -> Self {
        Self {
            node: NodeRow::from(&desired.node),
            services: desired.services.iter().map(ConfiguredService::from).collect(),
        }
    }
}

impl From<&NodeSpec> for NodeRow {
    fn from(node: &NodeSpec) -> Self {
        let t = &node.timeouts;
        Self {
            interfaces: node.interfaces.clone(),
            bindings: node.bindings,
            flows: node.flows,
            held: node.held,
            tunnel_source_v4: node.tunnel_v4.map(|ip| ip.to_string()),
            tunnel_source_v6: node.tunnel_v6.map(|ip| ip.to_string()),
            gue_port: node.gue_port,
            timeouts: TimeoutsRow {
                tcp_half_open: t.tcp_half_open.as_secs_f64(),
                tcp_established: t.tcp_established.as_secs_f64(),
                tcp_closing: t.tcp_closing.as_secs_f64(),
                tcp_reset: t.tcp_reset.as_secs_f64(),
                udp_new: t.udp_new.as_secs_f64(),
                udp_established: t.udp_established.as_secs_f64(),
                request_head: t.request_head.as_secs_f64(),
                connect: t.connect.as_secs_f64(),
            },
            answer_rate: node.limits.answer_rate,
            prefix_quota: node.limits.prefix_quota,
            prefix_window_seconds: node.limits.prefix_window.as_secs(),
            drain_rate: node.limits.drain_rate,
        }
    }
}

impl From<&ServiceSpec> for ConfiguredService {
    fn from(spec: &ServiceSpec) -> Self {
        let prefixes = match spec.affinity.fallback() {
            Fallback::None => None,
            Fallback::SourceIp { v4, v6 } => Some((v4, v6)),
        };
        Self {
            name: spec.name.clone(),
            id: spec.id,
            address: spec.address.to_string(),
            port: spec.port,
            protocol: protocol_name(spec.protocol).to_owned(),
            mode: mode_name(spec.mode).to_owned(),
            affinity: spec.affinity.kind().to_owned(),
            affinity_details: affinity_words(&spec.affinity),
            prefix_v4: prefixes.map(|(v4, _)| v4),
            prefix_v6: prefixes.map(|(_, v6)| v6),
            lifetime_seconds: spec.lifetime.as_secs(),
            binding_rate: spec.binding_rate,
            source: spec.source.map(|ip| ip.to_string()),
            mss: spec.mss,
            health: health_words(spec.health.as_deref()),
            proxy_protocol: spec.proxy_protocol,
            method: method_word(spec.method).to_owned(),
            slow_start_ms: u64::try_from(spec.slow_start.as_millis()).unwrap_or(u64::MAX),
            consistency: consistency_word(spec.consistency).to_owned(),
            mirror_age_ms: spec.mirror.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            paths: spec.paths.iter().map(ConfiguredPath::from).collect(),
            backends: spec.backends.iter().map(ConfiguredBackend::from).collect(),
        }
    }
}

impl From<&PathSpec> for ConfiguredPath {
    fn from(spec: &PathSpec) -> Self {
        Self {
            prefix: spec.prefix.clone(),
            name: spec.name.clone(),
            id: spec.id,
            backends: spec.backends.iter().map(ConfiguredBackend::from).collect(),
        }
    }
}

impl From<&BackendSpec> for ConfiguredBackend {
    fn from(spec: &BackendSpec) -> Self {
        Self {
            name: spec.name.clone(),
            number: format!("{:#018x}", spec.number),
            address: spec.address.to_string(),
            port: spec.port,
            weight: spec.weight,
            max_connections: spec.limit,
            admin: spec.admin.into(),
            vlan: match spec.vlan {
                Vlan::Auto => "auto".to_owned(),
                Vlan::Untagged => "untagged".to_owned(),
                Vlan::Tagged(id) => id.to_string(),
            },
            route: spec.route.clone(),
            server_id: spec
                .server_id
                .as_ref()
                .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}
