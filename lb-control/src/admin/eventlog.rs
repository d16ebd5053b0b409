//! The latest binding events, kept for a look back.

use lb_common::abi::BindingEvent;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events kept.
const KEPT: usize = 4_096;

/// A bounded memory of binding events.
#[derive(Debug, Default)]
pub struct EventLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<Noted>,
    received: u64,
    missed: u64,
}

/// An event, when and as the how manieth it was read.
#[derive(Clone, Copy, Debug)]
pub struct Noted {
    /// Number since the start, from 1.
    pub number: u64,
    /// Seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// The event.
    pub event: BindingEvent,
}

impl EventLog {
    /// Notes the reconciler's events until it ends.
    pub async fn follow(&self, mut events: broadcast::Receiver<BindingEvent>) {
        loop {
            match events.recv().await {
                Ok(event) => self.note(event, now()),
                Err(RecvError::Lagged(missed)) => self.lock().missed += missed,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Notes an event.
    pub fn note(&self, event: BindingEvent, unix_seconds: u64) {
        let mut inner = self.lock();
        inner.received += 1;
        let number = inner.received;
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Noted { number, unix_seconds, event });
    }

    /// Events read since the start, and events that this log was too slow for.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.received, inner.missed)
    }

    /// The latest events that `wanted` lets through, at most `limit`, oldest first.
    pub fn latest(&self, limit: usize, wanted: impl Fn(&BindingEvent) -> bool) -> Vec<Noted> {
        let inner = self.lock();
        let mut found: Vec<Noted> =
            inner.kept.iter().rev().filter(|noted| wanted(&noted.event)).take(limit).copied().collect();
        found.reverse();
        found
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn follows_until_the_end_and_counts_what_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        for session in 0..5 {
            sender.send(BindingEvent { session, ..BindingEvent::default() }).expect("there is a receiver");
        }
        drop(sender);
        let log = EventLog::default();
        log.follow(receiver).await;
        assert_eq!(log.counts(), (2, 3));
    }

    #[test]
    fn keeps_the_latest() {
        let log = EventLog::default();
        for session in 0..KEPT as u64 + 10 {
            log.note(BindingEvent { session, ..BindingEvent::default() }, 0);
        }
        assert_eq!(log.counts(), (KEPT as u64 + 10, 0));
        let latest = log.latest(2, |_| true);
        assert_eq!(latest.iter().map(|n| n.event.session).collect::<Vec<_>>(), [4_104, 4_105]);
        assert_eq!(log.latest(usize::MAX, |_| true).len(), KEPT);
        assert_eq!(log.latest(5, |e| e.session == 4_000).len(), 1);
    }
}
