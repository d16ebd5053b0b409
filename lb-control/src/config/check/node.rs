//! `[node]` and `[admin]`.

use super::{cluster, events, lifetime, plane, require_host, secrets};
use crate::config::document::Findings;
use crate::config::field::Owner;
use crate::config::file::{Admin, File, Limits, Node, Timeouts};
use crate::config::problem::Finding;
use crate::config::secret::Secrets;
use crate::config::{DaemonSpec, PlaneSpec, defaults, value::spell};
use core::time::Duration;
use lb_common::abi::MAX_DEVICES;
use lb_core::pool::{self, NodeSpec, secret::NodeSecrets};
use std::collections::HashSet;
use std::path::PathBuf;

/// Longest window of the prefix quota.
const WINDOW_MAX: Duration = Duration::from_secs(86_400);

/// Checks what holds for the whole node; the secrets stay zero.
pub(super) fn check(file: &File, findings: &Findings) -> (NodeSpec, DaemonSpec, Secrets) {
    let absent = Node::default();
    let (node, span) = file.node.located().unwrap_or((&absent, 0..0));
    let owner = Owner { span, object: "[node]", findings };
    let daemon = daemon(node, file, findings);
    let mut interfaces = interfaces(node, &owner);
    if let PlaneSpec::P4(switch) = &daemon.plane
        && interfaces.is_empty()
    {
        interfaces.extend(switch.ports.keys().cloned());
    }
    let spec = NodeSpec {
        interfaces,
        bindings: node.bindings.get().map_or(defaults::BINDINGS, |n| n.narrow()),
        flows: node.flows.get().map_or(defaults::FLOWS, |n| n.narrow()),
        held: node.held.get().map_or(defaults::HELD, |n| n.narrow()),
        session_secret: [0; 16],
        other_secret: None,
        secrets: NodeSecrets::default(),
        tunnel_v4: node.tunnel_source_v4.located().map(|(address, span)| {
            require_host(address.0.into(), &span, &owner);
            address.0
        }),
        tunnel_v6: node.tunnel_source_v6.located().map(|(address, span)| {
            require_host(address.0.into(), &span, &owner);
            address.0
        }),
        gue_port: node.gue_port.get().map_or(defaults::GUE_PORT, |n| n.narrow()),
        timeouts: timeouts(node, findings),
        limits: limits(node, findings),
    };
    (spec, daemon, secrets::check(node, &owner))
}

fn interfaces(node: &Node, owner: &Owner<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut interfaces = Vec::new();
    for (interface, span) in node.interfaces.get().into_iter().flatten().filter_map(|entry| entry.located()) {
        if seen.insert(&interface.0) {
            interfaces.push(interface.0.clone());
        } else {
            owner.report(Finding::error(span, format!("interface `{}` is there twice", interface.0)));
        }
    }
    if interfaces.len() > MAX_DEVICES as usize
        && let Some(span) = node.interfaces.span()
    {
        owner.report(
            Finding::error(span, format!("there are {} interfaces", interfaces.len()))
                .expected(format!("at most {MAX_DEVICES}")),
        );
    }
    interfaces
}

fn timeouts(node: &Node, findings: &Findings) -> pool::Timeouts {
    let absent = Timeouts::default();
    let (timeouts, span) = node.timeouts.located().unwrap_or((&absent, 0..0));
    let owner = Owner { span, object: "[node.timeouts]", findings };
    let default = defaults::TIMEOUTS;
    pool::Timeouts {
        tcp_half_open: lifetime("tcp-half-open", &timeouts.tcp_half_open, default.tcp_half_open, &owner),
        tcp_established: lifetime(
            "tcp-established",
            &timeouts.tcp_established,
            default.tcp_established,
            &owner,
        ),
        tcp_closing: lifetime("tcp-closing", &timeouts.tcp_closing, default.tcp_closing, &owner),
        tcp_reset: lifetime("tcp-reset", &timeouts.tcp_reset, default.tcp_reset, &owner),
        udp_new: lifetime("udp-new", &timeouts.udp_new, default.udp_new, &owner),
        udp_established: lifetime(
            "udp-established",
            &timeouts.udp_established,
            default.udp_established,
            &owner,
        ),
        request_head: lifetime("request-head", &timeouts.request_head, default.request_head, &owner),
        connect: lifetime("connect", &timeouts.connect, default.connect, &owner),
    }
}

fn limits(node: &Node, findings: &Findings) -> pool::Limits {
    let absent = Limits::default();
    let (limits, span) = node.limits.located().unwrap_or((&absent, 0..0));
    let owner = Owner { span, object: "[node.limits]", findings };
    let prefix_window = limits.prefix_window.located().map_or(defaults::PREFIX_WINDOW, |(window, span)| {
        let whole = window.0.subsec_nanos() == 0;
        if !whole || !(Duration::from_secs(1)..=WINDOW_MAX).contains(&window.0) {
            owner.report(
                Finding::error(span, format!("`prefix-window` cannot be {}", spell(window.0)))
                    .expected("whole seconds from 1s to 1d"),
            );
        }
        window.0
    });
    pool::Limits {
        answer_rate: limits.answer_rate.get().map_or(defaults::ANSWER_RATE, |n| n.narrow()),
        prefix_quota: limits.prefix_quota.get().map_or(defaults::PREFIX_QUOTA, |n| n.narrow()),
        prefix_window,
        drain_rate: limits.drain_rate.get().map_or(defaults::DRAIN_RATE, |n| n.narrow()),
    }
}

fn daemon(node: &Node, file: &File, findings: &Findings) -> DaemonSpec {
    let absent = Admin::default();
    let admin = file.admin.get().unwrap_or(&absent);
    DaemonSpec {
        name: node.name.get().map(|name| name.0.clone()),
        state_dir: node
            .state_dir
            .get()
            .map_or_else(|| PathBuf::from(defaults::STATE_DIR), |path| path.0.clone()),
        admin_socket: admin
            .socket
            .get()
            .map_or_else(|| PathBuf::from(defaults::ADMIN_SOCKET), |path| path.0.clone()),
        admin_group: admin.group.get().map(|group| group.0.clone()),
        metrics: admin.metrics.get().map(|listen| listen.0),
        cluster: cluster::check(file, findings),
        webhook: events::check(file, findings),
        plane: plane::check(file, findings),
    }
}
