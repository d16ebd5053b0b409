//! The programs that `lbd` runs itself, with a request in place of a packet.

use super::binding::{self, table};
use super::{Env, Insert, Verdict, flow, frame, vitals};
use crate::abi::{
    BINDING_SLOTS, BindingEventKind, BindingKey, BindingOp, BindingRecord, BindingWord, FlowState,
    RECORDS_PER_RUN, RecordResult, SlotState, SweepReport, SweepRequest, SweepTarget,
};
use crate::packet::{get, put};

/// Most slots in one run.
const SWEEP_MAX: u32 = 65_536;

/// What became of one slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swept {
    Empty,
    Live,
    /// Live, and `lbd` was told again.
    Told,
    Reclaimed,
}

/// Deletes what has expired in a stretch of a table, and tells `lbd` again of bindings it has not acknowledged.
///
/// Everything is looked at again at the moment of deletion. The frame holds a [`SweepRequest`] and then a
/// [`SweepReport`].
#[inline(always)]
pub fn sweep<E: Env>(env: &E) -> Verdict {
    let Some(p) = frame::head(env, size_of::<SweepRequest>()) else { return Verdict::Drop };
    // SAFETY: checked for its size; plain integers.
    let request: SweepRequest = unsafe {
        SweepRequest { target: get(p), start: get(p.add(4)), count: get(p.add(8)), pad: get(p.add(12)) }
    };
    let Some(settings) = env.settings() else { return Verdict::Drop };
    env.set_clock();
    if request.target == SweepTarget::Ended as u32 {
        let taken = vitals::ended(env, request.start as u16, request.pad as u16, request.count);
        return report_of(env, &SweepReport { reclaimed: taken, ..SweepReport::default() });
    }
    let bindings = request.target == SweepTarget::Bindings as u32;
    let len =
        if bindings { settings.binding_buckets * BINDING_SLOTS } else { settings.half_open + settings.flows };
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
    report_of(env, &report)
}

#[inline(always)]
fn report_of<E: Env>(env: &E, report: &SweepReport) -> Verdict {
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
fn sweep_binding<E: Env>(env: &E, number: u32, now: u64) -> Swept {
    let Some(slot) = table::slot(env, number) else { return Swept::Empty };
    let key = table::key_of(slot);
    let (word, expires) = (table::word_of(slot), table::expiry_of(slot));
    if word.slot_state() != SlotState::Live {
        return Swept::Empty;
    }
    if expires <= now {
        return if table::reclaim(env, number, now) { Swept::Reclaimed } else { Swept::Empty };
    }
    if word.has(BindingWord::UNSYNCED) && table::is_of(slot, &key) {
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
    if seen.wrapping_add(flow::lifetime(settings, word)).wrapping_add(flow::trace(settings, word)) > now {
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
                pad: 0,
                home: get(p.add(30)),
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
    let word = BindingWord(record.word).content();
    let expires = now.wrapping_add(record.lifetime);
    let number = table::seek(env, &key);
    if record.op == BindingOp::Put as u8 {
        put_binding(env, &key, number, word, expires, now)
    } else if record.op == BindingOp::Copy as u8 {
        copy(env, &key, number, word, (expires, record.home), now)
    } else if record.op == BindingOp::Delete as u8 {
        delete(env, &key, number, word)
    } else if record.op == BindingOp::Acknowledge as u8 {
        acknowledge(env, &key, number, word)
    } else if record.op == BindingOp::Settle as u8 {
        settle(env, &key, number, word.without(BindingWord::UNSYNCED), expires, now)
    } else if record.op == BindingOp::Clear as u8 {
        clear(env, &key, number, now)
    } else {
        RecordResult::Invalid
    }
}

/// Inserts, or replaces what is expired or of an older generation; the same generation keeps the later expiry.
#[inline(always)]
fn put_binding<E: Env>(
    env: &E,
    key: &BindingKey,
    number: u32,
    word: BindingWord,
    expires: u64,
    now: u64,
) -> RecordResult {
    if number == table::ABSENT {
        return insert(env, key, word, expires, now);
    }
    // Whoever claimed the slot is changing it, whatever it says by then.
    let Some(old) = binding::at(env, key, number) else { return RecordResult::Superseded };
    if old.expires > now && !newer(word.generation(), old.word.generation()) {
        let same = word.generation() == old.word.generation() && word.backend() == old.word.backend();
        if same && expires > old.expires {
            binding::extend(&old, expires);
        }
        return if same { RecordResult::Applied } else { RecordResult::Superseded };
    }
    if !binding::replace(env, &old, word, expires) {
        return RecordResult::Superseded;
    }
    binding::note_home(&old, word, now);
    RecordResult::Applied
}

/// Inserts what is absent, as it was in another table.
#[inline(always)]
fn copy<E: Env>(
    env: &E,
    key: &BindingKey,
    number: u32,
    word: BindingWord,
    (expires, home): (u64, u16),
    now: u64,
) -> RecordResult {
    if number != table::ABSENT {
        return RecordResult::Superseded;
    }
    let inserted = insert(env, key, word, expires, now);
    if home != 0 && matches!(inserted, RecordResult::Applied) {
        binding::set_home(env, key, home);
    }
    inserted
}

#[inline(always)]
fn insert<E: Env>(env: &E, key: &BindingKey, word: BindingWord, expires: u64, now: u64) -> RecordResult {
    if key.service == 0 {
        return RecordResult::Invalid;
    }
    match binding::insert(env, key, word, expires, now) {
        Insert::Done => RecordResult::Applied,
        Insert::Taken => RecordResult::Superseded,
        Insert::Full => RecordResult::Full,
    }
}

#[inline(always)]
fn delete<E: Env>(env: &E, key: &BindingKey, number: u32, word: BindingWord) -> RecordResult {
    if number == table::ABSENT {
        return RecordResult::Absent;
    }
    let Some(old) = binding::at(env, key, number) else { return RecordResult::Superseded };
    if !newer(old.word.generation(), word.generation()) && table::remove(env, key, number, old.word) {
        RecordResult::Applied
    } else {
        RecordResult::Superseded
    }
}

#[inline(always)]
fn acknowledge<E: Env>(env: &E, key: &BindingKey, number: u32, word: BindingWord) -> RecordResult {
    if number == table::ABSENT {
        return RecordResult::Absent;
    }
    let Some(old) = binding::at(env, key, number) else { return RecordResult::Superseded };
    let is_told = old.word.content() == word.with(BindingWord::UNSYNCED);
    if is_told && binding::change(env, &old, word.without(BindingWord::UNSYNCED)) {
        RecordResult::Applied
    } else {
        RecordResult::Superseded
    }
}

/// Inserts or replaces, whatever the generation, unless the data plane has something to tell of it first.
#[inline(always)]
fn settle<E: Env>(
    env: &E,
    key: &BindingKey,
    number: u32,
    word: BindingWord,
    expires: u64,
    now: u64,
) -> RecordResult {
    if number == table::ABSENT {
        let inserted = insert(env, key, word, expires, now);
        return if matches!(inserted, RecordResult::Superseded) { RecordResult::Busy } else { inserted };
    }
    let Some(old) = binding::at(env, key, number) else { return RecordResult::Busy };
    if old.expires > now && old.word.has(BindingWord::UNSYNCED) {
        return RecordResult::Superseded;
    }
    let expires = if old.expires > expires { old.expires } else { expires };
    if !binding::replace(env, &old, word, expires) {
        return RecordResult::Busy;
    }
    binding::note_home(&old, word, now);
    RecordResult::Applied
}

/// Deletes, whatever the generation, unless the data plane has something to tell of it first.
#[inline(always)]
fn clear<E: Env>(env: &E, key: &BindingKey, number: u32, now: u64) -> RecordResult {
    if number == table::ABSENT {
        return RecordResult::Absent;
    }
    let Some(old) = binding::at(env, key, number) else { return RecordResult::Busy };
    if old.expires > now && old.word.has(BindingWord::UNSYNCED) {
        return RecordResult::Superseded;
    }
    if table::remove(env, key, number, old.word) { RecordResult::Applied } else { RecordResult::Busy }
}

/// Whether generation `a` comes after `b`; generations are 24 bits and wrap (RFC 1982).
#[inline(always)]
const fn newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b) & BindingWord::GENERATION_MASK;
    ahead != 0 && ahead <= BindingWord::GENERATION_MASK / 2
}

#[cfg(test)]
mod tests;
