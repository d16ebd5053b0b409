//! What happens on this node and becomes an event.

use super::snapshot::Source;
use super::{Node, PoolMember, Sabotage};
use crate::binding::store::{Look, SKEW};
use crate::binding::time::milliseconds;
use crate::binding::{
    Body, Content, Flags, Key, MAX_GENERATION, Mark, Merged, StreamId, Tick, Time, View, ViewMember,
};
use core::cmp::Ordering;
use core::time::Duration;

/// What happened on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Local {
    /// The data plane made a binding, or moved one.
    Bound {
        /// Whose.
        key: Key,
        /// Where.
        server: u64,
        /// The data plane's generation of it.
        generation: u32,
        /// What is left of its life.
        left: Duration,
    },
    /// The data plane has had this for a while: it was used, or was there before this node started.
    Held {
        /// Whose.
        key: Key,
        /// Where.
        server: u64,
        /// The data plane's generation of it.
        generation: u32,
        /// What is left of its life.
        left: Duration,
    },
    /// A binding was used, and lives a whole lifetime from now.
    Used {
        /// Whose.
        key: Key,
        /// The lifetime.
        lifetime: Duration,
    },
    /// An administrator says where.
    Pinned {
        /// Whose.
        key: Key,
        /// Where.
        server: u64,
        /// How long.
        lifetime: Duration,
    },
    /// Logout, or an administrator deletes.
    Deleted {
        /// Whose.
        key: Key,
    },
    /// How a pool stands here now: told at the start and whenever it changes.
    Pool {
        /// The service.
        service: u32,
        /// Its servers; none = the service has gone.
        members: Vec<PoolMember>,
        /// The longest lifetime of the service's bindings.
        lifetime: Duration,
    },
}

impl Node {
    /// Takes in what happened on this node.
    ///
    /// Returns the event that must be durable before the cause may be acknowledged; `None`: there is nothing to wait for, or
    /// numbering has not begun ([`super::Event::Epoch`] tells when).
    pub fn handle_local(&mut self, now: Time, local: Local) -> Option<(StreamId, u64)> {
        match local {
            Local::Bound { key, server, generation, left } => self.bound(now, key, server, generation, left),
            Local::Held { key, server, generation, left } => self.held(now, key, server, generation, left),
            Local::Used { key, lifetime } => self.used(now, key, lifetime),
            Local::Pinned { key, server, lifetime } => {
                let generation = match self.store.look(key, now) {
                    Look::Absent => 0,
                    Look::Ended(body) | Look::Deleted(body) | Look::Bound(body) => body.next_generation(),
                };
                let failover = self.store.failover_of(key.service, server);
                let body = Body { key, server, generation, flags: Flags::PINNED, failover };
                self.tell(now, &body, Tick::of(now.after(lifetime)), false)
            }
            Local::Deleted { key } => {
                let Look::Bound(body) = self.store.look(key, now) else { return None };
                // A data plane may hold it for longer than anybody was told: it was used, and its node is away.
                let mut left = self.store.find(key, now)?.left;
                if !self.breaks(Sabotage::TombstoneEndsEarly) {
                    left = left.max(self.longest_lifetime(key.service));
                }
                let expires = self.store.record(key)?.1.max(Tick::of(now.after(left)));
                let body = Body { flags: Flags::TOMBSTONE, ..body }.sane();
                let event = self.tell(now, &body, expires, false);
                if self.breaks(Sabotage::TombstoneForgotten) {
                    self.store.erase(key);
                }
                event
            }
            Local::Pool { service, members, lifetime } => {
                self.take_pool(now, service, members, lifetime);
                None
            }
        }
    }

    fn bound(
        &mut self,
        now: Time,
        key: Key,
        server: u64,
        generation: u32,
        left: Duration,
    ) -> Option<(StreamId, u64)> {
        let expires = Tick::of(now.after(left));
        let failover = self.store.failover_of(key.service, server);
        let failover = if self.breaks(Sabotage::FailoverForgetsEpoch) { 0 } else { failover };
        let mut body = Body {
            key,
            server,
            generation: generation.min(MAX_GENERATION),
            flags: Flags::default(),
            failover,
        };
        match self.store.look(key, now) {
            Look::Absent => self.tell(now, &body, expires, true),
            Look::Ended(old) | Look::Deleted(old) => {
                // Where the old one has not ended yet, the new one must hold against it.
                body.generation = body.generation.max(old.next_generation());
                self.tell(now, &body, expires, body.generation == generation)
            }
            Look::Bound(known) if known.server == server && generation <= known.generation => {
                if generation < known.generation {
                    self.store.tell_again(key);
                }
                self.used(now, key, left)
            }
            Look::Bound(known) => match body.cmp_rank(&known) {
                Ordering::Greater => self.tell(now, &body, expires, true),
                Ordering::Less | Ordering::Equal => {
                    // The cluster knows better: the data plane follows.
                    self.store.tell_again(key);
                    self.used(now, key, left)
                }
            },
        }
    }

    fn held(
        &mut self,
        now: Time,
        key: Key,
        server: u64,
        generation: u32,
        left: Duration,
    ) -> Option<(StreamId, u64)> {
        if self.store.deletes(key, generation, now) {
            // The data plane has not heard of the deletion yet.
            self.store.tell_again(key);
            return None;
        }
        match self.store.look(key, now) {
            Look::Bound(known) if known.server == server && known.generation == generation => {
                // What the node itself made the data plane hold ends there a little later than it was told.
                let told = self.store.record(key)?.1;
                if Tick::of(now.after(left)) <= told.after(SKEW) { None } else { self.used(now, key, left) }
            }
            Look::Absent | Look::Ended(_) | Look::Deleted(_) | Look::Bound(_) => {
                let event = self.bound(now, key, server, generation, left);
                // It may hold something else by now, since it waits for nobody to hear this.
                self.store.tell_again(key);
                event
            }
        }
    }

    /// At most one event for each quarter of the lifetime; what falls between is told shortly before the end.
    fn used(&mut self, now: Time, key: Key, lifetime: Duration) -> Option<(StreamId, u64)> {
        let Look::Bound(body) = self.store.look(key, now) else { return None };
        let told = self.store.record(key)?.1;
        let expires = Tick::of(now.after(lifetime));
        let gained = expires.time().0.saturating_sub(told.time().0);
        if gained == 0 || gained < milliseconds(lifetime) / 4 {
            self.store.use_until(key, expires);
            self.counts.coalesced += 1;
            return None;
        }
        self.tell(now, &body, expires, true)
    }

    /// Tells that a server failed: every node finds the heirs of its sessions in this view of the pool.
    pub(super) fn failed(
        &mut self,
        now: Time,
        service: u32,
        server: u64,
        mut pool: Vec<ViewMember>,
        lifetime: Duration,
    ) -> Option<(StreamId, u64)> {
        let known = self.store.failover_of(service, server);
        for member in &mut pool {
            member.failover = self.store.failover_of(service, member.number);
            if member.number == server {
                (member.failover, member.is_live) = (known + 1, false);
            }
        }
        let view = View::new(service, pool);
        let mark = Mark { service, server, epoch: known + 1, digest: view.digest() };
        let expires = Tick::of(now.after(lifetime.saturating_mul(2)));
        self.store.mark(mark, expires, now);
        self.store.add_view(view.clone());
        self.views_to_write.push_back(view);
        // It goes ahead of its mark: should this node end now, the others must be able to find the heirs.
        for peer in self.peers.values_mut().filter(|peer| peer.views.len() < 64) {
            peer.views.push(mark.digest);
        }
        self.log(now, Content::Failover(mark), expires)
    }

    /// Reconciles an own record with the store and logs it if it holds.
    fn tell(&mut self, now: Time, body: &Body, expires: Tick, is_local: bool) -> Option<(StreamId, u64)> {
        match self.store.merge(body, expires, now, is_local) {
            Merged::Inserted | Merged::Extended | Merged::Replaced => {
                self.log(now, Content::Binding(*body), expires)
            }
            Merged::Joined(body, expires) => {
                self.counts.joined += 1;
                self.log(now, Content::Binding(body), expires)
            }
            Merged::Kept => {
                self.store.tell_again(body.key);
                None
            }
            Merged::Expired => None,
        }
    }

    /// Takes in what others told; the event that this makes necessary is logged.
    pub(super) fn take_in(&mut self, now: Time, content: &Content, expires: Tick, source: Source) {
        match content {
            Content::Binding(body) => {
                if self.breaks(Sabotage::LastWriterWins) {
                    self.store.erase(body.key);
                }
                let merged = match source {
                    Source::Stream => self.store.merge(&body.sane(), expires, now, false),
                    Source::Snapshot => self.store.merge_fetched(body, expires, now, false),
                    Source::Uncovered => self.store.merge_fetched(body, expires, now, true),
                };
                if let Merged::Joined(body, expires) = merged {
                    self.counts.joined += 1;
                    self.log(now, Content::Binding(body), expires);
                }
                if body.is_tombstone() && self.breaks(Sabotage::TombstoneForgotten) {
                    self.store.erase(body.key);
                }
            }
            Content::Failover(mark) => {
                let is_news = self.store.mark(*mark, expires, now);
                self.note_cover(*mark, expires, source, is_news);
                if !is_news {
                    return;
                }
                if let Some(at) = self.early_views.iter().position(|view| view.digest() == mark.digest)
                    && let Some(view) = self.early_views.remove(at)
                {
                    self.take_view(view);
                }
                if self.store.view(mark.digest).is_none() {
                    self.want_view(now, mark.digest);
                }
            }
        }
    }

    /// Numbers an own event.
    pub(super) fn log(&mut self, now: Time, content: Content, expires: Tick) -> Option<(StreamId, u64)> {
        let Some(id) = self.stream() else {
            self.waiting.push((content, expires));
            return None;
        };
        self.counts.own += 1;
        let own = self.streams.get_mut(&id)?;
        let number = own.log.push(&crate::binding::Entry { content, expires });
        own.bound(self.config.log_events);
        if self.breaks(Sabotage::SentBeforeDurable) {
            for peer in self.peers.values_mut() {
                peer.push_due.get_or_insert(now);
            }
        }
        Some((id, number))
    }
}
