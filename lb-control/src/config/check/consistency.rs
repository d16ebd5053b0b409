//! What keeps connections where they are.

use super::service::LocatedService;
use crate::config::PlaneSpec;
use crate::config::document::Findings;
use crate::config::field::Owner;
use crate::config::file::{self, Service};
use crate::config::problem::Finding;
use lb_common::abi::Mode;
use lb_core::pool::{Consistency, Protocol, ServiceSpec};
use lb_core::stamp;

/// What the service says.
pub(super) fn of(service: &Service) -> Consistency {
    match service.consistency.get() {
        Some(file::Consistency::Timestamps) => Consistency::Timestamps,
        Some(file::Consistency::Tables) | None => Consistency::Tables,
    }
}

/// Refuses timestamps where they cannot carry the backend's number.
pub(super) fn check(service: &Service, spec: &ServiceSpec, owner: &Owner<'_>) {
    let Some(span) = service.consistency.span() else { return };
    if spec.consistency == Consistency::Tables {
        return;
    }
    if spec.mode != Mode::Nat || spec.protocol != Protocol::Tcp {
        let text = "`consistency = \"timestamps\"` works only with `mode = \"nat\"` and TCP";
        owner.report(Finding::error(span, text).suggest(
            "remove it: elsewhere a reply does not say from which backend it is, or there are no timestamps",
        ));
    } else if spec.health.is_none() {
        owner.report(
            Finding::error(span, "`consistency = \"timestamps\"` works only where backends are checked")
                .suggest("add health checks: with them goes a look at the backend's clock"),
        );
    } else if spec.backends.len() > stamp::MOST {
        let text =
            format!("`consistency = \"timestamps\"` cannot tell {} backends apart", spec.backends.len());
        owner.report(
            Finding::error(span, text).expected(format!("at most {} backends in the service", stamp::MOST)),
        );
    }
}

/// Refuses timestamps where the data plane does not write them.
pub(super) fn fits(services: &[LocatedService], plane: &PlaneSpec, findings: &Findings) {
    if matches!(plane, PlaneSpec::P4(_)) {
        return;
    }
    for service in services.iter().filter(|service| service.spec.consistency == Consistency::Timestamps) {
        let Some(span) = service.consistency.clone() else { continue };
        service.owner(findings).report(
            Finding::error(span, "`consistency = \"timestamps\"` works only on a switch")
                .expected("[dataplane] with `kind = \"p4\"`")
                .suggest("remove it: the kernel keeps flows, and their connections stay where they are"),
        );
    }
}
