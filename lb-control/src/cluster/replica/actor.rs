//! The task that owns the state machine.

use super::beginning::Beginning;
use super::checkpoint::Checkpoints;
use super::convergence::{self, Convergence};
use super::record::{self, BlockWriter};
use super::{Receipt, Request, Standing, Update, wall};
use crate::cluster::identity::{NodeId, Role};
use crate::cluster::journal::{Journal, Progress, Ticket, Write};
use crate::cluster::roster::{Roster, SignedRoster};
use crate::cluster::transport::{Event, SendError, Transport};
use lb_core::binding::{self, StreamId, Time};
use lb_core::mirror;
use lb_core::sync::{self, Node};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Batches on their way to the disk; with more the log waits in memory.
const UNWRITTEN: usize = 512;
/// Updates in a batch.
const BATCH: usize = 4_096;
/// Messages sent before others get their turn.
const MESSAGES: usize = 256;
/// How soon a peer without room is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) struct Actor {
    id: NodeId,
    node: Node,
    start: Instant,
    journal: Journal,
    progress: watch::Receiver<Progress>,
    /// What becomes durable with which ticket.
    unwritten: VecDeque<(Ticket, (StreamId, u64))>,
    /// Who waits for which own event to be durable; `None` = for the numbering to begin.
    told: VecDeque<(Option<(StreamId, u64)>, Receipt)>,
    checkpoints: Checkpoints,
    /// The latest portion of a checkpoint: the next one waits for it, so that events never wait for more than one.
    portion: Ticket,
    transport: Arc<Transport>,
    rosters: watch::Receiver<Arc<SignedRoster>>,
    members: Vec<binding::NodeId>,
    blocked: Vec<binding::NodeId>,
    convergence: Convergence,
    /// Whether [`Update::Complete`] is to come.
    is_completing: bool,
    ready: watch::Sender<bool>,
    updates: mpsc::Sender<Vec<Update>>,
    mirror: mpsc::Sender<(NodeId, Vec<u8>)>,
    /// Written and sent when there is room.
    batch: Vec<Update>,
    buffer: Vec<u8>,
}

/// Who hears of what happens.
pub(super) struct Sinks {
    /// Whether the node has the database.
    pub(super) ready: watch::Sender<bool>,
    /// What the data plane must hold.
    pub(super) updates: mpsc::Sender<Vec<Update>>,
    /// What peers say of connections.
    pub(super) mirror: mpsc::Sender<(NodeId, Vec<u8>)>,
}

/// The members whose bindings are the same as this node's.
pub(super) fn members(roster: &Roster, own: NodeId) -> Vec<binding::NodeId> {
    let nodes = roster.members.iter().filter(|member| member.role == Role::Node && member.id != own);
    nodes.map(|member| binding::NodeId(member.id.number())).collect()
}

impl Actor {
    pub(super) fn new(
        members: Vec<binding::NodeId>,
        Beginning { journal, node, start, checkpoint, .. }: Beginning,
        transport: Arc<Transport>,
        Sinks { ready, updates, mirror }: Sinks,
    ) -> Self {
        Self {
            id: transport.id(),
            node,
            start,
            progress: journal.progress(),
            journal,
            unwritten: VecDeque::new(),
            told: VecDeque::new(),
            checkpoints: Checkpoints::after(checkpoint, Time(0)),
            portion: Ticket(0),
            rosters: transport.roster(),
            transport,
            blocked: members.clone(),
            members,
            convergence: Convergence::default(),
            is_completing: false,
            ready,
            updates,
            mirror,
            batch: Vec::new(),
            buffer: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>, mut events: mpsc::Receiver<Event>) {
        for peer in self.blocked.clone() {
            self.node.set_blocked(peer, true);
        }
        loop {
            let Some(is_more) = self.pump().await else { break };
            let deadline = self.deadline();
            let room = self.updates.clone();
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => {
                        if !self.handle_all(request, &mut inbox) {
                            break;
                        }
                    }
                    None => break,
                },
                Some(event) = events.recv() => {
                    self.hear(event);
                    for _ in 0..MESSAGES {
                        let Ok(event) = events.try_recv() else { break };
                        self.hear(event);
                    }
                }
                Ok(()) = self.progress.changed() => {}
                Ok(()) = self.rosters.changed() => self.follow_roster(),
                Ok(permit) = room.reserve(), if !self.batch.is_empty() => {
                    permit.send(std::mem::take(&mut self.batch));
                }
                () = sleep_until(deadline) => {}
                () = tokio::task::yield_now(), if is_more => {}
            }
            self.settle();
        }
        self.end().await;
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When there is something to do even if nothing happens.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let due = self.node.next_deadline().map(|due| self.start + Duration::from_millis(due.0));
        let due = due.unwrap_or(now + Duration::from_secs(1));
        // Nobody tells when an outbox has room again; that a peer is connected again is an event.
        let is_full = |peer: &binding::NodeId| {
            NodeId::new(peer.0).is_some_and(|peer| self.transport.is_connected(peer))
        };
        if self.blocked.iter().any(is_full) { due.min(now + LOOK_AGAIN) } else { due }
    }

    /// What has become durable or due since.
    fn settle(&mut self) {
        let now = self.now();
        let durable = self.progress.borrow_and_update().durable;
        while let Some((_, (stream, number))) = self.unwritten.pop_front_if(|(ticket, _)| *ticket <= durable)
        {
            self.node.handle_durable(now, stream, number);
        }
        if self.node.next_deadline().is_some_and(|due| due <= now) {
            self.node.handle_timeout(now);
        }
        self.convergence.tidy(&self.members);
        let own = binding::NodeId(self.id.number());
        if let Some(probe) = self.convergence.probe(now, own).filter(|_| !self.members.is_empty()) {
            let _ = self.node.handle_local(now, probe);
            self.note_own(now);
        }
        self.acknowledge();
    }

    /// Has an own event watched now and then.
    fn note_own(&mut self, now: Time) {
        if let Some((stream, number)) = self.node.latest() {
            self.convergence.made(now, stream, number);
        }
    }

    /// Tells who waits for what has become durable.
    fn acknowledge(&mut self) {
        while let (Some((event, _)), Some(latest)) = (self.told.front_mut(), self.node.latest()) {
            match *event {
                Some((stream, number)) if stream == latest.0 => {
                    if !self.node.is_durable(stream, number) {
                        return;
                    }
                }
                // Numbering began, or began anew: all that was told in this life has numbers up to the latest.
                Some(_) | None => {
                    *event = Some(latest);
                    continue;
                }
            }
            match self.told.pop_front() {
                Some((_, Receipt::Number(number))) => self.batch.push(Update::Durable(number)),
                // Who asked may wait no more.
                Some((_, Receipt::Reply(reply))) => drop(reply.send(())),
                None => return,
            }
        }
    }

    /// Handles a request and those that wait behind it; false = it is to end.
    fn handle_all(&mut self, first: Request, inbox: &mut mpsc::Receiver<Request>) -> bool {
        let mut next = Some(first);
        while let Some(request) = next {
            if !self.handle(request) {
                return false;
            }
            next = inbox.try_recv().ok();
        }
        true
    }

    fn handle(&mut self, request: Request) -> bool {
        let now = self.now();
        match request {
            Request::Local(all, receipt) => {
                for local in all {
                    // Nobody waits for a single one: nothing leaves before it is durable.
                    let _ = self.node.handle_local(now, local);
                }
                self.note_own(now);
                if let Receipt::Number(number) = receipt {
                    // What is in the batch already was polled before.
                    self.batch.push(Update::Heard(number));
                }
                self.told.push_back((self.node.latest(), receipt));
            }
            Request::Again(keys) => keys.into_iter().for_each(|key| self.node.tell_again(key)),
            Request::AgainOf(servers) => {
                servers.into_iter().for_each(|(service, server)| self.node.tell_again_of(service, server));
            }
            Request::Find(key, reply) => drop(reply.send(self.node.find(key, now))),
            Request::Standing(reply) => drop(reply.send(self.standing(now))),
            Request::Stop => return false,
        }
        true
    }

    fn hear(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Message { peer, bytes } => {
                let from = binding::NodeId(peer.number());
                if mirror::wire::is_about(&bytes) {
                    // Who listens sees when one is missing.
                    if self.members.contains(&from) || self.is_switch(peer) && mirror::wire::is_again(&bytes)
                    {
                        let _ = self.mirror.try_send((peer, bytes));
                    }
                    return;
                }
                if let Err(refused) = self.node.handle_message(now, from, &bytes) {
                    tracing::debug!(%refused, "a message was not taken");
                }
                if let Some(stream) = self.node.stream()
                    && let Some(number) = self.node.told_by(from, stream)
                {
                    self.convergence.reached(now, from, stream, number);
                }
            }
            Event::Up { peer, role } => {
                tracing::info!(%peer, role = role.name(), "connected");
                let peer = binding::NodeId(peer.number());
                self.blocked.retain(|blocked| *blocked != peer);
                self.node.set_blocked(peer, false);
            }
            Event::Down { peer } => {
                tracing::warn!(%peer, "not connected any more");
                self.block(binding::NodeId(peer.number()));
            }
        }
    }

    fn is_switch(&self, peer: NodeId) -> bool {
        let roster = self.rosters.borrow();
        roster.roster().member(peer).is_some_and(|member| member.role == Role::Switch)
    }

    fn follow_roster(&mut self) {
        let members = members(self.rosters.borrow_and_update().roster(), self.id);
        self.node.set_members(self.now(), &members);
        self.blocked.retain(|peer| members.contains(peer));
        let former = std::mem::replace(&mut self.members, members);
        let new: Vec<_> = self.members.iter().copied().filter(|peer| !former.contains(peer)).collect();
        for peer in new {
            if !self.has_room(peer) {
                self.block(peer);
            }
        }
    }

    /// Moves what the state machine has to say; `None` = the journal has ended, true = there is more.
    async fn pump(&mut self) -> Option<bool> {
        let now = self.now();
        self.write(now).await?;
        self.collect(now);
        Some(self.transmit(now))
    }

    async fn write(&mut self, now: Time) -> Option<()> {
        // The queue is longer than this, so nothing here waits for the disk.
        if self.unwritten.len() >= UNWRITTEN {
            return Some(());
        }
        let wall = wall();
        let mut writes = Vec::new();
        let mut writer: Option<BlockWriter> = None;
        let mut ends = Vec::new();
        while let Some(write) = self.node.poll_journal(now) {
            match write {
                sync::Write::View(view) => {
                    writes.push(Write::View { digest: view.digest(), bytes: record::view(&view) });
                }
                sync::Write::Event { stream, number, content, left } => {
                    let added =
                        writer.as_mut().is_some_and(|writer| writer.add(stream, number, &content, left));
                    if !added {
                        let next = BlockWriter::begin(stream, number, &content, left, wall);
                        if let Some(full) = writer.replace(next) {
                            ends.push(full.end());
                            writes.push(Write::Events(full.block()));
                        }
                    }
                }
            }
        }
        if let Some(last) = writer {
            ends.push(last.end());
            writes.push(Write::Events(last.block()));
        }
        if !writes.is_empty() {
            let ticket = self.journal.write(writes).await.ok()?;
            self.unwritten.extend(ends.into_iter().map(|end| (ticket, end)));
        }
        self.checkpoints.begin(&mut self.node, now);
        if self.checkpoints.is_running() && self.progress.borrow().durable >= self.portion {
            let step = self.checkpoints.step(&mut self.node, now, wall);
            self.portion = self.journal.write(step).await.ok()?;
        }
        Some(())
    }

    /// Takes what the data plane must hear, as much as a batch holds.
    fn collect(&mut self, now: Time) {
        while self.batch.len() < BATCH {
            let Some(event) = self.node.poll_event(now) else {
                if std::mem::take(&mut self.is_completing) {
                    self.batch.push(Update::Complete);
                }
                break;
            };
            match event {
                sync::Event::Put(binding::Binding { key, .. }) | sync::Event::Delete(key)
                    if key.service == convergence::SERVICE => {}
                sync::Event::Put(binding) => {
                    let until = self.start + Duration::from_millis(now.0) + binding.left;
                    self.batch.push(Update::Put(binding, until.into_std()));
                }
                sync::Event::Delete(key) => self.batch.push(Update::Delete(key)),
                sync::Event::Ready => {
                    tracing::info!(bindings = self.node.store().len(), "the cluster's bindings are here");
                    self.ready.send_replace(true);
                    self.is_completing = true;
                }
                sync::Event::Epoch(epoch) => tracing::info!(epoch, "own events are numbered"),
                sync::Event::SnapshotBegun(peer) => {
                    tracing::info!(peer = format!("{:016x}", peer.0), "fetching a snapshot")
                }
                sync::Event::SnapshotDone(peer, records) => {
                    tracing::info!(peer = format!("{:016x}", peer.0), records, "the snapshot is complete");
                }
            }
        }
    }

    /// Sends; true = there may be more to send.
    fn transmit(&mut self, now: Time) -> bool {
        let again: Vec<_> = self
            .blocked
            .extract_if(.., |peer| NodeId::new(peer.0).is_some_and(|peer| self.transport.has_room(peer)))
            .collect();
        for peer in again {
            self.node.set_blocked(peer, false);
        }
        for _ in 0..MESSAGES {
            let Some(to) = self.node.poll_transmit(now, &mut self.buffer) else { return false };
            let Some(peer) = NodeId::new(to.0) else { continue };
            match self.transport.send(peer, std::mem::take(&mut self.buffer)) {
                Ok(true) => {}
                Ok(false) | Err(SendError::Full | SendError::Gone) => self.block(to),
                Err(error @ SendError::Large(_)) => tracing::error!(%peer, %error, "a message was dropped"),
            }
        }
        true
    }

    fn has_room(&self, peer: binding::NodeId) -> bool {
        NodeId::new(peer.0).is_some_and(|peer| self.transport.has_room(peer))
    }

    /// Notes that a peer takes nothing; application servers and former members are sent nothing anyway.
    fn block(&mut self, peer: binding::NodeId) {
        if !self.members.contains(&peer) {
            return;
        }
        self.node.set_blocked(peer, true);
        if !self.blocked.contains(&peer) {
            self.blocked.push(peer);
        }
    }

    fn standing(&self, now: Time) -> Standing {
        let snapshot = self.node.snapshot_progress();
        let (certificate_until, is_certificate_overdue) = self.transport.certificate_end();
        Standing {
            certificate_until,
            is_certificate_overdue,
            id: self.id,
            is_ready: self.node.is_ready(),
            bindings: self.node.store().len(),
            bytes: self.node.bytes(),
            vector: self.node.vector(),
            counts: *self.node.counts(),
            convergence: self.convergence.histogram(),
            journal_trouble: self.progress.borrow().trouble.clone(),
            snapshot: snapshot.and_then(|(peer, records)| Some((NodeId::new(peer.0)?, records))),
            peers: Standing::peers(&self.transport, self.node.peers(now), |peer| {
                self.convergence.behind(now, peer)
            }),
        }
    }

    /// Makes durable what was told, and closes everything.
    async fn end(mut self) {
        let now = self.now();
        // What does not fit in the queue any more waits for the disk here, since nobody waits for this task.
        self.unwritten.clear();
        if self.write(now).await.is_none() {
            tracing::error!("the journal has ended before its time");
        }
        let Self { journal, transport, told, .. } = self;
        let closed = tokio::task::spawn_blocking(move || journal.close()).await;
        if matches!(closed, Ok(Ok(()))) {
            for (_, receipt) in told {
                match receipt {
                    Receipt::Number(_) => {}
                    Receipt::Reply(reply) => drop(reply.send(())),
                }
            }
        } else {
            tracing::error!(
                "the journal was not written to its end; what is missing is fetched from the peers"
            );
        }
        transport.stop().await;
    }
}
