//! Who is probed, when, and on whose behalf; no I/O and no clock.

use super::path::{Path, Target};
use super::{Checker, PathSpec, Unusable};
use lb_core::health::{Check, Failure, HealthSpec, Monitor, Policy, State};
use lb_core::pool::identity::{mix, server_number};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A backend by its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend {
    /// The service, or the pool of a path.
    pub service: String,
    /// The backend in it.
    pub backend: String,
}

/// A backend that should be probed.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which.
    pub backend: Backend,
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub spec: Arc<HealthSpec>,
    /// It was down when it was heard of last, before this process.
    pub was_down: bool,
    /// The way of its traffic, where probes go that.
    pub path: Option<PathSpec>,
    /// Where its clock is looked at, too, for its timestamps.
    pub clock: Option<SocketAddr>,
}

/// What is known of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Where it stands.
    pub state: State,
    /// Since when it is healthy or not.
    pub since: Duration,
    /// The latest failure, as long as it counts.
    pub reason: Option<Failure>,
}

/// News of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which.
    pub backend: Backend,
    /// What is known; `None` = nobody looks at it any more.
    pub sighting: Option<Sighting>,
}

/// Wishes with everything that their checks need.
#[derive(Debug)]
pub(super) struct Plan {
    wishes: Vec<Wish>,
    checkers: HashMap<Check, Arc<Checker>>,
    /// Ways of the traffic, for wishes that have them.
    paths: HashMap<(PathSpec, IpAddr), Arc<Path>>,
}

/// A probe to make now.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) checker: Arc<Checker>,
    pub(super) target: Target,
    pub(super) clock: Option<SocketAddr>,
    pub(super) timeout: Duration,
}

/// What is asked of whom how often: one series of probes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Question {
    address: SocketAddr,
    path: Option<PathSpec>,
    clock: Option<SocketAddr>,
    check: Check,
    policy: Policy,
}

#[derive(Debug)]
struct Series {
    question: Question,
    checker: Arc<Checker>,
    path: Option<Arc<Path>>,
    monitor: Monitor,
    /// Who wants to know.
    for_whom: Vec<Backend>,
}

/// All series and their turns.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    series: HashMap<u64, Series>,
    by_question: HashMap<Question, u64>,
    by_backend: HashMap<Backend, u64>,
    /// Who is due; entries whose time is not the monitor's are stale.
    turns: BinaryHeap<Reverse<(Duration, u64)>>,
    next_id: u64,
}

impl Plan {
    /// Prepares each different check once.
    pub(super) fn new(wishes: Vec<Wish>) -> Result<Self, Unusable> {
        let mut checkers: HashMap<Check, Arc<Checker>> = HashMap::new();
        for wish in &wishes {
            if !checkers.contains_key(&wish.spec.check) {
                checkers.insert(wish.spec.check.clone(), Arc::new(Checker::new(&wish.spec)?));
            }
        }
        Ok(Self { wishes, checkers, paths: HashMap::new() })
    }
}

impl Plan {
    /// Finds the ways of the traffic; without one, a probe goes to the backend's own address.
    pub(super) fn lead(&mut self, mut take: impl FnMut(PathSpec, IpAddr) -> Option<Arc<Path>>) {
        for wish in &mut self.wishes {
            let Some(spec) = wish.path else { continue };
            let address = wish.address.ip();
            match take(spec, address) {
                Some(path) => drop(self.paths.insert((spec, address), path)),
                None => wish.path = None,
            }
        }
    }
}

impl Schedule {
    /// Probes those who are wished for, and nobody else. What is known of a backend stays known.
    pub(super) fn set(&mut self, plan: Plan, now: Duration) -> Vec<Report> {
        let mut before = std::mem::take(&mut self.by_backend);
        let known: HashMap<Backend, bool> = before
            .iter()
            .filter_map(|(backend, id)| {
                Some((backend.clone(), self.series.get(id)?.monitor.state().is_healthy()))
            })
            .collect();
        self.series.values_mut().for_each(|series| series.for_whom.clear());
        let mut reports = Vec::new();
        for wish in plan.wishes {
            let Some(checker) = plan.checkers.get(&wish.spec.check) else { continue };
            let Wish { backend, address, spec, was_down, path, clock } = wish;
            let question = Question { address, path, clock, check: spec.check.clone(), policy: spec.policy };
            let is_down = known.get(&backend).map_or(was_down, |is_healthy| !is_healthy);
            let way = path.and_then(|path| plan.paths.get(&(path, address.ip())).cloned());
            let id = self.series_of(question, checker, way, is_down, now);
            let Some(series) = self.series.get_mut(&id) else { continue };
            series.for_whom.push(backend.clone());
            if before.remove(&backend) != Some(id) {
                reports.push(Report { backend: backend.clone(), sighting: Some(sighting(&series.monitor)) });
            }
            self.by_backend.insert(backend, id);
        }
        reports.extend(before.into_keys().map(|backend| Report { backend, sighting: None }));
        self.series.retain(|_, series| !series.for_whom.is_empty());
        let series = &self.series;
        self.by_question.retain(|_, id| series.contains_key(id));
        reports
    }

    /// When the next probe is due.
    pub(super) fn next_due(&mut self) -> Option<Duration> {
        while let Some(&Reverse((due, id))) = self.turns.peek() {
            if self.series.get(&id).is_some_and(|series| series.monitor.due() == Some(due)) {
                return Some(due);
            }
            self.turns.pop();
        }
        None
    }

    /// Takes a probe that is due.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Job> {
        let due = self.next_due()?;
        if due > now {
            return None;
        }
        let Reverse((_, id)) = self.turns.pop()?;
        let series = self.series.get_mut(&id)?;
        series.monitor.begin(now);
        Some(Job {
            id,
            checker: Arc::clone(&series.checker),
            target: Target { address: series.question.address, path: series.path.clone() },
            clock: series.question.clock,
            timeout: series.monitor.timeout(),
        })
    }

    /// Takes the result of a probe; answers what changed.
    pub(super) fn finish(&mut self, id: u64, result: Result<(), Failure>, now: Duration) -> Vec<Report> {
        self.tell(id, |monitor| monitor.finish(now, result).is_some())
    }

    /// Something speaks against a backend: [`unanswered`](Monitor::unanswered) counts, everything else is worth a probe.
    pub(super) fn hint(&mut self, backend: &Backend, is_unanswered: bool, now: Duration) -> Vec<Report> {
        let Some(&id) = self.by_backend.get(backend) else { return Vec::new() };
        self.tell(id, |monitor| {
            if is_unanswered {
                return monitor.unanswered(now).is_some();
            }
            monitor.suspect(now);
            false
        })
    }

    fn tell(&mut self, id: u64, change: impl FnOnce(&mut Monitor) -> bool) -> Vec<Report> {
        // Whoever asked may have gone meanwhile.
        let Some(series) = self.series.get_mut(&id) else { return Vec::new() };
        let has_changed = change(&mut series.monitor);
        if let Some(due) = series.monitor.due() {
            self.turns.push(Reverse((due, id)));
        }
        if !has_changed {
            return Vec::new();
        }
        let sighting = sighting(&series.monitor);
        let report =
            |backend: &Backend| Report { backend: backend.clone(), sighting: Some(sighting.clone()) };
        series.for_whom.iter().map(report).collect()
    }

    fn series_of(
        &mut self,
        question: Question,
        checker: &Arc<Checker>,
        path: Option<Arc<Path>>,
        is_down: bool,
        now: Duration,
    ) -> u64 {
        if let Some(&id) = self.by_question.get(&question) {
            return id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let seed = mix(id ^ server_number(&question.address.to_string()));
        let monitor = Monitor::new(question.policy, is_down, seed, now);
        self.turns.extend(monitor.due().map(|due| Reverse((due, id))));
        self.by_question.insert(question.clone(), id);
        let series = Series { question, checker: Arc::clone(checker), path, monitor, for_whom: Vec::new() };
        self.series.insert(id, series);
        id
    }
}

fn sighting(monitor: &Monitor) -> Sighting {
    Sighting { state: monitor.state(), since: monitor.since(), reason: monitor.reason().cloned() }
}

#[cfg(test)]
mod tests;
