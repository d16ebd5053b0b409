//! Health checks in words.

use super::hex;
use crate::config::value::spell;
use lb_core::health::{Body, Check, Failback, HealthSpec, HttpVersion, TlsSpec, Way};

/// Health checks with their details, in words.
pub(crate) fn health_words(health: Option<&HealthSpec>) -> String {
    let Some(health) = health else { return "none".to_owned() };
    let tls = |tls: &Option<TlsSpec>| match tls {
        None => String::new(),
        Some(TlsSpec { name, verify, authorities }) => {
            let name = name.as_ref().map_or_else(String::new, |name| format!(" as {name}"));
            let from =
                authorities.as_ref().map_or_else(String::new, |path| format!(" by {}", path.display()));
            format!(" over TLS{name}{from}{}", if *verify { "" } else { ", unverified" })
        }
    };
    let host = |host: &Option<String>| host.as_ref().map_or_else(String::new, |host| format!(" of {host}"));
    let check = match &health.check {
        Check::Tcp => "tcp".to_owned(),
        Check::Icmp => "icmp".to_owned(),
        Check::Http(http) => {
            let version = match http.version {
                HttpVersion::One => "http",
                HttpVersion::Two => "http/2",
            };
            let method = if http.head { "HEAD " } else { "" };
            let codes =
                http.status.iter().map(|(from, to)| format!("{from}-{to}")).collect::<Vec<_>>().join(",");
            let body = match &http.body {
                Body::Any => String::new(),
                Body::Contains(text) => format!(" with `{}`", String::from_utf8_lossy(text)),
            };
            format!("{version}{} {method}{}{}, {codes}{body}", tls(&http.tls), http.path, host(&http.host))
        }
        Check::Grpc { service, host: name, tls: secured } => {
            format!("grpc{} `{service}`{}", tls(secured), host(name))
        }
        Check::Udp { request, response } => format!("udp {} -> {}", hex(request), hex(response)),
        Check::Command { program, arguments } => format!("{} {}", program.display(), arguments.join(" ")),
    };
    let policy = &health.policy;
    let port = if health.port == 0 { String::new() } else { format!(" on port {}", health.port) };
    let way = match health.way {
        Way::Traffic => " the way of the traffic",
        Way::Direct => "",
    };
    let quorum = if health.quorum { ", by quorum" } else { "" };
    let failback = match health.failback {
        Failback::Never => String::new(),
        Failback::WhenIdle(idle) => format!(", back when idle for {}", spell(idle)),
    };
    format!(
        "{check}{port}{way} (every {}, {}, {}, within {}, rise {}, fall {}, jitter {}, minimum-healthy {}, max-ejected {}{quorum}{failback})",
        spell(policy.interval),
        spell(policy.fast),
        spell(policy.slow),
        spell(policy.timeout),
        policy.rise,
        policy.fall,
        policy.jitter,
        health.thresholds.minimum_healthy,
        health.thresholds.ejected,
    )
}
