//! The thread that probes.

use super::path::{PathError, Paths};
use super::schedule::{Backend, Job, Plan, Report, Schedule, Wish};
use super::{Clocks, Unusable};
use lb_core::health::Failure;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Probes on their way at a time; those that are due wait for their turn.
const AT_ONCE: usize = 4_096;
/// Different obstacles of this host that are told of.
const OBSTACLES: usize = 32;

/// Why nobody is probed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread of the health checks: {0}")]
pub struct StartError(#[from] io::Error);

/// A way to the thread that probes; the thread ends with the last one.
#[derive(Clone, Debug)]
pub struct Prober {
    orders: mpsc::UnboundedSender<Order>,
    epoch: SystemTime,
    paths: Arc<Mutex<Paths>>,
}

#[derive(Debug)]
enum Order {
    Watch(Plan),
    Hint { backend: Backend, is_unanswered: bool },
}

impl Prober {
    /// Starts the thread; what it finds comes out of the channel, but what it reads off clocks, which goes there.
    pub fn start(clocks: Clocks) -> Result<(Self, mpsc::UnboundedReceiver<Vec<Report>>), StartError> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (outbox, reports) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Worker {
            epoch: Instant::now(),
            schedule: Schedule::default(),
            clocks,
            running: JoinSet::new(),
            jobs: HashMap::new(),
            outbox,
            obstacles: HashSet::new(),
        };
        let epoch = SystemTime::now();
        thread::Builder::new().name("prober".into()).spawn(move || runtime.block_on(worker.run(inbox)))?;
        Ok((Self { orders, epoch, paths: Arc::default() }, reports))
    }

    /// Whether every check can be made, from this host as it is.
    pub fn check(wishes: Vec<Wish>) -> Result<(), Unusable> {
        Plan::new(wishes).map(drop)
    }

    /// Probes those who are wished for, from now on, and nobody else.
    ///
    /// Where the way of the traffic cannot be used, probes go to the backend's own address, and that is told.
    pub fn watch(&self, wishes: Vec<Wish>) -> Result<(), Unusable> {
        let mut plan = Plan::new(wishes)?;
        let mut paths = lock(&self.paths);
        paths.sort_out();
        let mut trouble = None;
        plan.lead(|spec, address| match &trouble {
            None => paths.take(spec, address).map_err(|error| trouble = Some(error)).ok(),
            Some(_) => None,
        });
        if let Some(error) = trouble {
            tracing::warn!(%error, "health checks go to backends' own addresses instead");
        }
        // The thread ends with the process only.
        drop(self.orders.send(Order::Watch(plan)));
        Ok(())
    }

    /// Whether probes go the way of the traffic, so that [`Self::lead`] has something to do.
    pub fn is_led(&self) -> bool {
        lock(&self.paths).are_used()
    }

    /// Probes that go the way of the traffic may leave by these interfaces, given by index and name, and by no others.
    pub fn lead(&self, interfaces: &BTreeMap<u32, String>) -> Result<(), PathError> {
        lock(&self.paths).attach(interfaces)
    }

    /// Clients may have seen a backend fail: it is probed at once.
    pub fn suspect(&self, backend: Backend) {
        drop(self.orders.send(Order::Hint { backend, is_unanswered: false }));
    }

    /// A backend did not answer the balancer's own connections: counts as a failure, and it is probed at once.
    pub fn unanswered(&self, backend: Backend) {
        drop(self.orders.send(Order::Hint { backend, is_unanswered: true }));
    }

    /// The wall clock's time of a [`Sighting`](super::Sighting).
    pub fn wall(&self, since: Duration) -> SystemTime {
        self.epoch + since
    }
}

/// What is behind the lock; nothing that is done under it can be left half done.
fn lock(paths: &Mutex<Paths>) -> MutexGuard<'_, Paths> {
    paths.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    epoch: Instant,
    schedule: Schedule,
    clocks: Clocks,
    running: JoinSet<Result<(), Failure>>,
    /// Which series each task probes for.
    jobs: HashMap<task::Id, u64>,
    outbox: mpsc::UnboundedSender<Vec<Report>>,
    /// Why this host could not even ask, as far as it was told since the configuration changed.
    obstacles: HashSet<String>,
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        loop {
            self.begin();
            let has_room = self.running.len() < AT_ONCE;
            let due = self.schedule.next_due().map(|due| self.epoch + due);
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some(ended) = self.running.join_next_with_id() => self.finish(ended),
                () = sleep_until(due.unwrap_or(self.epoch)), if due.is_some() && has_room => {}
            }
        }
    }

    fn begin(&mut self) {
        let now = self.epoch.elapsed();
        while self.running.len() < AT_ONCE
            && let Some(Job { id, checker, target, clock, timeout }) = self.schedule.begin(now)
        {
            let clocks = self.clocks.clone();
            let task = self.running.spawn(async move {
                checker.probe_by(&target, timeout).await?;
                match clock {
                    Some(address) => clocks.look(address, timeout).await,
                    None => Ok(()),
                }
            });
            self.jobs.insert(task.id(), id);
        }
    }

    fn obey(&mut self, order: Order) {
        let now = self.epoch.elapsed();
        let reports = match order {
            Order::Watch(plan) => {
                self.obstacles.clear();
                self.schedule.set(plan, now)
            }
            Order::Hint { backend, is_unanswered } => self.schedule.hint(&backend, is_unanswered, now),
        };
        self.tell(reports);
    }

    fn finish(&mut self, ended: Result<(task::Id, Result<(), Failure>), task::JoinError>) {
        let (task, result) = match ended {
            Ok(done) => done,
            // A defect of ours must not make a backend look dead.
            Err(error) => (error.id(), Err(Failure::Own(error.to_string()))),
        };
        let Some(id) = self.jobs.remove(&task) else { return };
        if let Err(Failure::Own(why)) = &result {
            self.complain(why);
        }
        let reports = self.schedule.finish(id, result, self.epoch.elapsed());
        self.tell(reports);
    }

    /// Says once that this host cannot ask, which leaves backends as they are, and nobody would notice.
    fn complain(&mut self, why: &str) {
        if self.obstacles.len() < OBSTACLES && self.obstacles.insert(why.to_owned()) {
            tracing::warn!(why, "a health check cannot be made from this host; backends stay as they are");
        }
    }

    fn tell(&self, reports: Vec<Report>) {
        if !reports.is_empty() {
            // Nobody listens while the daemon ends.
            drop(self.outbox.send(reports));
        }
    }
}

#[cfg(test)]
mod tests;
