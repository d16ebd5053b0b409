//! One service with its backends.

use super::backend::{self, LocatedBackend};
use super::{Pools, family, lifetime, require_host};
use crate::config::defaults;
use crate::config::document::Findings;
use crate::config::field::Owner;
use crate::config::file::{self, Service};
use crate::config::problem::Finding;
use crate::config::value::{AffinityChoice, AffinityKind, PortChoice};
use core::net::IpAddr;
use core::ops::Range;
use lb_common::abi::Mode;
use lb_core::pool::identity::service_id;
use lb_core::pool::{Admin, AffinitySpec, Protocol, ServiceSpec};
use std::collections::HashMap;

/// Smallest MSS of IPv6: its least MTU without headers (RFC 8200, section 5).
const MSS_MIN_V6: u64 = 1_220;
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
    backends: Vec<LocatedBackend>,
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
    let affinity = affinity(service, owner);
    let backends = backends(service, pools, owner);

    let (name, name_span) = name?;
    let (address, address_span) = address?;
    let (port, _) = port?;
    let (mode, _) = mode?;
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
        backends: backends.iter().map(|backend| backend.spec.clone()).collect(),
    };
    check_mss(service, &spec, owner);
    let located = LocatedService {
        spec,
        object: owner.object.to_owned(),
        header: owner.span.clone(),
        id: service.id.span().unwrap_or_else(|| name_span.clone()),
        name: name_span,
        address: address_span,
        source_nat: service.source_nat.span(),
        backends,
    };
    located.check_source_nat(owner);
    located.check_backends(owner.findings);
    Some(located)
}

fn affinity(service: &Service, owner: &Owner<'_>) -> AffinitySpec {
    let plain = AffinitySpec::SourceIp { v4: defaults::PREFIX_V4, v6: defaults::PREFIX_V6 };
    let Some((choice, span)) = service.affinity.located() else { return plain };
    match choice {
        AffinityChoice::Kind(AffinityKind::None) => AffinitySpec::None,
        AffinityChoice::Kind(AffinityKind::SourceIp) => plain,
        AffinityChoice::Table(table) => {
            let owner = Owner { span, ..*owner };
            match table.kind.required("kind", "\"source-ip\"", &owner) {
                Some((AffinityKind::None, _)) => {
                    for span in [table.prefix_v4.span(), table.prefix_v6.span()].into_iter().flatten() {
                        owner.report(
                            Finding::error(span, "affinity \"none\" has no prefix")
                                .suggest("remove the prefix, or write `kind = \"source-ip\"`"),
                        );
                    }
                    AffinitySpec::None
                }
                Some((AffinityKind::SourceIp, _)) | None => AffinitySpec::SourceIp {
                    v4: table.prefix_v4.get().map_or(defaults::PREFIX_V4, |n| n.narrow()),
                    v6: table.prefix_v6.get().map_or(defaults::PREFIX_V6, |n| n.narrow()),
                },
            }
        }
    }
}

/// The service's own backends or those of its pool.
fn backends(service: &Service, pools: &Pools<'_>, owner: &Owner<'_>) -> Vec<LocatedBackend> {
    let own = backend::list(&service.backend, owner);
    let Some((name, span)) = service.pool.located() else {
        if service.pool.span().is_none() && service.backend.is_vacant() {
            owner.report(
                Finding::error(owner.span.clone(), "the service has no backends")
                    .suggest("add a [[service.backend]] with a name and an address, or `pool = \"...\"`"),
            );
        }
        return own;
    };
    let pool = pools.get(name.0.as_str());
    if let Some(pool) = pool {
        pool.used.set(true);
    }
    if service.backend.span().is_some() {
        owner.report(
            Finding::error(span, "the service has a pool and backends of its own")
                .expected("`pool` or [[service.backend]], not both")
                .suggest("move the backends into the pool, or remove `pool`"),
        );
        return own;
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
            own
        }
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
        if self.spec.backends.iter().any(|backend| backend.address == source) {
            owner.report(
                Finding::error(span.clone(), "`source-nat` is the address of a backend")
                    .expected("an address that is routed to this node"),
            );
        }
    }

    /// Checks that the mode can reach every backend.
    fn check_backends(&self, findings: &Findings) {
        let spec = &self.spec;
        for backend in &self.backends {
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
        if !self.backends.is_empty() && !self.backends.iter().any(accepts) {
            let text = "no backend takes new sessions: all are drained, disabled or have weight 0";
            self.owner(findings).report(Finding::warning(self.header.clone(), text));
        }
    }

    /// Checks this service's addresses against those of all services.
    pub(super) fn meets(&self, vips: &HashMap<IpAddr, Vec<&Self>>, findings: &Findings) {
        for backend in &self.backends {
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
