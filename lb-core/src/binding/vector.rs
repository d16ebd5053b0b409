//! Version vectors: of each origin's events, the latest one known.

use std::collections::BTreeMap;

/// A node's id: random, minted when it joins, unchanged for its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NodeId(pub u64);

/// One gapless sequence of events: an origin and one of its epochs.
///
/// A node that lost its log, or finds that others know more of it than it does, goes on in a new epoch, so
/// that no number ever means two events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct StreamId {
    /// Whose events.
    pub node: NodeId,
    /// Later epochs are higher.
    pub epoch: u64,
}

/// The latest event known of each stream; a stream that is not in it counts as 0.
///
/// An origin may have several epochs in it for a while: events of an older one are still wanted by who lacks them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Vector(BTreeMap<StreamId, u64>);

impl Vector {
    /// The latest event of a stream, 0 without one.
    pub fn event(&self, stream: StreamId) -> u64 {
        self.0.get(&stream).copied().unwrap_or(0)
    }

    /// Sets the latest event of a stream.
    pub fn set(&mut self, stream: StreamId, event: u64) {
        self.0.insert(stream, event);
    }

    /// Notes an event of a stream unless a later one is known.
    pub fn raise(&mut self, stream: StreamId, event: u64) {
        let known = self.0.entry(stream).or_default();
        *known = event.max(*known);
    }

    /// Forgets a stream.
    pub fn remove(&mut self, stream: StreamId) {
        self.0.remove(&stream);
    }

    /// All entries, by node and epoch.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.0.iter().map(|(&stream, &event)| (stream, event))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known of anyone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest epoch of a node.
    pub fn newest_epoch(&self, node: NodeId) -> Option<u64> {
        let all = StreamId { node, epoch: 0 }..=StreamId { node, epoch: u64::MAX };
        self.0.range(all).next_back().map(|(stream, _)| stream.epoch)
    }

    /// How many events `other` knows that this one does not.
    pub fn behind(&self, other: &Self) -> u64 {
        other.iter().map(|(stream, event)| event.saturating_sub(self.event(stream))).sum()
    }

    /// Whether it knows everything that `other` knows.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(stream, event)| self.event(stream) >= event)
    }
}

impl FromIterator<(StreamId, u64)> for Vector {
    fn from_iter<I: IntoIterator<Item = (StreamId, u64)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
