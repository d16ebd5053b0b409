//! The task that owns the data plane.

use super::{
    ApplyError, ChangeError, Gone, Handle, Overrides,
    handle::Request,
    node::Node,
    ramp::RAMP_EVERY,
    rebind::{FAILBACK_EVERY, Rebinder},
    replication::{Feed, Report},
    sweep::{STRETCH_EVERY, Sweeper},
};
use crate::admin::now;
use crate::dataplane::{self, DataPlane, clock::clocks};
use lb_common::abi::{BindingEvent, BindingOp, BindingRecord, Outcome};
use lb_core::pool::Desired;
use std::{
    collections::BTreeSet,
    future::ready,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Semaphore, broadcast, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// Requests that wait before senders do.
const QUEUE: usize = 256;
/// Binding events that a slow listener may be behind.
const EVENTS: usize = 4_096;
/// Binding events taken at once.
const EVENTS_AT_ONCE: usize = 1_024;
/// First and last pause between attempts to repair.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the attachments and the full table are looked after.
const AUDIT_EVERY: Duration = Duration::from_secs(1);
/// Hop changes come in swarms: the tables follow the first of them after this long, and after a large difference
/// only when some times the time that its making took has passed.
const WORLD_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(60));
/// Times the time that the last difference took.
const WORLD_SHARE: u32 = 3;
/// How often events are asked for where nothing tells that there are some.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How to start a reconciler.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tables could not be read.
    #[error("cannot take over what stands in the data plane: {0}")]
    Recover(#[from] dataplane::Error),
    /// The file of overrides is damaged.
    #[error("cannot read the overrides in {path}: {source}; correct or remove the file")]
    Overrides {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread or its runtime could not be made.
    #[error("cannot start the reconciler's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Takes over the data plane, on a thread of its own, since its calls block.
///
/// `overrides` is the file that keeps what administrators change; `None` = such changes end with the process.
/// The thread ends when every handle is gone, or with [`Handle::detach`]; packets go on all the same.
pub fn spawn(
    plane: Box<dyn DataPlane>,
    overrides: Option<PathBuf>,
) -> Result<(Handle, JoinHandle<()>), StartError> {
    let known = match &overrides {
        Some(path) => {
            Overrides::load(path).map_err(|source| StartError::Overrides { path: path.clone(), source })?
        }
        None => Overrides::default(),
    };
    let mut node = Node::recover(plane, known)?;
    node.tick(clocks());
    let (requests, inbox) = mpsc::channel(QUEUE);
    let (events, _) = broadcast::channel(EVENTS);
    let (addresses, addresses_seen) = watch::channel(BTreeSet::new());
    let handle = Handle::new(requests, events.clone(), addresses_seen);
    let actor = Actor {
        sweeper: Sweeper::new(node.plane.capabilities()),
        rebinder: Rebinder::default(),
        node,
        overrides,
        events,
        addresses,
        feed: None,
        full: FullTable::default(),
        repair: None,
        world: Behind::default(),
        complaint: None,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let thread = thread::Builder::new()
        .name("reconciler".into())
        .spawn(move || runtime.block_on(actor.run(inbox)))
        .map_err(StartError::Thread)?;
    Ok((handle, thread))
}

struct Actor {
    node: Node,
    sweeper: Sweeper,
    rebinder: Rebinder,
    overrides: Option<PathBuf>,
    events: broadcast::Sender<BindingEvent>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    /// Where what happens to bindings goes, when the node is one of several.
    feed: Option<Feed>,
    full: FullTable,
    repair: Option<Repair>,
    world: Behind,
    /// What was wrong with the attachments at the last look.
    complaint: Option<String>,
}

/// When to try the next repair.
#[derive(Clone, Copy)]
struct Repair {
    at: Instant,
    pause: Duration,
}

/// Whether the tables are behind what is known of the ways to backends.
#[derive(Clone, Copy, Default)]
struct Behind {
    /// When they follow; `None` = they are not behind.
    due: Option<Instant>,
    /// How long it took the last time.
    cost: Duration,
}

impl Behind {
    /// Something new is known; more of it may come at once.
    fn fall_behind(&mut self) {
        let pause = (self.cost * WORLD_SHARE).clamp(WORLD_PAUSE.0, WORLD_PAUSE.1);
        self.due.get_or_insert_with(|| Instant::now() + pause);
    }
}

/// What to say when bindings find no room.
#[derive(Default)]
struct FullTable {
    /// How many were refused at the last look; `None` = not looked yet.
    refused: Option<u64>,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let readable = self.event_source();
        let mut stretch = interval(STRETCH_EVERY);
        let mut audit = interval(AUDIT_EVERY);
        let mut poll = interval(POLL_EVERY);
        let mut failback = interval(FAILBACK_EVERY);
        let mut ramp = interval(RAMP_EVERY);
        for timer in [&mut stretch, &mut audit, &mut poll, &mut failback, &mut ramp] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            self.schedule_repair();
            let is_alone = self.feed.is_none();
            self.rebinder.look(&self.node, is_alone);
            if let Some(feed) = &mut self.feed {
                feed.tell_pools(&self.node);
            }
            let repair_at = self.repair.map_or_else(Instant::now, |repair| repair.at);
            let credits = self.feed.as_ref().filter(|feed| feed.is_behind).map(Feed::credits);
            let pause = self.rebinder.pause().map(Instant::from_std);
            let walk_at = pause.unwrap_or_else(Instant::now);
            let world_at = self.world.due.unwrap_or_else(Instant::now);
            tokio::select! {
                request = inbox.recv() => {
                    let Some(request) = request else { return };
                    if !self.handle_all(request, &mut inbox) {
                        return;
                    }
                }
                () = has_events(readable.as_ref()) => self.take_events(),
                () = has_room(credits) => self.take_events(),
                _ = poll.tick(), if readable.is_none() => self.take_events(),
                _ = stretch.tick() => self.sweep(),
                _ = audit.tick() => {
                    self.audit();
                    if is_alone || self.node.world.health.is_first() {
                        self.rebinder.look_for_overdue(&self.node, now());
                    }
                }
                _ = ramp.tick(), if self.node.world.ramps.is_busy() => drop(self.node.ramp(SystemTime::now())),
                _ = failback.tick() => {
                    if !is_alone {
                        self.rebinder.look_again();
                    }
                    if is_alone || self.node.world.health.may_decide() {
                        self.rebinder.look_for_idle(&self.node, is_alone);
                    }
                }
                () = ready(()), if self.rebinder.is_busy() && pause.is_none() => self.rebinder.step(&mut self.node),
                () = sleep_until(walk_at), if pause.is_some() => self.rebinder.step(&mut self.node),
                () = sleep_until(world_at), if self.world.due.is_some() => self.follow_world(),
                () = sleep_until(repair_at), if self.repair.is_some() => self.try_repair(),
            }
        }
    }

    /// Handles a request and the news of the world that wait behind it; `false` = the data plane was left.
    fn handle_all(&mut self, first: Request, inbox: &mut mpsc::Receiver<Request>) -> bool {
        let mut next = Some(first);
        while let Some(request) = next {
            let is_hop = matches!(request, Request::Hop(_) | Request::Health(_));
            if !self.handle(request) {
                return false;
            }
            next = if is_hop { inbox.try_recv().ok() } else { None };
        }
        true
    }

    /// Lets the tables follow what is known of the ways.
    fn follow_world(&mut self) {
        let start = Instant::now();
        self.world.due = None;
        self.node.follow_world();
        self.world.cost = start.elapsed();
    }

    /// An answer that nobody waits for any more is dropped.
    fn handle(&mut self, request: Request) -> bool {
        match request {
            Request::Apply(desired, reply) => {
                let result = self.node.apply(*desired);
                if result.is_ok() {
                    self.tell_addresses();
                    if let Some(feed) = &mut self.feed {
                        feed.tell_servers(&self.node);
                    }
                }
                drop(reply.send(result));
            }
            Request::SetAdmin { service, backend, admin, deadline, reply } => {
                let names = (service.as_str(), backend.as_str());
                let change = |known: &Overrides| known.with_admin(names, wall(), admin, deadline);
                drop(reply.send(self.change(names, change)));
            }
            Request::FailBack { service, reply } => {
                // It is said of backends as they are, also of one that has come back a moment ago.
                if self.world.due.is_some() {
                    self.follow_world();
                }
                drop(reply.send(self.rebinder.fail_back(&self.node, &service)));
            }
            Request::SetWeight { service, backend, weight, reply } => {
                let names = (service.as_str(), backend.as_str());
                let result = match weight {
                    Some(weight) if weight > MAX_WEIGHT => Err(ChangeError::Weight { weight }),
                    _ => self.change(names, |known| known.with_weight(names, wall(), weight)),
                };
                drop(reply.send(result));
            }
            Request::Health(changes) => {
                changes.into_iter().for_each(|change| self.node.note_health(change));
                // Who comes back gets the first part of his share, not all of it before that.
                if !self.node.ramp(SystemTime::now()) {
                    self.world.fall_behind();
                }
            }
            Request::OtherViews(others) => {
                self.node.world.health.hear(others);
                self.world.fall_behind();
            }
            Request::Hop(change) => {
                self.node.hop(change);
                self.world.fall_behind();
            }
            Request::Ring(ring) => {
                self.node.world.ring = Some(ring);
                self.tell_addresses();
                self.world.fall_behind();
            }
            Request::View(reply) => drop(reply.send(self.node.view())),
            Request::Desired(reply) => {
                drop(reply.send(self.node.applied().map(|applied| applied.desired.clone())));
            }
            Request::Overrides(reply) => drop(reply.send(self.node.overrides.clone())),
            Request::MergeOverrides(others, reply) => drop(reply.send(self.merge(&others))),
            Request::Vitals(reply) => drop(reply.send(self.node.vitals())),
            Request::Outcomes(reply) => drop(reply.send(self.node.outcomes())),
            Request::Tables(reply) => drop(reply.send(self.node.tables(self.sweeper.flows_live()))),
            Request::Sessions { filter, cursor, limit, reply } => {
                drop(reply.send(self.node.sessions(&filter, cursor, limit)));
            }
            Request::Session { service, session, reply } => {
                drop(reply.send(self.node.session(&service, session)));
            }
            Request::SessionDelete { service, session, reply } => {
                drop(reply.send(self.node.session_delete(&service, session)));
            }
            Request::SessionPin { service, session, backend, lifetime, reply } => {
                drop(reply.send(self.node.session_pin(&service, session, &backend, lifetime)));
            }
            Request::Flows { filter, cursor, limit, reply } => {
                drop(reply.send(self.node.flows(&filter, cursor, limit)));
            }
            Request::Mirroring(reply) => drop(reply.send(self.node.mirroring())),
            Request::Mirrored { cursor, reply } => drop(reply.send(self.node.mirrored(cursor))),
            Request::Adopt(all, reply) => drop(reply.send(self.node.adopt(&all))),
            Request::Offload(all, reply) => drop(reply.send(self.node.plane.offload(&all))),
            Request::Explain { service, reply } => drop(reply.send(self.node.explain(&service))),
            Request::Replicate(feed) => {
                let feed = self.feed.insert(*feed);
                feed.tell_servers(&self.node);
                self.rebinder.stop();
            }
            Request::Replicated(changes) => {
                let outcomes = self.node.replicated(&changes);
                self.tell(Report::Applied(outcomes));
            }
            Request::Replicable { cursor, since } => {
                if let Some(feed) = &self.feed {
                    feed.tell(Report::Page(self.node.replicable(feed, cursor, since)));
                }
            }
            Request::Look { number, service, session, backend } => {
                // What was told of it must be known before anything is done to it.
                self.take_events();
                let looked = match &self.feed {
                    Some(feed) if feed.is_behind => Err(ChangeError::SessionMoved { service, session }),
                    Some(_) | None => self.node.look(&service, session, backend.as_deref()),
                };
                self.tell(Report::Looked(number, looked));
            }
            Request::DetachAll(reply) => {
                let result = self.node.plane.detach_all();
                let is_left = result.is_ok();
                drop(reply.send(result));
                return !is_left;
            }
        }
        true
    }

    /// Makes an override, in the file and in the tables, or in neither.
    fn change(
        &mut self,
        (service, backend): (&str, &str),
        change: impl FnOnce(&Overrides) -> Overrides,
    ) -> Result<(), ChangeError> {
        self.node.backend(service, backend)?;
        let desired: Desired = match self.node.applied() {
            Some(applied) => applied.desired.clone(),
            None => return Err(ApplyError::Gone(Gone).into()),
        };
        self.override_with(change(&self.node.overrides), desired)
    }

    /// Takes over what administrators said elsewhere and is newer; whether anything is.
    fn merge(&mut self, others: &Overrides) -> Result<bool, ChangeError> {
        let mut merged = self.node.overrides.clone();
        if !merged.merge(others) {
            return Ok(false);
        }
        let Some(applied) = self.node.applied() else { return Err(ApplyError::Gone(Gone).into()) };
        let desired = applied.desired.clone();
        self.override_with(merged, desired).map(|()| true)
    }

    /// Has these overrides in the file and in the tables, or in neither.
    fn override_with(&mut self, changed: Overrides, desired: Desired) -> Result<(), ChangeError> {
        let before = std::mem::replace(&mut self.node.overrides, changed);
        let result = match self.save() {
            Ok(()) => self.node.apply(desired).map(drop).map_err(ChangeError::from),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.node.overrides = before;
            if let Err(error) = self.save() {
                tracing::error!(%error, "an override was not made but may come back after a restart");
            }
        }
        result
    }

    fn save(&self) -> Result<(), ChangeError> {
        let Some(path) = &self.overrides else { return Ok(()) };
        let saved = self.node.overrides.save(path);
        saved.map_err(|source| ChangeError::State { path: path.clone(), source })
    }

    fn tell_addresses(&self) {
        let addresses = self.node.addresses();
        self.addresses.send_if_modified(|known| {
            let is_new = *known != addresses;
            *known = addresses;
            is_new
        });
    }

    /// Something that becomes readable when events wait.
    fn event_source(&self) -> Option<AsyncFd<OwnedFd>> {
        let fd = self.node.plane.event_fd()?;
        let source = fd.try_clone_to_owned().and_then(|fd| {
            // SAFETY: an owned descriptor stays open and the same for as long as it lives.
            let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            registered.map_err(io::Error::from)
        });
        source.inspect_err(|error| tracing::warn!(%error, "binding events have to be polled for")).ok()
    }

    /// Passes waiting events on, and acknowledges them unless the cluster does.
    fn take_events(&mut self) {
        loop {
            if self.feed.as_mut().is_some_and(|feed| !feed.has_room()) {
                return;
            }
            let events = match self.node.plane.events(EVENTS_AT_ONCE) {
                Ok(events) => events,
                Err(error) => return tracing::warn!(%error, "cannot take binding events; trying again"),
            };
            match &self.feed {
                Some(feed) => feed.tell_made(self.node.made(&events)),
                None => self.acknowledge(&events),
            }
            let count = events.len();
            for event in events {
                // No listener is no reason to keep the event.
                drop(self.events.send(event));
            }
            if count < EVENTS_AT_ONCE {
                return;
            }
        }
    }

    fn acknowledge(&mut self, events: &[BindingEvent]) {
        let records: Vec<BindingRecord> = events.iter().map(acknowledgement).collect();
        // What is not acknowledged is found again by the sweep.
        if let Err(error) = self.node.plane.apply_bindings(&records) {
            tracing::warn!(%error, "cannot acknowledge binding events");
        }
    }

    fn tell(&self, report: Report) {
        if let Some(feed) = &self.feed {
            feed.tell(report);
        }
    }

    fn sweep(&mut self) {
        let sizes = self.node.plane.sizes();
        let request = self.sweeper.next(&sizes);
        match self.node.plane.sweep(&request) {
            Ok(report) => self.sweeper.done(&request, &report, &sizes),
            Err(error) => tracing::debug!(%error, "a stretch was not swept"),
        }
    }

    fn audit(&mut self) {
        if self.node.tick(clocks()) {
            tracing::debug!("the keys of SYN cookies are renewed");
            self.node.follow_world();
        }
        if self.repair.is_none() {
            let complaint = self.node.audit().err().map(|error| error.to_string());
            if let Some(error) = complaint.as_ref().filter(|_| complaint != self.complaint) {
                tracing::warn!(error, "not attached where it should be; trying again every second");
            }
            self.complaint = complaint;
        }
        match self.node.plane.outcomes() {
            Ok(counts) => self.full.tell(&counts, self.node.plane.sizes().bindings),
            Err(error) => tracing::debug!(%error, "cannot read the outcomes"),
        }
    }

    fn schedule_repair(&mut self) {
        if !self.node.is_dirty() {
            self.repair = None;
        } else if self.repair.is_none() {
            self.repair = Some(Repair { at: Instant::now() + BACK_OFF.0, pause: BACK_OFF.0 });
        }
    }

    fn try_repair(&mut self) {
        if let Err(error) = self.node.repair() {
            let pause = self.repair.map_or(BACK_OFF.0, |repair| (repair.pause * 2).min(BACK_OFF.1));
            tracing::warn!(%error, again_in = ?pause, "the data plane cannot be repaired yet");
            self.repair = Some(Repair { at: Instant::now() + pause, pause });
        }
    }
}

/// Milliseconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Largest weight of a backend.
const MAX_WEIGHT: u32 = 1_000;

impl FullTable {
    /// Says so when bindings were refused since the last time.
    fn tell(&mut self, counts: &[u64], capacity: u32) {
        let refused = counts.get(Outcome::BindingsFull as usize).copied().unwrap_or_default();
        let new = refused.saturating_sub(self.refused.unwrap_or(refused));
        if new > 0 {
            tracing::warn!(
                refused = new,
                capacity,
                "the table of bindings is full: sessions go where the hash says; raise `bindings` in the configuration"
            );
        }
        self.refused = Some(refused);
    }
}

fn acknowledgement(event: &BindingEvent) -> BindingRecord {
    BindingRecord {
        session: event.session,
        word: event.word,
        lifetime: 0,
        service: event.service,
        op: BindingOp::Acknowledge as u8,
        pad: 0,
        home: 0,
    }
}

/// Waits until whoever replicates bindings has room for more; for ever where nobody is behind.
async fn has_room(credits: Option<Arc<Semaphore>>) {
    match credits {
        Some(credits) => drop(credits.acquire().await),
        None => std::future::pending().await,
    }
}

/// Waits until events wait; for ever where nothing tells.
async fn has_events(source: Option<&AsyncFd<OwnedFd>>) {
    let Some(source) = source else { return std::future::pending().await };
    match source.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        Err(error) => {
            tracing::warn!(%error, "the ring of binding events cannot be watched");
            std::future::pending().await
        }
    }
}
