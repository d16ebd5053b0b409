//! Pools for requests by the beginning of their path.

use super::backend::LocatedBackend;
use super::unique::Unique;
use super::{Pools, service};
use crate::config::field::{Field, Owner};
use crate::config::file::Service;
use crate::config::problem::Finding;
use crate::config::value::{AffinityChoice, AffinityKind};
use core::ops::Range;
use lb_common::abi::MAX_PATH_RULES;
use lb_core::pool::PathSpec;
use lb_core::pool::identity::service_id;

/// A path and where its parts stand.
pub(super) struct LocatedPath {
    /// The path.
    pub(super) spec: PathSpec,
    /// What problems call it.
    pub(super) object: String,
    /// Place of its table.
    pub(super) header: Range<usize>,
    /// Place of its name, or of the prefix that the name is made from.
    pub(super) name: Range<usize>,
    /// Place of its id, or of what the id is made from.
    pub(super) id: Range<usize>,
    /// Its backends.
    pub(super) backends: Vec<LocatedBackend>,
}

/// Checks the paths of a service; those that could not be read are left out and have been reported.
pub(super) fn list(of: &Service, pools: &Pools<'_>, owner: &Owner<'_>) -> Vec<LocatedPath> {
    let entries = of.path.get().map(Vec::as_slice).unwrap_or_default();
    let Some(span) = of.path.span().filter(|_| !entries.is_empty()) else { return Vec::new() };
    let reads_requests = match of.affinity.get() {
        Some(AffinityChoice::Kind(kind)) => *kind == AffinityKind::HttpCookie,
        Some(AffinityChoice::Table(table)) => {
            table.kind.span().is_none() || table.kind.get() == Some(&AffinityKind::HttpCookie)
        }
        // Reported already, or the default.
        None => of.affinity.span().is_some(),
    };
    if !reads_requests {
        owner.report(
            Finding::error(span.clone(), "[[service.path]] works only with affinity \"http-cookie\"")
                .suggest("with it the balancer reads requests: `affinity = { kind = \"http-cookie\", cookie = \"SESS\" }`"),
        );
    }
    if entries.len() > MAX_PATH_RULES as usize {
        owner.report(
            Finding::error(span, format!("there are {} paths", entries.len()))
                .expected(format!("at most {MAX_PATH_RULES} in a service")),
        );
    }
    let mut prefixes = Unique::default();
    let mut paths = Vec::with_capacity(entries.len());
    for (index, (entry, span)) in entries.iter().filter_map(Field::located).enumerate() {
        let own = match entry.prefix.get() {
            Some(prefix) => format!("path `{}`", prefix.0),
            None => format!("path number {}", index + 1),
        };
        let object = format!("{}, {own}", owner.object);
        let owner = Owner { span: span.clone(), object: &object, findings: owner.findings };
        let prefix = entry.prefix.required("prefix", "\"/static/\"", &owner);
        let backends = service::backends("path", (&entry.pool, &entry.backend), pools, &owner);
        let Some((prefix, at)) = prefix else { continue };
        if let Some(first) = prefixes.insert(prefix.0.as_str(), &at) {
            owner.report(
                Finding::error(at, format!("there are two paths `{}`", prefix.0))
                    .related(first, "the first is"),
            );
            continue;
        }
        let name = match (entry.name.get(), of.name.get()) {
            (Some(name), _) => name.0.clone(),
            (None, Some(service)) => format!("{}{}", service.0, prefix.0),
            (None, None) => prefix.0.clone(),
        };
        let id = entry.id.get().map_or_else(|| service_id(&name), |n| n.narrow());
        let name_span = entry.name.span().unwrap_or_else(|| at.clone());
        paths.push(LocatedPath {
            spec: PathSpec {
                prefix: prefix.0.clone(),
                id,
                name,
                backends: backends.iter().map(|backend| backend.spec.clone()).collect(),
            },
            header: span,
            id: entry.id.span().unwrap_or_else(|| name_span.clone()),
            name: name_span,
            backends,
            object,
        });
    }
    paths
}
