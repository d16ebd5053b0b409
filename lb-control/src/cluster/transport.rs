//! Connections between the members of a cluster: QUIC with a certificate on both sides.
//!
//! A [`Transport`] keeps one connection to every member, tells what comes in as [`Event`]s, and passes the member list
//! on. Messages to one peer arrive in order and at most once; what was on its way when a connection ended is lost, and the
//! protocol above asks again. Who has no certificate of the authority does not get past the handshake; who has one but
//! is not in the newest member list is told so and nothing else.

mod calls;
mod door;
mod frame;
mod link;
mod links;
mod renewal;
mod tls;

pub(super) use door::ask_to_join;

use super::authority::Authority;
use super::error::ClusterError;
use super::home::Home;
use super::identity::{Identity, NodeId, Role, random};
use super::keyring::{Rotation, SignedKeyring};
use super::roster::{Roster, SignedRoster};
use super::signed::Document;
use super::token::Token;
use links::{Close, Links};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Events that wait before peers do; one may have a whole message of 1 MiB.
const EVENTS: usize = 64;
/// How long a stranger may take, and the end of all tasks.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happened between this node and another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A member is connected.
    Up {
        /// Who.
        peer: NodeId,
        /// What it may do.
        role: Role,
    },
    /// It is not any more.
    Down {
        /// Who.
        peer: NodeId,
    },
    /// It sent a message.
    Message {
        /// Who.
        peer: NodeId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// Why a message was not queued.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The peer is not connected.
    #[error("not connected")]
    Gone,
    /// It takes messages more slowly than they are made.
    #[error("too many messages wait for it")]
    Full,
    /// Nobody takes such a message.
    #[error("a message of {0} bytes, at most 1,048,576 are allowed")]
    Large(usize),
}

/// What administrators said of backends, as those who read it write it; empty = nothing yet.
pub type Orders = String;

/// How a member stands.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// What it may do.
    pub role: Role,
    /// Its connection; `None` = there is none.
    pub contact: Option<Contact>,
    /// Why the last call to it failed.
    pub failure: Option<String>,
}

/// A connection as it is shown.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Its role.
    pub role: Role,
    /// Where the peer is.
    pub address: SocketAddr,
    /// How long it has been connected.
    pub age: Duration,
    /// Time for a packet there and back.
    pub round_trip: Duration,
    /// Bytes sent, everything included.
    pub sent: u64,
    /// Bytes received, everything included.
    pub received: u64,
}

/// The node's connections to its cluster.
pub struct Transport {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

/// What the authority said and the disk did not take.
#[derive(Clone, Default)]
struct Unkept {
    roster: Option<SignedRoster>,
    keyring: Option<SignedKeyring>,
}

/// What all connections know.
struct Shared {
    own: NodeId,
    instance: u64,
    home: Home,
    trusted: CertificateDer<'static>,
    identity: watch::Sender<Arc<Identity>>,
    /// How members are called.
    client: watch::Sender<quinn::ClientConfig>,
    /// Whether this node's certificate is to be made new.
    renewal_due: watch::Sender<bool>,
    endpoint: quinn::Endpoint,
    authority: Option<Mutex<Authority>>,
    roster: watch::Sender<Arc<SignedRoster>>,
    keyring: watch::Sender<Option<Arc<SignedKeyring>>>,
    /// `host:port` that stands for all nodes.
    discover: Option<String>,
    /// What the authority said and the disk did not take.
    unkept: Mutex<Unkept>,
    /// What administrators said, as far as this node knows.
    orders: watch::Sender<Orders>,
    /// What others know of that, the latest of each, until it is taken.
    heard: Mutex<BTreeMap<NodeId, Orders>>,
    links: Links,
    failures: Mutex<BTreeMap<NodeId, String>>,
    /// Whether a member said that this node is none.
    shut_out: AtomicBool,
    events: mpsc::Sender<Event>,
}

impl Transport {
    /// Listens and calls as the member that `home` says this node is. Needs a tokio runtime.
    ///
    /// Members that do not answer where the member list says are looked for behind `discover`, a `host:port`.
    pub fn start(
        home: &Home,
        listen: SocketAddr,
        discover: Option<String>,
    ) -> Result<(Self, mpsc::Receiver<Event>), ClusterError> {
        let identity = home.identity()?.ok_or(ClusterError::NoCluster)?;
        let authority = Authority::open(home)?;
        let roster = home.roster(&identity.authority)?;
        let keyring = home.keyring()?.map(Arc::new);
        let is_open = authority.as_ref().is_some_and(|authority| authority.open_until().is_some());
        let endpoint = quinn::Endpoint::server(tls::server(&identity, is_open)?, listen)
            .map_err(|source| ClusterError::Listen { address: listen, source })?;
        let client = tls::client(&identity)?;
        let (events, told) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            own: identity.subject.id,
            instance: u64::from_be_bytes(random()?),
            home: home.clone(),
            trusted: identity.authority.clone(),
            identity: watch::Sender::new(Arc::new(identity)),
            client: watch::Sender::new(client),
            renewal_due: watch::Sender::new(false),
            endpoint,
            authority: authority.map(Mutex::new),
            roster: watch::Sender::new(Arc::new(roster)),
            keyring: watch::Sender::new(keyring),
            discover,
            unkept: Mutex::default(),
            orders: watch::Sender::default(),
            heard: Mutex::default(),
            links: Links::default(),
            failures: Mutex::default(),
            shut_out: AtomicBool::new(false),
            events,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(door::accept(Arc::clone(&shared)));
        tasks.spawn(calls::run(Arc::clone(&shared)));
        tasks.spawn(renewal::run(Arc::clone(&shared)));
        tasks.spawn(door::close_after_tokens(Arc::clone(&shared)));
        Ok((Self { shared, tasks: Mutex::new(tasks) }, told))
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.shared.own
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Queues a message for a connected peer; whether there is room for another one.
    pub fn send(&self, peer: NodeId, message: Vec<u8>) -> Result<bool, SendError> {
        if message.len() > frame::MESSAGE {
            return Err(SendError::Large(message.len()));
        }
        let outbox = self.shared.links.look(|links| links.get(&peer).map(|link| link.outbox.clone()));
        let outbox = outbox.ok_or(SendError::Gone)?;
        outbox.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Gone,
        })?;
        Ok(outbox.capacity() > 0)
    }

    /// Whether a peer is connected and takes a message now.
    pub fn has_room(&self, peer: NodeId) -> bool {
        self.shared.links.look(|links| links.get(&peer).is_some_and(|link| link.outbox.capacity() > 0))
    }

    /// The same for what can wait: whether half of the room is left for others.
    pub fn has_spare_room(&self, peer: NodeId) -> bool {
        let is_spare = |link: &links::Link| link.outbox.capacity() > link.outbox.max_capacity() / 2;
        self.shared.links.look(|links| links.get(&peer).is_some_and(is_spare))
    }

    /// Whether a peer is connected, with room or without.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.shared.links.has(peer)
    }

    /// The member list, and whenever it changes.
    pub fn roster(&self) -> watch::Receiver<Arc<SignedRoster>> {
        self.shared.roster.subscribe()
    }

    /// The shared secrets, and whenever they change.
    pub fn keyring(&self) -> watch::Receiver<Option<Arc<SignedKeyring>>> {
        self.shared.keyring.subscribe()
    }

    /// Says what administrators said as far as this node knows, and takes what others have said of that since the last time.
    pub fn exchange_orders(&self, own: &str) -> Vec<Orders> {
        // Nobody reads a frame that is larger.
        if own.len() < frame::CONTROL / 4 {
            self.shared.orders.send_if_modified(|known| {
                let is_new = known != own;
                own.clone_into(known);
                is_new
            });
        } else {
            tracing::error!(bytes = own.len(), "too much was said of backends to tell the other nodes");
        }
        std::mem::take(&mut *self.shared.heard()).into_values().collect()
    }

    /// Whether this node holds the key of the authority.
    pub fn is_authority(&self) -> bool {
        self.shared.authority.is_some()
    }

    /// When this node's certificate ends, in seconds since 1970, and whether it should have been made new by now.
    pub fn certificate_end(&self) -> (u64, bool) {
        let identity = self.shared.identity();
        let end = identity.until().unwrap_or(std::time::UNIX_EPOCH);
        let seconds = end.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        (seconds, identity.is_overdue(std::time::SystemTime::now()))
    }

    /// Whether this node was removed, as far as it knows: those who are shut out are not sent the list without them.
    pub fn is_shut_out(&self) -> bool {
        let is_listed = self.shared.roster.borrow().roster().admits(self.shared.identity().subject);
        !is_listed || self.shared.shut_out.load(Relaxed)
    }

    /// Makes one of the shared secrets new, here at once and elsewhere as soon as it gets there.
    pub fn rotate(&self, rotation: Rotation) -> Result<(), ClusterError> {
        let mut authority = self.shared.authority()?;
        authority.rotate(rotation)?;
        self.shared.keyring.send_replace(Some(Arc::new(authority.keyring().clone())));
        Ok(())
    }

    /// How each other member stands.
    pub fn peers(&self) -> BTreeMap<NodeId, PeerState> {
        let roster = Arc::clone(&self.shared.roster.borrow());
        let failures = self.shared.failures().clone();
        let contact = |link: &links::Link| {
            let stats = link.connection.stats();
            Contact {
                role: link.role,
                address: link.connection.remote_address(),
                age: link.since.elapsed(),
                round_trip: link.connection.rtt(),
                sent: stats.udp_tx.bytes,
                received: stats.udp_rx.bytes,
            }
        };
        self.shared.links.look(|links| {
            let others = roster.roster().members.iter().filter(|member| member.id != self.shared.own);
            others
                .map(|member| {
                    let contact = links.get(&member.id).map(contact);
                    let failure = failures.get(&member.id).filter(|_| contact.is_none()).cloned();
                    (member.id, PeerState { role: member.role, contact, failure })
                })
                .collect()
        })
    }

    /// Makes a token that lets one machine join within a time.
    pub fn token(&self, role: Role, lifetime: Duration) -> Result<Token, ClusterError> {
        let token = self.shared.authority()?.token(role, lifetime)?;
        self.shared.set_door()?;
        Ok(token)
    }

    /// Removes a member; it is shut out here at once, and everywhere as soon as the list gets there.
    pub fn remove(&self, id: NodeId) -> Result<(), ClusterError> {
        let mut authority = self.shared.authority()?;
        authority.remove(id)?;
        let roster = Arc::new(authority.roster().clone());
        drop(authority);
        self.shared.roster.send_replace(roster);
        Ok(())
    }

    /// Ends all connections.
    pub async fn stop(&self) {
        let (code, reason) = (quinn::VarInt::from_u32(Close::Ended as u32), Close::Ended.reason());
        self.shared.endpoint.close(code, reason.as_bytes());
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let _ = tokio::time::timeout(PATIENCE, self.shared.endpoint.wait_idle()).await;
    }
}

impl Shared {
    /// Tells an event; waits while nobody takes them, and so do the peers.
    async fn tell(&self, event: Event) {
        // Without a listener the node is about to end.
        drop(self.events.send(event).await);
    }

    /// Takes a member list over when the authority signed it and it is newer; the serial that it has.
    fn adopt(&self, list: SignedRoster) -> Result<u64, ClusterError> {
        let list = list.checked(&self.trusted)?;
        let serial = list.roster().serial;
        if serial <= self.roster.borrow().roster().serial {
            return Ok(serial);
        }
        if self.authority.is_some() {
            let reason =
                format!("serial {serial} is newer than the authority's own; was its directory restored?");
            return Err(ClusterError::Roster { reason });
        }
        let mut kept = Ok(());
        self.roster.send_if_modified(|known| {
            if serial <= known.roster().serial {
                return false;
            }
            kept = self.home.keep_roster(&list);
            if kept.is_ok() {
                report(list.roster(), self.own);
                *known = Arc::new(list.clone());
            }
            kept.is_ok()
        });
        if let Err(error) = kept {
            self.keep_later(&error, |unkept| unkept.roster = Some(list));
        }
        Ok(serial)
    }

    /// Takes shared secrets over when the authority signed them and they are newer.
    fn adopt_keyring(&self, keyring: SignedKeyring) -> Result<(), ClusterError> {
        let keyring = keyring.checked(&self.trusted)?;
        if self.authority.is_some() || self.identity().subject.role != Role::Node {
            return Ok(());
        }
        let mut kept = Ok(());
        self.keyring.send_if_modified(|known| {
            if keyring.content().serial() <= serial(known.as_deref()) {
                return false;
            }
            kept = self.home.keep_keyring(&keyring);
            if kept.is_ok() {
                tracing::info!(serial = keyring.content().serial(), "new shared secrets");
                *known = Some(Arc::new(keyring.clone()));
            }
            kept.is_ok()
        });
        if let Err(error) = kept {
            self.keep_later(&error, |unkept| unkept.keyring = Some(keyring));
        }
        Ok(())
    }

    /// What other nodes said of administrators' changes.
    fn heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Orders>> {
        // Whole whatever the thread did that panicked.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the disk did not take: it does not hold before it would still hold after a restart.
    fn keep_later(&self, error: &ClusterError, note: impl FnOnce(&mut Unkept)) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        if unkept.roster.is_none() && unkept.keyring.is_none() {
            tracing::error!(%error, "what the authority says cannot be kept and does not hold yet; trying again");
        }
        note(&mut unkept);
    }

    /// Tries once more to keep what the disk did not take.
    fn keep_unkept(&self) {
        let unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let roster = unkept.roster.clone().map(|roster| self.adopt(roster));
        let keyring = unkept.keyring.clone().map(|keyring| self.adopt_keyring(keyring));
        for error in [roster.and_then(Result::err), keyring.and_then(Result::err)].into_iter().flatten() {
            tracing::debug!(%error, "what could not be kept is not wanted any more");
        }
        let mut left = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        left.roster.take_if(|left| left.roster().serial <= self.roster.borrow().roster().serial);
        let newest = serial(self.keyring.borrow().as_deref());
        left.keyring.take_if(|left| left.content().serial() <= newest);
    }

    fn authority(&self) -> Result<MutexGuard<'_, Authority>, ClusterError> {
        let authority = self.authority.as_ref().ok_or(ClusterError::NoAuthority)?;
        // It changes itself only after what it changed is on the disk.
        Ok(authority.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets strangers into the handshake while a token is open, and not otherwise.
    fn set_door(&self) -> Result<(), ClusterError> {
        let is_open = self.authority()?.open_until().is_some();
        self.endpoint.set_server_config(Some(tls::server(&self.identity(), is_open)?));
        Ok(())
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_failure(&self, peer: NodeId, failure: Option<String>) {
        match failure {
            Some(failure) => self.failures().insert(peer, failure),
            None => self.failures().remove(&peer),
        };
    }
}

/// How new shared secrets are; 0 = there are none.
fn serial(keyring: Option<&SignedKeyring>) -> u64 {
    keyring.map_or(0, |keyring| keyring.content().serial())
}

fn report(roster: &Roster, own: NodeId) {
    if roster.member(own).is_none() {
        tracing::error!(id = %own, "this node was removed from its cluster");
    } else {
        tracing::info!(serial = roster.serial, members = roster.members.len(), "new member list");
    }
}

#[cfg(test)]
pub(in crate::cluster) mod tests;
