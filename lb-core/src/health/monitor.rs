//! One backend: when to probe it, and what the results make of it.

use super::{Failure, Policy, Signal, State, Voice};
use crate::pool::identity::mix;
use core::time::Duration;

/// Follows one backend.
///
/// Call [`begin`](Self::begin) when [`due`](Self::due) has come and a probe is sent, [`finish`](Self::finish) with its result. A probe
/// is always finished before the next begins.
#[derive(Clone, Debug)]
pub struct Monitor {
    policy: Policy,
    state: State,
    since: Duration,
    reason: Option<Failure>,
    phase: Phase,
    /// When the latest probe began; `None` before the first.
    began: Option<Duration>,
    dice: u64,
}

/// Whether a probe is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waiting { due: Duration },
    Probing { again: bool },
}

/// A backend's state changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why it failed; `None` = it did not.
    pub reason: Option<Failure>,
}

impl Change {
    /// Whether the backend is used from now on, or no longer.
    pub const fn is_verdict(&self) -> bool {
        self.from.is_healthy() != self.to.is_healthy()
    }
}

impl Monitor {
    /// A backend of which nothing is known, or (`is_down`) that was down when it was heard of last; `seed` makes its chances
    /// differ from those of others.
    pub fn new(policy: Policy, is_down: bool, seed: u64, now: Duration) -> Self {
        let state = if is_down { State::Down(Voice::Probe) } else { State::New };
        let mut monitor = Self {
            policy,
            state,
            since: now,
            reason: None,
            phase: Phase::Waiting { due: now },
            began: None,
            dice: seed,
        };
        // All are new at once after a start: their first probes spread over an interval.
        let first = policy.interval.saturating_mul((monitor.roll() >> 32) as u32 >> 8) / (1 << 24);
        monitor.phase = Phase::Waiting { due: now.saturating_add(first) };
        monitor
    }

    /// Its state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when it is healthy, or not.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// The latest failure, as long as it counts.
    pub const fn reason(&self) -> Option<&Failure> {
        self.reason.as_ref()
    }

    /// When to probe; `None` while a probe is on its way.
    pub const fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Probing { .. } => None,
        }
    }

    /// How long the probe that begins may take.
    pub const fn timeout(&self) -> Duration {
        self.policy.timeout
    }

    /// Another policy holds from the next result on.
    pub const fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// A probe is sent.
    pub const fn begin(&mut self, now: Duration) {
        self.began = Some(now);
        self.phase = Phase::Probing { again: false };
    }

    /// A probe is over. One that this host could not send says nothing of the backend.
    pub fn finish(&mut self, now: Duration, result: Result<(), Failure>) -> Option<Change> {
        let again = matches!(self.phase, Phase::Probing { again: true });
        let change = match result {
            Ok(()) => self.take(now, Signal::Passed, None),
            Err(own) if own.is_own() => {
                self.reason = Some(own);
                None
            }
            Err(failure) => self.take(now, Signal::Failed, Some(failure)),
        };
        let due = self.next(now);
        self.phase = Phase::Waiting { due: if again { due.min(self.soon(now)) } else { due } };
        change
    }

    /// The balancer's own connections there were refused, or not answered: counts, and is worth a probe at once.
    pub fn unanswered(&mut self, now: Duration) -> Option<Change> {
        let change = self.take(now, Signal::Unanswered, Some(Failure::Traffic));
        self.suspect(now);
        change
    }

    /// Something that clients may have caused: a probe at once, unless one has just been made.
    pub fn suspect(&mut self, now: Duration) {
        self.state = self.state.after(Signal::Suspected, &self.policy);
        self.phase = match self.phase {
            Phase::Waiting { due } => Phase::Waiting { due: due.min(self.soon(now)) },
            Phase::Probing { again: _ } => Phase::Probing { again: true },
        };
    }

    fn take(&mut self, now: Duration, signal: Signal, failure: Option<Failure>) -> Option<Change> {
        let from = self.state;
        self.state = from.after(signal, &self.policy);
        match self.state {
            State::New | State::Up => self.reason = None,
            // The reason that it is down for stays while it recovers.
            State::Rising(_, _) => {}
            State::Failing(_) | State::Down(_) => self.reason = failure.or(self.reason.take()),
        }
        if from.is_healthy() != self.state.is_healthy() || from == State::New {
            self.since = now;
        }
        (from != self.state).then(|| Change { from, to: self.state, reason: self.reason.clone() })
    }

    /// When the next probe is due after one that ends now.
    fn next(&mut self, now: Duration) -> Duration {
        let pause = match self.state {
            State::Up => self.policy.interval,
            State::New | State::Failing(_) | State::Rising(_, _) => self.policy.fast,
            State::Down(_) => self.policy.slow,
        };
        let dice = self.roll();
        let began = self.began.unwrap_or(now);
        began.saturating_add(self.policy.jittered(pause, dice)).max(now)
    }

    /// As soon as it may be: what clients can cause must not make a flood of probes.
    fn soon(&self, now: Duration) -> Duration {
        self.began.map_or(now, |began| began.saturating_add(self.policy.fast).max(now))
    }

    const fn roll(&mut self) -> u64 {
        self.dice = mix(self.dice);
        self.dice
    }
}

#[cfg(test)]
pub(super) mod tests;
