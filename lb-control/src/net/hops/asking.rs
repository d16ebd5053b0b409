//! When to ask the kernel for a neighbour.
//!
//! Neighbours in use are asked for when they are missing or do not answer (with back-off), when they
//! have gone stale, and once in any case, which marks them as managed: from then on the kernel probes
//! them by itself, also while this process is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::view::{Neighbour, NextHop};

/// First wait after an unanswered request; doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(250);
/// Longest wait between requests for a neighbour that does not answer.
const LONGEST: Duration = Duration::from_secs(8);
/// Between requests for a stale one. The kernel waits five seconds itself before it probes.
const STALE: Duration = Duration::from_secs(10);
/// Between requests for a fresh one, in case somebody took the mark away.
const FRESH: Duration = Duration::from_secs(60);

/// Who was asked for when.
#[derive(Default, Debug)]
pub(super) struct Asking {
    entries: BTreeMap<NextHop, Entry>,
    queue: BTreeSet<(Instant, NextHop)>,
}

#[derive(Debug)]
struct Entry {
    last: Option<Instant>,
    /// Requests since it was last known.
    attempts: u32,
    due: Option<Instant>,
}

impl Asking {
    /// A neighbour came into use, or is another than before.
    pub(super) fn update(&mut self, hop: NextHop, neighbour: Neighbour, now: Instant) {
        let entry = self.entries.entry(hop).or_insert(Entry { last: None, attempts: 0, due: None });
        if let Some(due) = entry.due.take() {
            self.queue.remove(&(due, hop));
        }
        if neighbour.mac().is_some() {
            entry.attempts = 0;
        }
        entry.due = entry.next(neighbour, now);
        if let Some(due) = entry.due {
            self.queue.insert((due, hop));
        }
    }

    /// A neighbour is out of use; says whether it had been asked for.
    pub(super) fn remove(&mut self, hop: NextHop) -> bool {
        let Some(entry) = self.entries.remove(&hop) else { return false };
        if let Some(due) = entry.due {
            self.queue.remove(&(due, hop));
        }
        entry.last.is_some()
    }

    /// When [`Self::poll`] has something to say.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The next neighbour to ask for; the caller passes what is known of each.
    pub(super) fn poll(&mut self, now: Instant, known: impl Fn(NextHop) -> Neighbour) -> Option<NextHop> {
        let (due, hop) = *self.queue.first()?;
        if due > now {
            return None;
        }
        self.queue.remove(&(due, hop));
        let entry = self.entries.get_mut(&hop).expect("every queued neighbour has an entry");
        let neighbour = known(hop);
        entry.last = Some(now);
        entry.attempts = if neighbour.mac().is_some() { 0 } else { entry.attempts.saturating_add(1) };
        entry.due = entry.next(neighbour, now);
        if let Some(due) = entry.due {
            self.queue.insert((due, hop));
        }
        Some(hop)
    }
}

impl Entry {
    /// When to ask next.
    fn next(&self, neighbour: Neighbour, now: Instant) -> Option<Instant> {
        let wait = match neighbour {
            Neighbour::Fixed(_) => return None,
            Neighbour::Fresh(_) => FRESH,
            Neighbour::Stale(_) => STALE,
            Neighbour::Absent | Neighbour::Resolving | Neighbour::Failed => {
                match self.attempts.checked_sub(1) {
                    None => Duration::ZERO,
                    Some(doublings) => SHORTEST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
                }
            }
        };
        Some(self.last.map_or(now, |last| (last + wait).max(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::Mac;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn hop() -> NextHop {
        NextHop { interface: 3, address: "192.0.2.1".parse().unwrap() }
    }

    /// Seconds after `start` at which requests are made until `end`, with nothing changing.
    fn asked(asking: &mut Asking, start: Instant, neighbour: Neighbour, end: f64) -> Vec<f64> {
        let mut times = Vec::new();
        while let Some(due) = asking.next_deadline() {
            let at = due.duration_since(start).as_secs_f64();
            if at > end {
                break;
            }
            assert_eq!(asking.poll(due, |_| neighbour), Some(hop()));
            times.push(at);
        }
        times
    }

    #[test]
    fn missing_neighbour_is_asked_for_at_once_and_with_back_off() {
        for neighbour in [Neighbour::Absent, Neighbour::Resolving, Neighbour::Failed] {
            let (mut asking, start) = (Asking::default(), Instant::now());
            asking.update(hop(), neighbour, start);
            let times = asked(&mut asking, start, neighbour, 32.0);
            assert_eq!(times, [0.0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 23.75, 31.75]);
        }
    }

    #[test]
    fn fresh_and_stale_are_asked_for_once_and_then_seldom() {
        let (mut asking, start) = (Asking::default(), Instant::now());
        asking.update(hop(), Neighbour::Fresh(MAC), start);
        assert_eq!(asked(&mut asking, start, Neighbour::Fresh(MAC), 100.0), [0.0, 60.0]);
        let at = start + Duration::from_secs(90);
        asking.update(hop(), Neighbour::Stale(MAC), at);
        assert_eq!(asked(&mut asking, start, Neighbour::Stale(MAC), 110.0), [90.0, 100.0, 110.0]);
    }

    #[test]
    fn fixed_is_never_asked_for() {
        let mut asking = Asking::default();
        asking.update(hop(), Neighbour::Fixed(MAC), Instant::now());
        assert_eq!(asking.next_deadline(), None);
        assert!(!asking.remove(hop()));
    }

    #[test]
    fn losing_a_known_neighbour_starts_over_and_flapping_does_not_flood() {
        let (mut asking, start) = (Asking::default(), Instant::now());
        asking.update(hop(), Neighbour::Failed, start);
        asked(&mut asking, start, Neighbour::Failed, 20.0);
        let later = start + Duration::from_secs(21);
        asking.update(hop(), Neighbour::Fresh(MAC), later);
        asking.update(hop(), Neighbour::Absent, later);
        assert_eq!(asking.next_deadline(), Some(later));
        assert_eq!(asking.poll(later, |_| Neighbour::Absent), Some(hop()));
        // Its own failure report does not bring the next request forward.
        asking.update(hop(), Neighbour::Failed, later);
        assert_eq!(asking.next_deadline(), Some(later + SHORTEST));
        assert!(asking.remove(hop()));
        assert_eq!(asking.next_deadline(), None);
    }
}
