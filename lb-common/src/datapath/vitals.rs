//! What is noted of single backends: who takes connections, how fast, how many it has, and who does not.
//!
//! A flow counts as one of its backend's connections while its word says so ([`FlowWord::COUNTED`]). The word changes by
//! compare-exchange only, so of several CPUs that end a flow one takes it from the count.

use super::{Env, flow};
use crate::abi::{Flow, FlowState, FlowWord, Vitals};

/// A word that follows `old`, counted or not as its state says.
#[inline(always)]
pub(crate) const fn counted(old: FlowWord, new: FlowWord) -> FlowWord {
    match new.state() {
        FlowState::Closed | FlowState::Free | FlowState::Claimed => new.without(FlowWord::COUNTED),
        // The reset that ended it was a forged one.
        FlowState::Established | FlowState::Closing if matches!(old.state(), FlowState::Closed) => {
            new.with(FlowWord::COUNTED)
        }
        FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Closing
        | FlowState::Collecting
        | FlowState::Connecting
        | FlowState::Releasing => new,
    }
}

/// Lets the count follow a flow's word that has become another one.
#[inline(always)]
pub(crate) fn recount<E: Env>(env: &E, record: *mut Flow, old: FlowWord, new: FlowWord) {
    match (old.has(FlowWord::COUNTED), new.has(FlowWord::COUNTED)) {
        (true, false) => leaves(env, record),
        (false, true) => joins(env, record),
        (true, true) | (false, false) => {}
    }
}

/// A flow is one of its backend's from now on.
#[inline(always)]
pub(crate) fn joins<E: Env>(env: &E, record: *mut Flow) {
    add(env, record, 1);
}

/// A flow that was counted has ended.
#[inline(always)]
pub(crate) fn leaves<E: Env>(env: &E, record: *mut Flow) {
    add(env, record, u64::MAX);
}

/// A flow whose hold is locked goes to a backend, from another one if it was counted there.
#[inline(never)]
pub(crate) fn goes_to<E: Env>(env: &E, record: *mut Flow, slot: u16, generation: u16) -> u32 {
    let word = flow::word_of(record);
    if word.has(FlowWord::COUNTED) {
        leaves(env, record);
    }
    // SAFETY: from the environment, and the hold is locked.
    unsafe {
        (*record).backend = slot;
        (*record).backend_generation = generation;
    }
    // SAFETY: from the environment.
    let stays = word.has(FlowWord::COUNTED)
        || unsafe { env.exchange(&raw mut (*record).word, word.0, word.with(FlowWord::COUNTED).0) };
    // Where another CPU changes the word at that very moment, it is one that is not counted.
    if stays {
        joins(env, record);
    }
    1
}

#[inline(never)]
fn add<E: Env>(env: &E, record: *mut Flow, n: u64) -> u32 {
    // SAFETY: from the environment; nobody else writes these while the record is the flow's.
    let (slot, generation) = unsafe { ((*record).backend, (*record).backend_generation) };
    add_to(env, slot, generation, n)
}

/// So many counted flows of a backend are gone, and nobody looked at their words; how many were taken from the count.
#[inline(always)]
pub(crate) fn ended<E: Env>(env: &E, slot: u16, generation: u16, count: u32) -> u32 {
    count * add_to(env, slot, generation, (count as u64).wrapping_neg())
}

#[inline(always)]
fn add_to<E: Env>(env: &E, slot: u16, generation: u16, n: u64) -> u32 {
    let (Some(backend), Some(vitals)) = (env.backend(slot), env.vitals(slot)) else { return 0 };
    // Another owner's count began anew.
    if backend.generation != generation {
        return 0;
    }
    // SAFETY: from the environment.
    unsafe { env.add(&raw mut (*vitals).connections, n) };
    1
}

/// The backend took a connection `took` nanoseconds after it was asked; the clock is coarse, but right on average.
#[inline(never)]
pub(crate) fn accepted<E: Env>(env: &E, slot: u16, took: u64, now: u64) -> u32 {
    let Some(vitals) = env.vitals(slot) else { return 0 };
    // SAFETY: from the environment; of two CPUs that write at once one is lost, which is harmless.
    unsafe {
        let response = &raw mut (*vitals).response;
        let old = response.read_volatile();
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        // Known from now on.
        response.write_volatile(new | 1);
        (&raw mut (*vitals).accepted).write_volatile(now);
    }
    1
}

/// The backend answered a SYN of the balancer's own.
#[inline(always)]
pub(crate) fn answered<E: Env>(env: &E, slot: u16, now: u64) {
    if let Some(vitals) = env.vitals(slot) {
        // SAFETY: from the environment.
        unsafe { (&raw mut (*vitals).answered).write_volatile(now) }
    }
}

/// When the backend last answered a SYN of the balancer's own.
#[inline(always)]
pub(crate) fn last_answer<E: Env>(env: &E, slot: u16) -> u64 {
    // SAFETY: from the environment.
    env.vitals(slot).map_or(0, |vitals| unsafe { (&raw const (*vitals).answered).read_volatile() })
}

/// What is counted of a backend besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It refused a SYN of the balancer's own.
    Refused,
    /// It left a SYN of the balancer's own without an answer.
    Silent,
    /// It did the same to a client's SYN, or so it seems.
    Suspected,
    /// A new session went elsewhere because of its limit.
    Overflowed,
}

/// Counts a sign.
#[inline(never)]
pub(crate) fn note<E: Env>(env: &E, slot: u16, sign: Sign) -> u32 {
    let Some(vitals) = env.vitals(slot) else { return 0 };
    // SAFETY: from the environment.
    unsafe {
        let cell: *mut u64 = match sign {
            Sign::Refused => &raw mut (*vitals).refused,
            Sign::Silent => &raw mut (*vitals).silent,
            Sign::Suspected => &raw mut (*vitals).suspected,
            Sign::Overflowed => &raw mut (*vitals).overflowed,
        };
        env.add(cell, 1);
    }
    1
}

/// Whether a backend may have one more connection.
#[inline(always)]
pub(crate) fn has_room<E: Env>(env: &E, slot: u16, limit: u32) -> bool {
    limit == 0 || connections(env, slot) < limit as u64
}

/// Connections that a backend has.
#[inline(always)]
pub(crate) fn connections<E: Env>(env: &E, slot: u16) -> u64 {
    let Some(vitals) = env.vitals(slot) else { return 0 };
    // SAFETY: from the environment.
    let connections = unsafe { (&raw const (*vitals).connections).read_volatile() };
    Vitals { connections, ..Vitals::default() }.load()
}
