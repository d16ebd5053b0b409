//! When to walk through the data plane's table, and what for.

use crate::dataplane::Cursor;
use lb_common::abi::UNPROVED_LIFETIME;
use std::time::Duration;
use tokio::time::Instant;

/// Walks in the shortest lifetime of a binding.
const PART: u32 = 8;
/// Least and greatest time between two walks. A session that is used a second time is told of by a walk, and has to be before the
/// others forget it.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));
const _: () = assert!(EVERY.1.as_nanos() < UNPROVED_LIFETIME as u128);
/// Time between two pages, so that a walk leaves the reconciler to others.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the walk through the table is.
#[derive(Debug)]
pub(super) struct Walk {
    /// When the next page is asked for; `None` = it was, or nothing is to be walked yet.
    due: Option<Instant>,
    cursor: Option<Cursor>,
    /// When this walk began, in nanoseconds of the monotonic clock.
    began: u64,
    /// Only what was used since then counts; `None` = everything does.
    since: Option<u64>,
    /// When this walk began.
    start: Instant,
    every: Duration,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { due: None, cursor: None, began: 0, since: None, start: Instant::now(), every: EVERY.1 }
    }

    /// Begins with everything.
    pub(super) fn begin(&mut self) {
        (self.cursor, self.since) = (None, None);
        self.due = Some(Instant::now());
    }

    /// The shortest lifetime of a binding.
    pub(super) fn set_lifetime(&mut self, shortest: Option<Duration>) {
        self.every = shortest.map_or(EVERY.1, |lifetime| (lifetime / PART).clamp(EVERY.0, EVERY.1));
        if self.cursor.is_none() && self.since.is_some() {
            self.due = self.due.map(|due| due.min(Instant::now() + self.every));
        }
    }

    /// When the next page is to be asked for.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What to ask for now, at a time of the monotonic clock in nanoseconds.
    pub(super) fn ask(&mut self, now: u64) -> (Option<Cursor>, Option<u64>) {
        self.due = None;
        if self.cursor.is_none() {
            (self.began, self.start) = (now, Instant::now());
        }
        (self.cursor, self.since)
    }

    /// A page has come; `next` is where the following one begins.
    pub(super) fn came(&mut self, next: Option<Cursor>) {
        let now = Instant::now();
        self.cursor = next;
        self.due = Some(match next {
            Some(_) => now + PAUSE,
            None => {
                self.since = Some(self.began);
                (self.start + self.every).max(now + PAUSE)
            }
        });
    }

    /// A page could not be read.
    pub(super) fn failed(&mut self) {
        self.due = Some(Instant::now() + EVERY.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_walk_asks_for_all_and_later_ones_for_what_was_used_since() {
        let mut walk = Walk::new();
        assert_eq!(walk.due(), None);
        walk.set_lifetime(Some(Duration::from_secs(80)));
        walk.begin();
        assert_eq!(walk.ask(100), (None, None));
        assert_eq!(walk.due(), None);
        walk.came(Some(Cursor(4)));
        assert_eq!(walk.ask(150), (Some(Cursor(4)), None));
        walk.failed();
        assert_eq!(walk.ask(170), (Some(Cursor(4)), None), "the same page again");
        walk.came(None);
        assert_eq!(walk.due(), Some(walk.start + Duration::from_secs(10)));
        assert_eq!(walk.ask(200), (None, Some(100)));
        walk.came(None);
        assert_eq!(walk.ask(300), (None, Some(200)));
    }

    #[test]
    fn a_shorter_lifetime_brings_the_next_walk_nearer() {
        let mut walk = Walk::new();
        walk.begin();
        walk.ask(1);
        walk.came(None);
        assert_eq!(walk.due(), Some(walk.start + EVERY.1));
        walk.set_lifetime(Some(Duration::from_secs(16)));
        assert!(walk.due().is_some_and(|due| due <= Instant::now() + Duration::from_secs(2)));
        walk.set_lifetime(Some(Duration::ZERO));
        assert_eq!(walk.every, EVERY.0);
    }
}
