//! Which peers are connected, and which of two connections to the same peer stays.

use super::tls;
use crate::cluster::identity::{NodeId, Role};
use quinn::{Connection, VarInt};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Why a connection was closed, as the other side sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Close {
    /// The node ends.
    Ended = 0,
    /// Not in the member list.
    NoMember = 1,
    /// There is a better connection between the same nodes.
    Spare = 2,
    /// Another machine has the same id and is connected.
    Taken = 3,
    /// Something was sent that must not be.
    Protocol = 4,
}

/// One connected peer.
pub(super) struct Link {
    pub(super) role: Role,
    pub(super) connection: Connection,
    /// Made anew whenever a node starts.
    pub(super) instance: u64,
    /// Whether the node with the lower id called, which is the connection that stays when there are two.
    pub(super) is_preferred: bool,
    pub(super) outbox: mpsc::Sender<Vec<u8>>,
    pub(super) since: Instant,
    /// Closed when everything about the connection is over, its last event included.
    pub(super) over: watch::Receiver<()>,
}

/// All connected peers.
#[derive(Default)]
pub(super) struct Links {
    by_peer: Mutex<BTreeMap<NodeId, Link>>,
}

/// What became of a new connection.
pub(super) enum Entry {
    /// It is the peer's connection now.
    Entered,
    /// It has to go.
    Refused(Close),
}

impl Close {
    /// What the peer is told.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Ended => "the node ends",
            Self::NoMember => "not a member of this cluster",
            Self::Spare => "there is another connection already",
            Self::Taken => "another machine with this node's id is connected",
            Self::Protocol => "protocol broken",
        }
    }

    /// Closes a connection.
    pub(super) fn close(self, connection: &Connection) {
        connection.close(VarInt::from_u32(self as u32), self.reason().as_bytes());
    }
}

impl Links {
    /// Enters a connection, once a worse one to the same peer is over.
    pub(super) async fn enter(&self, peer: NodeId, link: Link) -> Entry {
        loop {
            let (connection, mut over, instance, is_preferred) = {
                let mut links = self.lock();
                match links.get(&peer) {
                    None => {
                        links.insert(peer, link);
                        return Entry::Entered;
                    }
                    Some(known) => {
                        (known.connection.clone(), known.over.clone(), known.instance, known.is_preferred)
                    }
                }
            };
            let is_open = connection.close_reason().is_none();
            if is_open && instance != link.instance && lives(&connection).await {
                return Entry::Refused(Close::Taken);
            }
            if is_open && instance == link.instance && is_preferred && !link.is_preferred {
                return Entry::Refused(Close::Spare);
            }
            Close::Spare.close(&connection);
            // It ends with an error, since nothing is ever said.
            while over.changed().await.is_ok() {}
        }
    }

    /// Forgets a connection that is over.
    pub(super) fn leave(&self, peer: NodeId, connection: &Connection) {
        let mut links = self.lock();
        if links.get(&peer).is_some_and(|link| link.connection.stable_id() == connection.stable_id()) {
            links.remove(&peer);
        }
    }

    /// Whether a peer is connected.
    pub(super) fn has(&self, peer: NodeId) -> bool {
        self.lock().get(&peer).is_some_and(|link| link.connection.close_reason().is_none())
    }

    /// Looks at the connected peers; `look` must not take long.
    pub(super) fn look<T>(&self, look: impl FnOnce(&BTreeMap<NodeId, Link>) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Link>> {
        // A map of connections is whole whatever the thread did that panicked.
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether something still comes from the other end.
async fn lives(connection: &Connection) -> bool {
    let before = connection.stats().udp_rx.datagrams;
    tokio::select! {
        _ = connection.closed() => false,
        () = tokio::time::sleep(tls::KEEP_ALIVE * 3) => connection.stats().udp_rx.datagrams != before,
    }
}
