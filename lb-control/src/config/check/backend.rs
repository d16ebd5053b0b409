//! Lists of backends, of a service or shared.

use super::unique::Unique;
use super::{object, require_host};
use crate::config::defaults;
use crate::config::field::{Field, Owner};
use crate::config::file::{Backend, State};
use crate::config::problem::Finding;
use crate::config::value::VlanChoice;
use core::ops::Range;
use lb_common::abi::MAX_BACKENDS_PER_SERVICE;
use lb_core::pool::identity::server_number;
use lb_core::pool::{Admin, BackendSpec, Vlan};

/// A backend and where its parts stand.
#[derive(Clone)]
pub(super) struct LocatedBackend {
    /// The backend.
    pub(super) spec: BackendSpec,
    /// What problems call it.
    pub(super) object: String,
    /// Place of its name.
    pub(super) name: Range<usize>,
    /// Place of its route, if it has one.
    pub(super) route: Option<Range<usize>>,
    /// Place of its server id, if it has one.
    pub(super) server_id: Option<Range<usize>>,
    /// Place of its address.
    pub(super) address: Range<usize>,
    /// Place of its port, if it has one.
    pub(super) port: Option<Range<usize>>,
    /// Place of its limit, if it has one.
    pub(super) limit: Option<Range<usize>>,
}

/// Checks a list; backends that could not be read are left out and have been reported.
pub(super) fn list(list: &Field<Vec<Field<Backend>>>, owner: &Owner<'_>) -> Vec<LocatedBackend> {
    let entries = list.get().map(Vec::as_slice).unwrap_or_default();
    if entries.len() > MAX_BACKENDS_PER_SERVICE as usize {
        owner.report(
            Finding::error(owner.span.clone(), format!("there are {} backends", entries.len()))
                .expected(format!("at most {MAX_BACKENDS_PER_SERVICE} backends in a service")),
        );
    }
    let mut names = Unique::default();
    let mut numbers = Unique::default();
    let mut ends = Unique::default();
    let mut backends = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some((backend, span)) = entry.located() else { continue };
        let own = object("backend", backend.name.get().map(|name| name.0.as_str()), index);
        let object = format!("{}, {own}", owner.object);
        let owner = Owner { span, object: &object, findings: owner.findings };
        let name = backend.name.required("name", "\"be1\"", &owner);
        let address = backend.address.required("address", "\"192.0.2.1\"", &owner);
        if let Some((address, span)) = &address {
            require_host(address.0, span, &owner);
        }
        let (Some((name, name_span)), Some((address, address_span))) = (name, address) else { continue };
        let spec = BackendSpec {
            name: name.0.clone(),
            number: backend.number.get().map_or_else(|| server_number(&name.0), |n| n.0),
            address: address.0,
            port: backend.port.get().map_or(0, |n| n.narrow()),
            weight: backend.weight.get().map_or(defaults::WEIGHT, |n| n.narrow()),
            limit: backend.max_connections.get().map_or(0, |n| n.narrow()),
            admin: match backend.state.get() {
                Some(State::Enabled) | None => Admin::Enabled,
                Some(State::Draining) => Admin::Draining,
                Some(State::Disabled) => Admin::Disabled,
            },
            vlan: match backend.vlan.get() {
                Some(VlanChoice::Auto) | None => Vlan::Auto,
                Some(VlanChoice::Untagged) => Vlan::Untagged,
                Some(VlanChoice::Tag(tag)) => Vlan::Tagged(*tag),
            },
            route: backend.route.get().map(|route| route.0.clone()),
            server_id: backend.server_id.get().map(|id| id.0.clone()),
        };
        let number_span = backend.number.span().unwrap_or_else(|| name_span.clone());
        if let Some(first) = names.insert(&name.0, &name_span) {
            owner.report(
                Finding::error(name_span.clone(), format!("there are two backends `{}`", name.0))
                    .related(first, "the first is"),
            );
        } else if let Some(first) = numbers.insert(spec.number, &number_span) {
            let text = format!("its server number {} is taken by another backend", spec.number);
            owner.report(Finding::error(number_span, text).related(first, "the other is").suggest(format!(
                "give one of them another `number`, such as `number = {}`",
                numbers.free(spec.number)
            )));
        }
        if let Some(first) = ends.insert((spec.address, spec.port), &address_span) {
            owner.report(
                Finding::error(address_span.clone(), "another backend has the same address and port")
                    .related(first, "the other is")
                    .suggest("raise the weight of one of them and remove the other"),
            );
        }
        backends.push(LocatedBackend {
            spec,
            object,
            name: name_span,
            route: backend.route.span(),
            server_id: backend.server_id.span(),
            address: address_span,
            port: backend.port.span(),
            limit: backend.max_connections.span(),
        });
    }
    backends
}
