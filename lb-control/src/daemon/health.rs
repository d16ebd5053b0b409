//! Carries what probes find to the reconciler, and what is configured to the probes.

use super::complaint::Complaint;
use super::vantage::{Vantage, crossings};
use super::{passive, target};
use crate::admin::error::ErrorBody;
use crate::admin::row::{EventRow, HealthState};
use crate::admin::{EventLog, HealthEvent, now};
use crate::net::addresses::{self, Owned};
use crate::net::interface::name_of;
use crate::probe::{Backend, Clocks, Prober, Report, Wish};
use crate::reconcile::{Gone, Handle, Health, HealthChange, QueryError};
use crate::webhook::Webhook;
use anyhow::Context as _;
use axum::http::StatusCode;
use lb_core::health::State;
use lb_core::pool::{BackendSpec, Consistency, Desired, NodeSpec, PoolSpec, ServiceSpec};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// Time between two looks at the interfaces that lead to backends.
const LEAD: Duration = Duration::from_secs(1);

/// The health checks of this node.
#[derive(Clone)]
pub(super) struct Checks {
    prober: Prober,
    reconciler: Handle,
    stand: Arc<Mutex<Stand>>,
}

/// What the ways of the latest probes were found from.
#[derive(Default)]
struct Stand {
    /// This host's addresses, where a backend is of another family than its service.
    own: Option<Vec<Owned>>,
    /// The interfaces of those that ask.
    interfaces: BTreeSet<u32>,
    lack: Complaint,
}

impl Checks {
    /// Starts to carry what probes find; ends with the reconciler.
    pub(super) fn start(
        reconciler: &Handle,
        mut herald: Herald,
        clocks: Clocks,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let (prober, mut reports) = Prober::start(clocks).context("health checks")?;
        tasks.spawn(passive::watch(reconciler.clone(), prober.clone()));
        let handle = reconciler.clone();
        let checks = Self { prober: prober.clone(), reconciler: reconciler.clone(), stand: Arc::default() };
        tasks.spawn(lead(checks.clone()));
        tasks.spawn(async move {
            while let Some(told) = reports.recv().await {
                told.iter().for_each(|report| herald.hear(report));
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
        Prober::check(wishes(desired, &HashSet::new(), &Vantage::default())).map_err(|unusable| {
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
        self.watch_from(&mut *self.stand.lock().await).await
    }

    /// Probes go other ways when this host's addresses have changed; answers the interfaces that answers come in by.
    async fn follow(&self) -> Result<BTreeSet<u32>, Gone> {
        let mut stand = self.stand.lock().await;
        if let Some(before) = &stand.own
            && addresses::global().await.is_ok_and(|own| own != *before)
        {
            self.watch_from(&mut stand).await?;
        }
        Ok(stand.interfaces.clone())
    }

    async fn watch_from(&self, stand: &mut Stand) -> Result<(), Gone> {
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
        stand.own = match crossings(&desired).next() {
            None => None,
            Some(_) => Some(addresses::global().await.unwrap_or_else(|error| {
                warn!(%error, "this host's addresses are not known");
                Vec::new()
            })),
        };
        let vantage = Vantage::new(stand.own.as_deref().unwrap_or_default(), &desired);
        match vantage.lack(&desired) {
            Some(text) if stand.lack.is_news(text.clone()) => warn!("{text}"),
            Some(_) => {}
            None => stand.lack.settle(),
        }
        let wishes = wishes(&desired, &down, &vantage);
        let used = wishes.iter().filter_map(|wish| wish.path?.inner).collect();
        stand.interfaces = vantage.interfaces(&used);
        if let Err(unusable) = self.prober.watch(wishes) {
            // It was usable when the configuration was taken.
            warn!("health checks stay as they were: {unusable}");
        }
        Ok(())
    }
}

/// Keeps the programs that lead probes the way of the traffic on the interfaces that lead to backends, and that answers come in by.
async fn lead(checks: Checks) {
    let Checks { prober, reconciler, stand: _ } = &checks;
    let mut complaint = Complaint::default();
    loop {
        tokio::time::sleep(LEAD).await;
        let Ok(answered) = checks.follow().await else { return };
        if !prober.is_led() {
            continue;
        }
        let view = match reconciler.view().await {
            Ok(view) => view,
            Err(QueryError::Gone(_)) => return,
            // Those who know more of it say so.
            Err(error) => {
                debug!(%error, "which interfaces lead to backends is not known");
                continue;
            }
        };
        let interfaces = &target::targets(&view) | &answered;
        let interfaces = interfaces.into_iter().filter_map(|index| Some((index, name_of(index)?)));
        match prober.lead(&interfaces.collect()) {
            Ok(()) => complaint.settle(),
            Err(error) if complaint.is_news(error.to_string()) => warn!(%error, "trying again"),
            Err(_) => {}
        }
    }
}

/// Who should be probed.
fn wishes(desired: &Desired, down: &HashSet<Backend>, vantage: &Vantage) -> Vec<Wish> {
    let pools = desired.pools();
    pools.iter().flat_map(|pool| wishes_of(&desired.node, pool, down, vantage)).collect()
}

fn wishes_of<'a>(
    node: &'a NodeSpec,
    pool: &'a PoolSpec,
    down: &'a HashSet<Backend>,
    vantage: &'a Vantage,
) -> impl Iterator<Item = Wish> + 'a {
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
                path: vantage.path(node, service, backend.address),
                clock: clock(service, backend),
            }
        })
    })
}

/// Where the clock of a backend is looked at whose timestamps carry its number.
fn clock(service: &ServiceSpec, backend: &BackendSpec) -> Option<SocketAddr> {
    let port = if backend.port == 0 { service.port } else { backend.port };
    (service.consistency == Consistency::Timestamps).then(|| SocketAddr::new(backend.address, port))
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

/// Tells what becomes of backends: the log, the events, and the webhook.
pub(super) struct Herald {
    known: HashMap<Backend, State>,
    events: Arc<EventLog>,
    webhook: Webhook,
}

impl Herald {
    /// One who has not heard of anybody yet.
    pub(super) fn new(events: Arc<EventLog>, webhook: Webhook) -> Self {
        Self { known: HashMap::new(), events, webhook }
    }

    /// Passes a report on. The webhook is told when a backend dies or comes back; what leads there is for those who look closely.
    fn hear(&mut self, report: &Report) {
        let Backend { service, backend } = &report.backend;
        let Some(sighting) = &report.sighting else {
            self.known.remove(&report.backend);
            self.events.forget_health(service, backend);
            return;
        };
        let from = self.known.insert(report.backend.clone(), sighting.state).unwrap_or(State::New);
        let reason = sighting.reason.as_ref().map(ToString::to_string);
        match (from.is_healthy(), sighting.state.is_healthy()) {
            (true, false) => warn!(service, backend, reason, "backend is down"),
            (false, true) => info!(service, backend, "backend is up"),
            (true, true) | (false, false) => {
                debug!(service, backend, state = ?sighting.state, reason, "backend");
            }
        }
        if HealthState::from(from) == HealthState::from(sighting.state) {
            return;
        }
        let event = HealthEvent {
            service: service.clone(),
            backend: backend.clone(),
            from,
            to: sighting.state,
            reason: sighting.reason.clone(),
        };
        let noted = self.events.note_health(event, now());
        if noted.event.is_verdict() {
            self.webhook.tell(EventRow::from(&noted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::probe::Sighting;
    use lb_core::health::{Failure, Voice};
    use std::num::NonZero;

    #[test]
    fn every_change_of_state_is_an_event_and_counts_once() {
        let (events, one) = (Arc::new(EventLog::default()), NonZero::<u16>::MIN);
        let mut herald = Herald::new(Arc::clone(&events), Webhook::none());
        let two = one.saturating_add(1);
        let mut see = |state, reason| {
            let sighting = Some(Sighting { state, since: Duration::ZERO, reason });
            herald.hear(&Report { backend: named("web", "a"), sighting });
        };
        for state in [State::New, State::Up, State::Failing(one), State::Failing(two)] {
            see(state, None);
        }
        see(State::Down(Voice::Probe), Some(Failure::Refused));
        see(State::Rising(Voice::Probe, one), Some(Failure::Refused));
        see(State::Up, None);
        let rows: Vec<EventRow> = events.latest_health(9, |_| true).iter().map(EventRow::from).collect();
        let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["health", "health", "down", "health", "up"]);
        let told = rows[2].health.as_ref().expect("it is of health");
        assert_eq!((told.from, told.to), (HealthState::Failing, HealthState::Down));
        assert_eq!(told.reason.as_deref(), Some("refused the connection"));
        herald.hear(&Report { backend: named("web", "a"), sighting: None });
        assert!(events.health_counts().is_empty());
    }

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
        let asked: Vec<_> = wishes(&desired, &down, &Vantage::default())
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
