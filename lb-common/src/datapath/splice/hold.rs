//! Holds: claimed by a flow, locked by whoever changes them, free again when nobody needs the bytes or their time is over.

use crate::abi::{FlowRef, Hold, HoldFlags, HoldWord, Settings, hand};
use crate::datapath::Env;
use crate::datapath::flow::Live;
use core::mem::offset_of;

/// Holds looked at for one to use, and as many again for one whose client is slow.
const PROBES: u32 = 32;
/// Holds that a CPU takes in turn while they are free when it comes round: they are few, so that their memory is at hand. A power of two.
const NEAR: u32 = 16;
/// By how many a CPU goes on to others when they are not free.
const FURTHER: u32 = 7 * NEAR;
/// A request that is not complete after this time (ns) gives way where there is no other hold.
const SLOW: u64 = 1 << 30;
/// Attempts to lock: together ten times as long as anybody's work in a hold takes, which may be a full segment to copy and to sum up
/// in a cold hold.
const TRIES: u32 = 1_024;

/// A hold that this CPU has locked.
///
/// It has to be given back by [`Self::unlock`] or [`Self::free`] before the program ends.
pub(crate) struct Held {
    /// Its number, plus 1, as a flow has it.
    pub(crate) number: u32,
    hold: *mut Hold,
    /// The word when it is not locked.
    word: HoldWord,
}

impl Held {
    /// What is in it.
    #[inline(always)]
    pub(crate) fn get(&self) -> &Hold {
        // SAFETY: from the environment, and locked by this CPU.
        unsafe { &*self.hold }
    }
    /// The same, to be changed.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> &mut Hold {
        // SAFETY: from the environment, and locked by this CPU.
        unsafe { &mut *self.hold }
    }
    /// Where it is.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut Hold {
        self.hold
    }
    /// Nonce of the owner.
    #[inline(always)]
    pub(crate) fn nonce(&self) -> u32 {
        self.word.nonce()
    }
    /// Lets others at it.
    #[inline(always)]
    pub(crate) fn unlock<E: Env>(self, env: &E) {
        leave(env, self.hold, self.word, self.word);
    }
    /// Gives it back.
    #[inline(always)]
    pub(crate) fn free<E: Env>(self, env: &E) {
        if let (Some(settings), Some(live)) = (env.settings(), env.hand(hand::HOLDS_LIVE))
            && self.number > settings.cpu_holds
        {
            // SAFETY: from the environment.
            unsafe { env.add(live, u64::MAX) };
        }
        leave(env, self.hold, self.word, HoldWord::default());
    }
}

#[inline(always)]
fn leave<E: Env>(env: &E, hold: *mut Hold, word: HoldWord, after: HoldWord) {
    // SAFETY: from the environment; nobody but this CPU changes a locked word.
    unsafe { env.exchange(&raw mut (*hold).word, word.with(HoldWord::LOCKED).0, after.0) };
}

/// This CPU's own hold, emptied: only good until the program ends.
#[inline(always)]
pub(crate) fn own<E: Env>(env: &E, settings: &Settings, flow: FlowRef) -> Option<Held> {
    let index = env.cpu();
    if index >= settings.cpu_holds {
        return None;
    }
    let hold = env.hold(index)?;
    let word = HoldWord::taken(flow.nonce());
    // SAFETY: from the environment; no other CPU looks at it.
    unsafe { (&raw mut (*hold).word).write_volatile(word.with(HoldWord::LOCKED).0) };
    let mut held = Held { number: index.wrapping_add(1), hold, word };
    empty(held.get_mut(), flow, u64::MAX);
    Some(held)
}

/// Takes a free hold for a flow, or one whose time is over.
#[inline(always)]
pub(crate) fn claim<E: Env>(env: &E, flow: FlowRef, until: u64, now: u64) -> Option<Held> {
    let word = HoldWord::taken(flow.nonce());
    let mut number = take_near(env, word, now);
    if number == 0 {
        number = take_any(env, word, now);
    }
    let mut held = Held { number, hold: env.hold(number.wrapping_sub(1))?, word };
    empty(held.get_mut(), flow, until);
    Some(held)
}

/// Number of a hold that was free, plus 1; 0 = none. Out of line for the sake of the stack.
#[inline(never)]
fn take_any<E: Env>(env: &E, word: HoldWord, now: u64) -> u32 {
    let (Some(settings), Some(hand)) = (env.settings(), env.hand(hand::HOLD)) else { return 0 };
    let (base, count) = (settings.cpu_holds, settings.holds.saturating_sub(settings.cpu_holds));
    let mut number = 0;
    if count == 0 {
        return number;
    }
    let head_timeout = settings.head_timeout;
    let found = &mut number;
    env.repeat(2 * PROBES, move |i| {
        let slow = if i < PROBES { 0 } else { head_timeout.saturating_sub(SLOW) };
        // SAFETY: from the environment.
        let index = base.wrapping_add(unsafe { env.add(hand, 1) } as u32 % count);
        let Some(hold) = env.hold(index) else { return true };
        if take(env, hold, word, now, slow) {
            *found = index.wrapping_add(1);
            return true;
        }
        false
    });
    number
}

/// The same, of those that this CPU takes in turn.
///
/// Two of them are looked at; where both are in use, it goes on to others the next time.
#[inline(never)]
fn take_near<E: Env>(env: &E, word: HoldWord, now: u64) -> u32 {
    let (Some(settings), Some(scratch)) = (env.settings(), env.scratch()) else { return 0 };
    let (base, count) = (settings.cpu_holds, settings.holds.saturating_sub(settings.cpu_holds));
    if count < NEAR {
        return 0;
    }
    // SAFETY: this CPU's own scratch.
    let next = unsafe { &mut (*scratch).next_hold };
    let first = env.cpu().wrapping_mul(NEAR);
    let mut tries = 0;
    while tries < 2 {
        let place = *next;
        *next = place & !(NEAR - 1) | place.wrapping_add(1) & (NEAR - 1);
        let index = base.wrapping_add(place.wrapping_add(first) % count);
        let Some(hold) = env.hold(index) else { return 0 };
        if take(env, hold, word, now, 0) {
            return index.wrapping_add(1);
        }
        tries += 1;
    }
    *next = next.wrapping_add(FURTHER);
    0
}

/// Locks a hold that is free or whose time is over, under its new owner; also one whose request is not complete and has
/// less than `slow` left.
#[inline(always)]
fn take<E: Env>(env: &E, hold: *mut Hold, new: HoldWord, now: u64, slow: u64) -> bool {
    let word = word_of(hold);
    if word.has(HoldWord::LOCKED) || word.has(HoldWord::TAKEN) && is_needed(hold, now, slow) {
        return false;
    }
    let locked = new.with(HoldWord::LOCKED);
    // SAFETY: from the environment.
    if !unsafe { env.exchange(&raw mut (*hold).word, word.0, locked.0) } {
        return false;
    }
    // Its owner may have been at it in between, and have got more time.
    if word.has(HoldWord::TAKEN) {
        if is_needed(hold, now, slow) {
            // SAFETY: as above.
            unsafe { env.exchange(&raw mut (*hold).word, locked.0, word.0) };
            return false;
        }
    } else if let Some(live) = env.hand(hand::HOLDS_LIVE) {
        // SAFETY: from the environment.
        unsafe { env.add(live, 1) };
    }
    true
}

/// Whether a taken hold's bytes are still needed.
#[inline(always)]
fn is_needed(hold: *mut Hold, now: u64, slow: u64) -> bool {
    // SAFETY: from the environment.
    let flags = unsafe { (&raw const (*hold).flags).read_volatile() };
    let collected = flags & (HoldFlags::READ | HoldFlags::RESPONSE) == 0;
    until(hold) > if collected { now.wrapping_add(slow) } else { now }
}

/// Forgets what was in it.
#[inline(always)]
fn empty(hold: &mut Hold, flow: FlowRef, until: u64) {
    hold.until = until;
    hold.flow = flow;
    let words: *mut u64 = (&raw mut *hold).cast();
    let mut i = FIRST / 8;
    while i < LAST / 8 {
        // SAFETY: inside the hold, all integers; volatile, or it becomes the kernel's memset, a loop over bytes.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// Where what is kept about the bytes begins.
const FIRST: usize = offset_of!(Hold, start);
/// Where it ends.
const LAST: usize = offset_of!(Hold, head);
const _: () = assert!(FIRST.is_multiple_of(8) && LAST.is_multiple_of(8));

/// Locks the hold of a flow; `None` when it is another's by now, or busy for too long.
#[inline(always)]
pub(crate) fn lock<E: Env>(env: &E, number: u32, flow: FlowRef) -> Option<Held> {
    let hold = env.hold(number.wrapping_sub(1))?;
    let word = HoldWord::taken(flow.nonce());
    // Nobody else is at it nearly always, and calls are dear.
    if lock_once(env, hold, word) || try_lock(env, hold, word) {
        Some(Held { number, hold, word })
    } else {
        None
    }
}

#[inline(always)]
fn lock_once<E: Env>(env: &E, hold: *mut Hold, word: HoldWord) -> bool {
    // SAFETY: from the environment.
    unsafe { env.exchange(&raw mut (*hold).word, word.0, word.with(HoldWord::LOCKED).0) }
}

#[inline(never)]
fn try_lock<E: Env>(env: &E, hold: *mut Hold, word: HoldWord) -> bool {
    let mut locked = false;
    let done = &mut locked;
    env.repeat(TRIES, move |_| {
        if word_of(hold).nonce() != word.nonce() {
            return true;
        }
        *done = lock_once(env, hold, word);
        *done
    });
    locked
}

/// Whether a flow's hold is another's by now, and what was in it is lost.
#[inline(always)]
pub(crate) fn is_lost<E: Env>(env: &E, number: u32, flow: FlowRef) -> bool {
    match env.hold(number.wrapping_sub(1)) {
        Some(hold) => {
            let word = word_of(hold);
            word.nonce() != flow.nonce() || !word.has(HoldWord::TAKEN)
        }
        None => true,
    }
}

/// Gives the hold of a flow that ends back, if it still has one.
#[inline(always)]
pub(crate) fn abandon<E: Env>(env: &E, live: &Live) {
    let number = live.flow().hold;
    if number != 0
        && let Some(held) = lock(env, number, live.reference)
    {
        held.free(env);
    }
}

#[inline(always)]
fn word_of(hold: *mut Hold) -> HoldWord {
    // SAFETY: from the environment.
    HoldWord(unsafe { (&raw const (*hold).word).read_volatile() })
}

#[inline(always)]
fn until(hold: *mut Hold) -> u64 {
    // SAFETY: from the environment.
    unsafe { (&raw const (*hold).until).read_volatile() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::model::Model;
    use std::collections::BTreeSet;

    fn taken(model: &Model<'_>, nonce: u32) -> Option<Held> {
        claim(model, FlowRef::new(0, nonce, false), u64::MAX, 0)
    }

    #[test]
    fn few_holds_are_in_use_in_turn_while_requests_come_one_by_one() {
        let model = Model::with_holds(10 * NEAR);
        let mut used = BTreeSet::new();
        for nonce in 1..100 {
            let held = taken(&model, nonce).unwrap();
            used.insert(held.number);
            held.free(&model);
        }
        assert_eq!(used.len(), NEAR as usize);
    }

    #[test]
    fn all_holds_can_be_had_and_a_cpu_whose_own_are_taken_goes_on_to_others() {
        let model = Model::with_holds(10 * NEAR);
        let mut used = BTreeSet::new();
        let mut nonce = 1;
        while let Some(held) = taken(&model, nonce) {
            assert!(used.insert(held.number), "{} twice", held.number);
            held.unlock(&model);
            nonce += 1;
            assert!(used.len() < 2 * 10 * NEAR as usize);
        }
        // The ring looks at some of them only before it gives up.
        assert!(used.len() as u32 > 9 * NEAR, "{} of {}", used.len(), 10 * NEAR);
    }
}
