//! The side that tells: what each peer knows of this node's flows, and what it has to be told.

use super::record::Record;
use super::wire::{self, Walk};
use crate::binding::{NodeId, Time};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Bytes of records from which on a message is full.
const MESSAGE: usize = 32 << 10;
/// Ends in a message.
const ENDS: usize = 4_096;
/// Rounds without a message after which an empty one lets the peer see whether it has missed any.
const QUIET: u32 = 10;
/// How late a node may be missed.
const DOUBT: Duration = Duration::from_secs(10);
/// The part of a flow's lifetime after which a peer is told that it is still used.
const PART: u32 = 4;

/// How long flows live without traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// Those that are open.
    pub established: Duration,
    /// Those with a FIN.
    pub closing: Duration,
}

/// A flow as a round finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The flow.
    pub record: Record,
    /// The age from which on its service wants it mirrored.
    pub age: Duration,
}

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Standing {
    /// Flows of the node that at least one peer was told.
    pub flows: usize,
    /// Records that were sent.
    pub sent: u64,
    /// Messages for which a peer had no room: it gets everything anew.
    pub dropped: u64,
}

/// What the node tells its peers.
///
/// In rounds: [`begin`](Self::begin), [`see`](Self::see) for every flow, [`end`](Self::end); after each call
/// [`poll_transmit`](Self::poll_transmit) until it has nothing more. Who cannot send a message says [`restart`](Self::restart).
#[derive(Debug)]
pub struct Mirror {
    lifetimes: Lifetimes,
    flows: HashMap<u64, Known>,
    round: u32,
    /// The first one after which a flow that is new began while all nodes were there; `None` = some node is away.
    all_since: Option<u32>,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that are or were dead, and that have not been told yet what came here meanwhile.
    inherited: BTreeSet<NodeId>,
    /// Number of the next walk.
    next_walk: u64,
    out: VecDeque<(NodeId, Vec<u8>)>,
    sent: u64,
    dropped: u64,
}

/// What is known of a flow of the node.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// When it was seen first.
    first: Time,
    /// In which round it was seen last.
    last: u32,
    /// Whether it began here while all nodes were there.
    is_own: bool,
}

/// A peer that is told.
#[derive(Debug)]
struct Peer {
    walk: Walk,
    /// The round after which it has been told everything; `None` = it has.
    whole_after: Option<u32>,
    told: HashMap<u64, Told>,
    records: Vec<u8>,
    /// Rounds since the last message.
    quiet: u32,
}

/// What a peer knows of a flow.
#[derive(Clone, Copy, Debug)]
struct Told {
    phase: u8,
    /// When it was told.
    at: Time,
    /// The last packet that it knows of.
    used: Time,
}

impl Mirror {
    /// Tells nobody yet; `first_walk` must not be one of an earlier life of this node (random).
    pub fn new(lifetimes: Lifetimes, first_walk: u64) -> Self {
        Self {
            lifetimes,
            flows: HashMap::new(),
            round: 0,
            all_since: None,
            peers: BTreeMap::new(),
            inherited: BTreeSet::new(),
            next_walk: first_walk,
            out: VecDeque::new(),
            sent: 0,
            dropped: 0,
        }
    }

    /// The configuration says otherwise now.
    pub const fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.lifetimes = lifetimes;
    }

    /// Who is told from now on; new ones get everything.
    pub fn set_peers(&mut self, peers: &[NodeId]) {
        self.peers.retain(|id, _| peers.contains(id));
        for id in peers {
            if !self.peers.contains_key(id) {
                let peer = Peer::new(&mut self.next_walk, self.round);
                self.peers.insert(*id, peer);
            }
        }
    }

    /// Whether all nodes are there: what begins here meanwhile is no other one's.
    pub fn set_complete(&mut self, now: Time, is_complete: bool) {
        if is_complete {
            // What the next round finds may be from before.
            self.all_since.get_or_insert(self.round.wrapping_add(1));
        } else if self.all_since.take().is_some() {
            let late = self.flows.values_mut().filter(|known| now.since(known.first) < DOUBT);
            late.for_each(|known| known.is_own = false);
        }
    }

    /// A node is dead, and what it would have got comes here: it has to be told when it is back, whoever else is.
    pub fn inherit(&mut self, from: NodeId) {
        self.peers.remove(&from);
        self.inherited.insert(from);
    }

    /// A node needs nothing more of what it would have got while it was dead.
    pub fn give_back(&mut self, to: NodeId) {
        self.inherited.remove(&to);
    }

    /// Nodes that this one inherited from, and that have not been told all.
    pub const fn inherited(&self) -> &BTreeSet<NodeId> {
        &self.inherited
    }

    /// A peer has lost something, or could not be sent it: it gets everything anew.
    pub fn restart(&mut self, peer: NodeId, is_drop: bool) {
        self.dropped += u64::from(is_drop);
        self.out.retain(|(to, _)| *to != peer);
        if let Some(known) = self.peers.get_mut(&peer) {
            *known = Peer::new(&mut self.next_walk, self.round);
        }
    }

    /// A round begins.
    pub fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
        let peers = &self.peers;
        self.inherited.retain(|id| peers.get(id).is_none_or(|peer| peer.whole_after.is_some()));
    }

    /// A flow is there.
    pub fn see(&mut self, now: Time, seen: &Seen) {
        let round = self.round;
        let is_own = self.all_since.is_some_and(|since| round.wrapping_sub(since).cast_signed() > 0);
        let begun = Known { first: now, last: round, is_own };
        let known = self.flows.entry(seen.record.id).or_insert(begun);
        known.last = round;
        if now.since(known.first) < seen.age {
            return;
        }
        let record = &Record { is_own: known.is_own, ..seen.record };
        let used = Time(now.0.saturating_sub(crate::binding::time::milliseconds(record.idle)));
        let lifetime = if record.is_closing { self.lifetimes.closing } else { self.lifetimes.established };
        for (id, peer) in &mut self.peers {
            let is_known = peer.told.get(&record.id).is_some_and(|told| {
                let is_fresh = used <= told.used || now.since(told.at) < lifetime / PART;
                told.phase == record.phase() && is_fresh
            });
            if is_known {
                continue;
            }
            peer.told.insert(record.id, Told { phase: record.phase(), at: now, used });
            wire::put_record(record, &mut peer.records);
            self.sent += 1;
            if peer.records.len() >= MESSAGE {
                let walk = Walk { is_heir: self.inherited.contains(id), ..peer.walk };
                self.out.push_back((*id, peer.message(&walk, &[])));
            }
        }
    }

    /// All flows have been seen.
    pub fn end(&mut self) {
        let round = self.round;
        self.flows.retain(|_, known| known.last == round);
        let flows = &self.flows;
        for (id, peer) in &mut self.peers {
            let ended: Vec<u64> = peer.told.keys().filter(|id| !flows.contains_key(id)).copied().collect();
            for id in &ended {
                peer.told.remove(id);
            }
            let is_last = peer.whole_after == Some(round);
            if is_last {
                peer.whole_after = None;
            }
            peer.quiet += 1;
            let is_due = is_last || peer.quiet >= QUIET;
            let mut parts = ended.chunks(ENDS).peekable();
            loop {
                let (part, is_end) = (parts.next().unwrap_or_default(), parts.peek().is_none());
                let (is_last, is_due) = (is_last && is_end, is_due && is_end);
                if is_due || !part.is_empty() || !peer.records.is_empty() {
                    let walk = Walk { is_last, is_heir: self.inherited.contains(id), ..peer.walk };
                    self.out.push_back((*id, peer.message(&walk, part)));
                }
                if is_end {
                    break;
                }
            }
        }
    }

    /// The next message and whom it is for.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Whether a peer has been told everything at least once since it was connected.
    pub fn has_told_all(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.whole_after.is_none())
    }

    /// What is told.
    pub fn standing(&self) -> Standing {
        let flows = self.peers.values().map(|peer| peer.told.len()).max().unwrap_or(0);
        Standing { flows, sent: self.sent, dropped: self.dropped }
    }
}

impl Peer {
    fn new(next_walk: &mut u64, round: u32) -> Self {
        let walk = Walk { number: *next_walk, is_first: true, ..Walk::default() };
        *next_walk = next_walk.wrapping_add(1);
        // Of the round that may be going on it misses the beginning.
        let whole_after = Some(round.wrapping_add(1));
        Self { walk, whole_after, told: HashMap::new(), records: Vec::new(), quiet: 0 }
    }

    fn message(&mut self, walk: &Walk, ends: &[u64]) -> Vec<u8> {
        let bytes = wire::flows(walk, &self.records, ends);
        self.records.clear();
        self.walk.sequence += 1;
        self.walk.is_first = false;
        self.quiet = 0;
        bytes
    }
}
