//! How the backends of a service are checked, and whether that can work.

use crate::config::defaults;
use crate::config::field::{Field, Owner};
use crate::config::file::{Mode, Service};
use crate::config::problem::Finding;
use crate::config::value::{
    FailbackWord, HealthChoice, HealthKind, HealthTable, Lifetime, MethodWord, PortChoice, WayWord, spell,
};
use core::num::NonZero;
use core::ops::{Range, RangeInclusive};
use core::time::Duration;
use lb_core::health::{
    Body, Check, Failback, HealthSpec, HttpCheck, HttpVersion, Policy, Thresholds, TlsSpec, Way,
};
use lb_core::pool::Protocol;
use std::path::PathBuf;
use std::sync::Arc;

/// Pauses between probes.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
/// Time for an answer.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// How long a session is idle before it goes back.
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

/// Reads the health checks of a service; `None` = its backends are not checked.
///
/// Without the key, backends of TCP services are checked by a connection to their port, those of others are not.
pub(super) fn check(service: &Service, protocol: Protocol, owner: &Owner<'_>) -> Option<Arc<HealthSpec>> {
    let absent = HealthTable::default();
    let any_port = matches!(service.port.get(), Some(PortChoice::Any));
    let (kind, table, span) = match service.health.located() {
        // A file that could not be read has been reported.
        None if service.health.span().is_some() => return None,
        None => match protocol {
            Protocol::Tcp if !any_port => (HealthKind::Tcp, &absent, owner.span.clone()),
            Protocol::Tcp | Protocol::Udp => return None,
        },
        Some((HealthChoice::Kind(kind), span)) => (*kind, &absent, span),
        Some((HealthChoice::Table(table), span)) => {
            let owner = Owner { span: span.clone(), ..*owner };
            let (kind, _) = table.kind.required("kind", "\"tcp\"", &owner)?;
            (*kind, &**table, span)
        }
    };
    let owner = Owner { span: span.clone(), ..*owner };
    misplaced(kind, table, &owner);
    let check = match kind {
        HealthKind::None => return None,
        HealthKind::Tcp => Check::Tcp,
        HealthKind::Icmp => Check::Icmp,
        HealthKind::Http => Check::Http(http(table, &owner)),
        HealthKind::Grpc => Check::Grpc {
            service: table.service.get().map(|text| text.0.clone()).unwrap_or_default(),
            host: table.host.get().map(|host| host.0.clone()),
            tls: tls(table, &owner),
        },
        HealthKind::Udp => Check::Udp {
            request: table.request.required("request", "\"ping\"", &owner)?.0.0.clone(),
            response: table.response.get().map(|text| text.0.clone()).unwrap_or_default(),
        },
        HealthKind::Command => command(table, &owner)?,
    };
    if any_port && table.port.span().is_none() && !matches!(kind, HealthKind::Icmp | HealthKind::Command) {
        owner.report(
            Finding::error(span, "a service with `port = \"any\"` has no port to probe")
                .suggest("add a `port` to the health check, or check by \"icmp\""),
        );
    }
    let spec = HealthSpec {
        check,
        policy: policy(kind, table, &owner),
        thresholds: Thresholds {
            minimum_healthy: table.minimum_healthy.get().map_or(defaults::MINIMUM_HEALTHY, |n| n.narrow()),
            ejected: table.max_ejected.get().map_or(defaults::MAX_EJECTED, |n| n.narrow()),
        },
        port: table.port.get().map_or(0, |n| n.narrow()),
        way: way(kind, table, service),
        quorum: table.quorum.get().copied().unwrap_or_default(),
        failback: failback(table, service, &owner),
    };
    Some(Arc::new(spec))
}

/// Warns of a share of the pool that nothing can eject.
pub(super) fn check_ejected(service: &Service, is_spliced: bool, owner: &Owner<'_>) {
    let Some((HealthChoice::Table(table), _)) = service.health.located() else { return };
    let Some(span) = table.max_ejected.span().filter(|_| !is_spliced) else { return };
    owner.report(
        Finding::warning(
            span,
            "`max-ejected` changes nothing here: the balancer makes connections of its own, which could take a backend out, only \
             for `http-cookie` and for `payload` over TCP",
        )
        .suggest("remove it: here backends are out when probes fail"),
    );
}

/// Commands go where they like, and with `nat` the way of the traffic is that to the backend's own address.
fn way(kind: HealthKind, table: &HealthTable, service: &Service) -> Way {
    let is_nat = matches!(service.mode.get(), Some(Mode::Nat));
    match table.way.get() {
        Some(WayWord::Direct) => Way::Direct,
        Some(WayWord::Traffic) | None if is_nat || kind == HealthKind::Command => Way::Direct,
        Some(WayWord::Traffic) | None => Way::Traffic,
    }
}

fn policy(kind: HealthKind, table: &HealthTable, owner: &Owner<'_>) -> Policy {
    let usual = if kind == HealthKind::Command { defaults::HEALTH_COMMAND } else { defaults::HEALTH };
    let pause = |key, field: &Field<Lifetime>, default| within(key, field, default, &PAUSE, owner);
    let interval = pause("interval", &table.interval, usual.interval);
    let timeout = within("timeout", &table.timeout, usual.timeout, &TIMEOUT, owner);
    Policy {
        interval,
        fast: pause("fast-interval", &table.fast_interval, usual.fast.min(interval)),
        slow: pause("slow-interval", &table.slow_interval, usual.slow.max(interval)),
        timeout,
        rise: table.rise.get().and_then(|n| NonZero::new(n.narrow())).unwrap_or(usual.rise),
        fall: table.fall.get().and_then(|n| NonZero::new(n.narrow())).unwrap_or(usual.fall),
        jitter: table.jitter.get().map_or(usual.jitter, |n| n.narrow()),
    }
}

fn within(
    key: &str,
    field: &Field<Lifetime>,
    default: Duration,
    range: &RangeInclusive<Duration>,
    owner: &Owner<'_>,
) -> Duration {
    let Some((duration, span)) = field.located() else { return default };
    if !range.contains(&duration.0) {
        let (from, to) = (spell(*range.start()), spell(*range.end()));
        owner.report(
            Finding::error(span, format!("`{key}` cannot be {}", spell(duration.0)))
                .expected(format!("a duration from {from} to {to}")),
        );
    }
    duration.0
}

fn http(table: &HealthTable, owner: &Owner<'_>) -> HttpCheck {
    HttpCheck {
        version: match table.version.get().map(|n| n.0) {
            Some(2) => HttpVersion::Two,
            Some(_) | None => HttpVersion::One,
        },
        tls: tls(table, owner),
        host: table.host.get().map(|host| host.0.clone()),
        path: table.path.get().map_or_else(|| "/".to_owned(), |path| path.0.clone()),
        head: match table.method.located() {
            Some((MethodWord::Head, span)) => {
                if table.body.span().is_some() {
                    owner.report(
                        Finding::error(span, "the answer to \"head\" has no body to look into")
                            .suggest("remove `body`, or write `method = \"get\"`"),
                    );
                }
                true
            }
            Some((MethodWord::Get, _)) | None => false,
        },
        status: table.status.get().map_or_else(|| vec![(200, 399)], |ranges| ranges.0.clone()),
        body: table.body.get().map_or(Body::Any, |text| Body::Contains(text.0.clone())),
    }
}

fn tls(table: &HealthTable, owner: &Owner<'_>) -> Option<TlsSpec> {
    let is_on = table.tls.get().copied().unwrap_or_default();
    let keys = [
        ("server-name", table.server_name.span()),
        ("verify", table.verify.span()),
        ("authorities", table.authorities.span()),
    ];
    for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))).filter(|_| !is_on) {
        owner.report(
            Finding::error(span, format!("`{key}` works only with `tls = true`"))
                .suggest(format!("add `tls = true`, or remove `{key}`")),
        );
    }
    let verify = table.verify.get().copied().unwrap_or(true);
    if let Some(span) = table.authorities.span().filter(|_| !verify) {
        owner.report(
            Finding::error(span, "`authorities` means nothing with `verify = false`")
                .suggest("remove one of the two"),
        );
    }
    is_on.then(|| TlsSpec {
        name: table.server_name.get().map(|name| name.0.clone()),
        verify,
        authorities: table.authorities.get().map(|path| path.0.clone()),
    })
}

fn command(table: &HealthTable, owner: &Owner<'_>) -> Option<Check> {
    let example = "[\"/usr/local/bin/check\", \"{address}\", \"{port}\"]";
    let (list, span) = table.command.required("command", example, owner)?;
    let mut words = list.iter().filter_map(|word| word.get()).map(|word| word.0.clone());
    let program = words.next().filter(|program| program.starts_with('/'));
    let Some(program) = program else {
        owner.report(
            Finding::error(span, "`command` does not begin with a program")
                .expected("the absolute path of a program, and its arguments"),
        );
        return None;
    };
    Some(Check::Command { program: PathBuf::from(program), arguments: words.collect() })
}

fn failback(table: &HealthTable, service: &Service, owner: &Owner<'_>) -> Failback {
    let idle = within("idle", &table.idle, defaults::FAILBACK_IDLE, &IDLE, owner);
    match table.failback.located() {
        Some((FailbackWord::WhenIdle, _)) => {
            check_idle(idle, table, service, owner);
            Failback::WhenIdle(idle)
        }
        Some((FailbackWord::Never, _)) | None => {
            if let Some(span) = table.idle.span() {
                owner.report(
                    Finding::error(span, "`idle` works only with `failback = \"when-idle\"`")
                        .suggest("add it, or remove `idle`"),
                );
            }
            Failback::Never
        }
    }
}

/// Bindings are written when their expiry moves by a sixteenth of their lifetime: less than twice that is no idleness.
fn check_idle(idle: Duration, table: &HealthTable, service: &Service, owner: &Owner<'_>) {
    let lifetime = service.lifetime.get().map_or(defaults::LIFETIME, |lifetime| lifetime.0);
    if (lifetime / 8..lifetime).contains(&idle) {
        return;
    }
    let span = table.idle.span().unwrap_or_else(|| owner.span.clone());
    owner.report(
        Finding::error(
            span,
            format!("`idle` cannot be {} with a lifetime of {}", spell(idle), spell(lifetime)),
        )
        .expected("from an eighth of the service's `lifetime` to just below it"),
    );
}

/// Keys that mean nothing with that kind of check.
fn misplaced(kind: HealthKind, table: &HealthTable, owner: &Owner<'_>) {
    use HealthKind::{Command, Grpc, Http, Icmp, Tcp, Udp};
    type Key<'a> = (&'a str, Option<Range<usize>>, &'a [HealthKind]);
    let keys: [Key<'_>; 16] = [
        ("port", table.port.span(), &[Tcp, Http, Grpc, Udp, Command]),
        ("way", table.way.span(), &[Tcp, Http, Grpc, Icmp, Udp]),
        ("version", table.version.span(), &[Http]),
        ("method", table.method.span(), &[Http]),
        ("path", table.path.span(), &[Http]),
        ("host", table.host.span(), &[Http, Grpc]),
        ("status", table.status.span(), &[Http]),
        ("body", table.body.span(), &[Http]),
        ("tls", table.tls.span(), &[Http, Grpc]),
        ("server-name", table.server_name.span(), &[Http, Grpc]),
        ("verify", table.verify.span(), &[Http, Grpc]),
        ("authorities", table.authorities.span(), &[Http, Grpc]),
        ("service", table.service.span(), &[Grpc]),
        ("request", table.request.span(), &[Udp]),
        ("response", table.response.span(), &[Udp]),
        ("command", table.command.span(), &[Command]),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&kind)) else { continue };
        let words: Vec<String> = kinds.iter().map(|kind| format!("\"{}\"", kind.word())).collect();
        owner.report(
            Finding::error(
                span,
                format!("`{key}` works only with health checks of kind {}", words.join(", ")),
            )
            .suggest(format!("remove it, or change `kind`, which is \"{}\"", kind.word())),
        );
    }
}
