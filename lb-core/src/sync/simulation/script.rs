//! What happens to the machines, from a seed.

use super::machine::{Held, Machine};
use super::world::World;
use crate::binding::{Key, NodeId, ViewMember};
use crate::sync::{Local, PoolMember};
use core::time::Duration;

pub(super) const SERVERS: [u64; 5] = [11, 22, 33, 44, 55];

impl World {
    pub(super) fn play(&mut self) -> Result<(), String> {
        let problem = self.story().err();
        let problem = problem.map(|problem| {
            let tail = self.trace.len().saturating_sub(60);
            format!(
                "{problem}\nseed {} at {} ms, before:\n{}",
                self.seed,
                self.now,
                self.trace[tail..].join("\n")
            )
        });
        problem.map_or(Ok(()), Err)
    }

    fn story(&mut self) -> Result<(), String> {
        let count = self.dice.between(2, 8);
        for id in 1..=count {
            let machine = Machine::new(NodeId(id), &mut self.dice);
            self.machines.insert(NodeId(id), machine);
            self.note("clock an hour wrong");
        }
        for id in 1..=count {
            let later = self.dice.between(0, 3000);
            if let Some(machine) = self.machines.get_mut(&NodeId(id)) {
                machine.up_at = Some(later);
            }
        }
        let end = self.dice.between(10_000, 40_000);
        while self.now < end {
            let pause = self.dice.between(1, 120);
            self.run(self.now + pause)?;
            self.act()?;
        }
        self.repair()?;
        self.run(self.now + 15_000)?;
        self.become_quiet()?;
        // Everything has had its time by now; once more for what expiry and retirement do.
        self.count_what_happened();
        self.agree()?;
        self.run(self.now + 15_000)?;
        self.become_quiet()?;
        self.agree()
    }

    /// Waits until nobody has told anything for a while: what is about to end is told of, whenever that is.
    fn become_quiet(&mut self) -> Result<(), String> {
        for _ in 0..20 {
            let own = |machine: &Machine| machine.node.as_ref().map_or(0, |node| node.counts().own);
            let before: u64 = self.machines.values().map(own).sum();
            self.run(self.now + 700)?;
            if self.machines.values().map(own).sum::<u64>() == before {
                break;
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        let Some(id) = self.dice.pick(&self.up()) else { return Ok(()) };
        match self.dice.between(0, 1000) {
            0..700 => self.session(id),
            700..720 => self.pin(id),
            720..750 => self.delete(id),
            750..780 => self.fail(id),
            780..830 => self.cut_link(id),
            830..870 => self.crash(id),
            870..900 => self.disk(id),
            900..930 => self.block(id),
            930..936 => self.add(),
            936..940 => self.remove(id),
            940..970 => {
                self.linger();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn key(&mut self) -> Key {
        Key { service: self.dice.between(1, 3) as u32, session: self.dice.between(0, 30) }
    }

    fn lifetime(&mut self) -> Duration {
        Duration::from_millis(self.dice.pick(&[4_000, 20_000, 120_000, 600_000]).unwrap_or(4_000))
    }

    fn local(&mut self, id: NodeId, local: Local) -> Result<(), String> {
        let now = self.now;
        let key = match local {
            Local::Bound { key, .. }
            | Local::Held { key, .. }
            | Local::Used { key, .. }
            | Local::Pinned { key, .. } => Some(key),
            Local::Deleted { .. } | Local::Pool { .. } => None,
        };
        if let Some(key) = key {
            let longest = match local {
                Local::Bound { left, .. } | Local::Held { left, .. } => left,
                Local::Used { lifetime, .. } | Local::Pinned { lifetime, .. } => lifetime,
                Local::Deleted { .. } | Local::Pool { .. } => Duration::ZERO,
            };
            let ends = now + longest.as_millis() as u64;
            let known = self.longest.entry(key).or_default();
            *known = ends.max(*known);
        }
        let what = match &local {
            Local::Pool { service, members, .. } => {
                let down: Vec<u64> = members.iter().filter(|m| !m.serves).map(|m| m.number).collect();
                format!("does not reach {down:?} of {service}")
            }
            Local::Bound { .. }
            | Local::Held { .. }
            | Local::Used { .. }
            | Local::Pinned { .. }
            | Local::Deleted { .. } => format!("{local:?}"),
        };
        self.say(id, &what);
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let time = machine.time(now);
        if let Some(node) = &mut machine.node {
            node.handle_local(time, local);
        }
        self.settle(id)
    }

    /// A client comes, and the kernel does what it does.
    fn session(&mut self, id: NodeId) -> Result<(), String> {
        let (key, lifetime) = (self.key(), self.lifetime());
        let server = self.server(id, key);
        let now = self.now;
        let moves = self.dice.chance(30)
            || self.machines.get(&id).and_then(|machine| machine.kernel.get(&key)).is_some_and(|held| {
                held.server != server && self.down.contains(&(id, key.service, held.server))
            });
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let expires = now + lifetime.as_millis() as u64;
        match machine.kernel.get_mut(&key).filter(|held| held.expires > now) {
            Some(held) if !moves => {
                held.expires = expires.max(held.expires);
                let Held { server, generation, expires } = *held;
                let left = Duration::from_millis(expires - now);
                // Sometimes a walk through the kernel's table finds it.
                if self.dice.chance(500) {
                    self.local(id, Local::Used { key, lifetime })
                } else {
                    self.local(id, Local::Held { key, server, generation, left })
                }
            }
            Some(held) => {
                *held = Held { server, generation: held.generation + 1, expires };
                let generation = held.generation;
                self.note("moved");
                self.local(id, Local::Bound { key, server, generation, left: lifetime })
            }
            None => {
                machine.kernel.insert(key, Held { server, generation: 0, expires });
                let time = machine.time(now);
                let is_new = machine.node.as_ref().is_some_and(|node| node.find(key, time).is_none());
                self.local(id, Local::Bound { key, server, generation: 0, left: lifetime })?;
                let node = self.machines.get(&id).and_then(|machine| machine.node.as_ref());
                let found = node.and_then(|node| node.find(key, time));
                if is_new && found.is_none_or(|binding| binding.server != server) {
                    return Err(format!("node {}: {key:?} was bound to {server}, is {found:?}", id.0));
                }
                Ok(())
            }
        }
    }

    /// A client comes to a kernel whose process is down: nobody is told that it keeps its session for longer.
    fn linger(&mut self) {
        let (now, lifetime) = (self.now, self.lifetime());
        let of = |machine: &Machine| {
            let is_deaf = machine.node.is_none() && !machine.is_removed;
            let held = machine.kernel.iter().filter(move |(_, held)| is_deaf && held.expires > now);
            held.map(|(&key, _)| (machine.id, key)).collect::<Vec<_>>()
        };
        let sessions: Vec<(NodeId, Key)> = self.machines.values().flat_map(of).collect();
        let Some((id, key)) = self.dice.pick(&sessions) else { return };
        let expires = now + lifetime.as_millis() as u64;
        if let Some(held) = self.machines.get_mut(&id).and_then(|machine| machine.kernel.get_mut(&key)) {
            held.expires = expires.max(held.expires);
        }
        let longest = self.longest.entry(key).or_default();
        *longest = expires.max(*longest);
        self.note("used while nobody was told");
        self.say(id, &format!("its kernel keeps {key:?} until {expires}"));
    }

    fn pin(&mut self, id: NodeId) -> Result<(), String> {
        let (key, lifetime) = (self.key(), self.lifetime());
        let server = self.server(id, key);
        self.note("pinned");
        self.local(id, Local::Pinned { key, server, lifetime })
    }

    fn delete(&mut self, id: NodeId) -> Result<(), String> {
        let key = self.key();
        self.note("deleted");
        self.local(id, Local::Deleted { key })
    }

    /// A server fails, or comes back, for all nodes or for one.
    fn fail(&mut self, id: NodeId) -> Result<(), String> {
        let service = self.dice.between(1, 3) as u32;
        let server = self.dice.pick(&SERVERS).unwrap_or(11);
        if self.forces {
            return self.force(id, service, server);
        }
        let by_all = self.dice.chance(500);
        let is_down = !self.down.contains(&(id, service, server));
        let nodes = if by_all { self.members() } else { vec![id] };
        if is_down {
            self.note(if by_all { "failure seen by all" } else { "failure seen by one" });
        }
        for node in nodes {
            // Probes miss things.
            if node != id && self.dice.chance(50) {
                continue;
            }
            if is_down {
                self.down.insert((node, service, server));
            } else if self.down.remove(&(node, service, server)) {
                self.was_down.insert((node, service, server), self.now);
            }
            self.tell_pool(node, service)?;
        }
        Ok(())
    }

    /// A node tells a failure although nobody agreed: what comes of it must be the same everywhere all the same.
    fn force(&mut self, id: NodeId, service: u32, server: u64) -> Result<(), String> {
        let pool = SERVERS
            .iter()
            .map(|&number| ViewMember { number, weight: 1, failover: 0, is_live: self.dice.chance(900) })
            .collect();
        self.note("failover");
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let time = machine.time(now);
        if let Some(node) = &mut machine.node {
            let _ = node.failed(time, service, server, pool, Duration::from_secs(600));
            let marks = node.store().marks().map(|(m, _)| (m.service, m.server, m.epoch, m.digest));
            self.marks.extend(marks);
        }
        self.say(id, &format!("is made to tell that {server} of {service} failed"));
        self.settle(id)
    }

    /// Health tells a node how a pool stands; not all nodes have all services.
    pub(super) fn tell_pool(&mut self, id: NodeId, service: u32) -> Result<(), String> {
        if self.abstains(id, service) {
            return Ok(());
        }
        let members = SERVERS
            .iter()
            .map(|&number| {
                let is_up = !self.down.contains(&(id, service, number));
                PoolMember { number, weight: 1, serves: is_up, accepts: is_up }
            })
            .collect();
        self.local(id, Local::Pool { service, members, lifetime: Duration::from_secs(600) })
    }

    /// Whether a node has no such service.
    pub(super) const fn abstains(&self, id: NodeId, service: u32) -> bool {
        service == 3 && id.0 % 4 == 3
    }

    /// A server that a machine reaches.
    fn server(&mut self, id: NodeId, key: Key) -> u64 {
        let up: Vec<u64> =
            SERVERS.into_iter().filter(|&server| !self.down.contains(&(id, key.service, server))).collect();
        self.dice.pick(&up).or_else(|| self.dice.pick(&SERVERS)).unwrap_or(11)
    }

    fn cut_link(&mut self, id: NodeId) -> Result<(), String> {
        let until = self.now + self.dice.between(100, 8_000);
        let one_way = self.dice.chance(300);
        let all = self.dice.chance(300);
        for other in self.members() {
            if other != id && (all || self.dice.chance(400)) {
                self.cut.insert((id, other), until);
                if !one_way {
                    self.cut.insert((other, id), until);
                }
            }
        }
        self.note(if one_way { "link cut one way" } else { "link cut" });
        self.say(id, &format!("links cut until {until}"));
        Ok(())
    }

    /// Between a machine and one other one direction is cut, and stays so for a while after the machine is back.
    fn cut_one_way(&mut self, id: NodeId, up_at: u64) {
        let Some(other) = self.dice.pick(&self.members()).filter(|&other| other != id) else { return };
        let (from, to) = if self.dice.chance(500) { (id, other) } else { (other, id) };
        let until = up_at + self.dice.between(500, 12_000);
        self.cut.insert((from, to), until);
        self.cut.remove(&(to, from));
        self.say(id, &format!("nothing comes from {} to {} until {until}", from.0, to.0));
    }

    fn crash(&mut self, id: NodeId) -> Result<(), String> {
        let kind = self.dice.between(0, 10);
        let keeps = self.dice.roll();
        let up_at = self.now + self.dice.between(10, 12_000);
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        // Only the process ends, sometimes.
        machine.crash((3..6).contains(&kind));
        machine.up_at = Some(up_at);
        let journal = &mut machine.journal;
        let fault = match (kind, machine.image.clone()) {
            (0, _) => {
                *journal = super::journal::Journal::default();
                machine.image = None;
                "crash, journal lost"
            }
            (1 | 2, Some(image)) => {
                *journal = image;
                "crash, old image"
            }
            (_, _) => {
                // Of what was not written durably, a part may be there.
                let rest = journal.events.len() - journal.synced;
                let kept = journal.synced + (keeps % (rest as u64 + 1)) as usize;
                journal.events.truncate(kept);
                journal.synced = kept;
                if rest > 0 { "crash, end of journal torn" } else { "crash" }
            }
        };
        self.note(fault);
        self.say(id, &format!("{fault}, back at {up_at}"));
        self.forgive();
        if self.dice.chance(300) {
            self.cut_one_way(id, up_at);
        }
        Ok(())
    }

    fn disk(&mut self, id: NodeId) -> Result<(), String> {
        let takes_image = self.dice.chance(400);
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        if takes_image {
            let mut image = machine.journal.clone();
            image.events.truncate(image.synced);
            machine.image = Some(image);
        } else {
            machine.begin_checkpoint(now);
            self.note("checkpoint");
        }
        Ok(())
    }

    fn block(&mut self, id: NodeId) -> Result<(), String> {
        let Some(other) = self.dice.pick(&self.members()).filter(|&other| other != id) else { return Ok(()) };
        let is_blocked = self.blocked.insert((id, other));
        if !is_blocked {
            self.blocked.remove(&(id, other));
        }
        self.note("peer blocked");
        if let Some(node) = self.machines.get_mut(&id).and_then(|machine| machine.node.as_mut()) {
            node.set_blocked(other, is_blocked);
        }
        self.settle(id)
    }

    fn add(&mut self) -> Result<(), String> {
        if self.members().len() >= 9 || self.machines.len() >= 12 {
            return Ok(());
        }
        let id = NodeId(self.machines.len() as u64 + 1);
        let machine = Machine::new(id, &mut self.dice);
        self.machines.insert(id, machine);
        self.regrouped = true;
        self.note("member added");
        self.boot(id)?;
        self.tell_members(500)
    }

    fn remove(&mut self, id: NodeId) -> Result<(), String> {
        if self.members().len() <= 2 {
            return Ok(());
        }
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.crash(false);
            machine.up_at = None;
            machine.is_removed = true;
        }
        self.regrouped = true;
        self.note("member removed");
        self.say(id, "is removed");
        self.forgive();
        self.tell_members(500)
    }

    /// The new list reaches some of the nodes; the others hear of it when all is repaired.
    fn tell_members(&mut self, in_thousand: u64) -> Result<(), String> {
        let members = self.members();
        for id in self.up() {
            if self.dice.chance(in_thousand) {
                let now = self.now;
                if let Some(machine) = self.machines.get_mut(&id) {
                    let time = machine.time(now);
                    if let Some(node) = &mut machine.node {
                        node.set_members(time, &members);
                    }
                }
                self.settle(id)?;
            }
        }
        Ok(())
    }

    fn repair(&mut self) -> Result<(), String> {
        (self.loss, self.twice, self.late) = (0, 0, 0);
        self.cut.clear();
        self.trace.push(format!("{:>6} all is repaired", self.now));
        for (id, other) in core::mem::take(&mut self.blocked) {
            if let Some(node) = self.machines.get_mut(&id).and_then(|machine| machine.node.as_mut()) {
                node.set_blocked(other, false);
            }
        }
        for id in self.members() {
            if self.machines.get(&id).is_some_and(|machine| machine.node.is_none()) {
                self.boot(id)?;
            }
        }
        self.tell_members(1000)
    }

    fn count_what_happened(&mut self) {
        for id in self.up() {
            let Some(node) = self.machines.get(&id).and_then(|machine| machine.node.as_ref()) else {
                continue;
            };
            let counts = *node.counts();
            let all = [
                ("gap", counts.gaps),
                ("relayed", counts.relayed),
                ("coalesced", counts.coalesced),
                ("epoch opened", counts.epochs),
                ("joined", counts.joined),
            ];
            for (name, times) in all {
                *self.faults.entry(name).or_default() += times;
            }
        }
    }
}
