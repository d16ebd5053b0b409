//! When a backend that was sent a SYN counts as silent.

/// A unit of time: 2^20 ns, about a millisecond.
const SHIFT: u32 = 20;
/// Bits of the time.
const TIME: u32 = 30;
/// The time's.
const MASK: u32 = (1 << TIME) - 1;
/// A backend that answers later than this, a quarter of a second, is slower than a client's first retransmission.
const SLOW: u32 = 240;

/// The SYN that a flow's backend was sent: whether its client has asked again since, and from when on the backend has to show
/// signs of life.
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
    ///
    /// What kept the backend from being given up so far does so once: who answered somebody and died is not waited for.
    #[inline(always)]
    pub const fn repeated(self, now: u64) -> Self {
        match self.0 >> TIME {
            // It had refused an earlier one.
            0 => Self::new(now),
            2.. if self.age(now) >= SLOW => Self(2 << TIME | Self::time(now)),
            _ => Self(2 << TIME | self.0 & MASK),
        }
    }

    /// Whether the backend is given up, now that its client sends its request again.
    ///
    /// Not at the first time, nor when it has answered anybody, at `answered`, later: then it is a packet that was lost. At
    /// the same time is not later: the kernel's clock stands still for milliseconds, in which a busy backend answers many.
    #[inline(always)]
    pub const fn is_silent(self, now: u64, answered: u64) -> bool {
        if self.0 == Self::REFUSED.0 {
            return true;
        }
        let age = self.age(now);
        let quiet = (now >> SHIFT).saturating_sub(answered >> SHIFT);
        self.0 >> TIME > 1 && age >= SLOW && quiet >= age as u64
    }

    /// Time that has passed.
    #[inline(always)]
    const fn age(self, now: u64) -> u32 {
        Self::time(now).wrapping_sub(self.0) & MASK
    }

    #[inline(always)]
    const fn time(now: u64) -> u32 {
        (now >> SHIFT) as u32 & MASK
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
            let attempt = attempt.repeated(sent + SECOND / 5);
            prop_assert!(attempt.is_silent(sent + SECOND, 0));
            prop_assert!(!attempt.is_silent(sent + SECOND / 10, 0), "a probe of the client's for lost tails");
            let probed = attempt.repeated(sent + SECOND / 10);
            prop_assert_eq!(probed, attempt, "which changes nothing");
        }

        #[test]
        fn one_that_answers_others_is_not(sent in 1_u64 << 40..1 << 60, later in 2_u64 << SHIFT..SECOND) {
            let attempt = Attempt::new(sent).repeated(sent + SECOND / 5);
            let now = sent + 2 * SECOND;
            prop_assert!(!attempt.is_silent(now, sent + later));
            prop_assert!(!attempt.is_silent(now, now + later), "another CPU's clock");
            prop_assert!(attempt.is_silent(now, sent - later));
            prop_assert!(attempt.is_silent(now, 1), "hours ago");
        }

        #[test]
        fn an_answer_at_the_time_of_the_syn_tells_nothing(sent in 1_u64 << 40..1 << 60, past in SECOND / 3..SECOND) {
            let attempt = Attempt::new(sent).repeated(sent + SECOND / 5);
            prop_assert!(attempt.is_silent(sent + past, sent));
        }

        #[test]
        fn one_that_refused_and_is_asked_again_has_its_time(now in 1_u64 << 40..1 << 60) {
            let attempt = Attempt::REFUSED;
            prop_assert!(attempt.is_silent(now, now));
            prop_assert_eq!(attempt.repeated(now), Attempt::new(now));
        }

        #[test]
        fn an_answer_excuses_once(sent in 1_u64 << 40..1 << 60, later in 2_u64 << SHIFT..SECOND) {
            let (first, answered) = (sent + SECOND, sent + later);
            let attempt = Attempt::new(sent).repeated(sent + SECOND / 5);
            prop_assert!(!attempt.is_silent(first, answered));
            let attempt = attempt.repeated(first);
            prop_assert!(attempt.is_silent(first + SECOND, answered));
            prop_assert!(!attempt.is_silent(first + SECOND, first + later), "it answers all the while");
        }
    }
}
