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

/// What the other nodes of a cluster say that are heard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OtherViews {
    /// How many there are.
    pub nodes: usize,
    /// At how many of them a server serves nobody, by service and number; those that are not here serve everywhere.
    pub failed: HashMap<(u32, u64), usize>,
    /// Whether this node's id is the lowest of all that are heard: what one node does for all is for it to do.
    pub is_first: bool,
    /// Whether those that are heard, this one among them, are more than half of all members.
    pub is_majority: bool,
}

/// What is known of all backends that are checked.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Healths {
    /// By service and name.
    known: HashMap<String, HashMap<String, Health>>,
    others: OtherViews,
    /// Rises with each change.
    version: u64,
}

impl Healths {
    /// What is known of a backend.
    pub(super) fn of(&self, service: &str, backend: &str) -> Option<&Health> {
        self.known.get(service)?.get(backend)
    }

    /// Takes note of news.
    pub(super) fn note(&mut self, change: HealthChange) {
        let HealthChange { service, backend, health } = change;
        self.version += 1;
        match health {
            Some(health) => {
                self.known.entry(service).or_default().insert(backend, health);
            }
            None => {
                if let Some(pool) = self.known.get_mut(&service) {
                    pool.remove(&backend);
                    if pool.is_empty() {
                        self.known.remove(&service);
                    }
                }
            }
        }
    }

    /// Takes note of what other nodes say.
    pub(super) fn hear(&mut self, others: OtherViews) {
        self.others = others;
    }

    /// Whether this node does what one does for all.
    pub(super) const fn is_first(&self) -> bool {
        self.others.is_first
    }

    /// Whether it may do what not even two parts of a cut cluster may both do.
    pub(super) const fn may_decide(&self) -> bool {
        self.others.is_first && self.others.is_majority
    }

    /// Whether some other node says that a server serves nobody there.
    pub(super) fn is_failed_elsewhere(&self, service: u32, number: u64) -> bool {
        self.others.failed.contains_key(&(service, number))
    }

    /// Rises with each change of what this node knows itself.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Whether this node's own probes find a backend dead, whatever the others say.
    pub(super) fn is_dead(&self, service: &str, backend: &str) -> bool {
        self.of(service, backend).is_some_and(|health| !health.state.is_healthy())
    }

    /// What most of the nodes that are heard say of a backend, this one with what it has found itself; where they are in two minds, it
    /// is used.
    fn by_vote(&self, own: State, service: u32, number: u64) -> State {
        let others = self.others.failed.get(&(service, number)).copied().unwrap_or_default();
        let against = others + usize::from(!own.is_healthy());
        let is_down = against * 2 > 1 + self.others.nodes;
        match (own.is_healthy(), is_down) {
            (true, true) => State::Down(Voice::Probe),
            (false, false) => State::Up,
            (true, false) | (false, true) => own,
        }
    }

    /// Which backends of a pool are used, in its order.
    pub(super) fn judge(&self, pool: &ServiceSpec) -> Judgement {
        let (Some(spec), Some(known)) = (&pool.health, self.known.get(&pool.name)) else {
            return Judgement { used: vec![true; pool.backends.len()], ..Judgement::default() };
        };
        let standing = |backend: &lb_core::pool::BackendSpec| {
            let health = known.get(&backend.name);
            let state = health.map(|health| health.state);
            let voted = |own| if spec.quorum { self.by_vote(own, pool.id, backend.number) } else { own };
            Standing {
                state: state.map(voted),
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
