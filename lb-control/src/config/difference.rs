//! What changes between two desired states, in words and for programs.

mod health;

pub(crate) use health::health_words;

use super::value::spell;
use super::{BlockSpec, ClusterSpec, DaemonSpec, PlaneSpec};
use crate::dataplane::p4::{Route, SwitchSpec};
use core::fmt;
use core::time::Duration;
use lb_common::abi::{Method, Mode, OnMismatch, Reading};
use lb_core::pool::{
    Admin, AffinitySpec, BackendSpec, Consistency, CookieSpec, Desired, Fallback, NodeSpec, PathSpec,
    PayloadSpec, Protocol, QuicSpec, ServiceSpec, Vlan,
};
use serde::Serialize;
use std::collections::HashMap;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Difference {
    /// Something that holds for the whole node.
    NodeChanged(Change),
    /// A new service.
    ServiceAdded {
        /// Its name.
        service: String,
        /// Its address, port and protocol.
        front: String,
        /// Its mode.
        mode: &'static str,
        /// How many backends it has.
        backends: usize,
    },
    /// A service that goes.
    ServiceRemoved {
        /// Its name.
        service: String,
        /// Its address, port and protocol.
        front: String,
    },
    /// A service that stays.
    ServiceChanged {
        /// Its name.
        service: String,
        /// What changes.
        #[serde(flatten)]
        change: Change,
    },
    /// A new backend.
    BackendAdded {
        /// Name of its service.
        service: String,
        /// Its name.
        backend: String,
        /// Its address.
        address: String,
        /// Its weight.
        weight: u32,
    },
    /// A backend that goes.
    BackendRemoved {
        /// Name of its service.
        service: String,
        /// Its name.
        backend: String,
    },
    /// A backend that stays.
    BackendChanged {
        /// Name of its service.
        service: String,
        /// Its name.
        backend: String,
        /// What changes.
        #[serde(flatten)]
        change: Change,
    },
}

/// A key with another value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// The key as the file has it.
    pub field: &'static str,
    /// The value before; secrets are not shown.
    pub from: String,
    /// The value after.
    pub to: String,
    /// What it means for traffic.
    pub effect: Effect,
}

/// What a change means for traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing is interrupted.
    Live,
    /// Tables are copied to others of the new size while traffic runs.
    MigratesTables,
    /// The program is attached to, or detached from, interfaces.
    Reattaches,
    /// Sessions are bound anew, maybe to other backends.
    RebindsSessions,
    /// Open connections end.
    EndsConnections,
    /// It holds after `lbd` was restarted.
    NeedsRestart,
}

/// What changes from `old` to `new`, the node first, then services in the order of `new`, then those that go.
pub fn difference(old: &Desired, new: &Desired) -> Vec<Difference> {
    let mut differences: Vec<_> =
        node(&old.node, &new.node).into_iter().map(Difference::NodeChanged).collect();
    let before: HashMap<_, _> = old.services.iter().map(|s| (s.name.as_str(), s)).collect();
    let after: HashMap<_, _> = new.services.iter().map(|s| (s.name.as_str(), s)).collect();
    for service in &new.services {
        match before.get(service.name.as_str()) {
            Some(old) => compare_service(old, service, &mut differences),
            None => differences.push(Difference::ServiceAdded {
                service: service.name.clone(),
                front: front(service),
                mode: mode(service.mode),
                backends: service.backends.len(),
            }),
        }
    }
    for service in old.services.iter().filter(|service| !after.contains_key(service.name.as_str())) {
        differences.push(Difference::ServiceRemoved { service: service.name.clone(), front: front(service) });
    }
    differences
}

/// What changes for the daemon itself.
pub(super) fn daemon(old: &DaemonSpec, new: &DaemonSpec) -> Vec<Difference> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "(none)".to_owned());
    let mut changes = Changes::default();
    let restart = Effect::NeedsRestart;
    changes.add("name", text(&old.name), text(&new.name), restart);
    changes.add("state-dir", old.state_dir.display(), new.state_dir.display(), restart);
    changes.add("socket", old.admin_socket.display(), new.admin_socket.display(), restart);
    changes.add("group", text(&old.admin_group), text(&new.admin_group), restart);
    changes.add("metrics", option(old.metrics), option(new.metrics), restart);
    // Paths of webhooks are often secrets.
    let webhook = |spec: &DaemonSpec| match &spec.webhook {
        Some(webhook) => format!("{}:{}", webhook.host, webhook.port),
        None => "(none)".to_owned(),
    };
    if old.webhook.is_some() && webhook(old) == webhook(new) && old.webhook != new.webhook {
        changes.add("events.webhook", webhook(old), format!("{}, otherwise", webhook(new)), restart);
    } else {
        changes.add("events.webhook", webhook(old), webhook(new), restart);
    }
    changes.add("dataplane", plane(&old.plane), plane(&new.plane), restart);
    let (old, new) = (&old.cluster, &new.cluster);
    changes.add("cluster.listen", old.listen, new.listen, restart);
    changes.add("cluster.advertise", old.advertise.join(", "), new.advertise.join(", "), restart);
    changes.add("cluster.name", text(&old.name), text(&new.name), restart);
    changes.add("cluster.discover", text(&old.discover), text(&new.discover), restart);
    let announce = |spec: &ClusterSpec| match &spec.announce {
        Some(announce) => format!("{} for {}", announce.interface, spell(announce.lifetime)),
        None => "(none)".to_owned(),
    };
    changes.add("cluster.announce", announce(old), announce(new), restart);
    let blocks = |spec: &ClusterSpec| {
        let block = |block: &BlockSpec| {
            let addresses: Vec<String> = block.addresses.iter().map(ToString::to_string).collect();
            format!("{}: {}", block.node, addresses.join(", "))
        };
        spec.blocks.iter().map(block).collect::<Vec<_>>().join("; ")
    };
    changes.add("cluster.block", blocks(old), blocks(new), restart);
    changes.0.into_iter().map(Difference::NodeChanged).collect()
}

fn plane(spec: &PlaneSpec) -> String {
    match spec {
        PlaneSpec::Xdp => "xdp".to_owned(),
        PlaneSpec::P4(switch) => {
            let SwitchSpec { address, device, election, ports, cpu_port, routes, offload } = &**switch;
            let ports: Vec<String> = ports.iter().map(|(name, number)| format!("{name}={number}")).collect();
            let routes: Vec<String> = routes
                .iter()
                .map(|Route { address, prefix, interface, mac }| {
                    format!("{address}/{prefix} by {interface} {mac:02x?}")
                })
                .collect();
            let (ports, routes, cpu) = (ports.join(", "), routes.join(", "), option(*cpu_port));
            let lane = if *offload { ", offload" } else { "" };
            format!(
                "p4 at {address}, device {device}, election {election}, ports {ports}, cpu port {cpu}, routes {routes}{lane}"
            )
        }
    }
}

fn node(old: &NodeSpec, new: &NodeSpec) -> Vec<Change> {
    let mut changes = Changes::default();
    let list = |interfaces: &[String]| format!("[{}]", interfaces.join(", "));
    changes.add("interfaces", list(&old.interfaces), list(&new.interfaces), Effect::Reattaches);
    changes.add("bindings", old.bindings, new.bindings, Effect::MigratesTables);
    changes.add("flows", old.flows, new.flows, Effect::MigratesTables);
    changes.add("held", old.held, new.held, Effect::MigratesTables);
    if old.session_secret != new.session_secret {
        // Sessions that are bound under the one are found under the other.
        let is_found = new.other_secret == Some(old.session_secret);
        let effect = if is_found { Effect::Live } else { Effect::RebindsSessions };
        changes.add("session-secret", "(secret)", "(another secret)", effect);
    }
    let mut secret = |field, is_other| {
        if is_other {
            changes.add(field, "(secret)", "(another secret)", Effect::Live);
        }
    };
    let syn_cookie = |node: &NodeSpec| (node.secrets.syn_cookie, node.secrets.syn_cookie_later.clone());
    secret("syn-cookie-secret", syn_cookie(old) != syn_cookie(new));
    secret("segment-key", old.secrets.segment != new.secrets.segment);
    let mut live = |field, old: String, new: String| changes.add(field, old, new, Effect::Live);
    live("tunnel-source-v4", option(old.tunnel_v4), option(new.tunnel_v4));
    live("tunnel-source-v6", option(old.tunnel_v6), option(new.tunnel_v6));
    live("gue-port", old.gue_port.to_string(), new.gue_port.to_string());
    let (a, b) = (&old.timeouts, &new.timeouts);
    live("timeouts.tcp-half-open", spell(a.tcp_half_open), spell(b.tcp_half_open));
    live("timeouts.tcp-established", spell(a.tcp_established), spell(b.tcp_established));
    live("timeouts.tcp-closing", spell(a.tcp_closing), spell(b.tcp_closing));
    live("timeouts.tcp-reset", spell(a.tcp_reset), spell(b.tcp_reset));
    live("timeouts.udp-new", spell(a.udp_new), spell(b.udp_new));
    live("timeouts.udp-established", spell(a.udp_established), spell(b.udp_established));
    live("timeouts.request-head", spell(a.request_head), spell(b.request_head));
    live("timeouts.connect", spell(a.connect), spell(b.connect));
    let (a, b) = (&old.limits, &new.limits);
    live("limits.answer-rate", a.answer_rate.to_string(), b.answer_rate.to_string());
    live("limits.prefix-quota", a.prefix_quota.to_string(), b.prefix_quota.to_string());
    live("limits.drain-rate", a.drain_rate.to_string(), b.drain_rate.to_string());
    live("limits.prefix-window", spell(a.prefix_window), spell(b.prefix_window));
    changes.0
}

fn compare_service(old: &ServiceSpec, new: &ServiceSpec, differences: &mut Vec<Difference>) {
    let mut changes = Changes::default();
    changes.add("id", old.id, new.id, Effect::RebindsSessions);
    changes.add("address", front(old), front(new), Effect::EndsConnections);
    changes.add("mode", mode(old.mode), mode(new.mode), Effect::EndsConnections);
    changes.add(
        "affinity",
        affinity_words(&old.affinity),
        affinity_words(&new.affinity),
        Effect::RebindsSessions,
    );
    let keys = |spec: &ServiceSpec| {
        let quic = spec.affinity.quic().map(|quic| &quic.configurations);
        quic.into_iter().flatten().map(|entry| (entry.rotation, entry.key)).collect::<Vec<_>>()
    };
    if affinity_words(&old.affinity) == affinity_words(&new.affinity) && keys(old) != keys(new) {
        changes.add("quic.key", "(secret)", "(another secret)", Effect::RebindsSessions);
    }
    changes.add("lifetime", spell(old.lifetime), spell(new.lifetime), Effect::Live);
    changes.add("binding-rate", old.binding_rate, new.binding_rate, Effect::Live);
    changes.add("source-nat", option(old.source), option(new.source), Effect::Live);
    changes.add("mss", option(old.mss), option(new.mss), Effect::Live);
    changes.add("proxy-protocol", old.proxy_protocol, new.proxy_protocol, Effect::Live);
    changes.add("method", method_word(old.method), method_word(new.method), Effect::Live);
    changes.add("slow-start", spell(old.slow_start), spell(new.slow_start), Effect::Live);
    changes.add(
        "consistency",
        consistency_word(old.consistency),
        consistency_word(new.consistency),
        Effect::EndsConnections,
    );
    changes.add("mirror", mirror_words(old.mirror), mirror_words(new.mirror), Effect::Live);
    changes.add(
        "health",
        health_words(old.health.as_deref()),
        health_words(new.health.as_deref()),
        Effect::Live,
    );
    changes.add("path", paths(&old.paths), paths(&new.paths), Effect::RebindsSessions);
    let service = &new.name;
    differences.extend(
        changes.0.into_iter().map(|change| Difference::ServiceChanged { service: service.clone(), change }),
    );
    for path in &new.paths {
        if let Some(old) = old.paths.iter().find(|old| old.prefix == path.prefix && old.name == path.name) {
            compare_backends(&path.name, &old.backends, &path.backends, differences);
        }
    }
    compare_backends(service, &old.backends, &new.backends, differences);
}

fn compare_backends(
    service: &str,
    old: &[BackendSpec],
    new: &[BackendSpec],
    differences: &mut Vec<Difference>,
) {
    let before: HashMap<_, _> = old.iter().map(|b| (b.name.as_str(), b)).collect();
    let after: HashMap<_, _> = new.iter().map(|b| (b.name.as_str(), b)).collect();
    for backend in new {
        match before.get(backend.name.as_str()) {
            Some(old) => {
                differences.extend(compare_backend(old, backend).into_iter().map(|change| {
                    Difference::BackendChanged {
                        service: service.to_owned(),
                        backend: backend.name.clone(),
                        change,
                    }
                }));
            }
            None => differences.push(Difference::BackendAdded {
                service: service.to_owned(),
                backend: backend.name.clone(),
                address: endpoint(backend),
                weight: backend.weight,
            }),
        }
    }
    for backend in old.iter().filter(|backend| !after.contains_key(backend.name.as_str())) {
        differences
            .push(Difference::BackendRemoved { service: service.to_owned(), backend: backend.name.clone() });
    }
}

fn compare_backend(old: &BackendSpec, new: &BackendSpec) -> Vec<Change> {
    let mut changes = Changes::default();
    changes.add("number", old.number, new.number, Effect::RebindsSessions);
    changes.add("address", endpoint(old), endpoint(new), Effect::EndsConnections);
    changes.add("weight", old.weight, new.weight, Effect::Live);
    let limit = |spec: &BackendSpec| option(Some(spec.limit).filter(|&limit| limit > 0));
    changes.add("max-connections", limit(old), limit(new), Effect::Live);
    let state = match new.admin {
        Admin::Enabled | Admin::Draining => Effect::Live,
        Admin::Disabled => Effect::RebindsSessions,
    };
    changes.add("state", admin(old.admin), admin(new.admin), state);
    changes.add("vlan", vlan(old.vlan), vlan(new.vlan), Effect::Live);
    changes.add("route", option(old.route.as_ref()), option(new.route.as_ref()), Effect::RebindsSessions);
    let id = |spec: &BackendSpec| option(spec.server_id.as_deref().map(hex));
    changes.add("server-id", id(old), id(new), Effect::RebindsSessions);
    changes.0
}

/// How new sessions are given to backends, as the file says it.
pub(crate) const fn method_word(method: Method) -> &'static str {
    match method {
        Method::Order => "order",
        Method::TwoChoices => "two-choices",
        Method::LeastConnections => "least-connections",
        Method::LeastTime => "least-time",
    }
}

/// What keeps connections where they are, as the configuration calls it.
pub(crate) const fn consistency_word(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Tables => "tables",
        Consistency::Timestamps => "timestamps",
    }
}

fn mirror_words(age: Option<Duration>) -> String {
    age.map_or_else(|| "false".to_owned(), |age| format!("from {} on", spell(age)))
}

/// Keys whose value changed.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    /// Adds a key if its value changed.
    fn add(&mut self, field: &'static str, from: impl fmt::Display, to: impl fmt::Display, effect: Effect) {
        let (from, to) = (from.to_string(), to.to_string());
        if from != to {
            self.0.push(Change { field, from, to, effect });
        }
    }
}

fn option(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "(none)".to_owned(), |value| value.to_string())
}

/// `10.0.0.1:80/tcp`, `[fd99::1]:any/udp`.
fn front(service: &ServiceSpec) -> String {
    let protocol = match service.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match service.port {
        0 if service.address.is_ipv6() => format!("[{}]:any/{protocol}", service.address),
        0 => format!("{}:any/{protocol}", service.address),
        port => format!("{}/{protocol}", core::net::SocketAddr::new(service.address, port)),
    }
}

fn endpoint(backend: &BackendSpec) -> String {
    match backend.port {
        0 => backend.address.to_string(),
        port => core::net::SocketAddr::new(backend.address, port).to_string(),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat => "nat",
        Mode::L2 => "l2",
        Mode::Ipip => "ipip",
        Mode::Gue => "gue",
    }
}

/// An affinity with its details, in words; keys are not shown.
pub(crate) fn affinity_words(affinity: &AffinitySpec) -> String {
    let fallback = |fallback: &Fallback| match fallback {
        Fallback::None => String::new(),
        Fallback::SourceIp { v4, v6 } => format!(", fallback source-ip (prefix-v4 {v4}, prefix-v6 {v6})"),
    };
    match affinity {
        AffinitySpec::None => "none".to_owned(),
        AffinitySpec::SourceIp { v4, v6 } => format!("source-ip (prefix-v4 {v4}, prefix-v6 {v6})"),
        AffinitySpec::HttpCookie(cookie) => {
            let CookieSpec { name, reading, part, learn, on_mismatch, head_limit, .. } = cookie;
            let part = part.map_or_else(String::new, |(delimiter, index)| {
                format!(", part {} by `{}`", u16::from(index) + 1, char::from(delimiter))
            });
            let learn = if *learn { ", learnt" } else { "" };
            let reset = match on_mismatch {
                OnMismatch::Count => "",
                OnMismatch::Reset => ", reset on mismatch",
            };
            let fallback = fallback(&cookie.fallback);
            let read = reading_word(*reading);
            format!("http-cookie {name} ({read}{part}{learn}{reset}, heads up to {head_limit}{fallback})")
        }
        AffinitySpec::QuicCid(QuicSpec { configurations, fallback: other }) => {
            let entries = configurations.iter().map(|entry| {
                let form = if entry.key.is_some() { " encrypted" } else { "" };
                format!("{}: {}+{}{form}", entry.rotation, entry.layout.server(), entry.layout.nonce())
            });
            format!("quic-cid ({}{})", entries.collect::<Vec<_>>().join(", "), fallback(other))
        }
        AffinitySpec::Payload(PayloadSpec { offset, mask, fallback: other }) => {
            format!("payload (offset {offset}, mask {}{})", hex(mask), fallback(other))
        }
    }
}

/// A reading's word in the configuration.
const fn reading_word(reading: Reading) -> &'static str {
    match reading {
        Reading::Bind => "bind",
        Reading::Route => "route",
        Reading::Pair => "pair",
        Reading::SealedRoute => "sealed-route",
    }
}

fn paths(paths: &[PathSpec]) -> String {
    let list: Vec<_> = paths.iter().map(|path| format!("{} -> {}", path.prefix, path.name)).collect();
    if list.is_empty() { "(none)".to_owned() } else { list.join(", ") }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn admin(admin: Admin) -> &'static str {
    match admin {
        Admin::Enabled => "enabled",
        Admin::Draining => "draining",
        Admin::Disabled => "disabled",
    }
}

fn vlan(vlan: Vlan) -> String {
    match vlan {
        Vlan::Auto => "auto".to_owned(),
        Vlan::Untagged => "none".to_owned(),
        Vlan::Tagged(tag) => tag.to_string(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeChanged(change) => write!(f, "~ node: {change}"),
            Self::ServiceAdded { service, front, mode, backends } => {
                let s = if *backends == 1 { "" } else { "s" };
                write!(f, "+ service `{service}`: {front}, {mode}, {backends} backend{s}")
            }
            Self::ServiceRemoved { service, front } => write!(f, "- service `{service}`: {front}"),
            Self::ServiceChanged { service, change } => write!(f, "~ service `{service}`: {change}"),
            Self::BackendAdded { service, backend, address, weight } => {
                write!(f, "+ service `{service}`, backend `{backend}`: {address}, weight {weight}")
            }
            Self::BackendRemoved { service, backend } => {
                write!(f, "- service `{service}`, backend `{backend}`: its sessions move to others")
            }
            Self::BackendChanged { service, backend, change } => {
                write!(f, "~ service `{service}`, backend `{backend}`: {change}")
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.field, self.from, self.to)?;
        let effect = match self.effect {
            Effect::Live => return Ok(()),
            Effect::MigratesTables => "tables are migrated while traffic runs",
            Effect::Reattaches => "interfaces are attached and detached",
            Effect::RebindsSessions => "sessions are bound anew, maybe to other backends",
            Effect::EndsConnections => "open connections end",
            Effect::NeedsRestart => "holds after a restart of lbd",
        };
        write!(f, " ({effect})")
    }
}
