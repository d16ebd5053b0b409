//! Moves sessions from backends that serve nobody any more, and back when that is wanted.
//!
//! Packets move their sessions themselves, by the same function of the same tables; this is for the sessions that no packet
//! comes for, so that they are where the order says before the tables change again.
//!
//! In a cluster nobody moves the sessions of a backend that failed but packets and what nodes agree upon (`lb_core::sync`): the
//! table holds the sessions of all nodes, and what this one cannot reach may serve the others. When most nodes say that a
//! backend failed, its sessions move by one event, which comes here as changes of bindings.
//!
//! What an administrator says moves sessions in a cluster, too: the node that was told moves those of all nodes at the limited
//! rate, each by an event as if its packet had come, and the others follow. What all nodes know (whose time to drain is over, who has
//! been idle for long enough to go back) the first of those that hear each other does.

use super::ChangeError;
use super::node::Node;
use lb_common::abi::{Method, RebindRequest, RebindWhom, Service, Status, SweepRequest, SweepTarget};
use lb_core::health::Failback;
use lb_core::pool::{Admin, ServiceSpec, row};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Slots of one run: enough to be worth a system call, and no more than keep a CPU from its packets for two or three milliseconds.
const STRETCH: u32 = 8_192;
/// Time between two stretches where as many sessions were moved as may be.
const PAUSE: Duration = Duration::from_millis(20);
/// How often idle sessions are looked for, in a cluster those that other nodes gave to a backend that is drained here.
pub(super) const FAILBACK_EVERY: Duration = Duration::from_secs(10);

/// The walks through the table of bindings that are to be done.
#[derive(Default, Debug)]
pub(super) struct Rebinder {
    walks: VecDeque<Walk>,
    /// The status words at the last look.
    statuses: BTreeMap<u32, u64>,
    /// Backend slots (and their generation) that served then, by service id.
    serving: HashMap<u32, HashSet<(u16, u16)>>,
    /// Backends whose time to drain is over, by pool and name, and whether anything may be left of them.
    overdue: BTreeMap<(String, String), bool>,
    allowance: Allowance,
}

/// How many sessions may be moved now where there is no hurry.
#[derive(Debug)]
struct Allowance {
    at: Instant,
    sessions: f64,
}

/// A walk for one pool.
#[derive(Debug)]
struct Walk {
    name: String,
    service: u32,
    whom: RebindWhom,
    /// Bindings that end later than so many nanoseconds from now stay.
    idle: u64,
    /// Only those of this backend.
    backend: Option<Drained>,
    is_limited: bool,
    start: u32,
    moved: u64,
    left: u64,
    began: Instant,
}

/// A backend whose sessions are moved at a limited rate.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Drained {
    name: String,
    slot: u16,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { at: Instant::now(), sessions: 0.0 }
    }
}

impl Allowance {
    /// What may be moved now at this rate a second; what is not used within a tenth of a second is lost.
    fn now(&mut self, rate: u32) -> u32 {
        let (now, rate) = (Instant::now(), f64::from(rate));
        let gained = now.duration_since(self.at).as_secs_f64() * rate;
        (self.at, self.sessions) = (now, (self.sessions + gained).min((rate / 10.0).max(1.0)));
        self.sessions as u32
    }

    fn use_up(&mut self, sessions: u32) {
        self.sessions -= f64::from(sessions);
    }
}

impl Rebinder {
    /// Until when the next stretch has to wait; `None` = it has not.
    pub(super) fn pause(&self) -> Option<Instant> {
        let is_limited = self.walks.front().is_some_and(|walk| walk.is_limited);
        (is_limited && self.allowance.sessions < 1.0).then(|| self.allowance.at + PAUSE)
    }

    /// Whether there is something to do.
    pub(super) fn is_busy(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Leaves all to packets that no administrator has asked for.
    pub(super) fn stop(&mut self) {
        self.walks.retain(|walk| walk.is_limited);
    }

    /// Finds pools with backends that have stopped serving since the last look; their sessions are moved if it `moves` any.
    pub(super) fn look(&mut self, node: &Node, moves: bool) {
        let Some(applied) = node.applied().filter(|_| *node.statuses() != self.statuses) else { return };
        self.statuses.clone_from(node.statuses());
        let mut before = std::mem::take(&mut self.serving);
        for (pool, place) in applied.pools.iter().zip(&applied.places) {
            let serves = |slot| Status::serves(node.actual_status(Status::word(slot)), slot);
            let now: HashSet<(u16, u16)> = place
                .backends
                .iter()
                .filter(|backend| serves(backend.slot))
                .map(|backend| (backend.slot, backend.generation))
                .collect();
            let service = &pool.service;
            let was = before.remove(&service.id).unwrap_or_default();
            if moves && !was.is_subset(&now) {
                self.add(&service.name, service.id, RebindWhom::Stranded, 0, None);
            }
            self.serving.insert(service.id, now);
        }
    }

    /// Moves the sessions of backends whose time to drain is over, by the wall clock in seconds.
    pub(super) fn look_for_overdue(&mut self, node: &Node, now: u64) {
        let is_overdue = |change: &super::Override| {
            change.admin == Some(Admin::Draining) && change.deadline.is_some_and(|deadline| deadline <= now)
        };
        let overdue = node.overrides.backends.iter().filter(|(_, change)| is_overdue(change));
        let overdue: Vec<_> = overdue.map(|(names, _)| names.clone()).collect();
        self.overdue.retain(|names, _| overdue.contains(names));
        for names in overdue {
            let is_left = *self.overdue.entry(names.clone()).or_insert(true);
            let Some(applied) = node.applied().filter(|_| is_left) else { continue };
            let mut pools = applied.pools.iter().zip(&applied.places);
            let Some((pool, place)) = pools.find(|(pool, _)| pool.service.name == names.0) else { continue };
            let mut backends = pool.service.backends.iter().zip(&place.backends);
            let Some((backend, place)) = backends.find(|(backend, _)| backend.name == names.1) else {
                continue;
            };
            let drained = Drained { name: backend.name.clone(), slot: place.slot };
            if !self.walks.iter().any(|walk| walk.backend.as_ref() == Some(&drained)) {
                self.add(&names.0, pool.service.id, RebindWhom::Drained, 0, Some(drained));
            }
        }
    }

    /// Has backends whose time to drain is over looked at once more: other nodes may have bound sessions to them.
    pub(super) fn look_again(&mut self) {
        self.overdue.values_mut().for_each(|is_left| *is_left = true);
    }

    /// Lets all sessions of a service that moved go back: to where they were if that need not be the first of their order.
    pub(super) fn fail_back(&mut self, node: &Node, name: &str) -> Result<(), ChangeError> {
        let mut pools = node.applied().into_iter().flat_map(|applied| &applied.pools);
        let Some(pool) = pools.find(|pool| pool.service.name == name) else {
            return Err(node.unknown_service(name));
        };
        let whom = who_returns(&pool.service);
        self.add(name, pool.service.id, whom, u64::MAX, None);
        if let Some(walk) = self.walks.back_mut().filter(|walk| walk.whom == whom) {
            walk.is_limited = true;
        }
        Ok(())
    }

    /// Lets sessions of services that want it go home.
    ///
    /// In a cluster one node does, and only where all see alike what it sees serving: who is sent where another node cannot
    /// reach the backend would come back, and so on for ever. What other nodes see of a session's packets is known late.
    pub(super) fn look_for_idle(&mut self, node: &Node, is_alone: bool) {
        for (pool, place) in
            node.applied().iter().flat_map(|applied| applied.pools.iter().zip(&applied.places))
        {
            let service = &pool.service;
            let is_split = place.backends.iter().any(|place| {
                let word = node.actual_status(Status::word(place.slot));
                Status::serves(word, place.slot)
                    && node.world.health.is_failed_elsewhere(service.id, place.number)
            });
            if !is_alone && is_split {
                continue;
            }
            let Some(Failback::WhenIdle(idle)) = service.health.as_ref().map(|health| health.failback) else {
                continue;
            };
            let late = if is_alone { Duration::ZERO } else { lateness(service.lifetime) };
            let rest = service.lifetime.saturating_sub(idle).saturating_sub(late);
            let whom = who_returns(service);
            self.add(&service.name, service.id, whom, row::nanoseconds(rest), None);
            if let Some(walk) = self.walks.back_mut().filter(|walk| !is_alone && walk.whom == whom) {
                // The others are to hear of each at once.
                walk.is_limited = true;
            }
        }
    }

    fn add(&mut self, name: &str, service: u32, whom: RebindWhom, idle: u64, backend: Option<Drained>) {
        let is_same = |walk: &Walk| {
            walk.service == service && walk.whom == whom && walk.idle == idle && walk.backend == backend
        };
        // One that has begun has passed bindings that may be concerned by now.
        if self.walks.iter().any(|walk| is_same(walk) && walk.start == 0) {
            return;
        }
        let walk = Walk {
            name: name.to_owned(),
            service,
            whom,
            idle,
            is_limited: backend.is_some(),
            backend,
            start: 0,
            moved: 0,
            left: 0,
            began: Instant::now(),
        };
        match whom {
            // Whoever waits for a backend that is dead comes first.
            RebindWhom::Stranded => self.walks.push_front(walk),
            RebindWhom::Drained | RebindWhom::Idle | RebindWhom::Homeless => self.walks.push_back(walk),
        }
    }

    /// Walks one stretch.
    pub(super) fn step(&mut self, node: &mut Node) {
        let Some(mut walk) = self.walks.pop_front() else { return };
        let Some(row) = row_of(node, walk.service) else { return };
        let length = node.plane.sizes().binding_slots();
        let count = STRETCH.min(length.saturating_sub(walk.start));
        let rate = node.applied().map_or(0, |applied| applied.desired.node.limits.drain_rate);
        let limit = if walk.is_limited { self.allowance.now(rate) } else { u32::MAX };
        if limit == 0 {
            // Others do not wait for it.
            self.walks.push_front(walk);
            if let Some(place) = self.walks.iter().position(|walk| !walk.is_limited) {
                self.walks.swap(0, place);
            }
            return;
        }
        let request = RebindRequest {
            start: walk.start,
            count,
            whom: walk.whom as u32,
            limit,
            idle: walk.idle,
            service: row.id,
            table: row.table,
            table_mask: row.table_mask,
            members: row.members,
            member_count: row.member_count,
            backend: walk.backend.as_ref().map_or(0, |backend| u32::from(backend.slot) + 1),
        };
        let mut looked_at = count;
        match node.plane.rebind(&request) {
            Ok(report) => {
                if walk.is_limited {
                    self.allowance.use_up(report.moved);
                    looked_at = report.looked_at.min(count);
                    if report.moved > 0 {
                        tell_at_once(node, walk.start, looked_at);
                    }
                }
                walk.moved += u64::from(report.moved);
                walk.left += u64::from(report.left);
            }
            // Packets move their sessions themselves.
            Err(error) => {
                tracing::warn!(%error, service = walk.name, "sessions of a stretch stay where they are")
            }
        }
        walk.start += looked_at;
        if count > 0 && walk.start < length {
            self.walks.push_front(walk);
        } else {
            walk.tell();
            if let Some(backend) = walk.backend
                && let Some(is_left) = self.overdue.get_mut(&(walk.name, backend.name))
            {
                // One that changed meanwhile, or has nowhere to go, may be able to at the next look.
                *is_left = walk.moved + walk.left > 0;
            }
        }
    }
}

/// Has what moved in a stretch told now, and not when the next sweep comes by: other nodes are to follow. Where all move that
/// can, there would be too many events for that.
fn tell_at_once(node: &mut Node, start: u32, count: u32) {
    let request = SweepRequest { target: SweepTarget::Bindings as u32, start, count, pad: 0 };
    if let Err(error) = node.plane.sweep(&request) {
        tracing::debug!(%error, "what moved is told with the next sweep");
    }
}

impl Walk {
    fn tell(&self) {
        let Self { name, moved, left, .. } = self;
        let took = self.began.elapsed();
        match self.whom {
            RebindWhom::Stranded => tracing::info!(service = name, moved, left, ?took, "sessions moved"),
            RebindWhom::Drained => {
                let backend = self.backend.as_ref().map(|backend| backend.name.as_str());
                tracing::info!(service = name, backend, moved, left, ?took, "drained sessions moved");
            }
            RebindWhom::Idle | RebindWhom::Homeless if *moved > 0 => {
                tracing::info!(service = name, moved, ?took, "sessions went back");
            }
            RebindWhom::Idle | RebindWhom::Homeless => {}
        }
    }
}

/// By how much a session may have been used later than a node knows that does not see its packets: a sixteenth of its lifetime until
/// its end is written, an eighth until that is read, a quarter until it is told, and a while on its way.
fn lateness(lifetime: Duration) -> Duration {
    lifetime * 7 / 16 + Duration::from_secs(2)
}

/// Who goes back, and where to: whoever may have been bound to another one than the first of his order goes where he was.
fn who_returns(service: &ServiceSpec) -> RebindWhom {
    let is_learnt = service.affinity.cookie().is_some_and(|cookie| cookie.learn);
    let has_limit = service.backends.iter().any(|backend| backend.limit != 0);
    match service.method {
        Method::Order if !is_learnt && !has_limit => RebindWhom::Idle,
        Method::Order | Method::LeastConnections | Method::LeastTime | Method::TwoChoices => {
            RebindWhom::Homeless
        }
    }
}

/// The pool as the data plane has it; `None` = it has gone.
fn row_of(node: &Node, service: u32) -> Option<Service> {
    let applied = node.applied()?;
    let mut pools = applied.pools.iter().zip(&applied.places);
    let (pool, place) = pools.find(|(pool, _)| pool.service.id == service)?;
    Some(row::service(&pool.service, place))
}
