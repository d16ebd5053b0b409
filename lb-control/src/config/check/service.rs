//! One service with its backends.

use super::affinity::{self, Checked};
use super::backend::{self, LocatedBackend};
use super::consistency;
use super::health;
use super::path::{self, LocatedPath};
use super::secrets::QuicKeyFile;
use super::{Pools, family, lifetime, require_host};
use crate::config::defaults;
use crate::config::document::Findings;
use crate::config::field::{Field, Owner};
use crate::config::file::{self, Backend, Service};
use crate::config::problem::Finding;
use crate::config::value::{Name, PortChoice, spell};
use core::net::IpAddr;
use core::ops::{Range, RangeInclusive};
use core::time::Duration;
use lb_common::abi::{Method, Mode};
use lb_core::health::HealthSpec;
use lb_core::pool::identity::service_id;
use lb_core::pool::{Admin, AffinitySpec, Protocol, ServiceSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// Smallest MSS of IPv6: its least MTU without headers (RFC 8200, section 5).
const MSS_MIN_V6: u64 = 1_220;
/// How long a backend may take to get its whole share again.
const SLOW_START: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// How old a connection may be before it is mirrored.
const MIRROR_AGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// Source NAT takes ports from here up.
const SOURCE_PORTS_FROM: u16 = 1_024;

/// A service and where its parts stand.
pub(super) struct LocatedService {
    /// The service.
    pub(super) spec: ServiceSpec,
    /// What problems call it.
    object: String,
    /// Place of its table.
    pub(super) header: Range<usize>,
    /// Place of its name.
    pub(super) name: Range<usize>,
    /// Place of its id, or of the name that the id is made from.
    pub(super) id: Range<usize>,
    /// Place of its address.
    pub(super) address: Range<usize>,
    source_nat: Option<Range<usize>>,
    /// Place of what keeps its connections, where it says so.
    pub(super) consistency: Option<Range<usize>>,
    backends: Vec<LocatedBackend>,
    /// Its paths.
    pub(super) paths: Vec<LocatedPath>,
    /// Files with keys of connection ids.
    pub(super) key_files: Vec<QuicKeyFile>,
}

/// Checks a service by itself; `None` when what is there is not enough to go on.
pub(super) fn check(service: &Service, pools: &Pools<'_>, owner: &Owner<'_>) -> Option<LocatedService> {
    let name = service.name.required("name", "\"web\"", owner);
    let address = service.address.required("address", "\"192.0.2.1\"", owner);
    let port = service.port.required("port", "80", owner);
    let mode = service.mode.required("mode", "\"nat\"", owner);
    if let Some((address, span)) = &address {
        require_host(address.0, span, owner);
    }
    let protocol = match service.protocol.get() {
        Some(file::Protocol::Tcp) | None => Protocol::Tcp,
        Some(file::Protocol::Udp) => Protocol::Udp,
    };
    let lifetime = lifetime("lifetime", &service.lifetime, defaults::LIFETIME, owner);
    let Checked { spec: affinity, span: affinity_span, key_files } = affinity::check(service, owner);
    let health = health::check(service, protocol, owner);
    let backends = backends("service", (&service.pool, &service.backend), pools, owner);
    let paths = path::list(service, pools, owner);

    let (name, name_span) = name?;
    let (address, address_span) = address?;
    let (port, _) = port?;
    let (mode, mode_span) = mode?;
    let spec = ServiceSpec {
        name: name.0.clone(),
        id: service.id.get().map_or_else(|| service_id(&name.0), |n| n.narrow()),
        address: address.0,
        port: match port {
            PortChoice::Any => 0,
            PortChoice::Port(port) => *port,
        },
        protocol,
        mode: match mode {
            file::Mode::Nat => Mode::Nat,
            file::Mode::L2 => Mode::L2,
            file::Mode::Ipip => Mode::Ipip,
            file::Mode::Gue => Mode::Gue,
        },
        affinity,
        lifetime,
        binding_rate: service.binding_rate.get().map_or(defaults::BINDING_RATE, |n| n.narrow()),
        source: service.source_nat.get().map(|address| address.0),
        mss: service.mss.get().map(|n| n.narrow()),
        proxy_protocol: service.proxy_protocol.get().copied().unwrap_or_default(),
        method: match service.method.get() {
            Some(file::Method::Order) | None => Method::Order,
            Some(file::Method::TwoChoices) => Method::TwoChoices,
            Some(file::Method::LeastConnections) => Method::LeastConnections,
            Some(file::Method::LeastTime) => Method::LeastTime,
        },
        slow_start: slow_start(service, &health, owner),
        mirror: mirror(service, owner),
        consistency: consistency::of(service),
        health,
        paths: paths.iter().map(|path| path.spec.clone()).collect(),
        backends: backends.iter().map(|backend| backend.spec.clone()).collect(),
    };
    check_mss(service, &spec, owner);
    affinity::fits(
        &spec.affinity,
        &affinity_span,
        (protocol, service.protocol.span()),
        (spec.mode, mode_span),
        owner,
    );
    check_proxy_protocol(service, &spec, owner);
    check_method(service, &spec, owner);
    health::check_ejected(service, spec.is_spliced(), owner);
    check_mirror(service, &spec, owner);
    consistency::check(service, &spec, owner);
    let located = LocatedService {
        spec,
        object: owner.object.to_owned(),
        header: owner.span.clone(),
        id: service.id.span().unwrap_or_else(|| name_span.clone()),
        name: name_span,
        address: address_span,
        source_nat: service.source_nat.span(),
        consistency: service.consistency.span(),
        backends,
        paths,
        key_files,
    };
    located.check_source_nat(owner);
    located.check_pools(owner.findings);
    Some(located)
}

/// Backends of its own, or those of the pool it names.
pub(super) fn backends(
    kind: &str,
    (name, own): (&Field<Name>, &Field<Vec<Field<Backend>>>),
    pools: &Pools<'_>,
    owner: &Owner<'_>,
) -> Vec<LocatedBackend> {
    let listed = backend::list(own, owner);
    let header = if kind == "path" { "[[service.path.backend]]" } else { "[[service.backend]]" };
    let Some((name, span)) = name.located() else {
        if name.span().is_none() && own.is_vacant() {
            owner.report(
                Finding::error(owner.span.clone(), format!("the {kind} has no backends"))
                    .suggest(format!("add a {header} with a name and an address, or `pool = \"...\"`")),
            );
        }
        return listed;
    };
    let pool = pools.get(name.0.as_str());
    if let Some(pool) = pool {
        pool.used.set(true);
    }
    if own.span().is_some() {
        owner.report(
            Finding::error(span, format!("the {kind} has a pool and backends of its own"))
                .expected(format!("`pool` or {header}, not both"))
                .suggest("move the backends into the pool, or remove `pool`"),
        );
        return listed;
    }
    match pool {
        Some(pool) => pool.backends.clone(),
        None => {
            let finding = Finding::error(span, format!("there is no pool `{}`", name.0));
            let finding = match pools.is_empty() {
                true => finding.suggest(format!("add a [[pool]] with `name = \"{}\"` and backends", name.0)),
                false => finding.did_you_mean(&name.0, pools.keys().copied()),
            };
            owner.report(finding);
            listed
        }
    }
}

/// The PROXY protocol needs a handshake of the balancer's own, and a client that the backend does not see.
fn check_proxy_protocol(service: &Service, spec: &ServiceSpec, owner: &Owner<'_>) {
    let Some((true, span)) = service.proxy_protocol.located() else { return };
    if !spec.is_spliced() {
        let kinds = "affinity \"http-cookie\", or \"payload\" over TCP";
        owner.report(
            Finding::error(span, format!("`proxy-protocol` works only with {kinds}"))
                .suggest("remove it: only there the balancer itself connects to the backend"),
        );
    } else if service.source_nat.span().is_none() {
        owner.report(
            Finding::error(span, "`proxy-protocol` works only with `source-nat`").suggest(
                "add `source-nat`, or remove `proxy-protocol`: without it backends see the client's address anyway",
            ),
        );
    }
}

fn check_mss(service: &Service, spec: &ServiceSpec, owner: &Owner<'_>) {
    let Some((mss, span)) = service.mss.located() else { return };
    if spec.protocol == Protocol::Udp {
        owner.report(
            Finding::error(span, "`mss` has no meaning for UDP")
                .suggest("remove it: only TCP announces a segment size"),
        );
    } else if spec.address.is_ipv6() && mss.0 < MSS_MIN_V6 {
        owner.report(
            Finding::error(span, format!("`mss` cannot be {} with an IPv6 address", mss.0))
                .expected(format!("at least {MSS_MIN_V6}, which every IPv6 path carries")),
        );
    }
}

/// Whether each datagram says whose it is, be there a connection or not.
const fn says_itself(spec: &ServiceSpec) -> bool {
    matches!(spec.affinity, AffinitySpec::Payload(_)) && matches!(spec.protocol, Protocol::Udp)
}

/// Refuses methods that need to know when connections end, where that cannot be known.
fn check_method(service: &Service, spec: &ServiceSpec, owner: &Owner<'_>) {
    let Some(span) = service.method.span() else { return };
    if spec.method != Method::Order && says_itself(spec) {
        owner.report(
            Finding::error(span.clone(), "this `method` does not work with sessions by the payload of datagrams")
                .suggest("write `method = \"order\"`: a session's datagrams may come in any number before one is answered"),
        );
    }
    if spec.method != Method::Order && spec.mode != Mode::Nat {
        owner.report(Finding::error(span, "this `method` works only with `mode = \"nat\"`").suggest(
            "write `method = \"order\"`: in the other modes the balancer does not see when connections end",
        ));
    }
}

/// How long a backend that returns takes to get its whole share.
fn slow_start(service: &Service, health: &Option<Arc<HealthSpec>>, owner: &Owner<'_>) -> Duration {
    let Some((lifetime, span)) = service.slow_start.located() else { return Duration::ZERO };
    if !SLOW_START.contains(&lifetime.0) {
        owner.report(
            Finding::error(span, format!("`slow-start` cannot be {}", spell(lifetime.0)))
                .expected("a time from 1s to 1h"),
        );
    } else if health.is_none() {
        owner.report(
            Finding::error(span, "`slow-start` works only where backends are checked")
                .suggest("add health checks, or remove it"),
        );
    }
    lifetime.0
}

/// The age from which on connections are mirrored.
fn mirror(service: &Service, owner: &Owner<'_>) -> Option<Duration> {
    let is_mirrored = service.mirror.get().copied().unwrap_or_default();
    let Some((age, span)) = service.mirror_age.located() else {
        return is_mirrored.then_some(defaults::MIRROR_AGE);
    };
    if !MIRROR_AGE.contains(&age.0) {
        owner.report(
            Finding::error(span, format!("`mirror-age` cannot be {}", spell(age.0)))
                .expected("a time from 100ms to 1h"),
        );
    } else if !is_mirrored {
        owner.report(
            Finding::error(span, "`mirror-age` says nothing while connections are not mirrored")
                .suggest("write `mirror = true`, or remove it"),
        );
    }
    is_mirrored.then_some(age.0)
}

fn check_mirror(service: &Service, spec: &ServiceSpec, owner: &Owner<'_>) {
    let Some((_, span)) = service.mirror.located().filter(|_| spec.mirror.is_some()) else { return };
    if spec.mode != Mode::Nat || spec.protocol != Protocol::Tcp {
        owner.report(Finding::error(span, "`mirror` works only with `mode = \"nat\"` and TCP").suggest(
            "remove it: in the other modes, and for UDP, any node goes on with what it has not seen before",
        ));
    }
}

impl LocatedService {
    /// Itself as the owner of what is told about it.
    pub(super) fn owner<'a>(&'a self, findings: &'a Findings) -> Owner<'a> {
        Owner { span: self.header.clone(), object: &self.object, findings }
    }

    fn check_source_nat(&self, owner: &Owner<'_>) {
        let (Some(source), Some(span)) = (self.spec.source, &self.source_nat) else { return };
        if self.spec.mode != Mode::Nat {
            owner.report(
                Finding::error(span.clone(), "`source-nat` works only with `mode = \"nat\"`")
                    .suggest("remove it: in the other modes backends answer clients directly"),
            );
            return;
        }
        require_host(source, span, owner);
        if source.is_ipv4() != self.spec.address.is_ipv4() {
            owner.report(
                Finding::error(span.clone(), format!("`source-nat` cannot be {}", family(source)))
                    .expected(format!("an {} address, like the service's", family(self.spec.address)))
                    .related(self.address.clone(), "the service's address is"),
            );
        }
        let of_paths = self.paths.iter().flat_map(|path| &path.backends);
        if self.backends.iter().chain(of_paths).any(|backend| backend.spec.address == source) {
            owner.report(
                Finding::error(span.clone(), "`source-nat` is the address of a backend")
                    .expected("an address that is routed to this node"),
            );
        }
    }

    /// Checks each pool: that the mode can reach its backends, that what packets say tells them apart, and that some
    /// take sessions.
    fn check_pools(&self, findings: &Findings) {
        self.check_backends(&self.backends, &self.owner(findings));
        for path in &self.paths {
            let owner = Owner { span: path.header.clone(), object: &path.object, findings };
            self.check_backends(&path.backends, &owner);
        }
    }

    fn check_backends(&self, backends: &[LocatedBackend], pool: &Owner<'_>) {
        let (spec, findings) = (&self.spec, pool.findings);
        affinity::tells_apart(&spec.affinity, backends, pool);
        for backend in backends {
            let owner = Owner { span: backend.address.clone(), object: &backend.object, findings };
            let service = format!("{} is", self.object);
            let related = |finding: Finding| owner.report(finding.related(self.address.clone(), &service));
            if spec.mode == Mode::Nat && backend.spec.address.is_ipv4() != spec.address.is_ipv4() {
                related(
                    Finding::error(
                        backend.address.clone(),
                        format!(
                            "`nat` cannot reach an {} backend from an {} service",
                            family(backend.spec.address),
                            family(spec.address)
                        ),
                    )
                    .expected(format!("an {} address", family(spec.address)))
                    .suggest("use `mode = \"ipip\"` or \"gue\", which carry either family in either"),
                );
            }
            if let Some(limit) = backend.limit.as_ref().filter(|_| spec.mode != Mode::Nat) {
                related(
                    Finding::error(limit.clone(), "`max-connections` works only with `mode = \"nat\"`")
                        .suggest(
                            "remove it: in the other modes the balancer does not see when connections end",
                        ),
                );
            }
            if let Some(limit) = backend.limit.as_ref().filter(|_| says_itself(spec)) {
                related(
                    Finding::error(
                        limit.clone(),
                        "`max-connections` does not work with sessions by the payload of datagrams",
                    )
                    .suggest("remove it"),
                );
            }
            let Some(port) = &backend.port else { continue };
            if spec.mode != Mode::Nat {
                related(
                    Finding::error(port.clone(), "a backend's port works only with `mode = \"nat\"`")
                        .suggest(
                            "remove it: in the other modes the backend receives the client's packet as it is",
                        ),
                );
            } else if spec.port == 0 {
                related(
                    Finding::error(
                        port.clone(),
                        "a backend of a service with `port = \"any\"` cannot have a port",
                    )
                    .suggest("remove it: the backend receives the port that the client used"),
                );
            }
        }
        let accepts =
            |backend: &LocatedBackend| backend.spec.admin == Admin::Enabled && backend.spec.weight > 0;
        if !backends.is_empty() && !backends.iter().any(accepts) {
            let text = "no backend takes new sessions: all are drained, disabled or have weight 0";
            pool.report(Finding::warning(pool.span.clone(), text));
        }
    }

    /// Checks this service's addresses against those of all services.
    pub(super) fn meets(&self, vips: &HashMap<IpAddr, Vec<&Self>>, findings: &Findings) {
        let of_paths = self.paths.iter().flat_map(|path| &path.backends);
        for backend in self.backends.iter().chain(of_paths) {
            let Some(service) = vips.get(&backend.spec.address).and_then(|services| services.first()) else {
                continue;
            };
            let text =
                format!("{} is the address of {}, not of a server", backend.spec.address, service.object);
            let owner = Owner { span: backend.address.clone(), object: &backend.object, findings };
            owner.report(
                Finding::error(backend.address.clone(), text)
                    .expected("the server's own address")
                    .related(service.address.clone(), "the service is"),
            );
        }
        let (Some(source), Some(span)) = (self.spec.source, &self.source_nat) else { return };
        let takes = |other: &&&Self| {
            let port = other.spec.port;
            other.spec.protocol == self.spec.protocol && (port == 0 || port >= SOURCE_PORTS_FROM)
        };
        if let Some(other) = vips.get(&source).and_then(|services| services.iter().find(takes)) {
            let text = format!("replies to `source-nat` would be taken for clients of {}", other.object);
            self.owner(findings).report(
                Finding::error(span.clone(), text)
                    .expected(format!("an address without services on ports from {SOURCE_PORTS_FROM} up"))
                    .related(other.address.clone(), "its address is"),
            );
        }
    }
}
