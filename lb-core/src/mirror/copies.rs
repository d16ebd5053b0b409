//! The side that holds: flows of other nodes, for the day when those die.

use super::record::Record;
use super::tell::Lifetimes;
use super::wire::{self, Message, Walk};
use crate::binding::{NodeId, Time};
use crate::sync::wire::Malformed;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Between two requests for everything.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much was done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Records that came.
    pub received: u64,
    /// Records for which there was no room.
    pub refused: u64,
    /// How often a message was missed, and everything asked for once more.
    pub gaps: u64,
}

/// What is held of one node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Holding {
    /// Flows.
    pub flows: usize,
    /// Whether that is all that it mirrors.
    pub is_whole: bool,
}

/// Flows of other nodes.
#[derive(Debug)]
pub struct Copies {
    lifetimes: Lifetimes,
    /// Flows that are held at most.
    room: usize,
    held: usize,
    owners: BTreeMap<NodeId, Owner>,
    /// What is sent to these addresses comes to this node.
    sources: BTreeSet<IpAddr>,
    /// So does, from now on, what is sent to these of other nodes, which are gone.
    expected: BTreeMap<IpAddr, NodeId>,
    /// Nodes of whose flows some may have to be taken home, and whether they were this node's heirs.
    home: BTreeMap<NodeId, bool>,
    counts: Counts,
}

/// A node that tells of its flows.
#[derive(Default, Debug)]
struct Owner {
    /// The walk and its next message; `None` = something was missed.
    expected: Option<(u64, u64)>,
    asked: Option<Time>,
    /// Which walk; what is not of the latest one when that is complete has ended.
    generation: u32,
    is_whole: bool,
    flows: HashMap<u64, Copy>,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    record: Record,
    /// When its last packet came.
    used: Time,
    generation: u32,
}

impl Copies {
    /// Nothing is held yet, and never more flows than `room`.
    pub fn new(lifetimes: Lifetimes, room: usize) -> Self {
        Self {
            lifetimes,
            room,
            held: 0,
            owners: BTreeMap::new(),
            sources: BTreeSet::new(),
            expected: BTreeMap::new(),
            home: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// The configuration says otherwise now.
    pub fn configure(&mut self, lifetimes: Lifetimes, room: usize, sources: &BTreeSet<IpAddr>) {
        (self.lifetimes, self.room) = (lifetimes, room);
        self.sources.clone_from(sources);
    }

    /// What is sent to these addresses of nodes that are gone is to come to this node, also where others go on with it now.
    pub fn expect(&mut self, addresses: BTreeMap<IpAddr, NodeId>) {
        if addresses.keys().any(|address| !self.expected.contains_key(address)) {
            let told = self.owners.iter().filter(|(_, owner)| owner.is_whole);
            for (id, _) in told {
                self.home.entry(*id).or_default();
            }
        }
        self.expected = addresses;
    }

    /// Takes in what a node tells of its flows; gives back what to answer.
    pub fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        walk: &Walk,
        records: &[Record],
        ends: &[u64],
    ) -> Option<Vec<u8>> {
        let owner = self.owners.entry(from).or_default();
        let was_whole = owner.is_whole && !walk.is_first;
        if walk.is_first {
            owner.generation = owner.generation.wrapping_add(1);
            owner.is_whole = false;
        } else if owner.expected != Some((walk.number, walk.sequence)) {
            owner.expected = None;
            if owner.asked.is_some_and(|asked| now.since(asked) < PATIENCE) {
                return None;
            }
            owner.asked = Some(now);
            self.counts.gaps += 1;
            return Some(wire::again());
        }
        owner.expected = Some((walk.number, walk.sequence.wrapping_add(1)));
        let before = owner.flows.len();
        let others = self.held - before;
        for record in records {
            self.counts.received += 1;
            if others + owner.flows.len() >= self.room && !owner.flows.contains_key(&record.id) {
                self.counts.refused += 1;
                continue;
            }
            let used = Time(now.0.saturating_sub(crate::binding::time::milliseconds(record.idle)));
            owner.flows.insert(record.id, Copy { record: *record, used, generation: owner.generation });
        }
        for id in ends {
            owner.flows.remove(id);
        }
        if walk.is_last {
            let generation = owner.generation;
            owner.flows.retain(|_, copy| copy.generation == generation);
            owner.is_whole = true;
        }
        self.held = others + owner.flows.len();
        if walk.is_last && !was_whole {
            *self.home.entry(from).or_default() |= walk.is_heir;
        }
        None
    }

    /// Takes in a message; gives back what to answer, and whether the sender asks for everything.
    pub fn hear(
        &mut self,
        now: Time,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(Option<Vec<u8>>, bool), Malformed> {
        match wire::parse(bytes)? {
            Message::Again => Ok((None, true)),
            Message::Flows { walk, records, ends } => {
                Ok((self.handle(now, from, &walk, &records, &ends), false))
            }
        }
    }

    /// Forgets what its owner must have forgotten, too.
    pub fn expire(&mut self, now: Time) {
        let lifetimes = self.lifetimes;
        for owner in self.owners.values_mut() {
            owner.flows.retain(|_, copy| !copy.is_over(now, &lifetimes));
        }
        self.held = self.owners.values().map(|owner| owner.flows.len()).sum();
    }

    /// Gives up what passes the filter of a node's flows, to be written into tables: those that live, idle for as long as they are now.
    pub fn take(&mut self, owner: NodeId, now: Time, filter: impl Fn(&Record) -> bool) -> Vec<Record> {
        let taken = self.of(owner, now, &filter);
        if let Some(owner) = self.owners.get_mut(&owner) {
            let before = owner.flows.len();
            owner.flows.retain(|_, copy| !filter(&copy.record));
            self.held -= before - owner.flows.len();
        }
        taken
    }

    /// Flows of a node that pass the filter, idle for as long as they are now; they stay.
    pub fn of(&self, owner: NodeId, now: Time, filter: impl Fn(&Record) -> bool) -> Vec<Record> {
        let flows = self.owners.get(&owner).into_iter().flat_map(|owner| owner.flows.values());
        let live = flows.filter(|copy| !copy.is_over(now, &self.lifetimes) && filter(&copy.record));
        live.map(|copy| Record { idle: now.since(copy.used), ..copy.record }).collect()
    }

    /// Flows that others went on with, and whose packets come here from now on; they are held all the same.
    pub fn take_home(&mut self, now: Time) -> Vec<Record> {
        let home = core::mem::take(&mut self.home);
        let of = |(from, is_heir)| self.of(from, now, |record| self.is_home(record, from, is_heir));
        home.into_iter().flat_map(of).collect()
    }

    /// Whether these nodes have told everything, and nothing of it may have still to be taken home.
    pub fn has_all(&self, of: &[NodeId]) -> bool {
        self.home.is_empty() && of.iter().all(|id| self.holding(*id).is_whole)
    }

    /// Flows that each node has told of, in the order of their nodes.
    pub fn told(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.owners.iter().flat_map(|(id, owner)| owner.flows.values().map(|copy| (*id, &copy.record)))
    }

    /// Forgets nodes that are no members any more.
    pub fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.owners.retain(|id, _| is_member(*id));
        self.home.retain(|id, _| is_member(*id));
        self.held = self.owners.values().map(|owner| owner.flows.len()).sum();
    }

    /// What is held of a node.
    pub fn holding(&self, owner: NodeId) -> Holding {
        self.owners.get(&owner).map_or(Holding::default(), |owner| Holding {
            flows: owner.flows.len(),
            is_whole: owner.is_whole,
        })
    }

    /// Flows that are held of each node.
    pub fn held(&self) -> impl Iterator<Item = (NodeId, usize)> {
        self.owners.iter().map(|(id, owner)| (*id, owner.flows.len()))
    }

    /// Flows that are held.
    pub const fn len(&self) -> usize {
        self.held
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// How much was done.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether packets of another node's flow come to this one: those to its own source addresses, those to addresses of a third node
    /// that it inherits from, and where backends answer to their clients' addresses all that may have come to its heir in its place.
    fn is_home(&self, record: &Record, from: NodeId, is_heir: bool) -> bool {
        if !record.has_source_nat() {
            return is_heir && !record.is_own;
        }
        let source = &record.source.0;
        self.sources.contains(source) || self.expected.get(source).is_some_and(|of| *of != from)
    }
}

impl Copy {
    fn is_over(&self, now: Time, lifetimes: &Lifetimes) -> bool {
        let lifetime = if self.record.is_closing { lifetimes.closing } else { lifetimes.established };
        now.since(self.used) >= lifetime
    }
}
