//! The one task that speaks with the switch: it makes the switch's tables what they should be, and hands on what the switch tells.
//!
//! The caller says what should be by [`Link::want`] and never waits. The task connects, stands for election, and when it is master it
//! runs the program if another one runs, reads every table back and writes the difference; from then on it writes what
//! changes. What the switch refuses is told and tried again. A lost connection begins it all anew.

mod work;

use super::client::Client;
use super::numbers::Tag;
use super::offloads::Changes;
use super::program::Program;
use super::proto::{Arbitration, Request, Uint128, request_kind};
use super::row::{Content, Key, Table};
use super::wanted::Rows;
use futures_util::stream::unfold;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use work::Session;

/// First and last pause between attempts to reach the switch.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long an answer that somebody waits for may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the switch is, and who we are to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    /// `host:port` of its P4Runtime server.
    pub(super) address: String,
    /// Its device id.
    pub(super) device: u64,
    /// Our election id; the highest one is master.
    pub(super) election: u64,
}

/// What the switch told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// A session that should be bound; its entry is being written.
    Bound(Told),
    /// A session that was bound before we became master.
    Found(Told),
    /// A session that nothing was heard of for its lifetime; its entry is being removed.
    Idle {
        /// Id of the service.
        service: u32,
        /// The session key.
        session: u64,
    },
}

/// A session and where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    /// Id of the service.
    pub(super) service: u32,
    /// The session key.
    pub(super) session: u64,
    /// The backend, as the switch calls it.
    pub(super) backend: Tag,
}

/// A mark of timestamps that the switch works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The number that timestamps carry.
    pub(super) number: u8,
    /// What is added to timestamps.
    pub(super) stamp: u32,
    /// The backend, as the switch calls it.
    pub(super) backend: Tag,
}

/// Marks that a switch was found with: nothing is written before it was said what follows from them.
#[derive(Default)]
enum MarksFound {
    /// None, or that has been said.
    #[default]
    None,
    /// They wait to be taken.
    Waiting(Vec<Found>),
    /// They were taken, and what follows from them is not said yet.
    Taken,
}

impl MarksFound {
    fn of(found: Vec<Found>) -> Self {
        if found.is_empty() { Self::None } else { Self::Waiting(found) }
    }
}

/// How it stands with the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// Not connected.
    #[default]
    Away,
    /// Connected, and another one is master.
    Backup,
    /// Master; the tables are being compared or written.
    Behind,
    /// Master, and the tables are as they should be.
    Settled,
}

/// What caller and task share.
#[derive(Default)]
struct Shared {
    /// What should be; `None` = nobody has said it yet.
    wanted: Option<Rows>,
    /// What of it changed since it was last compared.
    changed: BTreeSet<Key>,
    /// Lifetimes of bindings by service id: what is told of any other is not bound.
    lifetimes: HashMap<u32, u64>,
    /// Addresses of the backends that have slots, reachable or not.
    owners: HashMap<Tag, u128>,
    /// Ways to backends that the switch had, and that we have not found ourselves yet.
    adopted: BTreeSet<Key>,
    marks: MarksFound,
    /// Most bindings.
    capacity: usize,
    /// Bindings among what should be.
    bindings: usize,
    news: Vec<News>,
    standing: Standing,
    questions: Vec<Question>,
    is_over: bool,
}

/// A question for counters, and where the answer goes.
struct Question {
    counter: &'static str,
    places: Option<Vec<u32>>,
    answer: mpsc::Sender<Vec<(u32, u64, u64)>>,
}

/// The caller's end.
pub(super) struct Link {
    shared: Arc<Mutex<Shared>>,
    wake: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts the task on a thread of its own.
    pub(super) fn start(peer: Peer, program: Arc<Program>, capacity: u32) -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { capacity: capacity as usize, ..Shared::default() }));
        let wake = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (theirs, woken) = (Arc::clone(&shared), Arc::clone(&wake));
        let thread = thread::Builder::new().name("switch".into()).spawn(move || {
            runtime.block_on(run(peer, program, theirs, woken));
        })?;
        Ok(Self { shared, wake, thread: Some(thread) })
    }

    /// Says what every table should be whose entries do not come with the traffic, for how long sessions of which
    /// service are bound, and where the backends are.
    pub(super) fn want(&self, rows: Rows, lifetimes: HashMap<u32, u64>, owners: HashMap<Tag, u128>) {
        let mut shared = self.lock();
        shared.owners = owners;
        shared.lifetimes = lifetimes;
        let stays = |key: &Key| key.table.follows_traffic();
        let mut old = shared.wanted.take().unwrap_or_default();
        let mut new = rows;
        let staying: Vec<Key> = old.keys().filter(|key| stays(key)).cloned().collect();
        for key in staying {
            if let Some(content) = old.remove(&key) {
                new.insert(key, content);
            }
        }
        for key in std::mem::take(&mut shared.adopted) {
            if !new.contains_key(&key)
                && let Some(way) = old.get(&key).filter(|way| shared.leads_to_owner(&key, way))
            {
                new.insert(key.clone(), way.clone());
                shared.adopted.insert(key);
            }
        }
        for (key, content) in &new {
            if old.remove(key).as_ref() != Some(content) && !stays(key) {
                shared.changed.insert(key.clone());
            }
        }
        shared.changed.extend(old.into_keys());
        shared.wanted = Some(new);
        if matches!(shared.marks, MarksFound::Taken) {
            shared.marks = MarksFound::None;
        }
        shared.fall_behind();
        self.wake.notify_one();
    }

    /// Says what one entry should be, where it is said already what all should.
    pub(super) fn want_row(&self, key: Key, content: Content) {
        let mut shared = self.lock();
        let Some(wanted) = &mut shared.wanted else { return };
        wanted.insert(key.clone(), content);
        shared.changed.insert(key);
        shared.fall_behind();
        self.wake.notify_one();
    }

    /// Takes the marks that the switch was found with. Nothing is written before [`Self::want`] is called after that.
    pub(super) fn marks(&self) -> Option<Vec<Found>> {
        let mut shared = self.lock();
        if !matches!(shared.marks, MarksFound::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut shared.marks, MarksFound::Taken) {
            MarksFound::Waiting(found) => Some(found),
            MarksFound::None | MarksFound::Taken => None,
        }
    }

    /// Says where a session should go; `None` = it should not be bound.
    pub(super) fn want_session(&self, key: Key, content: Option<Content>) {
        self.lock().put_session(key, content);
        self.wake.notify_one();
    }

    /// Whether it has been said what the tables should be.
    pub(super) fn has_wants(&self) -> bool {
        self.lock().wanted.is_some()
    }

    /// Says what changes of the connections that the switch goes on with by itself.
    pub(super) fn want_offloads(&self, changes: Changes) {
        let mut shared = self.lock();
        let Shared { wanted: Some(wanted), changed, .. } = &mut *shared else { return };
        for (key, content) in changes {
            match content {
                Some(content) => drop(wanted.insert(key.clone(), content)),
                None => drop(wanted.remove(&key)),
            }
            changed.insert(key);
        }
        shared.fall_behind();
        self.wake.notify_one();
    }

    /// Says that the switch should have nothing.
    pub(super) fn leave(&self) {
        let mut shared = self.lock();
        let old = shared.wanted.replace(Rows::new()).unwrap_or_default();
        shared.changed.extend(old.into_keys());
        (shared.bindings, shared.lifetimes, shared.adopted) = (0, HashMap::new(), BTreeSet::new());
        shared.marks = MarksFound::None;
        shared.fall_behind();
        self.wake.notify_one();
    }

    /// Takes what the switch told.
    pub(super) fn news(&self, limit: usize) -> Vec<News> {
        let mut shared = self.lock();
        let taken = shared.news.len().min(limit);
        shared.news.drain(..taken).collect()
    }

    /// How it stands with the switch.
    pub(super) fn standing(&self) -> Standing {
        self.lock().standing
    }

    /// Bindings that there are or should be.
    pub(super) fn bindings(&self) -> usize {
        self.lock().bindings
    }

    /// Numbers of a counter array: place, packets, bytes; nothing when the switch does not answer.
    pub(super) fn counters(&self, counter: &'static str, places: Option<Vec<u32>>) -> Vec<(u32, u64, u64)> {
        let (answer, answered) = mpsc::channel();
        {
            let mut shared = self.lock();
            if shared.standing == Standing::Away {
                return Vec::new();
            }
            shared.questions.push(Question { counter, places, answer });
        }
        self.wake.notify_one();
        answered.recv_timeout(PATIENCE).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lock().is_over = true;
        self.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It looks up between any two calls, and every call has an end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whether an entry of a backend leads to the address where that backend is.
    fn leads_to_owner(&self, key: &Key, way: &Content) -> bool {
        let owner = Tag::read(&key.fields).and_then(|tag| self.owners.get(&tag));
        key.table == Table::Backends && owner.is_some() && owner == way.values.first()
    }

    fn put_session(&mut self, key: Key, content: Option<Content>) {
        let Some(wanted) = &mut self.wanted else { return };
        let before = match content {
            Some(content) => wanted.insert(key.clone(), content).is_some(),
            None => {
                let was = wanted.remove(&key).is_some();
                self.bindings -= usize::from(was);
                self.changed.insert(key);
                self.fall_behind();
                return;
            }
        };
        self.bindings += usize::from(!before);
        self.changed.insert(key);
        self.fall_behind();
    }

    /// Takes note that something is to be written.
    fn fall_behind(&mut self) {
        if self.standing == Standing::Settled && !self.changed.is_empty() {
            self.standing = Standing::Behind;
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // What is in it is whole after every statement.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(peer: Peer, program: Arc<Program>, shared: Arc<Mutex<Shared>>, wake: Arc<Notify>) {
    let (mut pause, mut complaint) = (PAUSE.0, String::new());
    loop {
        match visit(&peer, &program, &shared, &wake).await {
            Ok(()) => return,
            Err(error) => {
                let was = std::mem::take(&mut lock(&shared).standing);
                lock(&shared).questions.clear();
                let text = error.to_string();
                if was != Standing::Away || text != complaint {
                    warn!(switch = %peer.address, "{text}; trying again");
                }
                if was != Standing::Away {
                    pause = PAUSE.0;
                }
                complaint = text;
            }
        }
        // A notification that was for somebody else is only an early try.
        let _ = tokio::time::timeout(pause, wake.notified()).await;
        if lock(&shared).is_over {
            return;
        }
        tokio::time::sleep(PAUSE.0).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// From connecting to the end of the connection; `Ok` = the caller has gone.
async fn visit(
    peer: &Peer,
    program: &Arc<Program>,
    shared: &Arc<Mutex<Shared>>,
    wake: &Notify,
) -> Result<(), Trouble> {
    let election = Uint128 { high: 0, low: peer.election };
    let mut client = Client::connect(&peer.address, peer.device, election).await.map_err(Trouble::Connect)?;
    let (requests, outgoing) = tokio::sync::mpsc::channel(64);
    let outgoing =
        unfold(outgoing, |mut outgoing| async { outgoing.recv().await.map(|next| (next, outgoing)) });
    let arbitration = Arbitration { device_id: peer.device, election_id: Some(election), status: None };
    let first = Request { kind: Some(request_kind::Kind::Arbitration(arbitration)) };
    requests.send(first).await.map_err(|_| Trouble::Closed)?;
    let mut stream = client.stream(outgoing).await?;
    lock(shared).standing = Standing::Backup;
    info!(switch = %peer.address, "connected");
    let mut session = Session::new(client, Arc::clone(program), Arc::clone(shared), requests);
    loop {
        if lock(shared).is_over {
            return Ok(());
        }
        let next = session.next();
        tokio::select! {
            biased;
            message = stream.message() => match message? {
                Some(message) => session.hear(message).await?,
                None => return Err(Trouble::Closed),
            },
            () = wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        session.work().await?;
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot connect: {}; is `address` of [dataplane] right, and does the switch listen there?", words(.0))]
    Connect(#[source] tonic::transport::Error),
    #[error("the switch closed the connection")]
    Closed,
    #[error("the switch answers: {} ({})", .0.message(), .0.code())]
    Call(#[from] tonic::Status),
}

fn words(error: &tonic::transport::Error) -> String {
    crate::admin::error::chain(error)
}
