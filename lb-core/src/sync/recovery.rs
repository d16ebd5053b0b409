//! A node from what its journal holds.

use super::epoch::Standing;
use super::stream::Stream;
use super::{Config, Counts, Node, Saved};
use crate::binding::{Content, Log, Mark, Merged, Store, StreamId, Tick, Time, Vector, View};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// A node in the making. Feed it a checkpoint first, then the events behind it; or nothing at all.
///
/// Lives go on running while the machine is down: say with [`written_at`](Self::written_at) when what follows was written.
pub struct Recovery {
    node: Node,
    now: Time,
    age: Duration,
    had: Vector,
}

impl Recovery {
    /// Begins. `wall` is the wall clock in milliseconds since 1970, `seed` is random and differs at each start.
    pub fn new(config: Config, now: Time, wall: u64, seed: u64) -> Self {
        let until = now.after(config.resume_wait);
        let mut node = Node {
            store: Store::new(seed, now),
            standing: Standing::Asking { until, former: None },
            incarnation: 0,
            wall,
            wall_at: now,
            random: seed,
            streams: BTreeMap::new(),
            dropped: BTreeMap::new(),
            peers: BTreeMap::new(),
            turn: 0,
            waiting: Vec::new(),
            import: None,
            has_uncovered: false,
            owed: None,
            uncovered_marks: Vec::new(),
            has_base: false,
            started: now,
            pools: BTreeMap::new(),
            views_wanted: BTreeMap::new(),
            views_to_write: VecDeque::new(),
            early_views: VecDeque::new(),
            events: VecDeque::new(),
            trim_due: now.after(config.heartbeat),
            counts: Counts::default(),
            sabotage: None,
            config,
        };
        node.incarnation = (node.random() >> 32) as u32;
        for id in node.config.members.clone() {
            node.add_peer(now, id);
        }
        Self { node, now, age: Duration::ZERO, had: Vector::default() }
    }

    #[cfg(test)]
    pub(super) const fn sabotage(&mut self, bug: Option<super::Sabotage>) {
        self.node.sabotage = bug;
    }

    /// What follows was written at this wall-clock time (milliseconds since 1970).
    pub fn written_at(&mut self, wall: u64) {
        self.age = Duration::from_millis(self.node.wall.saturating_sub(wall));
        if self.node.breaks(super::Sabotage::DowntimeForgotten) {
            self.age = Duration::ZERO;
        }
    }

    /// A checkpoint's vector.
    pub fn vector(&mut self, vector: &Vector) {
        for (stream, event) in vector.iter() {
            self.had.raise(stream, event);
        }
    }

    /// A view.
    pub fn view(&mut self, view: View) {
        self.node.views_to_write.push_back(view);
    }

    /// A mark of a checkpoint.
    pub fn mark(&mut self, mark: Mark, left: Duration) {
        let expires = self.expires(left);
        self.node.store.mark(mark, expires, self.now);
    }

    /// A record of a checkpoint.
    pub fn record(&mut self, record: &Saved) {
        let Saved { body, left, is_covered } = record;
        let expires = self.expires(*left);
        // Written by this program, but perhaps by another version.
        let merged = if *is_covered {
            self.node.store.merge(&body.sane(), expires, self.now, false)
        } else {
            // Its event may be lost everywhere else.
            self.node.has_uncovered = true;
            self.node.store.merge_fetched(body, expires, self.now, true)
        };
        if let Merged::Joined(body, expires) = merged {
            // What came between the two was told by others, and is not in the journal.
            self.node.counts.joined += 1;
            self.node.log(self.now, Content::Binding(body), expires);
        }
    }

    /// An event of the log.
    pub fn event(&mut self, stream: StreamId, number: u64, content: &Content, left: Duration) {
        let expires = self.expires(left);
        match content {
            Content::Binding(body) => self.record(&Saved { body: *body, left, is_covered: true }),
            Content::Failover(mark) => self.mark(*mark, left),
        }
        let log = &mut self.node.streams.entry(stream).or_insert_with(|| Stream::foreign(0)).log;
        if log.is_empty() && log.last() < number || number > log.last() + 1 {
            *log = Log::after(number.saturating_sub(1));
        }
        if number == log.last() + 1 {
            log.push(&crate::binding::Entry { content: *content, expires });
        }
    }

    /// The node. It first asks the members what they know of it.
    pub fn finish(self) -> Node {
        let Self { mut node, now, had, .. } = self;
        for (stream, event) in had.iter() {
            node.streams.entry(stream).or_insert_with(|| Stream::foreign(0)).log.skip_to(event);
        }
        let views = core::mem::take(&mut node.views_to_write);
        for view in views {
            // A mark that another node told is not in the log: it comes again, its view perhaps from nobody else.
            if !node.store.add_view(view.clone()) {
                node.keep_early(view);
            }
        }
        for digest in node.store.missing_views() {
            node.want_view(now, digest);
        }
        let former = node.vector().newest_epoch(node.config.id);
        if let Some(epoch) = former {
            let id = StreamId { node: node.config.id, epoch };
            if let Some(stream) = node.streams.remove(&id) {
                node.streams.insert(id, Stream::own(stream.log));
            }
        }
        let until = now.after(node.config.resume_wait);
        node.standing = Standing::Asking { until, former };
        node.look_at_standing(now);
        node.look_around(now);
        node
    }

    fn expires(&self, left: Duration) -> Tick {
        let left = left.saturating_sub(self.age);
        if left.is_zero() { Tick::now(self.now) } else { Tick::of(self.now.after(left)) }
    }
}
