//! The protocol between nodes as a state machine: one [`Node`] is a balancer's part in it.
//!
//! ```text
//!   kernel events --> handle_local   --+                +--> poll_event    --> kernel maps, readiness
//!   journal fsync --> handle_durable --+--> Node <--> --+--> poll_journal  --> journal
//!   peer's bytes  --> handle_message --+                +--> poll_transmit --> bytes to a peer
//!   next_deadline --> handle_timeout --+
//! ```
//!
//! # How to drive it
//! 1. Make it: [`Recovery::new`], feed it what the journal holds, [`Recovery::finish`]. An empty journal is fed nothing.
//! 2. After every `handle_*` call: [`poll_journal`](Node::poll_journal) until `None` and write what it gives, in that order;
//!    [`poll_event`](Node::poll_event) until `None`; [`poll_transmit`](Node::poll_transmit) until `None`;
//!    then wait until [`next_deadline`](Node::next_deadline) at the latest, and call [`handle_timeout`](Node::handle_timeout) when it is past.
//! 3. When the journal has written durably up to some event: [`handle_durable`](Node::handle_durable). Only then does it
//!    leave the node, and only then may its cause be acknowledged.
//! 4. When the transport to a peer has no room: [`set_blocked`](Node::set_blocked); `poll_transmit` then passes it over.
//!    Nothing is queued for it meanwhile: it is pushed what the log still holds, or fetches a snapshot.
//! 5. Who the members are comes from the configuration: [`set_members`](Node::set_members) at any time, without the node itself.
//! 6. From time to time write a checkpoint: [`checkpoint`](Node::checkpoint) gives the vector and marks, [`records`](Node::records) the
//!    records in portions, between which anything may happen; events at or before the vector's own entry need not be kept behind it. That they are durable
//!    the node must hear all the same (3.), or it never sends them.
//!
//! The transport must say truly who sent a message and should keep order; loss, repetition and disorder cost time only.
//! Time is [`Time`]: milliseconds of a clock of the node's own that never steps back. The wall clock enters once, as a lower bound of
//! new epochs, and may be wrong. Lifetimes travel as what is left of them; how much longer than usual a message was on its way is
//! measured with the clocks of both ends, whatever they show, and taken off.
//!
//! The wire format and the rules are in `docs/replication.md`.

mod clock;
mod config;
mod epoch;
mod exchange;
mod failure;
mod gap;
#[cfg(test)]
mod limits;
mod local;
mod peer;
mod recovery;
mod sabotage;
mod snapshot;
mod stream;
mod transmit;
pub mod wire;

pub use config::Config;
pub use failure::PoolMember;
pub use local::Local;
pub use peer::PeerStatus;
pub use recovery::Recovery;
pub use wire::Malformed;

use crate::binding::{Binding, Body, Content, Key, Mark, NodeId, Store, StreamId, Tick, Time, Vector, View};
use core::time::Duration;
use epoch::Standing;
use peer::Peer;
use sabotage::Sabotage;
use snapshot::{Import, Owed};
use std::collections::{BTreeMap, VecDeque};
use stream::Stream;

/// What the data plane and the daemon must hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The kernel must hold exactly this, whatever generation it holds now, unless it has changed it since.
    Put(Binding),
    /// The kernel must not hold this.
    Delete(Key),
    /// The node has the database, from a peer or because there is none: it may take traffic. Comes once.
    Ready,
    /// Numbering began, or began anew, in this epoch.
    Epoch(u64),
    /// A snapshot from this peer begins.
    SnapshotBegun(NodeId),
    /// A snapshot from this peer is complete, after so many records.
    SnapshotDone(NodeId, u64),
}

/// What the journal must write, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// An own event.
    Event {
        /// The own stream.
        stream: StreamId,
        /// Its number; 1, 2, 3, ...
        number: u64,
        /// What it says.
        content: Content,
        /// What is left of its life at this moment: note the wall clock with it.
        left: Duration,
    },
    /// A pool's view that later marks name.
    View(View),
}

/// What a checkpoint holds besides the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// What the records are up to; the own entry is the latest own event, durable or not.
    pub vector: Vector,
    /// Failovers, with what is left of their lives.
    pub marks: Vec<(Mark, Duration)>,
    /// The views they name, as far as known.
    pub views: Vec<View>,
}

/// A record of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// What it says.
    pub body: Body,
    /// What is left of its life.
    pub left: Duration,
    /// Whether the checkpoint's vector covers it; of what others told while the checkpoint was written, it does not.
    pub is_covered: bool,
}

/// One balancer's part in the protocol.
pub struct Node {
    config: Config,
    store: Store,
    standing: Standing,
    /// Random, once a start: peers tell an old life's late messages from ours.
    incarnation: u32,
    /// The wall clock when `Time` was `wall_at`, in milliseconds.
    wall: u64,
    wall_at: Time,
    /// State of the generator for choices without consequence, and for epochs' lower bits.
    random: u64,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams that nobody needs any more, with their last event.
    dropped: BTreeMap<StreamId, u64>,
    peers: BTreeMap<NodeId, Peer>,
    /// Whom `poll_transmit` looks at first.
    turn: usize,
    /// Own events before numbering began.
    waiting: Vec<(Content, Tick)>,
    import: Option<Import>,
    /// Whether snapshots that were not completed left something.
    has_uncovered: bool,
    /// What the latest snapshot may have in it and the own vector has not.
    owed: Option<Owed>,
    uncovered_marks: Vec<(Mark, Tick)>,
    /// Whether the database was had once.
    has_base: bool,
    started: Time,
    /// The pools as this node sees them.
    pools: BTreeMap<u32, failure::Pool>,
    views_wanted: BTreeMap<u64, gap::ViewWant>,
    views_to_write: VecDeque<View>,
    early_views: VecDeque<View>,
    events: VecDeque<Event>,
    /// When streams were last looked over for what may be forgotten.
    trim_due: Time,
    counts: Counts,
    sabotage: Option<Sabotage>,
}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Own events numbered.
    pub own: u64,
    /// Uses of bindings that were not told because the others know of one recent enough.
    pub coalesced: u64,
    /// Events of others applied.
    pub applied: u64,
    /// Events that were known already.
    pub repeated: u64,
    /// Updates discarded because their first event did not follow.
    pub gaps: u64,
    /// Ranges asked for.
    pub requests: u64,
    /// Ranges served that were others' events.
    pub relayed: u64,
    /// Snapshots begun and completed.
    pub snapshots_begun: u64,
    /// Snapshots completed.
    pub snapshots_done: u64,
    /// Records that two nodes had told differently and this node told anew.
    pub joined: u64,
    /// Epochs opened.
    pub epochs: u64,
    /// Failures of servers that this node told.
    pub failovers: u64,
    /// Messages that were not understood or came from a former life of their sender.
    pub refused: u64,
}

/// A message that was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Not one of this protocol.
    #[error("a message of node {0:?} was refused: {1}; look which version of lbd runs there")]
    Malformed(NodeId, Malformed),
    /// From a node that is not a member.
    #[error("a message of node {0:?} was refused: it is not a member; add it to the configuration or end it")]
    Stranger(NodeId),
    /// From a life of the sender that has ended.
    #[error("a message of node {0:?} was refused: it was sent before that node restarted")]
    FormerLife(NodeId),
}

impl Node {
    /// The own id.
    pub const fn id(&self) -> NodeId {
        self.config.id
    }

    /// The own stream, once numbering has begun.
    pub fn stream(&self) -> Option<StreamId> {
        self.standing.epoch().map(|epoch| StreamId { node: self.config.id, epoch })
    }

    /// Whether the node has the database and numbers its events: it may take traffic.
    pub const fn is_ready(&self) -> bool {
        self.has_base && self.standing.epoch().is_some()
    }

    /// The latest own event: when it is durable, so is all that happened here before. `None` until numbering has begun.
    pub fn latest(&self) -> Option<(StreamId, u64)> {
        let id = self.stream()?;
        self.streams.get(&id).map(|stream| (id, stream.log.last()))
    }

    /// Whether an own event is durable.
    pub fn is_durable(&self, stream: StreamId, number: u64) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.sendable() >= number)
    }

    /// Has the data plane hear of a key again, because it may hold something else.
    pub fn tell_again(&mut self, key: Key) {
        self.store.tell_again(key);
    }

    /// Has the data plane hear again of all that are with a server now, because it has got to know it.
    pub fn tell_again_of(&mut self, service: u32, server: u64) {
        self.store.tell_again_of(service, server);
    }

    /// The binding of a key, if it lives.
    pub fn find(&self, key: Key, now: Time) -> Option<Binding> {
        self.store.find(key, now)
    }

    /// All records, for lists and looks.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What happened so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The latest event applied of every stream; of the own one the latest made.
    pub fn vector(&self) -> Vector {
        self.streams.iter().map(|(&id, stream)| (id, stream.log.last())).collect()
    }

    /// Events that may leave the node: of the own stream, those that are durable.
    pub fn vector_told(&self) -> Vector {
        self.streams.iter().map(|(&id, stream)| (id, stream.sendable())).collect()
    }

    /// The members other than this node, with what is known of them.
    pub fn peers(&self, now: Time) -> impl Iterator<Item = PeerStatus> {
        let own = self.vector_told();
        self.peers.iter().map(move |(&id, peer)| peer.status(id, &own, now))
    }

    /// The latest event of a stream that a member says it has; `None` = it has said nothing yet.
    pub fn told_by(&self, peer: NodeId, stream: StreamId) -> Option<u64> {
        self.peers.get(&peer).filter(|peer| peer.has_told).map(|peer| peer.told.event(stream))
    }

    /// The next thing that the data plane and the daemon must hear.
    pub fn poll_event(&mut self, now: Time) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        Some(match self.store.poll_changed(now)? {
            Ok(binding) => Event::Put(binding),
            Err(key) => Event::Delete(key),
        })
    }

    /// The next thing that the journal must write.
    pub fn poll_journal(&mut self, now: Time) -> Option<Write> {
        if let Some(view) = self.views_to_write.pop_front() {
            return Some(Write::View(view));
        }
        let own =
            StreamId { node: self.config.id, epoch: 0 }..=StreamId { node: self.config.id, epoch: u64::MAX };
        for (&id, stream) in self.streams.range_mut(own) {
            if let Some((number, entry)) = stream.next_to_write() {
                let left = Duration::from_millis(entry.expires.left(now));
                return Some(Write::Event { stream: id, number, content: entry.content, left });
            }
        }
        None
    }

    /// The journal holds the own stream of an epoch durably up to an event.
    pub fn handle_durable(&mut self, now: Time, stream: StreamId, number: u64) {
        let Some(own) = self.streams.get_mut(&stream).filter(|_| stream.node == self.config.id) else {
            return;
        };
        let is_news = own.make_durable(number);
        // Until now they could not be forgotten.
        own.bound(self.config.log_events);
        if is_news && self.standing.epoch() == Some(stream.epoch) {
            let due = now.after(self.config.batch_delay);
            for peer in self.peers.values_mut() {
                peer.push_due.get_or_insert(due);
            }
        }
    }

    /// What a checkpoint must hold besides the records; take it before them.
    ///
    /// `None` until numbering has begun, and while a snapshot comes: the store has records then that the vector does not cover.
    pub fn checkpoint(&mut self, now: Time) -> Option<Checkpoint> {
        self.stream().filter(|_| self.import.is_none() && self.owed.is_none() && !self.has_uncovered)?;
        self.store.begin_writing();
        let marks: Vec<(Mark, Duration)> =
            self.store.marks().map(|(mark, until)| (mark, Duration::from_millis(until.left(now)))).collect();
        let mut digests: Vec<u64> = marks.iter().map(|(mark, _)| mark.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        let views = digests.iter().filter_map(|&digest| self.store.view(digest).cloned()).collect();
        Some(Checkpoint { vector: self.vector(), marks, views })
    }

    /// The living records at `most` places from `from` on, for the checkpoint that was begun last; and the place to go on from,
    /// `None` when these were the last.
    pub fn records(&mut self, from: u32, most: u32, now: Time) -> (Vec<Saved>, Option<u32>) {
        let written = self.store.write(from, most, now).into_iter();
        let saved = written.map(|(body, expires, is_covered)| Saved {
            body,
            left: Duration::from_millis(expires.left(now)),
            is_covered,
        });
        let next = from.saturating_add(most);
        (saved.collect(), (next < self.store.places()).then_some(next))
    }

    /// Replaces the members; the own id among them is passed over.
    ///
    /// What a former member said is kept; its entry in the vector goes when all members know the same of it.
    pub fn set_members(&mut self, now: Time, members: &[NodeId]) {
        self.peers.retain(|id, _| members.contains(id));
        for &id in members {
            self.add_peer(now, id);
        }
        if self.import.as_ref().is_some_and(|import| !self.peers.contains_key(&import.from)) {
            self.give_up_import();
            let next = self.peers.iter().find(|(_, peer)| !peer.told.is_empty()).map(|(&id, _)| id);
            if let Some(from) = next {
                self.begin_import(now, from);
            }
        }
        self.look_around(now);
    }

    fn add_peer(&mut self, now: Time, id: NodeId) {
        let lot = self.random();
        if id != self.config.id {
            self.peers.entry(id).or_insert_with(|| Peer::new(now, lot));
        }
    }

    /// Whether the transport to a peer has no room; `poll_transmit` gives nothing for it until it has.
    pub fn set_blocked(&mut self, peer: NodeId, is_blocked: bool) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.is_blocked = is_blocked;
        }
    }

    /// Bytes in use: store, logs, caches and what is held for peers.
    pub fn bytes(&self) -> usize {
        let streams: usize = self.streams.values().map(Stream::bytes).sum();
        let peers: usize = self.peers.values().map(Peer::bytes).sum();
        self.store.bytes() + streams + peers + self.waiting.capacity() * size_of::<(Content, Tick)>()
    }

    /// Whether a bug was put in on purpose, which only tests do.
    fn breaks(&self, bug: Sabotage) -> bool {
        cfg!(test) && self.sabotage == Some(bug)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::pool::identity::mix(self.random)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
