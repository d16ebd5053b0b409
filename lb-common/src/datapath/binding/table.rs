//! The table that bindings live in: buckets of four slots, and for each key a path of buckets.
//!
//! A slot is claimed by a compare-exchange of its word; its other fields are written, the word says "pending", and
//! then its path is searched for the same key: of CPUs that make the same binding at once one goes on. What every
//! bucket was passed by is counted, so a search ends where nobody went on.

use super::super::{Env, Insert};
use crate::abi::{
    BINDING_PROBES, BINDING_SLOTS, BindingBucket, BindingKey, BindingPath, BindingSlot, BindingWord, Settings,
    SlotState, hand,
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

/// Finds the slot of a key, whether its binding has expired or not.
///
/// Nearly always it is in its first bucket or nowhere.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, key: &BindingKey) -> Option<*mut BindingSlot> {
    let bucket = env.binding_bucket(path(env.settings()?, key).bucket())?;
    let mut i = 0;
    while i < SLOTS {
        let slot = slot_of(bucket, i);
        if is_of(slot, key) && word_of(slot).slot_state() == SlotState::Live {
            return Some(slot);
        }
        i += 1;
    }
    if was_passed(bucket) { slot(env, seek(env, key)) } else { None }
}

/// The number of a key's slot, or [`ABSENT`] or [`BUSY`].
#[inline(never)]
pub(crate) fn seek<E: Env>(env: &E, key: &BindingKey) -> u32 {
    let Some(settings) = env.settings() else { return ABSENT };
    let mut path = path(settings, key);
    let mut found = ABSENT;
    let mut n = 0;
    while n < BINDING_PROBES {
        let Some(bucket) = env.binding_bucket(path.bucket()) else { break };
        let mut i = 0;
        while i < SLOTS {
            let slot = slot_of(bucket, i);
            if is_of(slot, key) {
                match word_of(slot).slot_state() {
                    SlotState::Live => return path.bucket() * BINDING_SLOTS + i as u32,
                    SlotState::Claimed | SlotState::Pending => found = BUSY,
                    SlotState::Free => {}
                }
            }
            i += 1;
        }
        if !was_passed(bucket) {
            break;
        }
        path.advance();
        n += 1;
    }
    found
}

/// Puts a binding in that [`seek`] did not find.
///
/// [`Insert::Taken`] means that another CPU is making one for the same key.
#[inline(never)]
pub(crate) fn put<E: Env>(env: &E, key: &BindingKey, content: BindingWord, expires: u64, now: u64) -> Insert {
    let number = claim(env, key, now);
    let Some(slot) = slot(env, number) else { return Insert::Full };
    let claimed = word_of(slot);
    // SAFETY: from the environment, and claimed.
    unsafe {
        (&raw mut (*slot).session).write_volatile(key.session);
        (&raw mut (*slot).service).write_volatile(key.service);
        (&raw mut (*slot).expires).write_volatile(expires);
    }
    pass(env, key, number / BINDING_SLOTS, PASSED);
    let pending = claimed.pending();
    // SAFETY: from the environment. The first exchange orders what was written before what others' slots say.
    let made = unsafe {
        let cell = &raw mut (*slot).word;
        env.exchange(cell, claimed.0, pending.0)
            && !is_contested(env, key, number)
            && env.exchange(cell, pending.0, claimed.with_content(content).0)
    };
    if made {
        live(env, 1);
        return Insert::Done;
    }
    // SAFETY: from the environment. It fails when another CPU has freed the slot already.
    unsafe { env.exchange(&raw mut (*slot).word, pending.0, pending.freed().0) };
    pass(env, key, number / BINDING_SLOTS, PASSED.wrapping_neg());
    Insert::Taken
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

/// Frees a slot whose binding has been over for a while; whether it did.
#[inline(always)]
pub(crate) fn reclaim<E: Env>(env: &E, number: u32, now: u64) -> bool {
    let Some(slot) = slot(env, number) else { return false };
    let word = word_of(slot);
    if !take_over(env, number / BINDING_SLOTS, slot, word, now) {
        return false;
    }
    let claimed = word.claimed();
    // SAFETY: from the environment, and claimed by this CPU.
    unsafe { env.exchange(&raw mut (*slot).word, claimed.0, claimed.freed().0) }
}

/// Claims a slot on a key's path, the first one that is free or whose binding is over; its number or [`ABSENT`].
#[inline(never)]
fn claim<E: Env>(env: &E, key: &BindingKey, now: u64) -> u32 {
    let Some(settings) = env.settings() else { return ABSENT };
    // SAFETY: from the environment.
    let live = env.hand(hand::BINDINGS_LIVE).map_or(0, |cell| unsafe { cell.read_volatile() });
    let has_room = live < settings.binding_capacity as u64;
    let mut path = path(settings, key);
    let mut n = 0;
    while n < BINDING_PROBES {
        let Some(bucket) = env.binding_bucket(path.bucket()) else { break };
        let mut i = 0;
        while i < SLOTS {
            let slot = slot_of(bucket, i);
            let word = word_of(slot);
            let claimed = match word.slot_state() {
                // SAFETY: from the environment.
                SlotState::Free => {
                    has_room && unsafe { env.exchange(&raw mut (*slot).word, word.0, word.claimed().0) }
                }
                SlotState::Live => take_over(env, path.bucket(), slot, word, now),
                SlotState::Claimed | SlotState::Pending => false,
            };
            if claimed {
                return path.bucket() * BINDING_SLOTS + i as u32;
            }
            i += 1;
        }
        path.advance();
        n += 1;
    }
    ABSENT
}

/// Claims a slot whose binding has been over for a while; whether it did.
///
/// The expiry is looked at again after the slot is claimed, so that a session revived at that moment stays.
#[inline(always)]
fn take_over<E: Env>(env: &E, bucket: u32, slot: *mut BindingSlot, word: BindingWord, now: u64) -> bool {
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
    pass(env, &key_of(slot), bucket, PASSED.wrapping_neg());
    live(env, u64::MAX);
    true
}

/// Whether another CPU makes, or made, the binding that slot `own` is pending for.
///
/// Of two that are pending the one in the lower slot goes on: it frees the other one's, and the other one leaves it alone.
#[inline(never)]
fn is_contested<E: Env>(env: &E, key: &BindingKey, own: u32) -> bool {
    let Some(settings) = env.settings() else { return true };
    let mut path = path(settings, key);
    let mut n = 0;
    while n < BINDING_PROBES {
        let Some(bucket) = env.binding_bucket(path.bucket()) else { break };
        let mut i = 0;
        while i < SLOTS {
            let slot = slot_of(bucket, i);
            let number = path.bucket() * BINDING_SLOTS + i as u32;
            if number != own && is_of(slot, key) {
                let word = word_of(slot);
                let gives_way = match word.slot_state() {
                    SlotState::Free => true,
                    SlotState::Live | SlotState::Claimed => false,
                    // SAFETY: from the environment.
                    SlotState::Pending => {
                        own < number && unsafe { env.exchange(&raw mut (*slot).word, word.0, word.freed().0) }
                    }
                };
                if !gives_way {
                    return true;
                }
            }
            i += 1;
        }
        if !was_passed(bucket) {
            break;
        }
        path.advance();
        n += 1;
    }
    false
}

/// Counts a binding in, or out of, the buckets that it passes on its way to bucket `end`.
#[inline(never)]
fn pass<E: Env>(env: &E, key: &BindingKey, end: u32, change: u64) {
    let Some(settings) = env.settings() else { return };
    let mut path = path(settings, key);
    let mut n = 0;
    while n < BINDING_PROBES && path.bucket() != end {
        if let Some(bucket) = env.binding_bucket(path.bucket()) {
            // SAFETY: from the environment; the low half of the sum never overflows, so the service stays.
            unsafe { env.add((&raw mut (*slot_of(bucket, 0)).service).cast(), change) };
        }
        path.advance();
        n += 1;
    }
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
