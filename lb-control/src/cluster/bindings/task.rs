//! The task between the reconciler and the replica.

use super::flight::{Flights, Standing};
use super::walk::Walk;
use super::{End, Order, What};
use crate::cluster::replica::{Teller, Update};
use crate::dataplane::clock::monotonic_ns;
use crate::reconcile::replication::{
    Change, Held, Looked, Outcome, Part, Pool, Replication, Report, Servers,
};
use crate::reconcile::{ChangeError, Gone, Handle};
use lb_common::abi::{BindingKey, BindingWord};
use lb_core::binding::Key;
use lb_core::sync::Local;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Changes that are asked for at once.
const BATCH: usize = 4_096;
/// Batches of changes that the reconciler has.
const BATCHES: usize = 2;
/// With so many changes to be made, updates wait.
const ENOUGH: usize = 2 * BATCH;
/// Orders that are being looked into.
const LOOKED_INTO: usize = 8;
/// Bindings without room that are tried again.
const HOMELESS: usize = 65_536;
/// What somebody was changing is asked for again so much later, and what the data plane refused.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Task {
    plane: Replication,
    teller: Teller,
    flights: Flights,
    walk: Walk,
    /// The page that was told, and where the next one begins.
    page: Option<(u64, Option<crate::dataplane::Cursor>)>,
    /// To be asked for.
    changes: Vec<Change>,
    /// Asked for, by batch.
    asked: VecDeque<Vec<Change>>,
    /// Changes ever to be asked for, and ever answered.
    counts: (u64, u64),
    /// What is to be told again, and when.
    again: Vec<Key>,
    again_at: Option<Instant>,
    /// What found no room, and when some of it is tried again.
    homeless: VecDeque<Key>,
    room_at: Option<Instant>,
    orders: HashMap<u64, Order>,
    last_order: u64,
    told: Vec<Told>,
    /// The change after which the data plane has all that the cluster had when the node became ready.
    complete_after: Option<u64>,
    complete: watch::Sender<bool>,
}

/// An order that the replica was told.
struct Told {
    batch: u64,
    deletes: Option<Key>,
    /// When it is durable: the change after which it is done.
    done_after: Option<u64>,
    reply: oneshot::Sender<Result<(), ChangeError>>,
}

/// A batch for the replica in the making.
#[derive(Default)]
struct Boarding {
    keys: Vec<BindingKey>,
    local: Vec<Local>,
}

impl Task {
    pub(super) async fn new(
        reconciler: &Handle,
        teller: Teller,
        complete: watch::Sender<bool>,
    ) -> Result<Self, Gone> {
        Ok(Self {
            plane: reconciler.replicate().await?,
            teller,
            flights: Flights::default(),
            walk: Walk::new(),
            page: None,
            changes: Vec::new(),
            asked: VecDeque::new(),
            counts: (0, 0),
            again: Vec::new(),
            again_at: None,
            homeless: VecDeque::new(),
            room_at: None,
            orders: HashMap::new(),
            last_order: 0,
            told: Vec::new(),
            complete_after: None,
            complete,
        })
    }

    pub(super) async fn run(
        self,
        updates: mpsc::Receiver<Vec<Update>>,
        orders: mpsc::Receiver<Order>,
        ready: watch::Receiver<bool>,
    ) -> End {
        let Err(end) = self.work(updates, orders, ready).await;
        end
    }

    async fn work(
        mut self,
        mut updates: mpsc::Receiver<Vec<Update>>,
        mut orders: mpsc::Receiver<Order>,
        mut ready: watch::Receiver<bool>,
    ) -> Result<std::convert::Infallible, End> {
        let mut is_ready = false;
        loop {
            while !self.changes.is_empty() && self.asked.len() < BATCHES {
                self.ask().await?;
            }
            let (page_at, again_at, room_at) = (self.walk.due(), self.again_at, self.room_at);
            tokio::select! {
                report = self.plane.report() => self.hear(report.ok_or(End::Reconciler)?).await?,
                batch = updates.recv(), if self.changes.len() < ENOUGH => {
                    for update in batch.ok_or(End::Replica)? {
                        self.update(update);
                    }
                }
                Some(order) = orders.recv(), if self.orders.len() < LOOKED_INTO => self.look_into(order).await?,
                known = has_base(&mut ready), if !is_ready => {
                    known?;
                    is_ready = true;
                    // Only now it is known what was deleted meanwhile.
                    self.walk.begin();
                }
                () = at(page_at) => {
                    let (cursor, since) = self.walk.ask(monotonic_ns());
                    self.plane.page(cursor, since).await?;
                }
                () = at(room_at) => self.try_homeless().await?,
                () = at(again_at) => {
                    self.again_at = None;
                    self.teller.again(std::mem::take(&mut self.again)).await?;
                }
            }
        }
    }

    /// Asks the reconciler for the next changes.
    async fn ask(&mut self) -> Result<(), Gone> {
        let rest = self.changes.split_off(self.changes.len().min(BATCH));
        let changes = std::mem::replace(&mut self.changes, rest);
        self.plane.change(changes.clone()).await?;
        self.asked.push_back(changes);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.counts.0 += 1;
        self.changes.push(change);
    }

    /// Takes what the data plane reports.
    async fn hear(&mut self, report: Report) -> Result<(), End> {
        match report {
            Report::Made(made) => {
                let mut boarding = Boarding::default();
                for held in made {
                    self.board(&held, &mut boarding);
                }
                if boarding.local.is_empty() {
                    self.plane.done();
                } else {
                    self.tell(boarding, true).await?;
                }
            }
            Report::Applied(outcomes) => self.note(&outcomes),
            Report::Page(Ok(Part { rows, next })) => {
                let mut boarding = Boarding::default();
                for held in rows {
                    self.board(&held, &mut boarding);
                }
                if boarding.local.is_empty() {
                    self.walk.came(next);
                } else {
                    let batch = self.tell(boarding, false).await?;
                    self.page = Some((batch, next));
                }
            }
            Report::Page(Err(error)) => {
                tracing::debug!(%error, "the table of bindings was not read; trying again");
                self.walk.failed();
            }
            Report::Looked(number, looked) => {
                if let Some(order) = self.orders.remove(&number) {
                    self.obey(order, looked).await?;
                }
            }
            Report::Servers(Servers { new, shortest }) => {
                self.walk.set_lifetime(shortest);
                if !new.is_empty() {
                    self.teller.again_of(new).await?;
                }
            }
            Report::Pools(pools) => {
                let pools = pools.into_iter();
                let pool = |Pool { service, members, lifetime }| Local::Pool { service, members, lifetime };
                let boarding = Boarding { keys: Vec::new(), local: pools.map(pool).collect() };
                self.tell(boarding, false).await?;
            }
        }
        Ok(())
    }

    /// Takes a binding of the data plane into a batch for the replica.
    fn board(&mut self, held: &Held, boarding: &mut Boarding) {
        let Held { key, word, server, left } = *held;
        let is_news = word.has(BindingWord::UNSYNCED);
        let Some(server) = server else {
            // Nobody can be told what its backend was. Whatever the cluster has in its place may be written now.
            if is_news {
                self.change(Change::Acknowledge(key, word));
                self.ask_again(named(&key), AGAIN.0);
            }
            return;
        };
        let (key, generation, name) = (key, word.generation(), named(&key));
        if !is_news {
            boarding.local.push(Local::Held { key: name, server, generation, left });
        } else if self.flights.take_off(key, word) {
            boarding.keys.push(key);
            boarding.local.push(if word.has(BindingWord::PINNED) {
                // It was carried over from the session's other key.
                Local::Pinned { key: name, server, lifetime: left }
            } else {
                Local::Bound { key: name, server, generation, left }
            });
        }
    }

    async fn tell(&mut self, boarding: Boarding, is_report: bool) -> Result<u64, End> {
        let batch = self.flights.send(boarding.keys, is_report);
        self.teller.tell(batch, boarding.local).await?;
        Ok(batch)
    }

    /// Takes what the replica says.
    fn update(&mut self, update: Update) {
        match update {
            Update::Put(binding, until) => self.settle(&binding.key, Change::Put(binding, until)),
            Update::Delete(key) => self.settle(&key, Change::Delete(key)),
            Update::Heard(number) => {
                self.flights.hear(number);
                if let Some((_, next)) = self.page.take_if(|(batch, _)| *batch <= number) {
                    self.walk.came(next);
                }
                let heard = self.told.iter_mut().filter(|told| told.batch <= number);
                let deleted: Vec<Key> = heard.filter_map(|told| told.deletes.take()).collect();
                for key in deleted {
                    self.settle(&key, Change::Delete(key));
                }
            }
            Update::Durable(number) => {
                let landed = self.flights.land(number);
                for (key, word) in landed.acknowledge {
                    self.change(Change::Acknowledge(key, word));
                }
                (0..landed.reports).for_each(|_| self.plane.done());
                let last = self.counts.0;
                for told in self.told.iter_mut().filter(|told| told.batch <= number) {
                    told.done_after.get_or_insert(last);
                }
                self.answer();
            }
            Update::Complete => {
                self.complete_after = Some(self.counts.0);
                self.answer();
            }
        }
    }

    /// Asks for a change if it takes account of what the data plane told.
    fn settle(&mut self, key: &Key, change: Change) {
        let key = BindingKey::new(key.service, key.session);
        match self.flights.standing(&key) {
            Standing::Quiet => {}
            Standing::Heard(word) => self.change(Change::Acknowledge(key, word)),
            Standing::Unheard => return,
        }
        self.change(change);
    }

    /// Takes note of what became of changes.
    fn note(&mut self, outcomes: &[Outcome]) {
        let changes = self.asked.pop_front().unwrap_or_default();
        self.counts.1 += changes.len() as u64;
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            let key = match change {
                Change::Acknowledge(key, word) => {
                    self.flights.acknowledged(key, word);
                    continue;
                }
                Change::Put(binding, _) => binding.key,
                Change::Delete(key) => key,
            };
            match outcome {
                Outcome::Busy => self.ask_again(key, AGAIN.0),
                Outcome::Failed => self.ask_again(key, AGAIN.1),
                Outcome::Full => self.wait_for_room(key),
                // What changed is reported; what is unknown comes with its server.
                Outcome::Done | Outcome::Changed | Outcome::Unknown => {}
            }
        }
        self.answer();
    }

    fn ask_again(&mut self, key: Key, pause: Duration) {
        self.again.push(key);
        self.again_at.get_or_insert_with(|| Instant::now() + pause);
    }

    /// Room may come with every sweep; of more than so many others packets tell when they come.
    fn wait_for_room(&mut self, key: Key) {
        if self.homeless.len() < HOMELESS {
            self.homeless.push_back(key);
            self.room_at.get_or_insert_with(|| Instant::now() + AGAIN.1);
        }
    }

    /// Tries some of those that found no room once more, those that have waited longest.
    async fn try_homeless(&mut self) -> Result<(), End> {
        let some = self.homeless.len().min(BATCH);
        let keys: Vec<Key> = self.homeless.drain(..some).collect();
        self.room_at = (!self.homeless.is_empty()).then(|| Instant::now() + AGAIN.1);
        self.teller.again(keys).await?;
        Ok(())
    }

    async fn look_into(&mut self, order: Order) -> Result<(), Gone> {
        let backend = match &order.what {
            What::Delete => None,
            What::Pin { backend, .. } => Some(backend.clone()),
        };
        self.last_order += 1;
        self.plane.look(self.last_order, order.service.clone(), order.session, backend).await?;
        self.orders.insert(self.last_order, order);
        Ok(())
    }

    /// Does what an administrator wants of a session that was looked at.
    async fn obey(&mut self, order: Order, looked: Result<Looked, ChangeError>) -> Result<(), End> {
        let Order { service, session, what, reply } = order;
        let decided = match looked {
            Ok(looked) => self.decide(service, session, what, looked).await?,
            Err(error) => Err(error),
        };
        match decided {
            Ok((boarding, deletes)) => {
                let batch = self.tell(boarding, false).await?;
                self.told.push(Told { batch, deletes, done_after: None, reply });
            }
            // Who asked may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
        Ok(())
    }

    /// What the replica is to be told for an administrator, and which key is deleted.
    async fn decide(
        &mut self,
        service: String,
        session: u64,
        what: What,
        looked: Looked,
    ) -> Result<Result<(Boarding, Option<Key>), ChangeError>, End> {
        let Looked { key, server, binding } = looked;
        let name = named(&key);
        let (local, deletes) = match (what, server) {
            (What::Delete, _) if binding.is_some() || self.teller.find(name).await?.is_some() => {
                (Local::Deleted { key: name }, Some(name))
            }
            (What::Delete, _) => return Ok(Err(ChangeError::UnknownSession { service, session })),
            (What::Pin { lifetime, .. }, Some(server)) => {
                (Local::Pinned { key: name, server, lifetime }, None)
            }
            (What::Pin { backend, .. }, None) => {
                return Ok(Err(ChangeError::UnknownBackend { service, name: backend, suggestion: None }));
            }
        };
        // The replica must know of it before it hears what becomes of it.
        let mut boarding = Boarding::default();
        if let Some(held) = &binding {
            self.board(held, &mut boarding);
        }
        boarding.local.push(local);
        Ok(Ok((boarding, deletes)))
    }

    /// Answers orders that are durable, and done here as well.
    fn answer(&mut self) {
        let done = self.counts.1;
        if self.complete_after.take_if(|after| *after <= done).is_some() {
            self.complete.send_replace(true);
        }
        for told in self.told.extract_if(.., |told| told.done_after.is_some_and(|after| after <= done)) {
            drop(told.reply.send(Ok(())));
        }
    }
}

const fn named(key: &BindingKey) -> Key {
    Key { service: key.service, session: key.session }
}

/// Waits until the replica has the cluster's bindings.
async fn has_base(ready: &mut watch::Receiver<bool>) -> Result<(), End> {
    ready.wait_for(|ready| *ready).await.map(drop).map_err(|_| End::Replica)
}

/// At that time; never without one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
