//! The bindings of a node that is one of several: what the data plane tells the cluster, and what the cluster tells it.
//!
//! All reports come one after the other, in the order in which things happened to the tables: what was made
//! before a change was applied is reported before it. Events are not acknowledged here any more; whoever listens does so, with
//! [`Change::Acknowledge`], when they cannot be lost.

use super::{ChangeError, Gone, Handle, handle::Request, node::Node};
use crate::dataplane::{self, Cursor, clock::monotonic_ns};
use lb_common::abi::{
    Addr, Binding, BindingEvent, BindingEventKind, BindingKey, BindingOp, BindingRecord, BindingWord,
    RecordResult, Status,
};
use lb_core::{binding, pool::Admin, sync::PoolMember};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

/// Reports of events that are on their way; with more, events wait in the data plane.
const EVENT_REPORTS: usize = 32;
/// Requests whose reports are on their way.
const ANSWERS: usize = 32;
/// Slots of the table in a page.
const PAGE: usize = 8_192;

/// What the data plane tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// Bindings were made or moved; when done with it, call [`Replication::done`].
    Made(Vec<Held>),
    /// What became of changes, in their order.
    Applied(Vec<Outcome>),
    /// A part of the table.
    Page(Result<Part, dataplane::Error>),
    /// One binding, for the question with this number.
    Looked(u64, Result<Looked, ChangeError>),
    /// The configuration has changed.
    Servers(Servers),
    /// Pools that stand otherwise than they did: who serves, who takes sessions, who is configured.
    Pools(Vec<Pool>),
}

/// A binding as the data plane has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) key: BindingKey,
    pub(crate) word: BindingWord,
    /// Number of the server; `None` = its backend has gone.
    pub(crate) server: Option<u64>,
    /// What is left of its life.
    pub(crate) left: Duration,
}

/// Part of a walk through the table.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) rows: Vec<Held>,
    pub(crate) next: Option<Cursor>,
}

/// What stands under the name of a session.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) key: BindingKey,
    /// Number of the server that was asked for.
    pub(crate) server: Option<u64>,
    pub(crate) binding: Option<Held>,
}

/// Servers that are known now.
#[derive(Default, Debug)]
pub(crate) struct Servers {
    /// Those that were not known before, or have another slot, each with its service.
    pub(crate) new: Vec<(u32, u64)>,
    /// The shortest lifetime of a service's bindings.
    pub(crate) shortest: Option<Duration>,
}

/// How a pool stands in the data plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pool {
    /// Service id.
    pub(crate) service: u32,
    /// Its servers; none = it has gone.
    pub(crate) members: Vec<PoolMember>,
    /// Lifetime of its bindings.
    pub(crate) lifetime: Duration,
}

/// What the data plane is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Take note that this was heard, if it still holds.
    Acknowledge(BindingKey, BindingWord),
    /// Hold this until then, unless it has changed it and was not acknowledged.
    Put(binding::Binding, Instant),
    /// Hold nothing, with the same exception.
    Delete(binding::Key),
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The table is as it was asked for.
    Done,
    /// It has changed meanwhile; an event says so, or will.
    Changed,
    /// Somebody was changing it: try again.
    Busy,
    /// The data plane refused everything: try again later.
    Failed,
    /// No room.
    Full,
    /// No such server in this configuration, or what was to be held has ended.
    Unknown,
}

/// The end of whoever listens.
pub(crate) struct Replication {
    handle: Handle,
    reports: mpsc::Receiver<Report>,
    credits: Arc<Semaphore>,
}

impl Replication {
    /// The next report; `None` = the reconciler has ended.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Makes room for another report of events.
    pub(crate) fn done(&self) {
        self.credits.add_permits(1);
    }

    /// Asks for changes, in their order.
    pub(crate) async fn change(&self, changes: Vec<Change>) -> Result<(), Gone> {
        self.handle.request(Request::Replicated(changes)).await
    }

    /// Asks for a part of the table; of what `lbd` has heard only what was used since then, in nanoseconds of the monotonic clock.
    pub(crate) async fn page(&self, cursor: Option<Cursor>, since: Option<u64>) -> Result<(), Gone> {
        self.handle.request(Request::Replicable { cursor, since }).await
    }

    /// Asks for one session, and for a backend's number.
    pub(crate) async fn look(
        &self,
        number: u64,
        service: String,
        session: u64,
        backend: Option<String>,
    ) -> Result<(), Gone> {
        self.handle.request(Request::Look { number, service, session, backend }).await
    }
}

impl Handle {
    /// Tells the cluster what happens from now on; there is one listener, the last one that asked.
    pub(crate) async fn replicate(&self) -> Result<Replication, Gone> {
        let (sender, reports) = mpsc::channel(EVENT_REPORTS + ANSWERS);
        let credits = Arc::new(Semaphore::new(EVENT_REPORTS));
        let feed = Feed {
            reports: sender,
            credits: Arc::clone(&credits),
            is_behind: false,
            known: HashSet::new(),
            lifetimes: HashMap::new(),
            pools: BTreeMap::new(),
            statuses: None,
            health: 0,
        };
        self.request(Request::Replicate(Box::new(feed))).await?;
        Ok(Replication { handle: self.clone(), reports, credits })
    }
}

/// The reconciler's end.
#[derive(Debug)]
pub(super) struct Feed {
    reports: mpsc::Sender<Report>,
    credits: Arc<Semaphore>,
    /// Events wait for a credit.
    pub(super) is_behind: bool,
    /// Servers that were reported: service, number, slot, generation.
    known: HashSet<(u32, u64, u16, u16)>,
    /// Of services' bindings, in nanoseconds.
    lifetimes: HashMap<u32, u64>,
    /// Pools as they were reported, by service.
    pools: BTreeMap<u32, Pool>,
    /// The status words with which they were looked at; `None` = the configuration is new.
    statuses: Option<BTreeMap<u32, u64>>,
    /// What was known of the backends' health then.
    health: u64,
}

impl Feed {
    /// Whether there is room for a report of events; notes when there is not.
    ///
    /// When nobody listens any more, events go nowhere and stay unacknowledged for the next one who does.
    pub(super) fn has_room(&mut self) -> bool {
        self.is_behind = self.credits.available_permits() == 0 && !self.reports.is_closed();
        !self.is_behind
    }

    /// Something to wait for room with.
    pub(super) fn credits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.credits)
    }

    /// Reports events for a credit.
    pub(super) fn tell_made(&self, made: Vec<Held>) {
        if made.is_empty() {
            return;
        }
        if let Ok(credit) = self.credits.try_acquire() {
            credit.forget();
            self.tell(Report::Made(made));
        }
    }

    /// Reports; there is room, since whoever listens asks for few things at once.
    pub(super) fn tell(&self, report: Report) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.reports.try_send(report) {
            tracing::error!("the replication of bindings lost a report; the sweep will find what is missing");
        }
    }

    /// Reports what a new configuration has changed.
    pub(super) fn tell_servers(&mut self, node: &Node) {
        let Some(applied) = node.applied() else { return };
        let pools = || applied.pools.iter().map(|pool| &pool.service).zip(&applied.places);
        let places = pools().flat_map(|(service, place)| {
            place.backends.iter().map(|at| (service.id, at.number, at.slot, at.generation))
        });
        let known: HashSet<_> = places.collect();
        let new = known.difference(&self.known).map(|&(service, number, ..)| (service, number)).collect();
        let shortest = pools().map(|(service, _)| service.lifetime).min();
        let nanoseconds = |lifetime: Duration| u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        self.lifetimes = pools().map(|(service, _)| (service.id, nanoseconds(service.lifetime))).collect();
        self.known = known;
        self.tell(Report::Servers(Servers { new, shortest }));
        self.statuses = None;
        self.tell_pools(node);
    }

    /// Reports pools that stand otherwise than reported.
    pub(super) fn tell_pools(&mut self, node: &Node) {
        let version = node.world.health.version();
        if self.statuses.as_ref() == Some(node.statuses()) && self.health == version {
            return;
        }
        let Some(applied) = node.applied() else { return };
        let pools = applied.pools.iter().zip(&applied.places).map(|(pool, place)| {
            let backends = pool.service.backends.iter().zip(&place.backends);
            let has_quorum = pool.service.health.as_ref().is_some_and(|health| health.quorum);
            let members = backends.map(|(backend, place)| {
                let word = node.actual_status(Status::word(place.slot));
                let serves = if has_quorum {
                    // Where nodes vote, each says what it has found itself, and not what came of it: else nobody could ever change his mind.
                    let is_dead = node.world.health.is_dead(&pool.service.name, &backend.name);
                    backend.admin != Admin::Disabled && !is_dead
                } else {
                    Status::serves(word, place.slot)
                };
                PoolMember {
                    number: place.number,
                    weight: backend.weight,
                    serves,
                    accepts: Status::accepts(word, place.slot),
                }
            });
            let (service, lifetime) = (pool.service.id, pool.service.lifetime);
            (service, Pool { service, members: members.collect(), lifetime })
        });
        let pools: BTreeMap<u32, Pool> = pools.collect();
        let gone = self.pools.values().filter(|pool| !pools.contains_key(&pool.service));
        let gone = gone.map(|pool| Pool { members: Vec::new(), ..pool.clone() });
        let new = pools.values().filter(|pool| self.pools.get(&pool.service) != Some(*pool)).cloned();
        let news: Vec<Pool> = gone.chain(new).collect();
        if !news.is_empty() && self.reports.try_send(Report::Pools(news)).is_err() {
            // Tried again with the next look.
            return;
        }
        self.pools = pools;
        self.statuses = Some(node.statuses().clone());
        self.health = version;
    }
}

impl Node {
    /// What events say; of what the sweep found again only what was not acknowledged meanwhile.
    pub(super) fn made(&mut self, events: &[BindingEvent]) -> Vec<Held> {
        let now = monotonic_ns();
        let mut made = Vec::with_capacity(events.len());
        for event in events {
            let key = BindingKey::new(event.service, event.session);
            let word = BindingWord(event.word).with(BindingWord::UNSYNCED);
            let is_again = event.kind == BindingEventKind::Found as u32;
            if is_again && !self.still_says(&key, word) {
                continue;
            }
            made.extend(self.held(key, word, event.expires, now));
        }
        made
    }

    fn still_says(&mut self, key: &BindingKey, word: BindingWord) -> bool {
        match self.plane.binding(key) {
            Ok(found) => found.is_some_and(|found| BindingWord(found.word).content() == word.content()),
            // The sweep comes by again.
            Err(error) => {
                tracing::debug!(%error, "a binding was not read");
                false
            }
        }
    }

    /// A binding, if it lives.
    fn held(&self, key: BindingKey, word: BindingWord, expires: u64, now: u64) -> Option<Held> {
        let left = expires.checked_sub(now).filter(|left| *left > 0)?;
        let owner = self.actual().backends.get(&word.backend());
        let owner = owner.filter(|row| row.generation == word.slot_generation() && row.address != Addr::NONE);
        let server = owner.map(|row| row.number);
        Some(Held { key, word: word.content(), server, left: Duration::from_nanos(left) })
    }

    /// Does what the cluster says.
    pub(super) fn replicated(&mut self, changes: &[Change]) -> Vec<Outcome> {
        let records: Vec<Option<BindingRecord>> = changes.iter().map(|change| self.record(change)).collect();
        let known: Vec<BindingRecord> = records.iter().flatten().copied().collect();
        let results = match self.plane.apply_bindings(&known) {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(%error, "the bindings of other nodes are not written; trying again");
                Vec::new()
            }
        };
        let mut results = results.into_iter();
        let outcomes = records.iter().map(|record| match record {
            None => Outcome::Unknown,
            Some(_) => match results.next() {
                Some(RecordResult::Applied | RecordResult::Absent) => Outcome::Done,
                Some(RecordResult::Superseded) => Outcome::Changed,
                Some(RecordResult::Full) => Outcome::Full,
                // A service with id 0 cannot be configured.
                Some(RecordResult::Invalid) => Outcome::Unknown,
                Some(RecordResult::Busy) => Outcome::Busy,
                None => Outcome::Failed,
            },
        });
        outcomes.collect()
    }

    /// A change in the data plane's words; `None` = the server is not known here, or it has ended.
    fn record(&self, change: &Change) -> Option<BindingRecord> {
        let (key, word, left, op) = match change {
            Change::Acknowledge(key, word) => (*key, *word, Duration::ZERO, BindingOp::Acknowledge),
            Change::Put(binding, until) => {
                // What is left now, not when the cluster said so: it may have waited.
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                let (slot, generation) = self.layout().backend(binding.key.service, binding.server)?;
                let word = BindingWord::new(slot, generation, binding.generation);
                let word = if binding.is_pinned { word.with(BindingWord::PINNED) } else { word };
                (BindingKey::new(binding.key.service, binding.key.session), word, left, BindingOp::Settle)
            }
            Change::Delete(key) => {
                let key = BindingKey::new(key.service, key.session);
                (key, BindingWord::default(), Duration::ZERO, BindingOp::Clear)
            }
        };
        Some(BindingRecord {
            session: key.session,
            word: word.0,
            lifetime: u64::try_from(left.as_nanos()).unwrap_or(u64::MAX >> 1),
            service: key.service,
            op: op as u8,
            pad: 0,
            home: 0,
        })
    }

    /// A part of the table for the cluster.
    pub(super) fn replicable(
        &mut self,
        feed: &Feed,
        cursor: Option<Cursor>,
        since: Option<u64>,
    ) -> dataplane::Result<Part> {
        let page = self.plane.bindings(cursor, PAGE)?;
        let now = monotonic_ns();
        let is_news = |(key, row): &&(BindingKey, Binding)| match since {
            None => true,
            // Also of what is not acknowledged yet: the event said how long it lived when it was made.
            Some(since) => feed
                .lifetimes
                .get(&key.service)
                .is_some_and(|lifetime| row.expires > since.saturating_add(*lifetime)),
        };
        let rows = page.rows.iter().filter(is_news);
        let rows = rows.filter_map(|(key, row)| self.held(*key, BindingWord(row.word), row.expires, now));
        Ok(Part { rows: rows.collect(), next: page.next })
    }

    /// One session for the cluster.
    pub(super) fn look(
        &mut self,
        service: &str,
        session: u64,
        backend: Option<&str>,
    ) -> Result<Looked, ChangeError> {
        let key = BindingKey::new(self.service(service)?.0.id, session);
        let server = backend.map(|name| self.backend(service, name)).transpose()?;
        let server = server.map(|(spec, _)| spec.number);
        let found = self.plane.binding(&key)?;
        let now = monotonic_ns();
        let binding = found.and_then(|row| self.held(key, BindingWord(row.word), row.expires, now));
        Ok(Looked { key, server, binding })
    }
}
