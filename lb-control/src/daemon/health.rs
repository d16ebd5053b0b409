//! Carries what probes find to the reconciler, and what is configured to the probes.

use super::passive;
use crate::admin::error::ErrorBody;
use crate::probe::{Backend, Prober, Report, Wish};
use crate::reconcile::{Gone, Handle, Health, HealthChange};
use anyhow::Context as _;
use axum::http::StatusCode;
use lb_core::health::State;
use lb_core::pool::{Desired, PoolSpec};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// The health checks of this node.
pub(super) struct Checks {
    prober: Prober,
    reconciler: Handle,
}

impl Checks {
    /// Starts to carry what probes find; ends with the reconciler.
    pub(super) fn start(reconciler: &Handle, tasks: &mut JoinSet<()>) -> anyhow::Result<Self> {
        let (prober, mut reports) = Prober::start().context("health checks")?;
        tasks.spawn(passive::watch(reconciler.clone(), prober.clone()));
        let (checks, handle) =
            (Self { prober: prober.clone(), reconciler: reconciler.clone() }, reconciler.clone());
        tasks.spawn(async move {
            let mut known = HashMap::new();
            while let Some(told) = reports.recv().await {
                told.iter().for_each(|report| log(report, &mut known));
                let changes = told.into_iter().map(|report| change(report, &prober)).collect();
                if handle.health(changes).await.is_err() {
                    break;
                }
            }
        });
        Ok(checks)
    }

    /// Refuses checks that cannot be made from this host.
    pub(super) fn examine(desired: &Desired) -> Result<(), ErrorBody> {
        Prober::check(wishes(desired, &HashSet::new())).map_err(|unusable| {
            let expected = "what the health checks in the configuration need";
            let hint = "correct [service.health], or set `health = \"none\"`";
            crate::admin::error::ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                unusable.to_string(),
                "health checks",
                expected,
                hint,
            )
            .body
        })
    }

    /// Probes the backends of what runs.
    pub(super) async fn watch(&self) -> Result<(), Gone> {
        let Some(desired) = self.reconciler.desired().await? else { return Ok(()) };
        let down = match self.reconciler.view().await {
            Ok(view) => view
                .services
                .iter()
                .flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
                .filter(|(_, backend)| {
                    backend.health.as_ref().is_some_and(|health| !health.state.is_healthy())
                })
                .map(|(pool, backend)| named(&pool.spec.name, &backend.spec.name))
                .collect(),
            Err(error) => {
                debug!(%error, "who is down is not known");
                HashSet::new()
            }
        };
        if let Err(unusable) = self.prober.watch(wishes(&desired, &down)) {
            // It was usable when the configuration was taken.
            warn!("health checks stay as they were: {unusable}");
        }
        Ok(())
    }
}

/// Who should be probed.
fn wishes(desired: &Desired, down: &HashSet<Backend>) -> Vec<Wish> {
    let pools = desired.pools();
    pools.iter().flat_map(|pool| wishes_of(pool, down)).collect()
}

fn wishes_of<'a>(pool: &'a PoolSpec, down: &'a HashSet<Backend>) -> impl Iterator<Item = Wish> + 'a {
    let service = &pool.service;
    let spec = service.health.as_ref();
    spec.into_iter().flat_map(move |spec| {
        service.backends.iter().map(move |backend| {
            let port = [spec.port, backend.port, service.port].into_iter().find(|&port| port != 0);
            let name = named(&service.name, &backend.name);
            Wish {
                was_down: down.contains(&name),
                backend: name,
                address: SocketAddr::new(backend.address, port.unwrap_or_default()),
                spec: spec.clone(),
            }
        })
    })
}

fn named(service: &str, backend: &str) -> Backend {
    Backend { service: service.to_owned(), backend: backend.to_owned() }
}

fn change(report: Report, prober: &Prober) -> HealthChange {
    let Backend { service, backend } = report.backend;
    let health = report.sighting.map(|sighting| Health {
        state: sighting.state,
        since: prober.wall(sighting.since),
        reason: sighting.reason,
    });
    HealthChange { service, backend, health }
}

/// Says when a backend dies or comes back; what leads there is for those who look closely.
fn log(report: &Report, known: &mut HashMap<Backend, State>) {
    let Backend { service, backend } = &report.backend;
    let Some(sighting) = &report.sighting else {
        known.remove(&report.backend);
        return;
    };
    let before = known.insert(report.backend.clone(), sighting.state).unwrap_or(State::New);
    let reason = sighting.reason.as_ref().map(ToString::to_string);
    match (before.is_healthy(), sighting.state.is_healthy()) {
        (true, false) => warn!(service, backend, reason, "backend is down"),
        (false, true) => info!(service, backend, "backend is up"),
        (true, true) | (false, false) => debug!(service, backend, state = ?sighting.state, reason, "backend"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_backend_of_every_pool_is_asked_at_its_port() {
        let file = "
            [[service]]
            name = \"web\"
            address = \"192.0.2.1\"
            port = 80
            mode = \"nat\"
            affinity = { kind = \"http-cookie\", cookie = \"S\" }
            backend = [{ name = \"a\", address = \"198.51.100.1\", port = 8080 }, { name = \"b\", address = \"198.51.100.2\" }]
            path = [{ prefix = \"/s/\", name = \"files\", backend = [{ name = \"f\", address = \"198.51.100.3\" }] }]

            [[service]]
            name = \"api\"
            address = \"192.0.2.1\"
            port = 81
            mode = \"nat\"
            health = { kind = \"http\", port = 9000 }
            backend = [{ name = \"a\", address = \"198.51.100.1\", port = 8081 }]

            [[service]]
            name = \"dns\"
            address = \"192.0.2.1\"
            port = 53
            protocol = \"udp\"
            mode = \"nat\"
            backend = [{ name = \"a\", address = \"198.51.100.1\" }]

            [[service]]
            name = \"off\"
            address = \"192.0.2.1\"
            port = 82
            mode = \"nat\"
            health = \"none\"
            backend = [{ name = \"a\", address = \"198.51.100.1\" }]
        ";
        let desired = config::parse(file, "test").expect("valid").desired([0; 16]);
        let down = HashSet::from([named("files", "f")]);
        let asked: Vec<_> = wishes(&desired, &down)
            .into_iter()
            .map(|wish| (wish.backend.service, wish.backend.backend, wish.address.to_string(), wish.was_down))
            .collect();
        let expected = [
            ("web", "a", "198.51.100.1:8080", false),
            ("web", "b", "198.51.100.2:80", false),
            ("files", "f", "198.51.100.3:80", true),
            ("api", "a", "198.51.100.1:9000", false),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(service, name, address, down)| {
                (service.to_owned(), name.to_owned(), address.to_owned(), down)
            })
            .collect();
        assert_eq!(asked, expected);
    }
}
