//! From what the file says to what a node can do: everything that cannot work is refused here.

mod affinity;
mod backend;
mod cluster;
mod consistency;
mod events;
mod health;
mod node;
mod path;
mod plane;
mod secrets;
mod service;
mod unique;

use super::DaemonSpec;
use super::document::Findings;
use super::field::{Field, Owner};
use super::file::{File, Pool};
use super::problem::Finding;
use super::secret::{QuicKeyFile, Secrets};
use backend::LocatedBackend;
use core::cell::Cell;
use core::net::IpAddr;
use core::ops::Range;
use core::time::Duration;
use lb_common::abi::{MAX_BACKENDS, MAX_SERVICES};
use lb_core::pool::Desired;
use service::LocatedService;
use std::collections::{BTreeMap, HashMap};
use unique::Unique;

/// Shortest lifetime of anything that the data plane remembers.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Longest one.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What a file says, checked; its secrets are still zero.
pub(super) struct Checked {
    /// What the data plane should do.
    pub(super) desired: Desired,
    /// What the daemon should do.
    pub(super) daemon: DaemonSpec,
    /// Where the secrets come from.
    pub(super) secrets: Secrets,
}

/// Checks a file; the result is of use only when no error was found.
pub(super) fn check(file: &File, findings: &Findings) -> Checked {
    let (node, daemon, mut secrets) = node::check(file, findings);
    let pools = pools(&file.pool, findings);
    let services = services(file, &pools, findings);
    for (place, service) in services.iter().enumerate() {
        let files = service.key_files.iter().map(|file| QuicKeyFile { service: place, ..file.clone() });
        secrets.quic.extend(files);
    }
    consistency::fits(&services, &daemon.plane, findings);
    let services: Vec<_> = services.into_iter().map(|service| service.spec).collect();
    cluster::sources(file, &daemon, &services, findings);
    Checked { desired: Desired { node, services }, daemon, secrets }
}

/// A shared list of backends.
struct CheckedPool {
    backends: Vec<LocatedBackend>,
    /// Place of its name.
    span: Range<usize>,
    /// Whether a service refers to it.
    used: Cell<bool>,
}

/// Shared lists of backends, by name.
type Pools<'a> = BTreeMap<&'a str, CheckedPool>;

fn pools<'a>(list: &'a Field<Vec<Field<Pool>>>, findings: &Findings) -> Pools<'a> {
    let mut names = Unique::default();
    let mut pools = BTreeMap::new();
    for (index, entry) in list.get().into_iter().flatten().enumerate() {
        let Some((pool, span)) = entry.located() else { continue };
        let object = object("pool", pool.name.get().map(|name| name.0.as_str()), index);
        let owner = Owner { span: span.clone(), object: &object, findings };
        let name = pool.name.required("name", "\"servers\"", &owner);
        let backends = backend::list(&pool.backend, &owner);
        let Some((name, name_span)) = name else { continue };
        if let Some(first) = names.insert(name.0.as_str(), &name_span) {
            owner.report(
                Finding::error(name_span, format!("there are two pools `{}`", name.0))
                    .related(first, "the first is"),
            );
            continue;
        }
        if pool.backend.is_vacant() {
            owner.report(
                Finding::error(span.clone(), "the pool has no backends")
                    .suggest("add a [[pool.backend]] with a name and an address"),
            );
        }
        pools.insert(name.0.as_str(), CheckedPool { backends, span: name_span, used: Cell::new(false) });
    }
    pools
}

fn services(file: &File, pools: &Pools<'_>, findings: &Findings) -> Vec<LocatedService> {
    let entries = file.service.get().map(Vec::as_slice).unwrap_or_default();
    let mut services = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some((service, span)) = entry.located() else { continue };
        let object = object("service", service.name.get().map(|name| name.0.as_str()), index);
        let owner = Owner { span, object: &object, findings };
        services.extend(service::check(service, pools, &owner));
    }
    for (name, pool) in pools.iter().filter(|(_, pool)| !pool.used.get()) {
        findings.add(
            Finding::warning(pool.span.clone(), format!("no service uses pool `{name}`"))
                .of(&format!("pool `{name}`"))
                .suggest(format!("add `pool = \"{name}\"` to a service, or remove the pool")),
        );
    }
    if let Some(span) = file.service.span()
        && entries.len() > MAX_SERVICES as usize
    {
        findings.add(
            Finding::error(span, format!("there are {} services", entries.len()))
                .expected(format!("at most {MAX_SERVICES}")),
        );
    }
    together(&services, findings);
    services
}

/// What services must not have in common.
fn together(services: &[LocatedService], findings: &Findings) {
    let mut names = Unique::default();
    let mut ids = Unique::default();
    let mut fronts = Unique::default();
    let mut total: usize = 0;
    for service in services {
        let spec = &service.spec;
        let owner = service.owner(findings);
        if let Some(first) = names.insert(spec.name.as_str(), &service.name) {
            owner.report(
                Finding::error(service.name.clone(), format!("there are two services `{}`", spec.name))
                    .related(first, "the first is"),
            );
        } else if let Some(first) = ids.insert(spec.id, &service.id) {
            owner.report(
                Finding::error(service.id.clone(), format!("its id {} is taken by another service", spec.id))
                    .related(first, "the other is")
                    .suggest(format!("give one of them another `id`, such as `id = {}`", ids.free(spec.id))),
            );
        }
        if let Some(first) = fronts.insert((spec.address, spec.port, spec.protocol), &service.address) {
            let text = "another service has the same address, port and protocol";
            owner.report(Finding::error(service.address.clone(), text).related(first, "the other is"));
        }
        for path in &service.paths {
            let owner = Owner { span: path.header.clone(), object: &path.object, findings };
            if let Some(first) = names.insert(path.spec.name.as_str(), &path.name) {
                owner.report(
                    Finding::error(
                        path.name.clone(),
                        format!("its pool's name `{}` is taken", path.spec.name),
                    )
                    .related(first, "the other is")
                    .suggest("give it another `name`"),
                );
            } else if let Some(first) = ids.insert(path.spec.id, &path.id) {
                let text = format!("its pool's id {} is taken", path.spec.id);
                owner.report(Finding::error(path.id.clone(), text).related(first, "the other is").suggest(
                    format!("give one of them another `id`, such as `id = {}`", ids.free(path.spec.id)),
                ));
            }
        }
        let before = total;
        total += spec.backends.len() + spec.paths.iter().map(|path| path.backends.len()).sum::<usize>();
        if before <= MAX_BACKENDS as usize && total > MAX_BACKENDS as usize {
            owner.report(
                Finding::error(service.header.clone(), "with this service there are too many backends")
                    .expected(format!("at most {MAX_BACKENDS} backends in all services together")),
            );
        }
    }
    let mut vips: HashMap<IpAddr, Vec<&LocatedService>> = HashMap::new();
    for service in services {
        vips.entry(service.spec.address).or_default().push(service);
    }
    for service in services {
        service.meets(&vips, findings);
    }
}

/// What a problem calls an object.
fn object(kind: &str, name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) => format!("{kind} `{name}`"),
        None => format!("{kind} number {}", index + 1),
    }
}

/// Why an address cannot be the address of one host, if it cannot.
fn not_a_host(address: IpAddr) -> Option<&'static str> {
    let kind = match address {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V4(ip) if ip.octets()[0] == 0 => "in 0.0.0.0/8, which means \"this network\"",
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => "in 240.0.0.0/4, which is reserved",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(kind)
}

/// Reports an address that is not that of one host.
fn require_host(address: IpAddr, span: &Range<usize>, owner: &Owner<'_>) {
    if let Some(kind) = not_a_host(address) {
        owner.report(
            Finding::error(span.clone(), format!("{address} is {kind}"))
                .expected("the unicast address of a host, routable beyond one link"),
        );
    }
}

/// "IPv4" or "IPv6".
fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// A lifetime, or its default; reports one that is out of range.
fn lifetime(
    key: &str,
    field: &Field<super::value::Lifetime>,
    default: Duration,
    owner: &Owner<'_>,
) -> Duration {
    let Some((lifetime, span)) = field.located() else { return default };
    if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime.0) {
        owner.report(
            Finding::error(span, format!("`{key}` cannot be {}", super::value::spell(lifetime.0)))
                .expected("a duration from 1s to 365d"),
        );
    }
    lifetime.0
}
