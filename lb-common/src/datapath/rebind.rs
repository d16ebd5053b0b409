//! The program that moves sessions from backends that failed or are drained, run by `lbd`.
//!
//! A packet that comes first moves its session itself ([`super::bind`]), by the same function of the same tables, so it does not
//! matter who comes first.

use super::binding::{self, table};
use super::choice::{self, Want};
use super::{Env, Verdict, frame};
use crate::abi::{
    BindingWord, REBIND_MAX, RebindReport, RebindRequest, RebindWhom, Service, SlotState, Status, place,
};
use crate::packet::{get, put};

/// What became of one slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rebound {
    /// Nothing had to be done.
    Stays,
    Moved,
    /// It should have moved.
    Left,
}

/// Moves bindings in a stretch of their table. The frame holds a [`RebindRequest`] and then a [`RebindReport`].
#[inline(always)]
pub fn rebind<E: Env>(env: &E) -> Verdict {
    let Some(p) = frame::head(env, size_of::<RebindRequest>()) else { return Verdict::Drop };
    // SAFETY: checked for its size; plain integers.
    let (request, service) = unsafe {
        let request = Request { whom: get(p.add(8)), idle: get(p.add(16)), backend: get(p.add(44)) };
        let service = Service {
            id: get(p.add(24)),
            table: get(p.add(28)),
            table_mask: get(p.add(32)),
            members: get(p.add(36)),
            member_count: get(p.add(40)),
            ..Service::default()
        };
        (request, service)
    };
    // SAFETY: as above.
    let (start, count, limit): (u32, u32, u32) = unsafe { (get(p), get(p.add(4)), get(p.add(12))) };
    let Some(settings) = env.settings() else { return Verdict::Drop };
    let left = (settings.binding_buckets * crate::abi::BINDING_SLOTS).saturating_sub(start);
    let count = if count < left { count } else { left };
    let count = if count < REBIND_MAX { count } else { REBIND_MAX };
    let now = env.now();
    let mut report = RebindReport::default();
    env.repeat(count, |i| {
        match one(env, start.wrapping_add(i), &request, &service, now) {
            Rebound::Stays => {}
            Rebound::Moved => report.moved += 1,
            Rebound::Left => report.left += 1,
        }
        report.looked_at = i.wrapping_add(1);
        report.moved >= limit
    });
    let Some(p) = frame::head(env, size_of::<RebindReport>()) else { return Verdict::Drop };
    // SAFETY: checked for its size.
    unsafe {
        put(p, report.looked_at);
        put(p.add(4), report.moved);
        put(p.add(8), report.left);
        put(p.add(12), 0_u32);
    }
    Verdict::Pass
}

/// What all slots of a run have in common.
#[derive(Clone, Copy)]
struct Request {
    whom: u32,
    idle: u64,
    /// The slot below this one; 0 = any.
    backend: u32,
}

#[inline(always)]
fn one<E: Env>(env: &E, number: u32, request: &Request, service: &Service, now: u64) -> Rebound {
    let Some(slot) = table::slot(env, number) else { return Rebound::Stays };
    let word = table::word_of(slot);
    let key = table::key_of(slot);
    if word.slot_state() != SlotState::Live || key.service != service.id {
        return Rebound::Stays;
    }
    let expires = table::expiry_of(slot);
    if expires <= now || !moves(env, word, expires.wrapping_sub(now), request) {
        return Rebound::Stays;
    }
    let Some(found) = binding::at(env, &key, number) else { return Rebound::Left };
    let to = target(env, service, key.session, request.whom, binding::home(&found));
    // Who wants to go back and cannot, or is there, is not missing anything.
    let may_stay = request.whom == RebindWhom::Idle as u32 || request.whom == RebindWhom::Homeless as u32;
    let stays = if may_stay { Rebound::Stays } else { Rebound::Left };
    if to == choice::NONE {
        return stays;
    }
    let to = to as u16;
    let Some(backend) = env.backend(to) else { return stays };
    if to == word.backend() && backend.generation == word.slot_generation() {
        return stays;
    }
    let generation = word.generation().wrapping_add(1);
    let moved = BindingWord::new(to, backend.generation, generation).with(BindingWord::UNSYNCED);
    // The expiry stays: nobody has been heard of.
    if found.word != word || !binding::change(env, &found, moved) {
        return Rebound::Left;
    }
    binding::leave_home(&found);
    Rebound::Moved
}

/// The backend slot that a session is to move to, or [`choice::NONE`].
#[inline(never)]
fn target<E: Env>(env: &E, service: &Service, session: u64, whom: u32, home: u16) -> u32 {
    if whom == RebindWhom::Homeless as u32 {
        return at_home(env, service, home);
    }
    let found = choice::walk(env, service, session, Want::Accepts);
    if found == choice::NONE { choice::walk(env, service, session, Want::Serves) } else { found }
}

/// The slot of the backend that a session had to leave, if it is in the pool and takes sessions again.
#[inline(always)]
fn at_home<E: Env>(env: &E, service: &Service, home: u16) -> u32 {
    let mut found = choice::NONE;
    let members = service.members;
    env.repeat(if home == 0 { 0 } else { service.member_count }, |i| {
        let Some(slot) = env.arena(members.wrapping_add(i)) else { return true };
        let is_it = env.backend(slot).is_some_and(|backend| place(slot, backend.generation) == home);
        if is_it && choice::takes(env, slot, Want::Accepts) {
            found = slot as u32;
        }
        is_it
    });
    found
}

/// Whether a binding is one of those that move.
#[inline(always)]
fn moves<E: Env>(env: &E, word: BindingWord, lasts: u64, request: &Request) -> bool {
    let Some(backend) = binding::backend(env, word) else { return true };
    if request.whom == RebindWhom::Stranded as u32 || word.has(BindingWord::PINNED) {
        return false;
    }
    if request.whom == RebindWhom::Homeless as u32 {
        return lasts <= request.idle;
    }
    if request.whom == RebindWhom::Idle as u32 {
        // Who never moved is where he was put, whatever the order says: a backend may have set his cookie.
        return lasts <= request.idle && word.generation() != 0;
    }
    let (slot, _) = backend;
    request.whom == RebindWhom::Drained as u32
        && (request.backend == 0 || request.backend == slot as u32 + 1)
        && env.status(Status::word(slot)).is_some_and(|status| !Status::accepts(status, slot))
}

#[cfg(test)]
mod tests;
