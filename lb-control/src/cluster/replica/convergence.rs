//! How long it takes until the others have what happened here, measured by events of the log itself.
//!
//! Now and then an own event is watched: from the moment that it is numbered until a peer says that it has applied
//! it. That includes the journal, the way, the peer's work and the way back of its word, which it gives within 20 ms.
//! A node where nothing happens tells an event of its own making from time to time, under a service that nobody has.

use lb_core::binding::{Key, NodeId, StreamId, Time};
use lb_core::sync::Local;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Events that are watched at a time.
const PROBES: usize = 512;
/// Least time between two of them.
const APART: Duration = Duration::from_millis(20);
/// A node without events makes one so often.
const IDLE: Duration = Duration::from_secs(10);
/// How long such an event lives.
const LIFETIME: Duration = Duration::from_secs(2);
/// The service of such events; services' own numbers begin with 1.
pub(super) const SERVICE: u32 = 0;
/// Upper ends of the histogram's buckets, in milliseconds; beyond is one more.
pub const BUCKETS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// Measured times.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    /// Measurements in each bucket; the last one has what is above all ends.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Sum of all, in milliseconds.
    pub sum: u64,
}

/// The events that are watched.
#[derive(Default)]
pub(super) struct Convergence {
    /// The stream, the number and when it was made; the oldest first.
    probes: VecDeque<(StreamId, u64, Time)>,
    /// The last probe that each peer had.
    reached: BTreeMap<NodeId, (StreamId, u64)>,
    /// When an own event was last seen.
    last: Option<Time>,
    histogram: Histogram,
}

impl Histogram {
    fn note(&mut self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|end| milliseconds <= *end).unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(milliseconds);
    }
}

impl Convergence {
    /// Notes the latest own event.
    pub(super) fn made(&mut self, now: Time, stream: StreamId, number: u64) {
        let newest = self.probes.back().copied();
        if number == 0 || newest.is_some_and(|(of, last, _)| of == stream && last >= number) {
            return;
        }
        self.last = Some(now);
        if newest.is_some_and(|(of, _, at)| of == stream && now.since(at) < APART) {
            return;
        }
        if self.probes.len() == PROBES {
            // The oldest one says since when a peer is behind; between them, every other one is enough.
            let mut place = 0;
            self.probes.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.probes.push_back((stream, number, now));
    }

    /// Notes up to which own event a peer says that it has everything.
    pub(super) fn reached(&mut self, now: Time, peer: NodeId, stream: StreamId, number: u64) {
        let before = self.reached.get(&peer).filter(|(of, _)| *of == stream).map(|(_, before)| *before);
        if before.is_some_and(|before| before >= number) {
            return;
        }
        self.reached.insert(peer, (stream, number));
        // What a peer had before it was first heard was not on its way to it.
        let Some(before) = before else { return };
        for (of, probe, at) in &self.probes {
            if *of == stream && *probe > before && *probe <= number {
                self.histogram.note(now.since(*at));
            }
        }
    }

    /// Forgets what all these peers have, and the peers that are not among them.
    pub(super) fn tidy(&mut self, peers: &[NodeId]) {
        self.reached.retain(|peer, _| peers.contains(peer));
        while let Some(&(stream, number, _)) = self.probes.front() {
            let has =
                |peer: &NodeId| self.reached.get(peer).is_some_and(|had| had.0 == stream && had.1 >= number);
            // The newest one stays, so that it is known which events are new.
            if self.probes.len() == 1 || !peers.iter().all(has) {
                break;
            }
            self.probes.pop_front();
        }
    }

    /// For how long a peer has lacked something.
    pub(super) fn behind(&self, now: Time, peer: NodeId) -> Option<Duration> {
        let reached = self.reached.get(&peer);
        let lacks =
            |(stream, number): (StreamId, u64)| reached.is_none_or(|had| had.0 != stream || had.1 < number);
        let oldest = self.probes.iter().find(|(stream, number, _)| lacks((*stream, *number)));
        oldest.map(|(_, _, at)| now.since(*at))
    }

    /// An event to tell when nothing has happened for a while.
    pub(super) fn probe(&mut self, now: Time, own: NodeId) -> Option<Local> {
        let last = *self.last.get_or_insert(now);
        (now.since(last) >= IDLE).then(|| {
            self.last = Some(now);
            let key = Key { service: SERVICE, session: own.0 };
            Local::Bound { key, server: 1, generation: 0, left: LIFETIME }
        })
    }

    /// What was measured.
    pub(super) const fn histogram(&self) -> Histogram {
        self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: StreamId = StreamId { node: NodeId(1), epoch: 9 };
    const PEER: NodeId = NodeId(2);

    #[test]
    fn a_peer_is_measured_from_the_event_to_its_word() {
        let mut watched = Convergence::default();
        watched.reached(Time(0), PEER, OWN, 0);
        watched.made(Time(1_000), OWN, 7);
        watched.made(Time(1_005), OWN, 8);
        assert_eq!(watched.behind(Time(1_030), PEER), Some(Duration::from_millis(30)));
        watched.reached(Time(1_040), PEER, OWN, 6);
        assert_eq!(watched.histogram(), Histogram::default());
        watched.reached(Time(1_045), PEER, OWN, 8);
        assert_eq!(watched.histogram().sum, 45);
        assert_eq!(watched.histogram().counts[5], 1, "up to 50 ms: {:?}", watched.histogram());
        assert_eq!(watched.behind(Time(2_000), PEER), None);
    }

    #[test]
    fn a_peer_that_is_away_counts_since_what_it_lacks_first_and_costs_little() {
        let mut watched = Convergence::default();
        watched.reached(Time(0), PEER, OWN, 0);
        for number in 1..=10_000 {
            watched.made(Time(number * 100), OWN, number);
            watched.tidy(&[PEER]);
        }
        assert!(watched.probes.len() <= PROBES);
        assert_eq!(watched.behind(Time(1_000_100), PEER), Some(Duration::from_secs(1_000)));
        watched.tidy(&[]);
        assert_eq!(watched.probes.len(), 1);
    }

    #[test]
    fn a_node_where_nothing_happens_makes_an_event() {
        let mut watched = Convergence::default();
        assert_eq!(watched.probe(Time(0), NodeId(1)), None);
        assert_eq!(watched.probe(Time(9_999), NodeId(1)), None);
        assert!(matches!(watched.probe(Time(10_000), NodeId(1)), Some(Local::Bound { .. })));
        assert_eq!(watched.probe(Time(10_001), NodeId(1)), None);
        watched.made(Time(15_000), OWN, 1);
        assert_eq!(watched.probe(Time(24_000), NodeId(1)), None);
    }
}
