//! The states of a backend, and what leads from one to the other.

use super::Policy;
use core::num::NonZero;

/// Where a backend stands.
///
/// ```text
///            passed                      failed                     failed, `fall` in a row
///   New ----------------> Up ------------------------> Failing ----------------------------> Down
///    |                    ^ ^                            |  ^                                 | ^
///    | failed             | |          passed            |  | failed                  passed  | | failed
///    +----> Failing       | +----------------------------+  +---(counted)                     v |
///                         +------------------------------------------------------------- Rising
///                                          passed, `rise` in a row
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Nothing is known of it; it is used.
    New,
    /// It passes.
    Up,
    /// It is used still, but failed this often in a row.
    Failing(NonZero<u16>),
    /// It is not used.
    Down(Voice),
    /// It is not used yet, but passed this often in a row since it was down by that.
    Rising(Voice, NonZero<u16>),
}

/// What a backend is down by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Voice {
    /// A probe has failed.
    Probe,
    /// Only the balancer's own connections found it dead.
    Traffic,
}

/// What happens to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// A probe passed.
    Passed,
    /// A probe failed.
    Failed,
    /// It refused the balancer's own connections, or was silent.
    Unanswered,
    /// Something that clients may have caused: worth a probe, no more.
    Suspected,
}

impl State {
    /// Whether it is used.
    pub const fn is_healthy(self) -> bool {
        match self {
            Self::New | Self::Up | Self::Failing(_) => true,
            Self::Down(_) | Self::Rising(_, _) => false,
        }
    }

    /// The next state.
    pub fn after(self, signal: Signal, policy: &Policy) -> Self {
        match (self, signal) {
            (Self::New | Self::Up | Self::Failing(_), Signal::Passed) => Self::Up,
            (Self::New | Self::Up, Signal::Failed) => failing(NonZero::<u16>::MIN, Voice::Probe, policy),
            (Self::New | Self::Up, Signal::Unanswered) => {
                failing(NonZero::<u16>::MIN, Voice::Traffic, policy)
            }
            (Self::Failing(count), Signal::Failed) => failing(count.saturating_add(1), Voice::Probe, policy),
            (Self::Failing(count), Signal::Unanswered) => {
                failing(count.saturating_add(1), Voice::Traffic, policy)
            }
            (Self::Down(voice), Signal::Passed) => rising(voice, NonZero::<u16>::MIN, policy),
            (Self::Rising(voice, count), Signal::Passed) => rising(voice, count.saturating_add(1), policy),
            (Self::Down(_) | Self::Rising(_, _), Signal::Failed) => Self::Down(Voice::Probe),
            (Self::Down(voice), Signal::Unanswered) => Self::Down(voice),
            // Nothing new goes there: what is unanswered was sent before.
            (Self::Rising(voice, count), Signal::Unanswered) => Self::Rising(voice, count),
            (
                state @ (Self::New | Self::Up | Self::Failing(_) | Self::Down(_) | Self::Rising(_, _)),
                Signal::Suspected,
            ) => state,
        }
    }
}

fn failing(count: NonZero<u16>, voice: Voice, policy: &Policy) -> State {
    if count >= policy.fall { State::Down(voice) } else { State::Failing(count) }
}

fn rising(voice: Voice, count: NonZero<u16>, policy: &Policy) -> State {
    if count >= policy.rise { State::Up } else { State::Rising(voice, count) }
}

#[cfg(test)]
mod tests;
