//! What must hold.

use super::journal::Logged;
use super::script::SERVERS;
use super::world::World;
use crate::binding::{Body, Content, Mark, NodeId, StreamId, Tick, Vector};
use crate::sync::wire::{Kind, Message};
use core::cmp::Ordering;
use std::collections::BTreeSet;

/// Ends may differ by this, in milliseconds: messages take time, and how long is not known to all.
const TOLERANCE: u64 = 3_500;
/// What a node says of servers may be heard and believed so much later, in milliseconds.
const MEMORY: u64 = 6_000;

/// An event that was durable on its node.
pub(super) struct Acknowledged {
    stream: StreamId,
    number: u64,
    content: Content,
    /// True time.
    expires: u64,
    /// Whether no journal and no node has it any more.
    is_gone: bool,
}

impl Acknowledged {
    pub(super) fn new(logged: &Logged) -> Self {
        Self {
            stream: logged.stream,
            number: logged.number,
            content: logged.content,
            expires: logged.at + logged.left.as_millis() as u64,
            is_gone: false,
        }
    }
}

impl World {
    /// After a machine lost memory or disk: events that nobody has any more cannot be asked for.
    pub(super) fn forgive(&mut self) {
        let machines = &self.machines;
        for event in self.acknowledged.iter_mut().filter(|event| !event.is_gone) {
            event.is_gone = !machines.values().any(|machine| {
                let known = match &machine.node {
                    Some(node) => node.vector().event(event.stream),
                    None => machine.journal.durable(event.stream),
                };
                !machine.is_removed && known >= event.number
            });
        }
    }

    /// Nothing leaves a node that its journal may still lose.
    pub(super) fn look_at_message(&self, from: NodeId, bytes: &[u8]) -> Result<(), String> {
        let message = Message::parse(bytes).map_err(|error| format!("own message: {error}"))?;
        let Some(machine) = self.machines.get(&from) else { return Ok(()) };
        let is_durable = |stream: StreamId, number: u64| {
            let is_own = machine.node.as_ref().and_then(crate::sync::Node::stream) == Some(stream);
            !is_own || number == 0 || number <= machine.journal.durable(stream)
        };
        if let Some(range) = message.range.filter(|_| message.kind == Some(Kind::Events)) {
            let last = range.first + message.count - 1;
            if !is_durable(range.stream, last) {
                return Err(format!("event {last} left node {} before it was durable", from.0));
            }
        }
        match message.vector.unwrap_or_default().iter().find(|&(stream, event)| !is_durable(stream, event)) {
            Some((_, event)) => Err(format!("node {} told of event {event} before it was durable", from.0)),
            None => Ok(()),
        }
    }

    /// Nobody tells a failure that most nodes do not see, or that anyone speaks against who is heard.
    pub(super) fn look_at_mark(&mut self, from: NodeId, mark: Mark) -> Result<(), String> {
        let Mark { service, server, epoch, digest } = mark;
        if !self.marks.insert((service, server, epoch, digest)) {
            // Somebody else's, which came without a vector that covers it.
            return Ok(());
        }
        self.note("failure told");
        let has_failed = |id: NodeId| {
            let key = (id, service, server);
            self.down.contains(&key) || self.was_down.get(&key).is_some_and(|at| at + MEMORY >= self.now)
        };
        let members: Vec<NodeId> = self.members();
        let votes: Vec<NodeId> =
            members.into_iter().filter(|&id| !self.abstains(id, service) || id == from).collect();
        let agree = votes.iter().filter(|&&id| has_failed(id)).count();
        // Who does not know all members yet counts others.
        let unsure = if self.regrouped { 4 } else { 0 };
        if 2 * agree + unsure <= votes.len() {
            return Err(format!(
                "node {} told that {server} of {service} failed, which {agree} of {} see",
                from.0,
                votes.len()
            ));
        }
        Ok(())
    }

    /// Nobody is with a server that all say has failed.
    fn nobody_with_the_dead(&self) -> Result<(), String> {
        if self.forces {
            return Ok(());
        }
        let members = self.members();
        for &(_, service, server) in &self.down {
            let votes = || members.iter().filter(|&&id| !self.abstains(id, service));
            let is_dead = |server| votes().all(|&id| self.down.contains(&(id, service, server)));
            if !is_dead(server) || SERVERS.into_iter().all(is_dead) || votes().count() == 0 {
                continue;
            }
            for machine in self.machines.values().filter(|machine| !machine.is_removed) {
                let Some(node) = &machine.node else { continue };
                let mut with = node.store().bindings_of(service, server, machine.time(self.now));
                if let Some(binding) = with.find(|binding| binding.left.as_millis() as u64 > TOLERANCE) {
                    return Err(format!(
                        "node {}: {binding:?} is with a dead server; records {}",
                        machine.id.0,
                        self.records(binding.key).concat()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Vectors do not go back; memory stays bounded.
    pub(super) fn look_at_node(&mut self, id: NodeId) -> Result<(), String> {
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let Some(node) = &machine.node else { return Ok(()) };
        // What was numbered and told nobody yet may get other numbers.
        let vector = node.vector_told();
        for (stream, before) in machine.vector.iter() {
            let now = vector.event(stream);
            if now < before && !node.has_dropped(stream) {
                return Err(format!("node {}: {stream:?} went back from {before} to {now}", id.0));
            }
        }
        machine.vector = vector;
        if let Some(problem) = node.over_limits() {
            return Err(format!("node {}: {problem}", id.0));
        }
        Ok(())
    }

    /// When everything has been well for a while, all nodes hold the same, and what was acknowledged.
    pub(super) fn agree(&self) -> Result<(), String> {
        let nodes: Vec<_> = self.machines.values().filter(|m| !m.is_removed).collect();
        let vectors: Vec<Vector> = nodes.iter().filter_map(|m| m.node.as_ref()).map(|n| n.vector()).collect();
        if vectors.len() != nodes.len() {
            return Err("a machine is down after all was repaired".into());
        }
        for (machine, vector) in nodes.iter().zip(&vectors) {
            if let Some(node) = machine.node.as_ref().filter(|node| !node.is_ready()) {
                return Err(format!("node {} is not ready: {}", machine.id.0, node.difficulties()));
            }
            // Only streams that some have forgotten may be missing.
            let forgotten =
                |id: StreamId| nodes.iter().filter_map(|m| m.node.as_ref()).any(|n| n.has_dropped(id));
            let mut streams = vectors[0].iter().chain(vector.iter()).map(|(id, _)| id);
            if streams.any(|id| vectors[0].event(id) != vector.event(id) && !forgotten(id)) {
                let all: Vec<String> =
                    nodes.iter().filter_map(|m| m.node.as_ref()).map(|n| n.difficulties()).collect();
                return Err(format!("vectors differ:\n{}", all.join("\n")));
            }
        }
        self.same_bindings()?;
        self.same_in_kernels()?;
        self.nobody_with_the_dead()?;
        self.nothing_lost()?;
        self.nothing_comes_back()
    }

    fn same_bindings(&self) -> Result<(), String> {
        let keys: BTreeSet<_> = self.longest.keys().copied().collect();
        for key in keys {
            let mut first = None;
            for machine in self.machines.values().filter(|machine| !machine.is_removed) {
                let Some(node) = &machine.node else { continue };
                let time = machine.time(self.now);
                let found = node.find(key, time);
                // A use that is not told yet lengthens only the own copy.
                let told = node.store().record(key).map_or(0, |(_, told)| told.left(time));
                let left = if found.is_some() { told } else { 0 };
                let ends = self.now + left;
                let longest = self.longest.get(&key).copied().unwrap_or(0);
                if ends > longest + TOLERANCE && left > 0 {
                    return Err(format!(
                        "node {}: {key:?} lives {} ms too long",
                        machine.id.0,
                        ends - longest
                    ));
                }
                let (id, known, known_left) = *first.get_or_insert((machine.id, found, left));
                let differs = match (known, found) {
                    (Some(a), Some(b)) => {
                        let apart = (a.server, a.generation) != (b.server, b.generation);
                        known_left.abs_diff(left) > TOLERANCE || apart && left.min(known_left) > TOLERANCE
                    }
                    (Some(_), None) | (None, Some(_)) => left.max(known_left) > TOLERANCE,
                    (None, None) => false,
                };
                if differs {
                    return Err(format!(
                        "{key:?} differs: node {} has {known:?}, node {} {found:?}; records {}",
                        id.0,
                        machine.id.0,
                        self.records(key).concat()
                    ));
                }
            }
        }
        Ok(())
    }

    fn records(&self, key: crate::binding::Key) -> Vec<String> {
        let nodes = self.machines.values().filter_map(|machine| Some((machine, machine.node.as_ref()?)));
        nodes
            .map(|(machine, node)| {
                let until = |(body, told): (Body, Tick)| (body, machine.truth(told.time()));
                let binding = node.store().record(key).map(until);
                let deletion = node.store().deletion(key).map(until);
                let marks: Vec<String> = node
                    .store()
                    .marks()
                    .filter(|(mark, _)| mark.service == key.service)
                    .map(|(m, _)| {
                        format!(
                            "{}#{} {:x} {}",
                            m.server,
                            m.epoch,
                            m.digest >> 48,
                            node.store().view(m.digest).is_some()
                        )
                    })
                    .collect();
                format!("\n  node {} binding {binding:?} deletion {deletion:?} marks {marks:?}", machine.id.0)
            })
            .collect()
    }

    /// What a kernel holds and the node knows better was told to it.
    fn same_in_kernels(&self) -> Result<(), String> {
        for machine in self.machines.values().filter(|machine| !machine.is_removed) {
            let Some(node) = &machine.node else { continue };
            let time = machine.time(self.now);
            for binding in node.store().bindings(time).filter(|b| b.left.as_millis() as u64 > TOLERANCE) {
                let ends = self.now + binding.left.as_millis() as u64;
                let held = machine.kernel.get(&binding.key).filter(|held| held.expires + TOLERANCE >= ends);
                let held = held.map(|held| (held.server, held.generation));
                if held != Some((binding.server, binding.generation)) {
                    return Err(format!("kernel of node {} holds {held:?} for {binding:?}", machine.id.0));
                }
            }
        }
        Ok(())
    }

    fn nothing_lost(&self) -> Result<(), String> {
        let alive = |event: &&Acknowledged| !event.is_gone && event.expires > self.now + TOLERANCE;
        for event in self.acknowledged.iter().filter(alive) {
            for machine in self.machines.values().filter(|machine| !machine.is_removed) {
                let Some(node) = &machine.node else { continue };
                let problem = match event.content {
                    Content::Binding(body) => {
                        let store = node.store();
                        let holds = |(held, told): (Body, Tick)| {
                            let ends = machine.truth(told.time());
                            held.cmp_rank(&body) != Ordering::Less && ends + TOLERANCE >= event.expires
                        };
                        // What is bound over a tombstone does not stand for it.
                        let binding = store.record(body.key).filter(|_| !body.is_tombstone());
                        let deletion = store.deletion(body.key);
                        let is_kept = binding.is_some_and(holds) || deletion.is_some_and(holds);
                        (!is_kept).then(|| self.records(body.key).concat())
                    }
                    Content::Failover(mark) => {
                        let known = node.store().failover_of(mark.service, mark.server);
                        (known < mark.epoch).then(|| format!("failover {known}"))
                    }
                };
                if let Some(held) = problem {
                    return Err(format!(
                        "node {} lost event {} of {:?}: {:?} until {}, holds {held}",
                        machine.id.0, event.number, event.stream, event.content, event.expires
                    ));
                }
            }
        }
        Ok(())
    }

    /// What was deleted is bound anew or not at all; no play takes as long as a lifetime.
    fn nothing_comes_back(&self) -> Result<(), String> {
        for event in self.acknowledged.iter().filter(|event| !event.is_gone) {
            let Content::Binding(deleted) = event.content else { continue };
            if !deleted.is_tombstone() {
                continue;
            }
            for machine in self.machines.values().filter(|machine| !machine.is_removed) {
                let Some(node) = &machine.node else { continue };
                let held = node.store().record(deleted.key).filter(|(held, ends)| {
                    held.generation <= deleted.generation && ends.left(machine.time(self.now)) > 0
                });
                if let Some((held, _)) = held {
                    return Err(format!(
                        "node {} has {held:?}, which event {} of {:?} deleted; records {}",
                        machine.id.0,
                        event.number,
                        event.stream,
                        self.records(deleted.key).concat()
                    ));
                }
            }
        }
        Ok(())
    }
}
