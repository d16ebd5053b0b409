//! The shape of the configuration file; the JSON schema is made from these types.

use super::defaults;
use super::field::Field;
use super::value::{
    AbsolutePath, Address, AddressV4, AddressV6, AffinityChoice, Endpoint, Group, HealthChoice, Interface,
    Lifetime, Listen, MacText, Name, Number, PathPrefix, PlaneWord, PortChoice, Prefix, RouteText, Secret,
    ServerIdText, VlanChoice, WebUrl, spell,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Smallest binding or flow table.
pub(super) const TABLE_MIN: u64 = 1_024;
/// Largest binding or flow table.
pub(super) const TABLE_MAX: u64 = 67_108_864;

/// A port number.
type Port = Number<1, 65_535>;
/// A table size.
type TableSize = Number<TABLE_MIN, TABLE_MAX>;

/// Configuration of Stickleback's `lbd`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "Stickleback configuration")]
pub(super) struct File {
    /// What holds for the whole node.
    pub(super) node: Field<Node>,
    /// The admin API and metrics.
    pub(super) admin: Field<Admin>,
    /// Nodes that act as one; nothing of it is needed on a single node.
    pub(super) cluster: Field<Cluster>,
    /// Who is told what happens to backends.
    pub(super) events: Field<Events>,
    /// What forwards packets: this host's kernel, or a switch.
    pub(super) dataplane: Field<DataPlane>,
    /// Lists of backends that services share.
    pub(super) pool: Field<Vec<Field<Pool>>>,
    /// Services: an address, port and protocol with backends.
    pub(super) service: Field<Vec<Field<Service>>>,
}

/// What holds for the whole node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [node]")]
#[schemars(inline)]
pub(super) struct Node {
    /// Name of this node; the host's name when absent.
    pub(super) name: Field<Name>,
    /// Interfaces that packets for services come in on; `lbd --iface` overrides it.
    #[schemars(extend("default" = Vec::<&str>::new()))]
    pub(super) interfaces: Field<Vec<Field<Interface>>>,
    /// Directory for what must survive a restart.
    #[schemars(extend("default" = defaults::STATE_DIR))]
    pub(super) state_dir: Field<AbsolutePath>,
    /// Session bindings that the table holds; a change migrates the table.
    #[schemars(extend("default" = defaults::BINDINGS))]
    pub(super) bindings: Field<TableSize>,
    /// NAT connections that the table holds; a change migrates the table.
    #[schemars(extend("default" = defaults::FLOWS))]
    pub(super) flows: Field<TableSize>,
    /// Holds: requests that wait, at any time, for the rest of their head or for a backend; 10 KB of memory each.
    #[schemars(extend("default" = defaults::HELD))]
    pub(super) held: Field<Number<1, 100_000>>,
    /// Key of the session-key hash, 16 bytes in hexadecimal, the same on every node of a cluster; made and kept
    /// in the state directory when neither this nor `session-secret-file` is given.
    pub(super) session_secret: Field<Secret>,
    /// File that holds the session secret in hexadecimal.
    pub(super) session_secret_file: Field<AbsolutePath>,
    /// What the keys of SYN cookies are made of, 16 bytes in hexadecimal, the same on every node of a cluster; made
    /// and kept in the state directory when neither this nor `syn-cookie-secret-file` is given.
    pub(super) syn_cookie_secret: Field<Secret>,
    /// File that holds it in hexadecimal.
    pub(super) syn_cookie_secret_file: Field<AbsolutePath>,
    /// Keys of sealed cookie segments: the one in use, and one that is still (or already) accepted; one is made and
    /// kept in the state directory when there is none.
    pub(super) segment_key: Field<Vec<Field<SegmentKey>>>,
    /// Source of tunnel packets to IPv4 backends; the route's preferred source when absent.
    pub(super) tunnel_source_v4: Field<AddressV4>,
    /// Source of tunnel packets to IPv6 backends; the route's preferred source when absent.
    pub(super) tunnel_source_v6: Field<AddressV6>,
    /// UDP destination port of GUE packets.
    #[schemars(extend("default" = defaults::GUE_PORT))]
    pub(super) gue_port: Field<Port>,
    /// Lifetimes of NAT connections without traffic.
    pub(super) timeouts: Field<Timeouts>,
    /// Rates and quotas.
    pub(super) limits: Field<Limits>,
}

/// Lifetimes of NAT connections without traffic.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [node.timeouts]")]
#[schemars(inline)]
pub(super) struct Timeouts {
    /// TCP before the handshake is complete.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.tcp_half_open)))]
    pub(super) tcp_half_open: Field<Lifetime>,
    /// Established TCP.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.tcp_established)))]
    pub(super) tcp_established: Field<Lifetime>,
    /// TCP after a FIN from either side.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.tcp_closing)))]
    pub(super) tcp_closing: Field<Lifetime>,
    /// TCP after a reset or both FINs.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.tcp_reset)))]
    pub(super) tcp_reset: Field<Lifetime>,
    /// UDP seen in one direction.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.udp_new)))]
    pub(super) udp_new: Field<Lifetime>,
    /// UDP seen in both directions.
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.udp_established)))]
    pub(super) udp_established: Field<Lifetime>,
    /// How long a request head may take to be complete (`http-cookie`, and `payload` over TCP).
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.request_head)))]
    pub(super) request_head: Field<Lifetime>,
    /// How long a backend may take to answer the balancer's SYN (the same services).
    #[schemars(extend("default" = spell(defaults::TIMEOUTS.connect)))]
    pub(super) connect: Field<Lifetime>,
}

/// A key of sealed cookie segments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [[node.segment-key]]")]
#[schemars(extend("required" = ["id"]))]
pub(super) struct SegmentKey {
    /// Number that stands in what is sealed with it.
    pub(super) id: Field<Number<0, 127>>,
    /// The key, 16 bytes in hexadecimal.
    pub(super) key: Field<Secret>,
    /// File that holds it in hexadecimal.
    pub(super) key_file: Field<AbsolutePath>,
}

/// Rates and quotas of the whole node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [node.limits]")]
#[schemars(inline)]
pub(super) struct Limits {
    /// ICMP answers and TCP resets that the node sends a second.
    #[schemars(extend("default" = defaults::ANSWER_RATE))]
    pub(super) answer_rate: Field<Number<0, 10_000_000>>,
    /// New bindings that one source prefix (IPv4 /24, IPv6 /48) may make in a service per window; 0 = no limit.
    #[schemars(extend("default" = defaults::PREFIX_QUOTA))]
    pub(super) prefix_quota: Field<Number<0, 1_000_000_000>>,
    /// Length of that window in whole seconds.
    #[schemars(extend("default" = spell(defaults::PREFIX_WINDOW)))]
    pub(super) prefix_window: Field<Lifetime>,
    /// Sessions that are moved a second from backends whose time to drain is over, and by `lbctl failback`.
    #[schemars(extend("default" = defaults::DRAIN_RATE))]
    pub(super) drain_rate: Field<Number<1, 1_000_000_000>>,
}

/// The admin API and metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [admin]")]
#[schemars(inline)]
pub(super) struct Admin {
    /// Unix socket of the admin API.
    #[schemars(extend("default" = defaults::ADMIN_SOCKET))]
    pub(super) socket: Field<AbsolutePath>,
    /// Group that may use the socket; only `lbd`'s own user and root when absent.
    pub(super) group: Field<Group>,
    /// Address and port where Prometheus metrics are served; not served there when absent.
    pub(super) metrics: Field<Listen>,
}

/// Nodes that act as one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [cluster]")]
#[schemars(inline)]
pub(super) struct Cluster {
    /// UDP address and port where the other nodes reach this one; used once the node is in a cluster.
    #[schemars(extend("default" = defaults::CLUSTER_LISTEN))]
    pub(super) listen: Field<Listen>,
    /// Where the other nodes call this one: hosts with ports. The address of the route to the cluster, or all of this
    /// machine's, when absent.
    pub(super) advertise: Field<Vec<Field<Endpoint>>>,
    /// Name of this node in lists; that of [node] when absent.
    pub(super) name: Field<Name>,
    /// DNS name and port that stand for all nodes; asked when a member does not answer where the member list says.
    pub(super) discover: Field<Endpoint>,
    /// Announcing of service addresses to a routing daemon.
    pub(super) announce: Field<Announce>,
    /// Source addresses of each node, the same list on all of them; those of a dead node are announced by another one.
    pub(super) block: Field<Vec<Field<Block>>>,
}

/// A node's source addresses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: { node, addresses }")]
#[schemars(inline, extend("required" = ["node", "addresses"]))]
pub(super) struct Block {
    /// Name of the node in the member list.
    pub(super) node: Field<Name>,
    /// Addresses that it translates connections to, and nobody else.
    pub(super) addresses: Field<Vec<Field<Address>>>,
}

/// Announcing of service addresses to a routing daemon.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [cluster.announce]")]
#[schemars(inline, extend("required" = ["interface"]))]
pub(super) struct Announce {
    /// Interface that gets the addresses of services which can serve, while the node is ready.
    pub(super) interface: Field<Interface>,
    /// How long they stay there when `lbd` dies.
    #[schemars(extend("default" = spell(defaults::ANNOUNCE_LIFETIME)))]
    pub(super) lifetime: Field<Lifetime>,
}

/// What forwards packets: this host's kernel, or a switch.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [dataplane]")]
#[schemars(inline)]
pub(super) struct DataPlane {
    /// `xdp`: the kernel of this host; `p4`: a switch that speaks P4Runtime.
    #[schemars(extend("default" = "xdp"))]
    pub(super) kind: Field<PlaneWord>,
    /// `p4`: host and port of the switch's P4Runtime server.
    #[schemars(extend("default" = defaults::SWITCH_ADDRESS))]
    pub(super) address: Field<Endpoint>,
    /// `p4`: device id of the switch.
    #[schemars(extend("default" = 0))]
    pub(super) device_id: Field<Number<0, { u32::MAX as u64 }>>,
    /// `p4`: of several `lbd`s the one with the highest number is master of the switch.
    #[schemars(extend("default" = 1))]
    pub(super) election_id: Field<Number<1, { u32::MAX as u64 }>>,
    /// `p4`: port of the switch that packets of no service leave by; they are dropped when absent.
    pub(super) cpu_port: Field<Number<0, 510>>,
    /// `p4`: which interface of this host stands for which port.
    #[schemars(extend("default" = Vec::<&str>::new()))]
    pub(super) ports: Field<Vec<Field<SwitchPort>>>,
    /// `p4`: ways to clients, which replies go that come through the switch, and to backends of connections that it goes on with by itself.
    #[schemars(extend("default" = Vec::<&str>::new()))]
    pub(super) routes: Field<Vec<Field<SwitchRoute>>>,
    /// `p4`: the switch goes on by itself with long connections that the nodes behind it mirror.
    #[schemars(extend("default" = false))]
    pub(super) offload: Field<bool>,
}

/// A port of a switch.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: { interface, number }"
)]
#[schemars(inline, extend("required" = ["interface", "number"]))]
pub(super) struct SwitchPort {
    /// The interface that stands for it: neighbours are looked up there.
    pub(super) interface: Field<Interface>,
    /// Its number.
    pub(super) number: Field<Number<0, 510>>,
}

/// A way to clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: { to, interface, mac }"
)]
#[schemars(inline, extend("required" = ["to", "interface", "mac"]))]
pub(super) struct SwitchRoute {
    /// The clients' addresses.
    pub(super) to: Field<Prefix>,
    /// The interface that stands for the port.
    pub(super) interface: Field<Interface>,
    /// MAC of the router there, or of the client itself.
    pub(super) mac: Field<MacText>,
}

/// Who is told what happens to backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [events]")]
#[schemars(inline)]
pub(super) struct Events {
    /// A web server that is sent each backend's going down and coming back.
    pub(super) webhook: Field<Webhook>,
}

/// A web server that is sent each backend's going down and coming back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [events.webhook]")]
#[schemars(inline, extend("required" = ["url"]))]
pub(super) struct Webhook {
    /// Where events are posted.
    pub(super) url: Field<WebUrl>,
    /// File with the authorities that count for `https`, as PEM; those of the system when absent.
    pub(super) authorities: Field<AbsolutePath>,
}

/// A list of backends that services share.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [[pool]]")]
#[schemars(extend("required" = ["name"]))]
pub(super) struct Pool {
    /// Name that services refer to.
    pub(super) name: Field<Name>,
    /// The backends.
    pub(super) backend: Field<Vec<Field<Backend>>>,
}

/// An address, port and protocol with backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [[service]]")]
#[schemars(extend("required" = ["name", "address", "port", "mode"]))]
pub(super) struct Service {
    /// Unique name; session bindings belong to it.
    pub(super) name: Field<Name>,
    /// Number that bindings are kept under; made from the name when absent.
    pub(super) id: Field<Number<1, { u32::MAX as u64 }>>,
    /// The virtual address that clients connect to.
    pub(super) address: Field<Address>,
    /// The port that clients connect to, or "any".
    pub(super) port: Field<PortChoice>,
    /// Transport protocol.
    #[schemars(extend("default" = "tcp"))]
    pub(super) protocol: Field<Protocol>,
    /// How packets get to backends.
    pub(super) mode: Field<Mode>,
    /// What makes a session.
    #[schemars(extend("default" = "source-ip"))]
    pub(super) affinity: Field<AffinityChoice>,
    /// How the backend of a new session is chosen (others than "order": `nat` only).
    #[schemars(extend("default" = "order"))]
    pub(super) method: Field<Method>,
    /// How long a backend that was down takes to get its whole share of new sessions again; no time when absent.
    pub(super) slow_start: Field<Lifetime>,
    /// Whether other nodes of the cluster hold copies of connections, so that these outlive their node (TCP and `nat` only).
    #[schemars(extend("default" = false))]
    pub(super) mirror: Field<bool>,
    /// How old a connection is before it is mirrored.
    #[schemars(extend("default" = spell(defaults::MIRROR_AGE)))]
    pub(super) mirror_age: Field<Lifetime>,
    /// What keeps connections where they are when a switch knows nothing of their sessions (others than "tables": a switch, TCP and `nat` only).
    #[schemars(extend("default" = "tables"))]
    pub(super) consistency: Field<Consistency>,
    /// How backends are checked; TCP services: by a connection to their port, others: not at all, when absent.
    pub(super) health: Field<HealthChoice>,
    /// Lifetime of a binding without traffic.
    #[schemars(extend("default" = spell(defaults::LIFETIME)))]
    pub(super) lifetime: Field<Lifetime>,
    /// New bindings a second; beyond it packets go where the hash says, unbound.
    #[schemars(extend("default" = defaults::BINDING_RATE))]
    pub(super) binding_rate: Field<Number<1, 1_000_000_000>>,
    /// Source address towards backends that do not route back through the balancer (`nat` only).
    pub(super) source_nat: Field<Address>,
    /// Largest TCP segment that either side may announce; larger ones are lowered to it.
    pub(super) mss: Field<Number<536, 65_495>>,
    /// Whether backends get a PROXY protocol header (version 2) in front of the first request, with the client's
    /// address (`http-cookie`, or `payload` over TCP, with `source-nat`).
    #[schemars(extend("default" = false))]
    pub(super) proxy_protocol: Field<bool>,
    /// Configurations of connection ids (`quic-cid`).
    pub(super) quic: Field<Vec<Field<Quic>>>,
    /// Pools for requests by the beginning of their path (`http-cookie`).
    pub(super) path: Field<Vec<Field<Path>>>,
    /// Name of the pool that has the backends, instead of backends of its own.
    pub(super) pool: Field<Name>,
    /// Backends of its own.
    pub(super) backend: Field<Vec<Field<Backend>>>,
}

/// How servers are named in QUIC connection ids.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [[service.quic]]")]
#[schemars(extend("required" = ["rotation", "server-id-length", "nonce-length"]))]
pub(super) struct Quic {
    /// The three bits that name the configuration; 7 would mean unroutable.
    pub(super) rotation: Field<Number<0, 6>>,
    /// Bytes of the server id.
    pub(super) server_id_length: Field<Number<1, 15>>,
    /// Bytes of the nonce; at most 19 together with the server id.
    pub(super) nonce_length: Field<Number<4, 18>>,
    /// AES-128 key, 16 bytes in hexadecimal; without one connection ids are plaintext.
    pub(super) key: Field<Secret>,
    /// File that holds it in hexadecimal.
    pub(super) key_file: Field<AbsolutePath>,
}

/// A pool for requests whose path begins so.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields, expecting = "a table: [[service.path]]")]
#[schemars(extend("required" = ["prefix"]))]
pub(super) struct Path {
    /// What the path begins with; the longest prefix that fits counts.
    pub(super) prefix: Field<PathPrefix>,
    /// Name of the pool, under which its sessions and backends are shown; the service's name and the prefix when absent.
    pub(super) name: Field<Name>,
    /// Number that its bindings are kept under; made from the name when absent.
    pub(super) id: Field<Number<1, { u32::MAX as u64 }>>,
    /// Name of the pool that has the backends, instead of backends of its own.
    pub(super) pool: Field<Name>,
    /// Backends of its own.
    pub(super) backend: Field<Vec<Field<Backend>>>,
}

/// A server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: [[service.backend]], [[service.path.backend]] or [[pool.backend]]"
)]
#[schemars(extend("required" = ["name", "address"]))]
pub(super) struct Backend {
    /// Name, unique in its service or pool; sessions are bound to it.
    pub(super) name: Field<Name>,
    /// Server number; made from the name when absent.
    pub(super) number: Field<Number<1, { u64::MAX }>>,
    /// Its own address.
    pub(super) address: Field<Address>,
    /// Its port (`nat` only); the port that the client used when absent.
    pub(super) port: Field<Port>,
    /// Share of new sessions; 0 = none, bound ones go on.
    #[schemars(extend("default" = defaults::WEIGHT))]
    pub(super) weight: Field<Number<0, 1_000>>,
    /// Connections at a time beyond which it gets no new sessions (`nat` only); no limit when absent.
    pub(super) max_connections: Field<Number<1, { u32::MAX as u64 }>>,
    /// Whether it is used.
    #[schemars(extend("default" = "enabled"))]
    pub(super) state: Field<State>,
    /// VLAN tag of packets to it: "auto" (the route's), "none" or an id.
    #[schemars(extend("default" = "auto"))]
    pub(super) vlan: Field<VlanChoice>,
    /// Text that names it in cookies (`read = "route"` and `"sealed-route"`); its name when absent.
    pub(super) route: Field<RouteText>,
    /// Its id in QUIC connection ids, 1 to 15 bytes in hexadecimal; made from the server number when absent.
    pub(super) server_id: Field<ServerIdText>,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How packets get to backends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Mode {
    /// The destination is rewritten; replies come back through the balancer.
    Nat,
    /// Only the MAC changes; the backend has the service's address and answers the client directly.
    L2,
    /// IP in IP; the backend unwraps and answers the client directly.
    Ipip,
    /// Generic UDP encapsulation; the backend unwraps and answers the client directly.
    Gue,
}

/// How the backend of a new session is chosen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Method {
    /// The first of the session's order.
    Order,
    /// The one with fewer connections of the first two of the session's order.
    TwoChoices,
    /// The one with the fewest connections.
    LeastConnections,
    /// The one with the least product of connections and time to answer a SYN.
    LeastTime,
}

/// What keeps connections where they are.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Consistency {
    /// Bindings, the order, and flows where there are some.
    Tables,
    /// The number of the backend in TCP timestamps, too.
    Timestamps,
}

/// Whether a backend is used.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum State {
    /// In use.
    Enabled,
    /// No new sessions; bound ones stay.
    Draining,
    /// Neither new nor bound sessions.
    Disabled,
}
