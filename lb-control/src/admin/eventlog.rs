//! The latest events, kept for a look back: of bindings, and of the health of backends.

use super::row::{EventRow, HealthEventRow, HealthState};
use lb_common::abi::BindingEvent;
use lb_core::health::{Failure, State};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events of each sort that are kept.
const KEPT: usize = 4_096;

/// A bounded memory of events.
#[derive(Debug, Default)]
pub struct EventLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of the latest event.
    number: u64,
    bindings: VecDeque<Noted<BindingEvent>>,
    healths: VecDeque<Noted<HealthEvent>>,
    received: u64,
    missed: u64,
    /// How often a backend came into each state, by service and backend, in the order of [`HealthState::ALL`].
    changes: BTreeMap<(String, String), [u64; HealthState::ALL.len()]>,
}

/// An event, when and as the how manieth it was read.
#[derive(Clone, Debug)]
pub struct Noted<T> {
    /// Number since the start, from 1.
    pub number: u64,
    /// Seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// The event.
    pub event: T,
}

/// Health checks found a backend in another state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthEvent {
    /// Name of its service, or of a path's pool.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// The latest failure, as long as it counts.
    pub reason: Option<Failure>,
}

impl HealthEvent {
    /// Whether the backend is used from now on, or no longer.
    pub const fn is_verdict(&self) -> bool {
        self.from.is_healthy() != self.to.is_healthy()
    }

    const fn kind(&self) -> &'static str {
        match (self.from.is_healthy(), self.to.is_healthy()) {
            (true, false) => "down",
            (false, true) => "up",
            (true, true) | (false, false) => "health",
        }
    }
}

impl From<&Noted<HealthEvent>> for EventRow {
    fn from(noted: &Noted<HealthEvent>) -> Self {
        let Noted { number, unix_seconds, event } = noted;
        Self {
            number: *number,
            unix_seconds: *unix_seconds,
            kind: event.kind().to_owned(),
            service: event.service.clone(),
            key: None,
            client: None,
            backend: Some(event.backend.clone()),
            generation: None,
            health: Some(HealthEventRow {
                from: event.from.into(),
                to: event.to.into(),
                reason: event.reason.as_ref().map(ToString::to_string),
            }),
        }
    }
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

    /// Notes an event of a binding.
    pub fn note(&self, event: BindingEvent, unix_seconds: u64) {
        let mut inner = self.lock();
        inner.received += 1;
        let number = inner.next();
        push(&mut inner.bindings, Noted { number, unix_seconds, event });
    }

    /// Notes an event of a backend's health, and answers it with its number.
    pub fn note_health(&self, event: HealthEvent, unix_seconds: u64) -> Noted<HealthEvent> {
        let mut inner = self.lock();
        let key = (event.service.clone(), event.backend.clone());
        let place = HealthState::ALL.iter().position(|&state| state == event.to.into());
        let counts = inner.changes.entry(key).or_default();
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
        let noted = Noted { number: inner.next(), unix_seconds, event };
        push(&mut inner.healths, noted.clone());
        noted
    }

    /// Counts no longer for a backend that is not checked any more.
    pub fn forget_health(&self, service: &str, backend: &str) {
        self.lock().changes.remove(&(service.to_owned(), backend.to_owned()));
    }

    /// Events of bindings read since the start, and those that this log was too slow for.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.received, inner.missed)
    }

    /// How often each backend came into each state, by service and backend.
    pub fn health_counts(&self) -> BTreeMap<(String, String), [u64; HealthState::ALL.len()]> {
        self.lock().changes.clone()
    }

    /// The latest events of bindings that `wanted` lets through, at most `limit`, oldest first.
    pub fn latest(&self, limit: usize, wanted: impl Fn(&BindingEvent) -> bool) -> Vec<Noted<BindingEvent>> {
        latest(&self.lock().bindings, limit, wanted)
    }

    /// The latest events of health that `wanted` lets through, at most `limit`, oldest first.
    pub fn latest_health(
        &self,
        limit: usize,
        wanted: impl Fn(&HealthEvent) -> bool,
    ) -> Vec<Noted<HealthEvent>> {
        latest(&self.lock().healths, limit, wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    const fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

fn push<T>(kept: &mut VecDeque<T>, event: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(event);
}

fn latest<T: Clone>(kept: &VecDeque<Noted<T>>, limit: usize, wanted: impl Fn(&T) -> bool) -> Vec<Noted<T>> {
    let mut found: Vec<_> =
        kept.iter().rev().filter(|noted| wanted(&noted.event)).take(limit).cloned().collect();
    found.reverse();
    found
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

    #[test]
    fn a_flood_of_bindings_leaves_what_was_said_of_backends() {
        let log = EventLog::default();
        let one = core::num::NonZero::<u16>::MIN;
        let event = |from, to| HealthEvent {
            service: "web".into(),
            backend: "a".into(),
            from,
            to,
            reason: Some(Failure::Refused),
        };
        let down = State::Down(lb_core::health::Voice::Probe);
        log.note_health(event(State::Failing(one), down), 7);
        (0..KEPT as u64 + 1)
            .for_each(|session| log.note(BindingEvent { session, ..BindingEvent::default() }, 8));
        let noted = log.note_health(event(State::Rising(lb_core::health::Voice::Probe, one), State::Up), 9);
        assert_eq!(noted.number, KEPT as u64 + 3);
        let rows: Vec<EventRow> = log.latest_health(9, |_| true).iter().map(EventRow::from).collect();
        assert_eq!(
            rows.iter().map(|row| (row.number, &*row.kind)).collect::<Vec<_>>(),
            [(1, "down"), (4_099, "up")]
        );
        let counts = log.health_counts().remove(&("web".into(), "a".into())).expect("it is counted");
        assert_eq!(counts, [0, 1, 0, 1, 0]);
        log.forget_health("web", "a");
        assert!(log.health_counts().is_empty());
    }
}
