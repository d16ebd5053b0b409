//! Mirrored connections: tells the peers of this node's, and holds theirs until they die.
//!
//! Two tasks. One walks through the table of flows, twice a second while it is small, and sends what [`Mirror`] makes of it to
//! the two nodes that would inherit first, and to switches. The other one takes in what peers tell. Messages go the way of the bindings', behind
//! them: only into the front half of a peer's outbox; who takes them too slowly gets everything anew. What is held is in
//! memory; [`Mirrors::take`] gives it up when its owner is dead.

use super::heir::heirs;
use super::identity::{NodeId, Role, random};
use super::transport::{SendError, Transport};
use crate::reconcile::mirror::Mirroring;
use crate::reconcile::{Handle, QueryError};
use lb_core::binding::{self, Time};
use lb_core::mirror::{Copies, Lifetimes, Mirror, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Messages of peers that wait; of more, a gap is seen, and everything is asked for anew.
pub(super) const MESSAGES: usize = 256;
/// Peers that are told: the heir, and the next one if that dies, too.
const HEIRS: usize = 2;
/// Between two walks through the table, and so many times as long as the last one took.
const EVERY: Duration = Duration::from_millis(500);
const PART: u32 = 4;
/// Between two pages, so that a walk leaves the reconciler to others.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a peer may be without room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon one without room is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The mirroring of connections; clones are cheap.
#[derive(Clone)]
pub struct Mirrors(Arc<Shared>);

struct Shared {
    transport: Arc<Transport>,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    /// Unknown until there is a configuration.
    is_on: Option<bool>,
    mirror: Mirror,
    copies: Copies,
    adopted: u64,
    lost: u64,
}

impl State {
    fn mirrors(&self) -> bool {
        self.is_on == Some(true)
    }
}

/// How the mirroring stands.
#[derive(Clone, Default, Debug)]
pub struct Standing {
    /// Whether connections of some service are mirrored.
    pub is_on: bool,
    /// Connections of this node that others were told of.
    pub mirrored: usize,
    /// Records that were sent.
    pub sent: u64,
    /// Messages for which a peer had no room.
    pub dropped: u64,
    /// Connections of each other node that this one holds.
    pub held: BTreeMap<u64, usize>,
    /// Records that came.
    pub received: u64,
    /// Records for which there was no room.
    pub refused: u64,
    /// How often messages of a peer were missed.
    pub gaps: u64,
    /// Connections that go on here since their node died.
    pub adopted: u64,
    /// Connections that could not be taken over.
    pub lost: u64,
}

impl Mirrors {
    /// Starts to tell and to listen, until the reconciler ends or the tasks are aborted.
    pub(super) fn start(
        reconciler: &Handle,
        transport: Arc<Transport>,
        heard: mpsc::Receiver<(NodeId, Vec<u8>)>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        // Of a configuration only, when there is one.
        let lifetimes = Lifetimes { established: Duration::ZERO, closing: Duration::ZERO };
        // Whatever it is, a peer that takes it for one of an earlier life only asks for everything.
        let first_walk = random().map_or(0, u64::from_be_bytes);
        let state = State {
            is_on: None,
            mirror: Mirror::new(lifetimes, first_walk),
            copies: Copies::new(lifetimes, 0),
            adopted: 0,
            lost: 0,
        };
        let shared = Arc::new(Shared { transport, start: Instant::now(), state: Mutex::new(state) });
        tasks.spawn(tell(Arc::clone(&shared), reconciler.clone()));
        tasks.spawn(listen(Arc::clone(&shared), heard));
        Self(shared)
    }

    /// Whether connections may come from others, or go to them.
    pub fn is_on(&self) -> bool {
        let state = self.0.lock();
        state.mirrors() || !state.copies.is_empty()
    }

    /// Gives up those connections of a node that is dead which pass the filter, to be taken over.
    pub fn take(&self, owner: NodeId, filter: impl Fn(&Record) -> bool) -> Vec<Record> {
        let now = self.0.now();
        let mut state = self.0.lock();
        state.mirror.inherit(peer(owner));
        state.copies.take(peer(owner), now, filter)
    }

    /// What is sent to these addresses of nodes that are gone is to come to this node, also where others go on with it now.
    pub fn expect(&self, addresses: BTreeMap<IpAddr, u64>) {
        let of = |(address, id)| (address, binding::NodeId(id));
        self.0.lock().copies.expect(addresses.into_iter().map(of).collect());
    }

    /// Another node inherits now what this one has inherited, and has to be told.
    pub fn owe(&self, to: NodeId) {
        self.0.lock().mirror.inherit(peer(to));
    }

    /// Connections that others went on with, and that come here from now on.
    pub fn take_home(&self) -> Vec<Record> {
        let now = self.0.now();
        self.0.lock().copies.take_home(now)
    }

    /// Whether a node that was dead, or is [owed](Self::owe), has what this one has for it, as far as this one can know.
    pub fn has_told_all(&self, to: NodeId) -> bool {
        let state = self.0.lock();
        !state.mirrors()
            || !state.mirror.inherited().contains(&peer(to))
            || state.mirror.has_told_all(peer(to))
    }

    /// Whether all these nodes have told all their connections, and none of them has still to be [taken home](Self::take_home).
    pub fn has_heard_all(&self, of: &[u64]) -> bool {
        let of: Vec<_> = of.iter().copied().map(binding::NodeId).collect();
        let state = self.0.lock();
        state.is_on.is_some_and(|is_on| !is_on || state.copies.has_all(&of))
    }

    /// A node that is back needs nothing of this one any more.
    pub fn give_back(&self, to: NodeId) {
        self.0.lock().mirror.give_back(peer(to));
    }

    /// Notes what became of connections that were to be taken over.
    pub(crate) fn note(&self, adopted: u64, lost: u64) {
        let now = self.0.now();
        let mut state = self.0.lock();
        if adopted > 0 {
            // They did not begin here.
            state.mirror.set_complete(now, false);
        }
        state.adopted += adopted;
        state.lost += lost;
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.0.lock();
        let (told, counts) = (state.mirror.standing(), state.copies.counts());
        Standing {
            is_on: state.mirrors(),
            mirrored: told.flows,
            sent: told.sent,
            dropped: told.dropped,
            held: state.copies.held().map(|(id, flows)| (id.0, flows)).collect(),
            received: counts.received,
            refused: counts.refused,
            gaps: counts.gaps,
            adopted: state.adopted,
            lost: state.lost,
        }
    }
}

impl Shared {
    /// Nothing that is done under the lock can leave it half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Takes over what the configuration says, and who is told.
    fn follow(&self, told: &Mirroring) {
        let peers = self.transport.peers();
        let of = |role| peers.iter().filter(move |(_, peer)| peer.role == role);
        let connected = |role| {
            let there = of(role).filter(|(_, peer)| peer.contact.is_some());
            there.map(|(id, _)| id.number()).collect::<Vec<_>>()
        };
        let (nodes, switches) = (connected(Role::Node), connected(Role::Switch));
        let members: BTreeSet<u64> = of(Role::Node).map(|(id, _)| id.number()).collect();
        let is_complete = nodes.len() == members.len();
        let now = self.now();
        let mut state = self.lock();
        state.is_on = Some(told.is_on);
        state.mirror.set_lifetimes(told.lifetimes);
        state.mirror.set_complete(now, is_complete);
        state.copies.configure(told.lifetimes, told.room, &told.sources);
        state.copies.retain(|id| members.contains(&id.0));
        let inherited = state.mirror.inherited().iter().copied();
        let (also, away): (Vec<_>, Vec<_>) = inherited.partition(|id| nodes.contains(&id.0));
        away.iter().filter(|id| !members.contains(&id.0)).for_each(|id| state.mirror.give_back(*id));
        let mut peers = heirs(self.transport.id().number(), nodes, HEIRS);
        peers.extend(also.iter().map(|id| id.0));
        peers.extend(switches);
        let peers: BTreeSet<u64> = peers.into_iter().collect();
        let peers: Vec<_> = peers.into_iter().map(binding::NodeId).collect();
        state.mirror.set_peers(&peers);
    }

    /// Sends what there is to be told.
    async fn send(&self) {
        loop {
            let Some((to, bytes)) = self.lock().mirror.poll_transmit() else { return };
            let Some(id) = NodeId::new(to.0) else { continue };
            let until = Instant::now() + PATIENCE;
            while !self.transport.has_spare_room(id)
                && self.transport.is_connected(id)
                && Instant::now() < until
            {
                sleep(LOOK_AGAIN).await;
            }
            match self.transport.send(id, bytes) {
                Ok(_) => {}
                Err(SendError::Gone) => self.lock().mirror.restart(to, false),
                Err(SendError::Full | SendError::Large(_)) => self.lock().mirror.restart(to, true),
            }
        }
    }

    /// One walk through the table.
    async fn walk(&self, reconciler: &Handle) -> Result<(), QueryError> {
        self.lock().mirror.begin();
        let mut cursor = None;
        loop {
            let page = reconciler.mirrored(cursor).await?;
            let now = self.now();
            {
                let mut state = self.lock();
                page.rows.iter().for_each(|seen| state.mirror.see(now, seen));
            }
            self.send().await;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
            sleep(PAUSE).await;
        }
        self.lock().mirror.end();
        self.send().await;
        Ok(())
    }
}

/// Tells the peers.
async fn tell(shared: Arc<Shared>, reconciler: Handle) {
    loop {
        let began = Instant::now();
        match reconciler.mirroring().await {
            Err(_) => return,
            Ok(None) => {}
            Ok(Some(told)) => {
                shared.follow(&told);
                let has_told = shared.lock().mirror.standing().flows > 0;
                // When it is off from now on, one walk says that everything has ended.
                if told.is_on || has_told {
                    match shared.walk(&reconciler).await {
                        Ok(()) => {}
                        Err(QueryError::Gone(_)) => return,
                        Err(error) => tracing::debug!(%error, "connections are not mirrored; trying again"),
                    }
                }
            }
        }
        let now = shared.now();
        shared.lock().copies.expire(now);
        sleep(EVERY.max(began.elapsed() * PART)).await;
    }
}

/// Takes in what peers tell.
async fn listen(shared: Arc<Shared>, mut heard: mpsc::Receiver<(NodeId, Vec<u8>)>) {
    while let Some((from, bytes)) = heard.recv().await {
        let now = shared.now();
        let id = peer(from);
        let answer = {
            let mut state = shared.lock();
            match state.copies.hear(now, id, &bytes) {
                Err(refused) => {
                    tracing::debug!(peer = %from, %refused, "a message about connections was not taken");
                    None
                }
                Ok((answer, is_again)) => {
                    if is_again {
                        state.mirror.restart(id, false);
                    }
                    answer
                }
            }
        };
        if let Some(answer) = answer {
            // If it gets lost, the next gap asks again.
            let _ = shared.transport.send(from, answer);
        }
    }
}

const fn peer(id: NodeId) -> binding::NodeId {
    binding::NodeId(id.number())
}
