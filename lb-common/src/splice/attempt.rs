//! When a backend that was sent a SYN counts as silent.

/// A unit of time: 2^20 ns, about a millisecond.
const SHIFT: u32 = 20;
/// Bits of the time.
const TIME: u32 = 30;
/// A backend that answers later than this, a quarter of a second, is slower than a client's first retransmission.
const SLOW: u32 = 240;

/// The SYN that a flow's backend was sent: when, and how often its client asked again since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt(pub u32);

impl Attempt {
    /// No SYN was sent.
    pub const NONE: Self = Self(0);

    /// The backend refused it, and the next one has yet to be chosen.
    pub const REFUSED: Self = Self(1);

    /// One that is sent now.
    #[inline(always)]
    pub const fn new(now: u64) -> Self {
        Self(1 << TIME | Self::time(now))
    }

    /// The client has sent its request again, and the backend is to be sent the same SYN again.
    #[inline(always)]
    pub const fn repeated(self) -> Self {
        if self.0 >> TIME == 3 { self } else { Self(self.0 + (1 << TIME)) }
    }

    /// Whether the backend is given up, now that its client sends its request again.
    ///
    /// Not at the first time, nor when it has answered anybody at `answered` or later: then it is a packet that was lost.
    #[inline(always)]
    pub const fn is_silent(self, now: u64, answered: u64) -> bool {
        let age = Self::time(now).wrapping_sub(self.0) & ((1 << TIME) - 1);
        let since = Self::time(now.wrapping_sub(answered));
        let is_quiet = answered == 0 || now.wrapping_sub(answered) >> (SHIFT + TIME) != 0 || since > age;
        if self.0 == Self::REFUSED.0 {
            return true;
        }
        self.0 >> TIME > 1 && age >= SLOW && is_quiet
    }

    #[inline(always)]
    const fn time(now: u64) -> u32 {
        (now >> SHIFT) as u32 & ((1 << TIME) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        #[test]
        fn a_backend_is_silent_at_the_second_retransmission(sent in 1_u64..1 << 60) {
            let attempt = Attempt::new(sent);
            prop_assert_ne!(attempt, Attempt::NONE);
            prop_assert!(!attempt.is_silent(sent + SECOND, 0), "the first retransmission");
            let attempt = attempt.repeated();
            prop_assert!(attempt.is_silent(sent + SECOND, 0));
            prop_assert!(attempt.repeated().repeated().repeated().is_silent(sent + SECOND, 0));
            prop_assert!(!attempt.is_silent(sent + SECOND / 10, 0), "a probe of the client's for lost tails");
        }

        #[test]
        fn one_that_answers_others_is_not(sent in 1_u64 << 40..1 << 60, later in 2_u64 << SHIFT..SECOND) {
            let attempt = Attempt::new(sent).repeated();
            let now = sent + 2 * SECOND;
            prop_assert!(!attempt.is_silent(now, sent + later));
            prop_assert!(attempt.is_silent(now, sent - later));
            prop_assert!(attempt.is_silent(now, 1), "hours ago");
        }
    }
}
