//! A switch's part in a cluster: it hears of the nodes' mirrored connections, and says nothing but that it has missed some.
//!
//! It has no bindings, no secrets and no voice. What a node has told is held for as long as the node is connected.

use super::identity::{NodeId, Role};
use super::mirror::Standing;
use super::transport::{Event, Transport};
use lb_core::binding::{self, Time};
use lb_core::mirror::{Copies, Express, Lifetimes, wire};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Connections that are held at most: more than a switch takes, since it cannot take every one.
const ROOM: usize = 1 << 18;
/// Who told of a connection says when it is over, and for how long it may be idle.
const LIFETIMES: Lifetimes = Lifetimes { established: Duration::MAX, closing: Duration::MAX };

/// What nodes tell a switch; clones are cheap.
#[derive(Clone)]
pub struct Hearing(Arc<Shared>);

struct Shared {
    transport: Arc<Transport>,
    start: Instant,
    copies: Mutex<Copies>,
}

impl Hearing {
    /// Starts to listen, until the task is aborted.
    pub(super) fn start(
        transport: Arc<Transport>,
        events: mpsc::Receiver<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let copies = Mutex::new(Copies::new(LIFETIMES, ROOM));
        let shared = Arc::new(Shared { transport, start: Instant::now(), copies });
        tasks.spawn(listen(Arc::clone(&shared), events));
        Self(shared)
    }

    /// Connections of nodes that are connected which can do without them, packet by packet; in no order.
    pub fn connections(&self) -> Vec<Express> {
        self.0.lock().told().filter_map(|(owner, record)| Express::of(owner.0, record)).collect()
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let copies = self.0.lock();
        let counts = copies.counts();
        Standing {
            held: copies.held().map(|(id, flows)| (id.0, flows)).collect(),
            received: counts.received,
            refused: counts.refused,
            gaps: counts.gaps,
            ..Standing::default()
        }
    }
}

impl Shared {
    /// Nothing that is done under the lock can leave it half done.
    fn lock(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(shared: Arc<Shared>, mut events: mpsc::Receiver<Event>) {
    let mut nodes = BTreeSet::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Up { peer, role } => {
                tracing::info!(%peer, role = role.name(), "connected");
                if role == Role::Node {
                    nodes.insert(peer);
                }
            }
            Event::Down { peer } => {
                tracing::warn!(%peer, "not connected any more");
                nodes.remove(&peer);
                shared.lock().retain(|id| id.0 != peer.number());
            }
            Event::Message { peer, bytes } if nodes.contains(&peer) && wire::is_about(&bytes) => {
                hear(&shared, peer, &bytes);
            }
            Event::Message { peer, .. } => tracing::debug!(%peer, "a message was not taken"),
        }
    }
}

fn hear(shared: &Shared, from: NodeId, bytes: &[u8]) {
    let now = Time(u64::try_from(shared.start.elapsed().as_millis()).unwrap_or(u64::MAX));
    let heard = shared.lock().hear(now, binding::NodeId(from.number()), bytes);
    match heard {
        // Who asks a switch for everything gets nothing: it has none of its own.
        Ok((None, _)) => {}
        // If it gets lost, the next gap asks again.
        Ok((Some(again), _)) => drop(shared.transport.send(from, again)),
        Err(refused) => tracing::debug!(peer = %from, %refused, "a message about connections was not taken"),
    }
}

#[cfg(test)]
mod tests;
