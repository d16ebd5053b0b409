//! What health checks say, and what it means for a pool.

use super::node::Node;
use lb_common::abi::Status;
use lb_core::health::{Failure, Judgement, Standing, State, Voice, judge};
use lb_core::pool::layout::Plan;
use lb_core::pool::{Admin, PoolSpec, ServiceSpec};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is known of a backend that is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Where it stands.
    pub state: State,
    /// Since when it is healthy, or not.
    pub since: SystemTime,
    /// The latest failure, as long as it counts.
    pub reason: Option<Failure>,
}

/// News of a backend's health.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthChange {
    /// Name of its service, or of a path's pool.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// What is known; `None` = it is not checked any more.
    pub health: Option<Health>,
}

/// What is known of all backends that are checked, by service and name.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Healths(HashMap<String, HashMap<String, Health>>);

impl Healths {
    /// What is known of a backend.
    pub(super) fn of(&self, service: &str, backend: &str) -> Option<&Health> {
        self.0.get(service)?.get(backend)
    }

    /// Takes note of news.
    pub(super) fn note(&mut self, change: HealthChange) {
        let HealthChange { service, backend, health } = change;
        match health {
            Some(health) => {
                self.0.entry(service).or_default().insert(backend, health);
            }
            None => {
                if let Some(pool) = self.0.get_mut(&service) {
                    pool.remove(&backend);
                    if pool.is_empty() {
                        self.0.remove(&service);
                    }
                }
            }
        }
    }

    /// Which backends of a pool are used, in its order.
    pub(super) fn judge(&self, pool: &ServiceSpec) -> Judgement {
        let (Some(spec), Some(known)) = (&pool.health, self.0.get(&pool.name)) else {
            return Judgement { used: vec![true; pool.backends.len()], ..Judgement::default() };
        };
        let standing = |backend: &lb_core::pool::BackendSpec| {
            let health = known.get(&backend.name);
            Standing {
                state: health.map(|health| health.state),
                since: health
                    .and_then(|health| health.since.duration_since(UNIX_EPOCH).ok())
                    .unwrap_or_default(),
                is_wanted: backend.admin == Admin::Enabled && backend.weight > 0,
            }
        };
        judge(spec.thresholds, &pool.backends.iter().map(standing).collect::<Vec<_>>())
    }
}

impl Node {
    /// Takes over who was down when the process before this one ended: probes have to find them well first.
    pub(super) fn inherit_health(&mut self, pools: &[PoolSpec], plan: &Plan) {
        for (pool, place) in pools.iter().zip(&plan.services) {
            let service = &pool.service;
            if service.health.is_none() {
                continue;
            }
            for (backend, place) in service.backends.iter().zip(&place.backends) {
                let word = self.actual_status(Status::word(place.slot));
                if place.fresh || backend.admin == Admin::Disabled || Status::serves(word, place.slot) {
                    continue;
                }
                let health = Health { state: State::Down(Voice::Probe), since: UNIX_EPOCH, reason: None };
                self.world.health.note(HealthChange {
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                    health: Some(health),
                });
            }
        }
    }
}
