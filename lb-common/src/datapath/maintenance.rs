//! The programs that `lbd` runs itself, with a request in place of a packet.

use super::binding;
use super::{Env, Verdict, flow, frame};
use crate::abi::{
    BindingEventKind, BindingKey, BindingOp, BindingRecord, BindingWord, FlowState, RECORDS_PER_RUN,
    RecordResult, SweepReport, SweepRequest, SweepTarget,
};
use crate::packet::{get, put};

/// Most ring slots in one run.
const SWEEP_MAX: u32 = 65_536;

/// What became of one ring slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swept {
    Empty,
    Live,
    /// Live, and `lbd` was told again.
    Told,
    Reclaimed,
}

/// Deletes what has expired in a stretch of a ring, and tells `lbd` again of bindings it has not acknowledged.
///
/// Everything is looked at again at the moment of deletion. The frame holds a [`SweepRequest`] and then a
/// [`SweepReport`].
#[inline(always)]
pub fn sweep<E: Env>(env: &E) -> Verdict {
    let Some(p) = frame::head(env, size_of::<SweepRequest>()) else { return Verdict::Drop };
    // SAFETY: checked for its size; plain integers.
    let request: SweepRequest =
        unsafe { SweepRequest { target: get(p), start: get(p.add(4)), count: get(p.add(8)), pad: 0 } };
    let Some(settings) = env.settings() else { return Verdict::Drop };
    env.set_clock();
    let bindings = request.target == SweepTarget::Bindings as u32;
    let len = if bindings { settings.binding_ring } else { settings.half_open + settings.flows };
    let start = request.start;
    let left = len.saturating_sub(start);
    let count = if request.count < left { request.count } else { left };
    let count = if count < SWEEP_MAX { count } else { SWEEP_MAX };
    let now = env.now();
    let mut report = SweepReport::default();
    env.repeat(count, |i| {
        let slot = start.wrapping_add(i);
        let swept = if bindings { sweep_binding(env, slot, now) } else { sweep_flow(env, slot, now) };
        match swept {
            Swept::Empty => {}
            Swept::Live => report.live += 1,
            Swept::Told => {
                report.live += 1;
                report.unsynced += 1;
            }
            Swept::Reclaimed => report.reclaimed += 1,
        }
        false
    });
    let Some(p) = frame::head(env, size_of::<SweepReport>()) else { return Verdict::Drop };
    // SAFETY: checked for its size.
    unsafe {
        put(p, report.reclaimed);
        put(p.add(4), report.live);
        put(p.add(8), report.unsynced);
        put(p.add(12), 0_u32);
    }
    Verdict::Pass
}

#[inline(always)]
fn sweep_binding<E: Env>(env: &E, slot: u32, now: u64) -> Swept {
    let Some(place) = env.binding_ring(slot) else { return Swept::Empty };
    // SAFETY: from the environment.
    let key = unsafe { place.read_volatile() };
    if key.service == 0 {
        return Swept::Empty;
    }
    let Some(cell) = env.binding(&key) else { return Swept::Empty };
    // SAFETY: from the environment.
    let (word, expires, ring) = unsafe {
        (
            BindingWord((&raw const (*cell).word).read_volatile()),
            (&raw const (*cell).expires).read_volatile(),
            (&raw const (*cell).ring).read_volatile(),
        )
    };
    if ring != slot {
        return Swept::Empty;
    }
    if expires <= now {
        return if binding::reclaim(env, &key, slot, now) { Swept::Reclaimed } else { Swept::Empty };
    }
    if word.has(BindingWord::UNSYNCED) {
        binding::tell(env, &key, BindingEventKind::Found, word, expires);
        return Swept::Told;
    }
    Swept::Live
}

#[inline(always)]
fn sweep_flow<E: Env>(env: &E, index: u32, now: u64) -> Swept {
    let (Some(record), Some(settings)) = (env.flow(index), env.settings()) else { return Swept::Empty };
    let word = flow::word_of(record);
    if matches!(word.state(), FlowState::Free | FlowState::Claimed) {
        return Swept::Empty;
    }
    // SAFETY: from the environment.
    let seen = unsafe { (&raw const (*record).last_seen).read_volatile() };
    if seen.wrapping_add(flow::lifetime(settings, word)) > now {
        return Swept::Live;
    }
    if flow::release(env, record, index, word) { Swept::Reclaimed } else { Swept::Live }
}

/// Applies binding records; each record's operation is replaced by its [`RecordResult`].
#[inline(always)]
pub fn apply<E: Env>(env: &E) -> Verdict {
    let now = env.now();
    env.repeat(RECORDS_PER_RUN as u32, |i| {
        let offset = (i as usize & (RECORDS_PER_RUN - 1)) * size_of::<BindingRecord>();
        let Some(p) = frame::at(env, offset, size_of::<BindingRecord>()) else { return true };
        // SAFETY: checked for its size; plain integers.
        let record = unsafe {
            BindingRecord {
                session: get(p),
                word: get(p.add(8)),
                lifetime: get(p.add(16)),
                service: get(p.add(24)),
                op: get(p.add(28)),
                pad: [0; 3],
            }
        };
        let result = apply_one(env, &record, now);
        if let Some(p) = frame::at(env, offset + 28, 1) {
            // SAFETY: checked for one byte.
            unsafe { put(p, result as u8) };
        }
        false
    });
    Verdict::Pass
}

#[inline(always)]
fn apply_one<E: Env>(env: &E, record: &BindingRecord, now: u64) -> RecordResult {
    let key = BindingKey::new(record.service, record.session);
    let word = BindingWord(record.word);
    if record.op == BindingOp::Put as u8 {
        put_binding(env, &key, word, now.wrapping_add(record.lifetime), now)
    } else if record.op == BindingOp::Copy as u8 {
        match env.binding(&key) {
            Some(_) => RecordResult::Superseded,
            None => insert(env, &key, word, now.wrapping_add(record.lifetime), now),
        }
    } else if record.op == BindingOp::Delete as u8 {
        delete(env, &key, word)
    } else if record.op == BindingOp::Acknowledge as u8 {
        acknowledge(env, &key, word)
    } else {
        RecordResult::Invalid
    }
}

/// Inserts, or replaces what is expired or of an older generation; the same generation keeps the later expiry.
#[inline(always)]
fn put_binding<E: Env>(env: &E, key: &BindingKey, word: BindingWord, expires: u64, now: u64) -> RecordResult {
    let Some(cell) = env.binding(key) else { return insert(env, key, word, expires, now) };
    // SAFETY: from the environment.
    let (old, old_expires) = unsafe {
        (BindingWord((&raw const (*cell).word).read_volatile()), (&raw const (*cell).expires).read_volatile())
    };
    // Whoever marked it dead is about to delete it, whatever it says by then.
    if old.has(BindingWord::DEAD) {
        return RecordResult::Superseded;
    }
    if old_expires > now && !newer(word.generation(), old.generation()) {
        let same = word.generation() == old.generation() && word.backend() == old.backend();
        if same && expires > old_expires {
            // SAFETY: from the environment.
            unsafe { (&raw mut (*cell).expires).write_volatile(expires) };
        }
        return if same { RecordResult::Applied } else { RecordResult::Superseded };
    }
    // SAFETY: from the environment.
    unsafe {
        if !env.exchange(&raw mut (*cell).word, old.0, word.without(BindingWord::DEAD).0) {
            return RecordResult::Superseded;
        }
        (&raw mut (*cell).expires).write_volatile(expires);
    }
    RecordResult::Applied
}

#[inline(always)]
fn insert<E: Env>(env: &E, key: &BindingKey, word: BindingWord, expires: u64, now: u64) -> RecordResult {
    if key.service != 0 && binding::insert(env, key, word, expires, now) {
        RecordResult::Applied
    } else {
        RecordResult::Full
    }
}

#[inline(always)]
fn delete<E: Env>(env: &E, key: &BindingKey, word: BindingWord) -> RecordResult {
    let Some(cell) = env.binding(key) else { return RecordResult::Absent };
    // SAFETY: from the environment.
    let old = BindingWord(unsafe { (&raw const (*cell).word).read_volatile() });
    if newer(old.generation(), word.generation()) {
        return RecordResult::Superseded;
    }
    if binding::delete(env, key, cell, old, |_| true) {
        RecordResult::Applied
    } else {
        RecordResult::Superseded
    }
}

#[inline(always)]
fn acknowledge<E: Env>(env: &E, key: &BindingKey, word: BindingWord) -> RecordResult {
    let Some(cell) = env.binding(key) else { return RecordResult::Absent };
    let word = word.with(BindingWord::UNSYNCED);
    // SAFETY: from the environment.
    let done = unsafe { env.exchange(&raw mut (*cell).word, word.0, word.without(BindingWord::UNSYNCED).0) };
    if done { RecordResult::Applied } else { RecordResult::Superseded }
}

/// Whether generation `a` comes after `b`; generations are 24 bits and wrap (RFC 1982).
#[inline(always)]
const fn newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b) & BindingWord::GENERATION_MASK;
    ahead != 0 && ahead <= BindingWord::GENERATION_MASK / 2
}

#[cfg(test)]
mod tests;
