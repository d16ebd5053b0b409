//! Machines, the network between them, and time.

use super::check::Acknowledged;
use super::dice::Dice;
use super::journal::Logged;
use super::machine::{Held, Machine};
use crate::binding::{Content, Key, NodeId};
use crate::sync::sabotage::Sabotage;
use crate::sync::wire::{Kind, Message};
use crate::sync::{Event, Write};
use std::collections::{BTreeMap, BTreeSet};

/// How often each kind of thing happened.
pub(super) type Faults = BTreeMap<&'static str, u64>;

/// What a run of many seeds must have seen.
pub(super) const FAULTS: [&str; 32] = [
    "message lost",
    "message twice",
    "message late",
    "link cut",
    "link cut one way",
    "restart beside a link cut one way",
    "restart without a journal beside a link cut one way",
    "crash",
    "crash, end of journal torn",
    "crash, journal lost",
    "crash, old image",
    "clock an hour wrong",
    "member added",
    "member removed",
    "peer blocked",
    "failover",
    "failure seen by one",
    "failure seen by all",
    "failure told",
    "pinned",
    "deleted",
    "moved",
    "checkpoint",
    "gap",
    "relayed",
    "snapshot",
    "coalesced",
    "epoch opened",
    "joined",
    "view sent",
    "kernel kept",
    "used while nobody was told",
];

struct Packet {
    from: NodeId,
    to: NodeId,
    bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) bug: Option<Sabotage>,
    pub(super) dice: Dice,
    /// True time, milliseconds.
    pub(super) now: u64,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    packets: BTreeMap<(u64, u64), Packet>,
    sequence: u64,
    /// One-way links that are cut, and until when.
    pub(super) cut: BTreeMap<(NodeId, NodeId), u64>,
    pub(super) blocked: BTreeSet<(NodeId, NodeId)>,
    /// Which servers of which services a machine does not reach.
    pub(super) down: BTreeSet<(NodeId, u32, u64)>,
    /// Until when it did not reach others.
    pub(super) was_down: BTreeMap<(NodeId, u32, u64), u64>,
    /// Failovers that were told, agreed upon or not.
    pub(super) marks: BTreeSet<(u32, u64, u32, u64)>,
    /// Whether nodes are made to tell failures that nobody agreed upon.
    pub(super) forces: bool,
    /// Whether members came or went.
    pub(super) regrouped: bool,
    /// In a thousand.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    pub(super) faults: Faults,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// The latest true time to which anything may live.
    pub(super) longest: BTreeMap<Key, u64>,
    pub(super) trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<Sabotage>) -> Self {
        let mut dice = Dice::new(seed);
        let loss = dice.pick(&[0, 20, 100, 300]).unwrap_or(0);
        let (twice, late) = (dice.between(0, 150), dice.between(0, 100));
        let forces = dice.chance(500);
        Self {
            seed,
            bug,
            dice,
            now: 0,
            machines: BTreeMap::new(),
            packets: BTreeMap::new(),
            sequence: 0,
            cut: BTreeMap::new(),
            blocked: BTreeSet::new(),
            down: BTreeSet::new(),
            was_down: BTreeMap::new(),
            marks: BTreeSet::new(),
            forces,
            regrouped: false,
            loss,
            twice,
            late,
            faults: Faults::new(),
            acknowledged: Vec::new(),
            longest: BTreeMap::new(),
            trace: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn members(&self) -> Vec<NodeId> {
        self.machines.values().filter(|machine| !machine.is_removed).map(|machine| machine.id).collect()
    }

    pub(super) fn up(&self) -> Vec<NodeId> {
        self.machines.values().filter(|machine| machine.node.is_some()).map(|machine| machine.id).collect()
    }

    pub(super) fn boot(&mut self, id: NodeId) -> Result<(), String> {
        let members = self.members();
        let (now, bug) = (self.now, self.bug);
        let hears = |from, to| !self.cut.contains_key(&(from, to));
        let is_one_way = members.iter().any(|&other| hears(id, other) != hears(other, id));
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let has_journal = machine.journal.saved.is_some() || !machine.journal.events.is_empty();
        machine.boot(now, members, bug, &mut self.dice);
        match (is_one_way, has_journal) {
            (true, true) => self.note("restart beside a link cut one way"),
            (true, false) => self.note("restart without a journal beside a link cut one way"),
            (false, _) => {}
        }
        self.say(id, "boots");
        self.blocked.retain(|&(from, _)| from != id);
        self.settle(id)?;
        (1..=3).try_for_each(|service| self.tell_pool(id, service))
    }

    pub(super) fn say(&mut self, id: NodeId, what: &str) {
        self.trace.push(format!("{:>6} node {}: {what}", self.now, id.0));
    }

    /// Lets time pass until `end`.
    pub(super) fn run(&mut self, end: u64) -> Result<(), String> {
        loop {
            let mut next = end;
            if let Some((&(at, _), _)) = self.packets.first_key_value() {
                next = next.min(at);
            }
            for machine in self.machines.values() {
                let written = machine.writing.as_ref().map(|(_, _, due)| *due);
                let due = [machine.sync_due, machine.up_at, written].into_iter().flatten();
                next = due.fold(next, u64::min);
                if let Some(deadline) = machine.node.as_ref().and_then(crate::sync::Node::next_deadline) {
                    next = next.min(machine.truth(deadline).max(self.now + 1));
                }
            }
            self.now = next.max(self.now);
            self.cut.retain(|_, until| *until > next);
            self.deliver()?;
            for id in self.machines.keys().copied().collect::<Vec<_>>() {
                self.tick(id)?;
            }
            if self.now >= end {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self) -> Result<(), String> {
        while let Some(entry) = self.packets.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let Packet { from, to, bytes } = entry.remove();
            if self.cut.contains_key(&(from, to)) {
                self.note("message lost");
                continue;
            }
            let now = self.now;
            let Some(machine) = self.machines.get_mut(&to) else { continue };
            let time = machine.time(now);
            if let Some(node) = &mut machine.node {
                // Former lives and removed members are refused; nothing else may be.
                match node.handle_message(time, from, &bytes) {
                    Ok(()) | Err(crate::sync::Refused::Stranger(_) | crate::sync::Refused::FormerLife(_)) => {
                    }
                    Err(error) => return Err(format!("{error}")),
                }
                self.settle(to)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, id: NodeId) -> Result<(), String> {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        if machine.up_at.is_some_and(|at| at <= now) {
            return self.boot(id);
        }
        machine.write_checkpoint(now);
        let time = machine.time(now);
        let is_synced = machine.sync_due.is_some_and(|due| due <= now);
        if is_synced {
            machine.sync_due = None;
            self.synced(id);
        }
        let Some(node) = self.machines.get_mut(&id).and_then(|machine| machine.node.as_mut()) else {
            return Ok(());
        };
        let is_due = node.next_deadline().is_some_and(|due| due <= time);
        if is_due {
            node.handle_timeout(time);
        }
        if is_due || is_synced { self.settle(id) } else { Ok(()) }
    }

    /// The disk has written what it was given.
    fn synced(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let time = machine.time(self.now);
        let journal = &mut machine.journal;
        let new: Vec<Logged> = journal.events[journal.synced..].to_vec();
        journal.synced = journal.events.len();
        for logged in new {
            if let Some(node) = &mut machine.node {
                node.handle_durable(time, logged.stream, logged.number);
            }
            self.acknowledged.push(Acknowledged::new(&logged));
        }
    }

    /// Takes out of a node what it has to give, after anything was put in.
    pub(super) fn settle(&mut self, id: NodeId) -> Result<(), String> {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let time = machine.time(now);
        let wall = machine.wall(now);
        let Some(node) = &mut machine.node else { return Ok(()) };
        let mut told = Vec::new();
        while let Some(write) = node.poll_journal(time) {
            match write {
                Write::View(view) => machine.journal.views.push(view),
                Write::Event { stream, number, content, left } => {
                    if let Content::Failover(mark) = content {
                        told.push(mark);
                    }
                    let logged = Logged { wall, at: now, stream, number, content, left };
                    machine.journal.events.push(logged);
                    machine.sync_due.get_or_insert(now + self.dice.between(1, 60));
                }
            }
        }
        let mut said = Vec::new();
        let mut is_ready = false;
        while let Some(event) = node.poll_event(time) {
            match event {
                Event::Put(binding) => {
                    let expires = now + binding.left.as_millis() as u64;
                    let held = Held { server: binding.server, generation: binding.generation, expires };
                    machine.kernel.insert(binding.key, held);
                }
                Event::Delete(key) => {
                    machine.kernel.remove(&key);
                }
                Event::Ready => {
                    is_ready = true;
                    said.push("is ready".to_owned());
                }
                Event::Epoch(epoch) => said.push(format!("numbers in epoch {epoch}")),
                Event::SnapshotBegun(from) => said.push(format!("fetches a snapshot from {}", from.0)),
                Event::SnapshotDone(from, count) => {
                    said.push(format!("has the snapshot from {}: {count} records", from.0));
                    *self.faults.entry("snapshot").or_default() += 1;
                }
            }
        }
        let mut buffer = Vec::new();
        let mut sent = Vec::new();
        while let Some(to) = node.poll_transmit(time, &mut buffer) {
            sent.push((to, core::mem::take(&mut buffer)));
            if sent.len() > 10_000 {
                return Err(format!("node {} never stops sending", id.0));
            }
        }
        for what in said {
            self.say(id, &what);
        }
        for mark in told {
            self.look_at_mark(id, mark)?;
        }
        for (to, bytes) in sent {
            self.look_at_message(id, &bytes)?;
            self.send(id, to, bytes);
        }
        if is_ready {
            if let Some(machine) = self.machines.get_mut(&id).filter(|machine| !machine.kernel.is_empty()) {
                machine.tell_held(now);
                *self.faults.entry("kernel kept").or_default() += 1;
            }
            return self.settle(id);
        }
        self.look_at_node(id)
    }

    fn send(&mut self, from: NodeId, to: NodeId, bytes: Vec<u8>) {
        if Message::parse(&bytes).is_ok_and(|message| message.kind == Some(Kind::View)) {
            self.note("view sent");
        }
        if self.dice.chance(self.loss) {
            self.note("message lost");
            return;
        }
        let copies = if self.dice.chance(self.twice) { 2 } else { 1 };
        if copies == 2 {
            self.note("message twice");
        }
        for _ in 0..copies {
            let mut delay = self.dice.between(1, 30);
            if self.dice.chance(self.late) {
                self.note("message late");
                delay += self.dice.between(50, 3000);
            }
            self.sequence += 1;
            let packet = Packet { from, to, bytes: bytes.clone() };
            self.packets.insert((self.now + delay, self.sequence), packet);
        }
    }
}
