//! Selection tables of many pools, filled on all CPUs some pools ahead of the plan that asks for them.

use super::{Layout, Made};
use crate::pool::PoolSpec;
use crate::pool::table::{Selection, Share, TableError};
use core::num::NonZero;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A table, or why there is none.
pub(super) type Filled = Result<Selection, TableError>;

/// Pools that are looked at together: enough to keep the CPUs busy, few enough that their tables take little memory.
const AHEAD: usize = 256;
/// Tables that are remembered for the services behind.
const KEPT: usize = 256;
/// More CPUs than this are left to others.
const MOST_THREADS: usize = 8;

/// The tables of pools, in their order.
pub(super) struct Tables<'a> {
    layout: &'a Layout,
    pools: &'a [PoolSpec],
    ready: VecDeque<Option<Filled>>,
    /// Tables of servers that several services have.
    kept: HashMap<Vec<Share>, Filled>,
    threads: usize,
}

impl<'a> Tables<'a> {
    pub(super) fn new(layout: &'a Layout, pools: &'a [PoolSpec]) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        Self { layout, pools, ready: VecDeque::new(), kept: HashMap::new(), threads }
    }

    /// The next pool's table; `None` when it stands already, or nearly so.
    pub(super) fn next(&mut self) -> Option<Filled> {
        if self.ready.is_empty() {
            let (now, later) = self.pools.split_at(AHEAD.min(self.pools.len()));
            self.pools = later;
            let wanted: Vec<_> = now.iter().map(|pool| shares(self.layout, pool)).collect();
            let mut count: HashMap<&[Share], u32> = HashMap::new();
            wanted.iter().flatten().for_each(|shares| *count.entry(shares).or_default() += 1);
            let new: Vec<&[Share]> =
                count.keys().filter(|&&shares| !self.kept.contains_key(shares)).copied().collect();
            let made: HashMap<&[Share], Filled> = fill(new, self.threads);
            let table =
                |shares: &Vec<Share>| self.kept.get(shares).or_else(|| made.get(&shares[..])).cloned();
            self.ready = wanted.iter().map(|shares| shares.as_ref().and_then(table)).collect();
            for (shares, table) in made.into_iter().filter(|(shares, _)| count.get(shares) > Some(&1)) {
                if self.kept.len() < KEPT {
                    self.kept.insert(shares.to_vec(), table);
                }
            }
        }
        self.ready.pop_front().flatten()
    }
}

/// The servers of a pool whose table has to be made.
fn shares(layout: &Layout, pool: &PoolSpec) -> Option<Vec<Share>> {
    let backends = pool.service.backends.iter();
    let mut shares: Vec<Share> =
        backends.map(|backend| Share { number: backend.number, weight: backend.weight }).collect();
    shares.sort_unstable();
    let standing = layout.services.get(&pool.service.id).and_then(|standing| standing.place.as_ref());
    let stands = standing.is_some_and(|place| match &place.made {
        Made::From(source) => source.shares == shares,
        Made::Found(_) => false,
    });
    (!stands && !shares.is_empty()).then_some(shares)
}

fn fill(wanted: Vec<&[Share]>, threads: usize) -> HashMap<&[Share], Filled> {
    let table = |shares: &[Share]| Selection::new(shares.iter().copied());
    let threads = threads.min(wanted.len());
    if threads < 2 {
        return wanted.into_iter().map(|shares| (shares, table(shares))).collect();
    }
    let taken = AtomicUsize::new(0);
    let worker = || -> Vec<(&[Share], Filled)> {
        let next = || wanted.get(taken.fetch_add(1, Ordering::Relaxed)).copied();
        core::iter::from_fn(next).map(|shares| (shares, table(shares))).collect()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        // What a worker has left undone is made when it is asked for.
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}
