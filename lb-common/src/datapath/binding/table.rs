//! The table that bindings live in: buckets of four slots, and for each key a path of buckets.
//!
//! A slot is claimed by a compare-exchange of its word; its other fields are written, the word says "pending", and
//! then its path is searched for the same key: of CPUs that make the same binding at once one goes on. What every
//! bucket was passed by is counted, so a search ends where nobody went on.

use super::super::{Env, Insert};
use crate::abi::{
    BINDING_PROBES, BINDING_SLOTS, BindingBucket, BindingKey, BindingPath, BindingSlot, BindingWord,
    Settings, SlotState, hand,
};

/// An expired binding is reclaimed this much later (ns), so that nobody is still about to revive it.
const GRACE: u64 = 1_000_000_000;
/// One more in [`BindingSlot::passed`].
const PASSED: u64 = 1 << 32;
const SLOTS: usize = BINDING_SLOTS as usize;

/// No slot holds the key.
pub(crate) const ABSENT: u32 = u32::MAX;
/// A slot with the key is claimed: it goes, or comes.
pub(crate) const BUSY: u32 = u32::MAX - 1;

/// The way of a key.
#[inline(always)]
fn path(settings: &Settings, key: &BindingKey) -> BindingPath {
    BindingPath::new(key, settings.seed, settings.binding_buckets)
}

/// A slot by its number.
#[inline(always)]
pub(crate) fn slot<E: Env>(env: &E, number: u32) -> Option<*mut BindingSlot> {
    Some(slot_of(env.binding_bucket(number / BINDING_SLOTS)?, number as usize % SLOTS))
}

/// A slot of a bucket; `i` is below [`SLOTS`].
#[inline(always)]
const fn slot_of(bucket: *mut BindingBucket, i: usize) -> *mut BindingSlot {
    bucket.cast::<BindingSlot>().wrapping_add(i)
}

/// The word of a slot.
#[inline(always)]
pub(crate) fn word_of(slot: *mut BindingSlot) -> BindingWord {
    // SAFETY: from the environment.
    BindingWord(unsafe { (&raw const (*slot).word).read_volatile() })
}

/// When what is in a slot ends.
#[inline(always)]
pub(crate) fn expiry_of(slot: *mut BindingSlot) -> u64 {
    // SAFETY: from the environment.
    unsafe { (&raw const (*slot).expires).read_volatile() }
}

/// Whose a slot is, or was.
#[inline(always)]
pub(crate) fn key_of(slot: *mut BindingSlot) -> BindingKey {
    // SAFETY: from the environment.
    unsafe {
        BindingKey::new(
            (&raw const (*slot).service).read_volatile(),
            (&raw const (*slot).session).read_volatile(),
        )
    }
}

/// Whether a slot is, or was, of that key.
#[inline(always)]
pub(crate) fn is_of(slot: *mut BindingSlot, key: &BindingKey) -> bool {
    // SAFETY: from the environment.
    unsafe {
        (&raw const (*slot).session).read_volatile() == key.session
            && (&raw const (*slot).service).read_volatile() == key.service
    }
}

/// Whether bindings went past a bucket to find room.
#[inline(always)]
fn was_passed(bucket: *mut BindingBucket) -> bool {
    // SAFETY: from the environment.
    unsafe { (&raw const (*slot_of(bucket, 0)).passed).read_volatile() != 0 }
}

/// Where the session in a slot was before it had to move.
#[inline(always)]
pub(crate) fn home_of(slot: *mut BindingSlot) -> u16 {
    // SAFETY: from the environment.
    unsafe { (&raw const (*slot).home).read_volatile() }
}

/// Notes that.
#[inline(always)]
pub(crate) fn set_home(slot: *mut BindingSlot, home: u16) {
    // SAFETY: from the environment.
    unsafe { (&raw mut (*slot).home).write_volatile(home) }
}

/// Finds the slot of a key, whether its binding has expired or not.
///
/// Nearly always it is in its first bucket or nowhere.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, key: &BindingKey) -> Option<*mut BindingSlot> {
    let path = path(env.settings()?, key);
    let bucket = env.binding_bucket(path.bucket(0))?;
    let i = place_in(bucket, key);
    if i < SLOTS {
        return Some(slot_of(bucket, i));
    }
    if was_passed(bucket) { slot(env, find_further(env, key)) } else { None }
}

/// The number of a key's slot behind its first bucket, or [`ABSENT`].
///
/// A loop where [`seek`] has calls, for packets that bind nothing.
#[inline(never)]
fn find_further<E: Env>(env: &E, key: &BindingKey) -> u32 {
    let Some(settings) = env.settings() else { return ABSENT };
    let path = path(settings, key);
    let mut n = 1;
    while n < BINDING_PROBES {
        let number = path.bucket(n);
        let Some(bucket) = env.binding_bucket(number) else { break };
        let i = place_in(bucket, key);
        if i < SLOTS {
            return number * BINDING_SLOTS + i as u32;
        }
        if !was_passed(bucket) {
            break;
        }
        n += 1;
    }
    ABSENT
}

/// Where in a bucket the binding of a key is; [`SLOTS`] when it is not there.
#[inline(always)]
fn place_in(bucket: *mut BindingBucket, key: &BindingKey) -> usize {
    let mut i = 0;
    while i < SLOTS {
        let slot = slot_of(bucket, i);
        if is_of(slot, key) && word_of(slot).slot_state() == SlotState::Live {
            break;
        }
        i += 1;
    }
    i
}

/// The number of a key's slot, or [`ABSENT`] or [`BUSY`].
#[inline(never)]
pub(crate) fn seek<E: Env>(env: &E, key: &BindingKey) -> u32 {
    let Some(settings) = env.settings() else { return ABSENT };
    let mut found = ABSENT;
    each_slot(env, settings, key, Way::Known, |number, slot| {
        if !is_of(slot, key) {
            return false;
        }
        match word_of(slot).slot_state() {
            SlotState::Free => false,
            SlotState::Claimed | SlotState::Pending => {
                found = BUSY;
                false
            }
            SlotState::Live => {
                found = number;
                true
            }
        }
    });
    found
}

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the first bucket that no binding passed.
    Known,
    /// To the end.
    Whole,
}

/// Calls `step` with every slot on a key's path and its number until it answers `true`.
///
/// Slot by slot, because the verifier follows every branch of a step as often as it stands in the loop.
#[inline(always)]
fn each_slot<E: Env>(
    env: &E,
    settings: &Settings,
    key: &BindingKey,
    way: Way,
    mut step: impl FnMut(u32, *mut BindingSlot) -> bool,
) {
    let path = path(settings, key);
    // By value: what is taken by reference stands on the stack twice.
    env.repeat(BINDING_PROBES * BINDING_SLOTS, move |n| {
        let (number, i) = (path.bucket(n / BINDING_SLOTS), n % BINDING_SLOTS);
        let Some(bucket) = env.binding_bucket(number) else { return true };
        if step(number * BINDING_SLOTS + i, slot_of(bucket, i as usize)) {
            return true;
        }
        way == Way::Known && i == BINDING_SLOTS - 1 && !was_passed(bucket)
    });
}

/// Puts a binding in that [`seek`] did not find.
///
/// [`Insert::Taken`] means that another CPU is making one for the same key.
#[inline(always)]
pub(crate) fn put<E: Env>(env: &E, key: &BindingKey, content: BindingWord, expires: u64, now: u64) -> Insert {
    let place = claim(env, key, now);
    let number = place as u32;
    if number == ABSENT {
        return Insert::Full;
    }
    if fill(env, key, content, expires, place) { Insert::Done } else { Insert::Taken }
}

/// Puts a binding in the slot that was claimed for it; whether it is in.
#[inline(never)]
fn fill<E: Env>(env: &E, key: &BindingKey, content: BindingWord, expires: u64, place: u64) -> bool {
    let number = place as u32;
    let Some(slot) = slot(env, number) else { return false };
    if place & WAS_LIVE != 0 {
        leave(env, slot, number);
    }
    let claimed = word_of(slot);
    // SAFETY: from the environment, and claimed.
    unsafe {
        (&raw mut (*slot).session).write_volatile(key.session);
        (&raw mut (*slot).service).write_volatile(key.service);
        (&raw mut (*slot).expires).write_volatile(expires);
    }
    set_home(slot, 0);
    pass(env, key, number / BINDING_SLOTS, PASSED);
    let pending = claimed.pending();
    // SAFETY: from the environment. The first exchange orders what was written before what others' slots say.
    unsafe {
        let cell = &raw mut (*slot).word;
        env.exchange(cell, claimed.0, pending.0);
        if !is_contested(env, key, number) && env.exchange(cell, pending.0, claimed.with_content(content).0) {
            live(env, 1);
            return true;
        }
        // It fails when another CPU has freed the slot already.
        env.exchange(cell, pending.0, pending.freed().0);
    }
    pass(env, key, number / BINDING_SLOTS, PASSED.wrapping_neg());
    false
}

/// Takes a binding out while its word is still that one; whether it did.
#[inline(always)]
pub(crate) fn remove<E: Env>(env: &E, key: &BindingKey, number: u32, word: BindingWord) -> bool {
    let Some(slot) = slot(env, number) else { return false };
    // SAFETY: from the environment.
    if !unsafe { env.exchange(&raw mut (*slot).word, word.0, word.freed().0) } {
        return false;
    }
    pass(env, key, number / BINDING_SLOTS, PASSED.wrapping_neg());
    live(env, u64::MAX);
    true
}

/// Counts out the binding that was in a slot before it was claimed.
#[inline(always)]
fn leave<E: Env>(env: &E, slot: *mut BindingSlot, number: u32) {
    pass(env, &key_of(slot), number / BINDING_SLOTS, PASSED.wrapping_neg());
    live(env, u64::MAX);
}

/// Frees a slot whose binding has been over for a while; whether it did.
#[inline(always)]
pub(crate) fn reclaim<E: Env>(env: &E, number: u32, now: u64) -> bool {
    let Some(slot) = slot(env, number) else { return false };
    let word = word_of(slot);
    if !take_over(env, slot, word, now) {
        return false;
    }
    leave(env, slot, number);
    let claimed = word.claimed();
    // SAFETY: from the environment, and claimed by this CPU.
    unsafe { env.exchange(&raw mut (*slot).word, claimed.0, claimed.freed().0) }
}

/// Set beside the number of a slot that had a binding.
const WAS_LIVE: u64 = 1 << 32;

/// Claims a slot on a key's path, the first one that is free or whose binding is over; its number or [`ABSENT`], and
/// [`WAS_LIVE`].
#[inline(never)]
fn claim<E: Env>(env: &E, key: &BindingKey, now: u64) -> u64 {
    let Some(settings) = env.settings() else { return ABSENT as u64 };
    // SAFETY: from the environment.
    let live = env.hand(hand::BINDINGS_LIVE).map_or(0, |cell| unsafe { cell.read_volatile() });
    let has_room = live < settings.binding_capacity as u64;
    let mut found = ABSENT as u64;
    each_slot(env, settings, key, Way::Whole, |number, slot| {
        let word = word_of(slot);
        let flag = match word.slot_state() {
            SlotState::Free => 0,
            SlotState::Live => WAS_LIVE,
            SlotState::Claimed | SlotState::Pending => return false,
        };
        let claimed = if flag == 0 {
            // SAFETY: from the environment.
            has_room && unsafe { env.exchange(&raw mut (*slot).word, word.0, word.claimed().0) }
        } else {
            take_over(env, slot, word, now)
        };
        if claimed {
            found = number as u64 | flag;
        }
        claimed
    });
    found
}

/// Claims a slot whose binding has been over for a while; whether it did.
///
/// The expiry is looked at again after the slot is claimed, so that a session revived at that moment stays.
#[inline(always)]
fn take_over<E: Env>(env: &E, slot: *mut BindingSlot, word: BindingWord, now: u64) -> bool {
    let is_over = |expires: u64| expires.wrapping_add(GRACE) <= now;
    if word.slot_state() != SlotState::Live || !is_over(expiry_of(slot)) {
        return false;
    }
    // SAFETY: from the environment.
    unsafe {
        let cell = &raw mut (*slot).word;
        if !env.exchange(cell, word.0, word.claimed().0) {
            return false;
        }
        if !is_over(expiry_of(slot)) {
            env.exchange(cell, word.claimed().0, word.0);
            return false;
        }
    }
    true
}

/// Whether another CPU makes, or made, the binding that slot `own` is pending for.
///
/// Of two that are pending the one in the lower slot goes on: it frees the other one's, and the other one leaves it alone.
#[inline(never)]
fn is_contested<E: Env>(env: &E, key: &BindingKey, own: u32) -> bool {
    let Some(settings) = env.settings() else { return true };
    let mut contested = false;
    let found = &mut contested;
    each_slot(env, settings, key, Way::Known, move |number, slot| {
        if number == own || !is_of(slot, key) {
            return false;
        }
        let word = word_of(slot);
        let gives_way = match word.slot_state() {
            SlotState::Free => true,
            SlotState::Live | SlotState::Claimed => false,
            // SAFETY: from the environment.
            SlotState::Pending => {
                own < number && unsafe { env.exchange(&raw mut (*slot).word, word.0, word.freed().0) }
            }
        };
        if gives_way {
            return false;
        }
        *found = true;
        true
    });
    contested
}

/// Counts a binding in, or out of, the buckets that it passes on its way to bucket `end`.
#[inline(never)]
fn pass<E: Env>(env: &E, key: &BindingKey, end: u32, change: u64) {
    let Some(settings) = env.settings() else { return };
    let path = path(settings, key);
    env.repeat(BINDING_PROBES, |n| {
        let number = path.bucket(n);
        if number == end {
            return true;
        }
        if let Some(bucket) = env.binding_bucket(number) {
            // SAFETY: from the environment; the low half of the sum never overflows, so the service stays.
            unsafe { env.add((&raw mut (*slot_of(bucket, 0)).service).cast(), change) };
        }
        false
    });
}

/// Keeps the number of live bindings.
#[inline(always)]
fn live<E: Env>(env: &E, change: u64) {
    if let Some(cell) = env.hand(hand::BINDINGS_LIVE) {
        // SAFETY: from the environment.
        unsafe { env.add(cell, change) };
    }
}

#[cfg(test)]
mod tests;
