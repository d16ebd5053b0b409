//! Slow start: a backend that was down gets its share of new sessions back bit by bit.
//!
//! What grows is its weight, in the selection table as well as where load is compared. Sessions that are bound stay where they are.

use super::health::HealthChange;
use lb_core::pool::{BackendSpec, Desired, PoolSpec};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Steps in which a share grows. Each writes the pool's table anew.
const STEPS: u32 = 20;
/// How often shares are looked at.
pub(super) const RAMP_EVERY: Duration = Duration::from_millis(50);

/// Name of a pool and of a backend.
type Name = (String, String);

/// Who has come back, and how much of their share they have got.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Ramps {
    returned: HashMap<Name, SystemTime>,
    /// Steps that were made, 1 to [`STEPS`] - 1.
    steps: HashMap<Name, u32>,
}

impl Ramps {
    /// Whether somebody has not got all of his share.
    pub(super) fn is_busy(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Takes note of news of a backend that `was_down` so far.
    pub(super) fn note(&mut self, was_down: bool, change: &HealthChange) {
        let name = (change.service.clone(), change.backend.clone());
        match &change.health {
            Some(health) if health.state.is_healthy() => {
                if was_down {
                    self.returned.insert(name, health.since);
                }
            }
            Some(_) | None => drop(self.returned.remove(&name)),
        }
    }

    /// Lets shares grow; whether any has changed.
    pub(super) fn advance(&mut self, pools: &[PoolSpec], now: SystemTime) -> bool {
        let mut steps = HashMap::new();
        self.returned.retain(|name, since| {
            let pool = pools.iter().map(|pool| &pool.service).find(|service| service.name == name.0);
            let Some(pool) = pool.filter(|pool| !pool.slow_start.is_zero()) else { return false };
            // A clock that was put back makes it wait no longer than it would have.
            let passed = now.duration_since(*since).unwrap_or_default();
            let made = passed.as_nanos() * u128::from(STEPS) / pool.slow_start.as_nanos();
            let made = u32::try_from(made).unwrap_or(STEPS).max(1);
            if made >= STEPS {
                return false;
            }
            steps.insert(name.clone(), made);
            true
        });
        std::mem::replace(&mut self.steps, steps) != self.steps
    }

    /// Hundredths of its weight that a backend has; `None` = all of it.
    pub(super) fn percent(&self, pool: &str, backend: &str) -> Option<u8> {
        let steps = self.steps.get(&(pool.to_owned(), backend.to_owned()))?;
        u8::try_from(steps * 100 / STEPS).ok()
    }

    /// The weights as they are for the time being.
    pub(super) fn applied_to(&self, desired: &Desired) -> Desired {
        let mut desired = desired.clone();
        if self.steps.is_empty() {
            return desired;
        }
        for service in &mut desired.services {
            self.weigh(&service.name, &mut service.backends);
            for path in &mut service.paths {
                self.weigh(&path.name, &mut path.backends);
            }
        }
        desired
    }

    fn weigh(&self, pool: &str, backends: &mut [BackendSpec]) {
        let steps = |backend: &BackendSpec| self.steps.get(&(pool.to_owned(), backend.name.clone()));
        if backends.iter().all(|backend| steps(backend).is_none()) {
            return;
        }
        // All of them, so that parts of a weight are whole numbers. Tables know proportions only.
        for backend in backends {
            backend.weight *= steps(backend).copied().unwrap_or(STEPS);
        }
    }

    /// Weight of a backend among those that load is compared with.
    pub(super) fn weight(&self, pool: &str, backend: &BackendSpec) -> u16 {
        let steps = match self.steps.is_empty() {
            true => STEPS,
            false => self.steps.get(&(pool.to_owned(), backend.name.clone())).copied().unwrap_or(STEPS),
        };
        u16::try_from(backend.weight * steps).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;
