//! When a server has failed for all: what nodes say of servers, and who tells that one failed.
//!
//! A failure that is told moves the sessions of all nodes, so no node tells it on its own word: one that is cut off from its
//! backends would move everybody's sessions. Every node states, with its vector, which servers do not serve there. A
//! failure is told when all members that are heard say the same and they are more than half of all members. Until then, and
//! wherever that does not come about, packets move their own sessions.
//!
//! Of those who agree the one with the lowest id tells it at once, the next one a moment later if sessions are still bound to the
//! server by then, and so on; who finds none looks again now and then. It is told once for as long as they agree.

use super::wire::{Standing, Statement};
use super::{Node, Sabotage};
use crate::binding::{NodeId, Time, ViewMember};
use core::time::Duration;
use std::collections::BTreeMap;

/// Servers in a statement; of more failures than that nobody else hears.
const MOST: usize = 1024;

/// A server of a pool as a node sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PoolMember {
    /// Server number.
    pub number: u64,
    /// Configured weight.
    pub weight: u32,
    /// Whether bound sessions may go there.
    pub serves: bool,
    /// Whether sessions may move there.
    pub accepts: bool,
}

/// A pool as this node sees it.
#[derive(Debug)]
pub(super) struct Pool {
    members: Vec<PoolMember>,
    lifetime: Duration,
    /// Those that do not serve.
    failed: BTreeMap<u64, Consent>,
}

/// Whether the others see a failure as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Consent {
    /// They do not, or too few are heard.
    Missing,
    /// They do: if nobody has told it by then, this node does.
    Given(Time),
    /// It was told.
    Told,
}

impl Node {
    /// Takes how a pool stands here.
    pub(super) fn take_pool(
        &mut self,
        now: Time,
        service: u32,
        members: Vec<PoolMember>,
        lifetime: Duration,
    ) {
        let former = if members.is_empty() {
            self.pools.remove(&service);
            BTreeMap::new()
        } else {
            self.pools.remove(&service).map(|pool| pool.failed).unwrap_or_default()
        };
        let consent = |number: u64| (number, former.get(&number).copied().unwrap_or(Consent::Missing));
        let failed = members.iter().filter(|member| !member.serves).map(|member| consent(member.number));
        let failed: BTreeMap<u64, Consent> = failed.collect();
        if !former.keys().eq(failed.keys()) {
            self.state_at_once(now);
        }
        if !members.is_empty() {
            self.pools.insert(service, Pool { members, lifetime, failed });
        }
        self.look_at_failures(now);
    }

    /// The longest lifetime of a service's bindings, as this node has the service; zero: it has none.
    pub(super) fn longest_lifetime(&self, service: u32) -> Duration {
        self.pools.get(&service).map_or(Duration::ZERO, |pool| pool.lifetime)
    }

    /// Takes note of what a peer says of servers.
    pub(super) fn hear_statement(&mut self, now: Time, from: NodeId) {
        let unknown = |statement: &Statement| {
            let mut failed = statement.iter().filter(|(_, standing)| **standing == Standing::Failed);
            failed.any(|(&(service, server), _)| !self.knows(service, server))
        };
        if self.peers.get(&from).and_then(|peer| peer.statement.as_ref()).is_some_and(unknown) {
            // It waits for this node's word.
            self.state_at_once(now);
        }
        self.look_at_failures(now);
    }

    /// Which servers do not serve here, and which of the others' nobody here knows.
    pub(super) fn statement(&self) -> Statement {
        let own = self.pools.iter().flat_map(|(&service, pool)| {
            pool.failed.keys().map(move |&server| ((service, server), Standing::Failed))
        });
        let told = self.peers.values().filter_map(|peer| peer.statement.as_ref()).flatten();
        let unknown = told
            .filter(|(_, standing)| **standing == Standing::Failed)
            .filter(|((service, server), _)| !self.knows(*service, *server))
            .map(|(&server, _)| (server, Standing::Unknown));
        own.chain(unknown).take(MOST).collect()
    }

    fn knows(&self, service: u32, server: u64) -> bool {
        let pool = self.pools.get(&service);
        pool.is_some_and(|pool| pool.members.iter().any(|member| member.number == server))
    }

    fn state_at_once(&mut self, now: Time) {
        self.peers.values_mut().for_each(|peer| peer.vector_due = now);
    }

    /// Members whose word counts: those that are heard, with what they say.
    fn heard(&self, now: Time) -> impl Iterator<Item = (NodeId, &Statement)> {
        let heard = self.peers.iter().filter(move |(_, peer)| !peer.is_silent(now, self.config.silence));
        heard.filter_map(|(&id, peer)| Some((id, peer.statement.as_ref()?)))
    }

    /// How many of those who agree that a server failed come before this node; `None`: they do not agree.
    fn consent(&self, now: Time, service: u32, server: u64) -> Option<u32> {
        if self.breaks(Sabotage::FailureAlone) {
            return Some(0);
        }
        let heard = self.peers.values().filter(|peer| !peer.is_silent(now, self.config.silence)).count();
        let (mut agree, mut abstain, mut before) = (1, 0, 0);
        for (id, statement) in self.heard(now) {
            match statement.get(&(service, server)) {
                Some(Standing::Failed) => {
                    agree += 1;
                    before += u32::from(id < self.config.id);
                }
                Some(Standing::Unknown) => abstain += 1,
                None => return None,
            }
        }
        let members = self.peers.len() + 1;
        let is_everyone = heard + 1 == agree + abstain;
        (is_everyone && 2 * agree > members - abstain).then_some(before)
    }

    /// Tells the failures on which all agree.
    pub(super) fn look_at_failures(&mut self, now: Time) {
        if !self.is_ready() {
            return;
        }
        let all: Vec<(u32, u64, Consent)> = self
            .pools
            .iter()
            .flat_map(|(&service, pool)| pool.failed.iter().map(move |(&server, &c)| (service, server, c)))
            .collect();
        for (service, server, consent) in all {
            let next = match (consent, self.consent(now, service, server)) {
                (_, None) => Consent::Missing,
                (Consent::Missing, Some(before)) => {
                    Consent::Given(now.after(self.config.retry.saturating_mul(before)))
                }
                (Consent::Given(_) | Consent::Told, Some(_)) => consent,
            };
            let next = match next {
                Consent::Given(due) if due <= now => self.tell_failure(now, service, server),
                Consent::Missing | Consent::Given(_) | Consent::Told => next,
            };
            if let Some(pool) = self.pools.get_mut(&service) {
                pool.failed.insert(server, next);
            }
        }
    }

    /// Tells that a server failed, if sessions are bound to it and may go anywhere.
    fn tell_failure(&mut self, now: Time, service: u32, server: u64) -> Consent {
        let Some(pool) = self.pools.get(&service) else { return Consent::Missing };
        let is_dead = |member: &PoolMember| {
            let mut statements = self.heard(now);
            statements.any(|(_, said)| said.get(&(service, member.number)) == Some(&Standing::Failed))
        };
        let view = |is_live: &dyn Fn(&PoolMember) -> bool| -> Vec<ViewMember> {
            let member = |member: &PoolMember| ViewMember {
                number: member.number,
                weight: member.weight,
                failover: 0,
                is_live: is_live(member),
            };
            pool.members.iter().map(member).collect()
        };
        // Who serves at all nodes comes first.
        let mut members = view(&|member| member.accepts && member.number != server && !is_dead(member));
        if !members.iter().any(|member| member.is_live) {
            members = view(&|member| member.accepts && member.number != server);
        }
        if !members.iter().any(|member| member.is_live) {
            return Consent::Given(now.after(self.config.heartbeat));
        }
        let lifetime = pool.lifetime;
        if self.store.bindings_of(service, server, now).next().is_none() {
            // Sessions of a node that was away may come yet.
            return Consent::Given(now.after(self.config.heartbeat));
        }
        self.counts.failovers += 1;
        let _ = self.failed(now, service, server, members, lifetime);
        Consent::Told
    }

    /// When failures are to be looked at again.
    pub(super) fn failure_due(&self) -> impl Iterator<Item = Time> {
        let is_ready = self.is_ready();
        let all = self.pools.values().flat_map(|pool| pool.failed.values());
        all.filter_map(move |consent| match consent {
            Consent::Given(due) if is_ready => Some(*due),
            Consent::Missing | Consent::Given(_) | Consent::Told => None,
        })
    }
}
