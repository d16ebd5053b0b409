//! Links that lose, duplicate and reorder frames, in virtual time.

use super::chance::Chance;
use super::plan::Weather;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Who gets a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// The balancer, on an interface.
    Balancer(u32),
    /// The clients' network.
    Clients,
    /// The backends' network.
    Backends,
}

/// When a frame arrives, which one it is, where, and its bytes.
type Sent = (u64, u64, Place, Vec<u8>);

/// Frames on their way.
#[derive(Debug)]
pub(super) struct Network {
    weather: Weather,
    chance: Chance,
    under_way: BinaryHeap<Reverse<Sent>>,
    sent: u64,
}

impl Network {
    pub(super) const fn new(weather: Weather, chance: Chance) -> Self {
        Self { weather, chance, under_way: BinaryHeap::new(), sent: 0 }
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, now: u64, to: Place, frame: Vec<u8>) {
        if self.chance.permille(self.weather.lost) {
            return;
        }
        if self.chance.permille(self.weather.doubled) {
            self.put(now, to, frame.clone());
        }
        self.put(now, to, frame);
    }

    fn put(&mut self, now: u64, to: Place, frame: Vec<u8>) {
        // Frames of one direction keep their order unless one is held up.
        let late =
            if self.chance.permille(self.weather.late) { self.chance.below(self.weather.by) } else { 0 };
        self.sent += 1;
        self.under_way.push(Reverse((now + self.weather.delay + late, self.sent, to, frame)));
    }

    /// When the next frame arrives.
    pub(super) fn next(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next frame, if it has arrived.
    pub(super) fn arrived(&mut self, now: u64) -> Option<(Place, Vec<u8>)> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse((_, _, place, frame))| (place, frame))
    }
}
