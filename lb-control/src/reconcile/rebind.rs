//! Moves sessions from backends that serve nobody any more, and back when that is wanted.
//!
//! Packets move their sessions themselves, by the same function of the same tables; this is for the sessions that no packet
//! comes for, so that they are where the order says before the tables change again.
//!
//! In a cluster only packets do, and what nodes agree upon (`lb_core::sync`): the table holds the sessions of all nodes, and what
//! this one cannot reach may serve the others. When most nodes say that a backend failed, its sessions move by one event, which comes
//! here as changes of bindings.

use super::node::Node;
use lb_common::abi::{RebindRequest, RebindWhom, Service, Status};
use lb_core::health::Failback;
use lb_core::pool::row;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Slots of one run: enough to be worth a system call, and no more than keep a CPU from its packets for two or three milliseconds.
const STRETCH: u32 = 8_192;
/// How often idle sessions are looked for.
pub(super) const FAILBACK_EVERY: Duration = Duration::from_secs(10);

/// The walks through the table of bindings that are to be done.
#[derive(Default, Debug)]
pub(super) struct Rebinder {
    walks: VecDeque<Walk>,
    /// The status words at the last look.
    statuses: BTreeMap<u32, u64>,
    /// Backend slots (and their generation) that served then, by service id.
    serving: HashMap<u32, HashSet<(u16, u16)>>,
}

/// A walk for one pool.
#[derive(Debug)]
struct Walk {
    name: String,
    service: u32,
    whom: RebindWhom,
    /// Bindings that end later than so many nanoseconds from now stay.
    idle: u64,
    start: u32,
    moved: u64,
    left: u64,
    began: Instant,
}

impl Rebinder {
    /// Whether there is something to do.
    pub(super) fn is_busy(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Leaves everything else to packets.
    pub(super) fn stop(&mut self) {
        self.walks.clear();
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
                self.add(&service.name, service.id, RebindWhom::Stranded, 0);
            }
            self.serving.insert(service.id, now);
        }
    }

    /// Lets sessions of services that want it go home.
    pub(super) fn look_for_idle(&mut self, node: &Node) {
        for pool in node.applied().iter().flat_map(|applied| &applied.pools) {
            let service = &pool.service;
            let Some(Failback::WhenIdle(idle)) = service.health.as_ref().map(|health| health.failback) else {
                continue;
            };
            let rest = service.lifetime.saturating_sub(idle);
            self.add(&service.name, service.id, RebindWhom::Idle, row::nanoseconds(rest));
        }
    }

    fn add(&mut self, name: &str, service: u32, whom: RebindWhom, idle: u64) {
        let is_same = |walk: &Walk| walk.service == service && walk.whom == whom;
        // One that has begun has passed bindings that may be concerned by now.
        if self.walks.iter().any(|walk| is_same(walk) && walk.start == 0) {
            return;
        }
        let walk = Walk {
            name: name.to_owned(),
            service,
            whom,
            idle,
            start: 0,
            moved: 0,
            left: 0,
            began: Instant::now(),
        };
        match whom {
            // Whoever waits for a backend that is dead comes first.
            RebindWhom::Stranded => self.walks.push_front(walk),
            RebindWhom::Drained | RebindWhom::Idle => self.walks.push_back(walk),
        }
    }

    /// Walks one stretch.
    pub(super) fn step(&mut self, node: &mut Node) {
        let Some(mut walk) = self.walks.pop_front() else { return };
        let Some(row) = row_of(node, walk.service) else { return };
        let length = node.plane.sizes().binding_slots();
        let count = STRETCH.min(length.saturating_sub(walk.start));
        let request = RebindRequest {
            start: walk.start,
            count,
            whom: walk.whom as u32,
            limit: u32::MAX,
            idle: walk.idle,
            service: row.id,
            table: row.table,
            table_mask: row.table_mask,
            members: row.members,
            member_count: row.member_count,
            pad: 0,
        };
        match node.plane.rebind(&request) {
            Ok(report) => {
                walk.moved += u64::from(report.moved);
                walk.left += u64::from(report.left);
            }
            // Packets move their sessions themselves.
            Err(error) => {
                tracing::warn!(%error, service = walk.name, "sessions of a stretch stay where they are")
            }
        }
        walk.start += count;
        if count > 0 && walk.start < length {
            self.walks.push_front(walk);
        } else {
            walk.tell();
        }
    }
}

impl Walk {
    fn tell(&self) {
        let Self { name, moved, left, .. } = self;
        let took = self.began.elapsed();
        match self.whom {
            RebindWhom::Stranded => tracing::info!(service = name, moved, left, ?took, "sessions moved"),
            RebindWhom::Drained => {
                tracing::info!(service = name, moved, left, ?took, "drained sessions moved")
            }
            RebindWhom::Idle if *moved > 0 => {
                tracing::info!(service = name, moved, ?took, "idle sessions went back");
            }
            RebindWhom::Idle => {}
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
