//! When a backend that was sent a SYN counts as silent.

/// A unit of time: 2^20 ns, about a millisecond.
const SHIFT: u32 = 20;
/// Bits of the SYN's time: half an hour, and no attempt lasts a minute.
const TIME: u32 = 21;
/// The time's.
const MASK: u32 = (1 << TIME) - 1;
/// Bits of the time from the SYN to the client's last retransmission.
const LAST: u32 = 9;
/// The units of that one: 17 s in all.
const LAST_SHIFT: u32 = 5;
/// A backend that answers later than this, a quarter of a second, is slower than a client's first retransmission.
const SLOW: u32 = 240;
/// Segments that come sooner than this, an eighth of a second, after a retransmission belong to it: a client sends all it has
/// at one time, and then waits for twice as long as before (RFC 6298 section 5); and a network may double them.
const TOGETHER: u32 = 128;

/// The SYN that a flow's backend was sent: when its client has asked again since, and from when on the backend has to show
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
        Self(1 << (TIME + LAST) | Self::time(now))
    }

    /// The client has sent its request again, and the backend is to be sent the same SYN again.
    ///
    /// What kept the backend from being given up so far does so once: who answered somebody and died is not waited for.
    #[inline(always)]
    pub const fn repeated(self, now: u64) -> Self {
        let age = self.age(now);
        match self.0 >> (TIME + LAST) {
            // It had refused an earlier one.
            0 => Self::new(now),
            1 => self.asked_again(age),
            _ if !self.is_later(age) => self,
            _ if age >= SLOW => Self(2 << (TIME + LAST) | Self::time(now)),
            _ => self.asked_again(age),
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
        self.0 >> (TIME + LAST) > 1 && age >= SLOW && self.is_later(age) && quiet >= age as u64
    }

    /// The client has asked again that long after the SYN.
    #[inline(always)]
    const fn asked_again(self, age: u32) -> Self {
        let (last, most) = (age.div_ceil(1 << LAST_SHIFT), (1 << LAST) - 1);
        let last = if last > most { most } else { last };
        Self(2 << (TIME + LAST) | last << TIME | self.0 & MASK)
    }

    /// Whether a segment that comes that long after the SYN is another retransmission than the last.
    #[inline(always)]
    const fn is_later(self, age: u32) -> bool {
        let last = self.0 >> TIME & ((1 << LAST) - 1);
        age >= (last << LAST_SHIFT) + TOGETHER
    }

    /// Time that has passed; none where another CPU's clock was ahead.
    #[inline(always)]
    const fn age(self, now: u64) -> u32 {
        let age = Self::time(now).wrapping_sub(self.0) & MASK;
        if age > MASK / 2 { 0 } else { age }
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
        fn a_backend_is_silent_at_the_second_retransmission(sent in 1_u64 << 40..1 << 60) {
            let attempt = Attempt::new(sent);
            prop_assert_ne!(attempt, Attempt::NONE);
            prop_assert!(!attempt.is_silent(sent + SECOND, 0), "the first retransmission");
            let attempt = attempt.repeated(sent + SECOND / 5);
            prop_assert!(attempt.is_silent(sent + SECOND * 3 / 5, 0));
            let probed = Attempt::new(sent).repeated(sent + SECOND / 100);
            prop_assert!(!probed.is_silent(sent + SECOND / 5, 0), "a probe of the client's for lost tails came before");
            prop_assert!(probed.repeated(sent + SECOND / 5).is_silent(sent + SECOND * 3 / 5, 0));
        }

        #[test]
        fn segments_sent_again_together_count_once(
            sent in 1_u64 << 40..1 << 60,
            after in SECOND / 5..15 * SECOND,
            apart in 0..SECOND / 10,
        ) {
            let first = sent + after;
            let attempt = Attempt::new(sent).repeated(first);
            prop_assert!(!attempt.is_silent(first + apart, 0));
            prop_assert_eq!(attempt.repeated(first + apart), attempt, "which changes nothing");
            prop_assert!(!attempt.is_silent(first - apart, 0), "another CPU's clock");
            prop_assert!(attempt.is_silent(first + 2 * SECOND, 0));
        }

        #[test]
        fn a_clock_that_is_behind_makes_nobody_silent(sent in 1_u64 << 40..1 << 60, behind in 0..SECOND) {
            let attempt = Attempt::new(sent).repeated(sent);
            prop_assert!(!attempt.is_silent(sent - behind, 0));
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
        fn an_answer_at_the_time_of_the_syn_tells_nothing(sent in 1_u64 << 40..1 << 60, past in SECOND * 2 / 5..SECOND) {
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
