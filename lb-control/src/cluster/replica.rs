//! A node's copy of the cluster's bindings: the protocol's state machine with a journal and connections around it.
//!
//! What happens here goes in as [`Local`]s; what the data plane must hold comes out as [`Update`]s. The actor is the
//! only one that touches the state machine ([`lb_core::sync::Node`]): it feeds it messages, time and what the journal has
//! made durable, and never waits for a disk, a peer or the receiver of updates.

mod actor;
mod beginning;
mod checkpoint;
mod convergence;
mod record;

pub use convergence::{BUCKETS, Histogram};

use self::beginning::Beginning;
use super::error::ClusterError;
use super::home::Home;
use super::identity::{NodeId, Role};
use super::journal::{Journal, JournalError, Opening};
use super::token::Token;
use super::transport::{PeerState, Transport};
use lb_core::binding::{Binding, Key, Vector};
use lb_core::sync::{Config, Counts, Local, PeerStatus};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Batches of local events that wait.
const REQUESTS: usize = 256;
/// Batches of updates that wait for the data plane.
const UPDATES: usize = 16;

/// What peers say of connections that they mirror.
type Mirrored = mpsc::Receiver<(NodeId, Vec<u8>)>;

/// What the data plane must hold, and how far what it told has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Update {
    /// This binding, until then.
    Put(Binding, Instant),
    /// No binding of this key.
    Delete(Key),
    /// What follows takes account of the batch with this number, and of those before it.
    Heard(u64),
    /// The batch with this number will not be lost, nor those before it.
    Durable(u64),
    /// All that the cluster had when this node became ready was said before this; comes once.
    Complete,
}

/// Why a replica was not started.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Its identity or connections.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The replica has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the replication of bindings has ended, see the log; packets go on")]
pub struct Ended;

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// This node.
    pub id: NodeId,
    /// Whether it has the database.
    pub is_ready: bool,
    /// Bindings that it holds.
    pub bindings: usize,
    /// Bytes that they and the logs take.
    pub bytes: usize,
    /// The latest event of each stream.
    pub vector: Vector,
    /// What happened so far.
    pub counts: Counts,
    /// How long it took until others had what happened here.
    pub convergence: Histogram,
    /// What keeps the journal from being written.
    pub journal_trouble: Option<String>,
    /// When this node's certificate ends, in seconds since 1970.
    pub certificate_until: u64,
    /// Whether it should have been made new by now.
    pub is_certificate_overdue: bool,
    /// Whom a snapshot is being fetched from, and how many records came.
    pub snapshot: Option<(NodeId, u64)>,
    /// The other members.
    pub peers: Vec<Peer>,
}

/// Another member.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// How the connection to it stands.
    pub connection: PeerState,
    /// How far it is; `None` for members that have no bindings.
    pub replication: Option<PeerStatus>,
    /// For how long it has lacked something that happened here.
    pub behind: Option<Duration>,
}

enum Request {
    Local(Vec<Local>, Receipt),
    Again(Vec<Key>),
    AgainOf(Vec<(u32, u64)>),
    Find(Key, oneshot::Sender<Option<Binding>>),
    Standing(oneshot::Sender<Standing>),
    Stop,
}

/// How a batch of local events is acknowledged.
enum Receipt {
    /// Among the updates.
    Number(u64),
    /// To whoever waits.
    Reply(oneshot::Sender<()>),
}

/// What was told, on its way to the disk.
#[derive(Debug)]
pub struct Told(oneshot::Receiver<()>);

impl Told {
    /// Waits until it cannot be lost any more.
    pub async fn durable(self) -> Result<(), Ended> {
        self.0.await.map_err(|_| Ended)
    }
}

/// A way for the data plane to tell a replica what happens.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<Request>);

impl Teller {
    /// Tells a batch whose number is above those before; [`Update`]s say what becomes of it.
    pub(super) async fn tell(&self, number: u64, local: Vec<Local>) -> Result<(), Ended> {
        self.send(Request::Local(local, Receipt::Number(number))).await
    }

    /// Asks to be told again what is to be held under these keys.
    pub(super) async fn again(&self, keys: Vec<Key>) -> Result<(), Ended> {
        self.send(Request::Again(keys)).await
    }

    /// Asks to be told again what is with these servers, each with its service.
    pub(super) async fn again_of(&self, servers: Vec<(u32, u64)>) -> Result<(), Ended> {
        self.send(Request::AgainOf(servers)).await
    }

    /// The binding of a key.
    pub(super) async fn find(&self, key: Key) -> Result<Option<Binding>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Find(key, reply)).await?;
        answer.await.map_err(|_| Ended)
    }

    async fn send(&self, request: Request) -> Result<(), Ended> {
        self.0.send(request).await.map_err(|_| Ended)
    }
}

/// A running replica.
pub struct Replica {
    teller: Teller,
    ready: watch::Receiver<bool>,
    transport: Arc<Transport>,
    /// What peers say of connections, for whoever listens first.
    mirrored: Option<Mirrored>,
    actor: JoinHandle<()>,
}

impl Replica {
    /// Starts the replica of the member that `home` says this node is. Needs a tokio runtime; opening the journal blocks.
    pub fn start(
        home: &Home,
        listen: SocketAddr,
        discover: Option<String>,
    ) -> Result<(Self, mpsc::Receiver<Vec<Update>>, Opening), ReplicaError> {
        Self::start_with(home, listen, discover, |_| {})
    }

    fn start_with(
        home: &Home,
        listen: SocketAddr,
        discover: Option<String>,
        adjust: impl FnOnce(&mut Config),
    ) -> Result<(Self, mpsc::Receiver<Vec<Update>>, Opening), ReplicaError> {
        let identity = home.identity()?.ok_or(ClusterError::NoCluster)?;
        let id = identity.subject.id;
        let path = home.journal();
        let opened = Journal::open(&path, id.number(), wall())?;
        let (transport, events) = Transport::start(home, listen, discover)?;
        let transport = Arc::new(transport);
        let members = actor::members(transport.roster().borrow().roster(), id);
        let mut config = Config::new(lb_core::binding::NodeId(id.number()), members.clone());
        adjust(&mut config);
        let beginning = Beginning::of(opened, &path, &config)?;
        let opening = beginning.opening.clone();
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (updates, updated) = mpsc::channel(UPDATES);
        let (told, ready) = watch::channel(false);
        let (mirror, mirrored) = mpsc::channel(super::mirror::MESSAGES);
        let sinks = actor::Sinks { ready: told, updates, mirror };
        let actor = actor::Actor::new(members, beginning, Arc::clone(&transport), sinks);
        let actor = tokio::spawn(actor.run(inbox, events));
        let replica = Self { teller: Teller(requests), ready, transport, mirrored: Some(mirrored), actor };
        Ok((replica, updated, opening))
    }

    /// Tells what happened on this node; waits while the replica is behind.
    pub async fn tell(&self, local: Vec<Local>) -> Result<Told, Ended> {
        let (reply, answer) = oneshot::channel();
        self.teller.send(Request::Local(local, Receipt::Reply(reply))).await?;
        Ok(Told(answer))
    }

    /// The connections to the peers, and what they say of connections that they mirror; the first time only.
    pub(super) fn mirrored(&mut self) -> Option<(Arc<Transport>, Mirrored)> {
        Some((Arc::clone(&self.transport), self.mirrored.take()?))
    }

    /// A way to tell it that its data plane can keep.
    pub(super) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// The binding of a key.
    pub async fn find(&self, key: Key) -> Result<Option<Binding>, Ended> {
        self.teller.find(key).await
    }

    /// How everything stands.
    pub async fn standing(&self) -> Result<Standing, Ended> {
        let (reply, answer) = oneshot::channel();
        self.teller.send(Request::Standing(reply)).await?;
        answer.await.map_err(|_| Ended)
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.transport.id()
    }

    /// Whether the node has the database and may take traffic; once true, it stays so.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Makes a token that lets one machine join.
    pub fn token(&self, role: Role, lifetime: Duration) -> Result<Token, ClusterError> {
        self.transport.token(role, lifetime)
    }

    /// Removes a member.
    pub fn remove(&self, id: NodeId) -> Result<(), ClusterError> {
        self.transport.remove(id)
    }

    /// Ends: what was told before is durable when this returns.
    pub async fn stop(self) {
        let Self { teller, actor, .. } = self;
        // Who has ended already needs not be told.
        let _ = teller.send(Request::Stop).await;
        if let Err(error) = actor.await {
            tracing::error!(%error, "the replication of bindings ended badly");
        }
    }
}

impl Standing {
    /// That of a member that has no replica.
    pub(super) fn without_bindings(transport: &Transport) -> Self {
        let (certificate_until, is_certificate_overdue) = transport.certificate_end();
        Self {
            id: transport.id(),
            is_ready: true,
            bindings: 0,
            bytes: 0,
            vector: Vector::default(),
            counts: Counts::default(),
            convergence: Histogram::default(),
            journal_trouble: None,
            certificate_until,
            is_certificate_overdue,
            snapshot: None,
            peers: Self::peers(transport, [].into_iter(), |_| None),
        }
    }

    fn peers(
        transport: &Transport,
        replication: impl Iterator<Item = PeerStatus>,
        behind: impl Fn(lb_core::binding::NodeId) -> Option<Duration>,
    ) -> Vec<Peer> {
        let mut replication: BTreeMap<u64, PeerStatus> =
            replication.map(|status| (status.id.0, status)).collect();
        let roster = transport.roster();
        let roster = roster.borrow().roster().clone();
        let mut states = transport.peers();
        let others = roster.members.into_iter().filter_map(|member| {
            let connection = states.remove(&member.id)?;
            let replication = replication.remove(&member.id.number());
            let (id, name, role, addresses) = (member.id, member.name, member.role, member.addresses);
            let behind = replication.as_ref().and_then(|status| behind(status.id));
            Some(Peer { id, name, role, addresses, connection, replication, behind })
        });
        others.collect()
    }
}

/// Begins a node with values that a journal may hold: the entry of fuzzing.
pub fn examine(values: &[u8]) {
    record::examine(values);
}

/// Milliseconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
