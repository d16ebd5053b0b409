//! What the data plane told and was not acknowledged to it yet.

use lb_common::abi::{BindingKey, BindingWord};
use std::collections::{HashMap, VecDeque};

/// What is known of an update's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The data plane has told nothing of it that counts.
    Quiet,
    /// It has, and the replica had not heard it when it made the update.
    Unheard,
    /// It has, with this word, and the update takes account of it.
    Heard(BindingWord),
}

/// Bindings in flight, and the batches they were told in.
#[derive(Default, Debug)]
pub(super) struct Flights {
    keys: HashMap<BindingKey, Flight>,
    /// Batches that are not durable.
    batches: VecDeque<Batch>,
    last: u64,
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    word: BindingWord,
    batch: u64,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    keys: Vec<BindingKey>,
    /// Whether it came with a report that there is to be room for again.
    is_report: bool,
}

/// Batches that have become durable.
#[derive(Default, Debug)]
pub(super) struct Landed {
    /// What is to be acknowledged.
    pub(super) acknowledge: Vec<(BindingKey, BindingWord)>,
    /// Reports that are done with.
    pub(super) reports: usize,
}

impl Flights {
    /// The number of the next batch.
    pub(super) const fn next(&self) -> u64 {
        self.last + 1
    }

    /// Takes note of what the data plane told; false = it had told that before.
    pub(super) fn take_off(&mut self, key: BindingKey, word: BindingWord) -> bool {
        let flight = Flight { word, batch: self.next() };
        match self.keys.get_mut(&key) {
            Some(known) if known.word == word => false,
            Some(known) => {
                *known = flight;
                true
            }
            None => {
                self.keys.insert(key, flight);
                true
            }
        }
    }

    /// The next batch is told, with what took off since the last one.
    pub(super) fn send(&mut self, keys: Vec<BindingKey>, is_report: bool) -> u64 {
        self.last += 1;
        self.batches.push_back(Batch { number: self.last, keys, is_report });
        self.last
    }

    /// Updates from now on take account of a batch and those before it.
    pub(super) fn hear(&mut self, number: u64) {
        self.heard = number.max(self.heard);
    }

    /// A batch and those before it are durable.
    pub(super) fn land(&mut self, number: u64) -> Landed {
        let mut landed = Landed::default();
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.number <= number) {
            landed.reports += usize::from(batch.is_report);
            for key in batch.keys {
                // What has moved again meanwhile is told by a later batch.
                let flight = self.keys.get(&key).filter(|flight| flight.batch == batch.number);
                landed.acknowledge.extend(flight.map(|flight| (key, flight.word)));
            }
        }
        landed
    }

    /// The kernel was told that this was heard, whether it still held or not.
    pub(super) fn acknowledged(&mut self, key: BindingKey, word: BindingWord) {
        if self.keys.get(&key).is_some_and(|flight| flight.word == word) {
            self.keys.remove(&key);
        }
    }

    /// What an update has to do with what the data plane told of its key.
    pub(super) fn standing(&self, key: &BindingKey) -> Standing {
        match self.keys.get(key) {
            None => Standing::Quiet,
            Some(flight) if flight.batch > self.heard => Standing::Unheard,
            Some(flight) => Standing::Heard(flight.word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: BindingKey = BindingKey::new(7, 1);

    fn word(generation: u32) -> BindingWord {
        BindingWord::new(3, 1, generation).with(BindingWord::UNSYNCED)
    }

    #[test]
    fn what_is_told_twice_flies_once() {
        let mut flights = Flights::default();
        assert!(flights.take_off(KEY, word(0)));
        assert!(!flights.take_off(KEY, word(0)));
        let first = flights.send(vec![KEY], true);
        assert!(!flights.take_off(KEY, word(0)), "the sweep found it again");
        let landed = flights.land(first);
        assert_eq!((landed.acknowledge, landed.reports), (vec![(KEY, word(0))], 1));
        assert!(!flights.take_off(KEY, word(0)), "the kernel was not told yet");
        flights.acknowledged(KEY, word(0));
        assert!(flights.take_off(KEY, word(0)));
    }

    #[test]
    fn updates_wait_for_what_was_told_before_them() {
        let mut flights = Flights::default();
        assert_eq!(flights.standing(&KEY), Standing::Quiet);
        flights.take_off(KEY, word(0));
        let first = flights.send(vec![KEY], true);
        assert_eq!(flights.standing(&KEY), Standing::Unheard);
        flights.hear(first);
        assert_eq!(flights.standing(&KEY), Standing::Heard(word(0)));
        flights.take_off(KEY, word(1));
        assert_eq!(flights.standing(&KEY), Standing::Unheard, "it has moved since");
        let second = flights.send(vec![KEY], true);
        assert_eq!(flights.land(first).acknowledge, [], "the second batch acknowledges it");
        flights.acknowledged(KEY, word(0));
        flights.hear(second);
        assert_eq!(flights.standing(&KEY), Standing::Heard(word(1)));
        assert_eq!(flights.land(second).acknowledge, [(KEY, word(1))]);
        flights.acknowledged(KEY, word(1));
        assert_eq!(flights.standing(&KEY), Standing::Quiet);
    }

    #[test]
    fn batches_land_in_their_order() {
        let mut flights = Flights::default();
        for number in 1..=3 {
            let key = BindingKey::new(7, number);
            flights.take_off(key, word(0));
            assert_eq!(flights.send(vec![key], number != 2), number);
        }
        let landed = flights.land(2);
        assert_eq!((landed.acknowledge.len(), landed.reports), (2, 1));
        assert_eq!(flights.land(3).acknowledge.len(), 1);
    }
}
