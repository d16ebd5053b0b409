//! `[dataplane]`.

use crate::config::document::Findings;
use crate::config::field::{Field, Owner};
use crate::config::file::{DataPlane, File};
use crate::config::problem::Finding;
use crate::config::value::PlaneWord;
use crate::config::{PlaneSpec, defaults};
use crate::dataplane::p4::{Route, SwitchSpec};
use std::collections::BTreeMap;

/// Checks what forwards packets.
pub(super) fn check(file: &File, findings: &Findings) -> PlaneSpec {
    let Some((plane, span)) = file.dataplane.located() else { return PlaneSpec::Xdp };
    let owner = Owner { span, object: "[dataplane]", findings };
    match plane.kind.get() {
        None | Some(PlaneWord::Xdp) => {
            if let Some((true, at)) = plane.offload.located().map(|(is_on, at)| (*is_on, at)) {
                let what = "`offload` is of a switch: it goes on with connections of the nodes behind it";
                owner.report(Finding::error(at, what).suggest("remove it, or write `kind = \"p4\"`"));
            }
            PlaneSpec::Xdp
        }
        Some(PlaneWord::P4) => {
            let ports = ports(plane, &owner);
            let routes = routes(plane, &ports, &owner);
            let offload = offload(plane, &routes, &owner);
            PlaneSpec::P4(Box::new(SwitchSpec {
                address: plane
                    .address
                    .get()
                    .map_or(defaults::SWITCH_ADDRESS, |address| &address.0)
                    .to_owned(),
                device: plane.device_id.get().map_or(0, |id| id.0),
                election: plane.election_id.get().map_or(1, |id| id.0),
                ports,
                cpu_port: plane.cpu_port.get().map(|port| port.narrow()),
                routes,
                offload,
            }))
        }
    }
}

fn ports(plane: &DataPlane, owner: &Owner<'_>) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for (port, span) in plane.ports.get().into_iter().flatten().filter_map(Field::located) {
        let owner = Owner { span: span.clone(), ..*owner };
        let interface = port.interface.required("interface", "\"eth1\"", &owner);
        let number = port.number.required("number", "1", &owner);
        let (Some((interface, _)), Some((number, _))) = (interface, number) else { continue };
        let number: u16 = number.narrow();
        if ports.values().any(|other| *other == number) || ports.insert(interface.0.clone(), number).is_some()
        {
            let what = format!("interface `{}` or port {number} is there twice", interface.0);
            owner.report(Finding::error(span, what).expected("one interface for each port"));
        }
    }
    if ports.is_empty() && !matches!(plane.ports, Field::Invalid(_)) {
        let finding = Finding::error(owner.span.clone(), "the switch has no ports");
        owner.report(finding.suggest("add `ports = [{ interface = \"eth1\", number = 1 }]`"));
    }
    ports
}

/// Whether connections of nodes are gone on with: whatever the switch sends to a backend by itself needs a way there.
fn offload(plane: &DataPlane, routes: &[Route], owner: &Owner<'_>) -> bool {
    let Some((true, at)) = plane.offload.located().map(|(is_on, at)| (*is_on, at)) else { return false };
    if routes.iter().all(|route| route.prefix == 0) && !matches!(plane.routes, Field::Invalid(_)) {
        let what = "no connection can be offloaded: no route but one to everywhere";
        let finding = Finding::error(at, what).expected("a route to each backend that the nodes use");
        let route = "{ to = \"10.2.0.101/32\", interface = \"eth1\", mac = \"02:00:00:00:00:02\" }";
        owner.report(finding.suggest(format!("add ways to them to `routes`, such as `{route}`")));
    }
    true
}

fn routes(plane: &DataPlane, ports: &BTreeMap<String, u16>, owner: &Owner<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for (route, span) in plane.routes.get().into_iter().flatten().filter_map(Field::located) {
        let owner = Owner { span: span.clone(), ..*owner };
        let to = route.to.required("to", "\"0.0.0.0/0\"", &owner);
        let interface = route.interface.required("interface", "\"eth0\"", &owner);
        let mac = route.mac.required("mac", "\"02:00:00:00:00:01\"", &owner);
        let (Some((to, _)), Some((interface, at)), Some((mac, _))) = (to, interface, mac) else { continue };
        if !ports.contains_key(&interface.0) {
            let what = format!("interface `{}` stands for no port", interface.0);
            owner.report(Finding::error(at, what).expected("one of those in `ports`"));
        }
        if routes.iter().any(|route| (route.address, route.prefix) == (to.0, to.1)) {
            owner.report(Finding::error(span, format!("there are two routes to {}/{}", to.0, to.1)));
        }
        routes.push(Route { address: to.0, prefix: to.1, interface: interface.0.clone(), mac: mac.0 });
    }
    routes
}
