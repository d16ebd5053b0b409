//! Which backend gets a new session, where its load has a say.
//!
//! Only sessions without a binding come here. Who is bound stays, and who moves because a backend failed follows the order alone, so
//! that every node and the program `rebind` come to the same. Two connections of one session that open at once must not go to
//! two backends: where the first one went is remembered until it can be bound.

use super::choice::{self, NONE, Want};
use super::scratch::{Packet, Scratch, after, again};
use super::vitals::{self, Sign};
use super::{Env, Verdict, answer, binding, count, splice};
use crate::abi::{
    Affinity, BindingKey, CHOICE_ENTRIES, Method, Outcome, Service, ServiceFlags, Settings, program,
};
use crate::select::{PROBES, Probes};

/// Members that are compared: all of a smaller pool; of a larger one so many in a row, from a place that the session says.
const COMPARED: u32 = 64;
/// A tick of the clock in which choices are remembered, as a power of two of nanoseconds: a second.
const TICK: u32 = 30;
/// Ticks that a choice is remembered for: as long as a handshake may take.
const TICKS: u16 = 10;
/// Shorter answers are not told apart, as a power of two of nanoseconds: the clock of the programs is coarser.
const FLOOR: u32 = 20;
/// What was measured counts half after each of these, as a power of two of nanoseconds, so that who was slow is tried again.
const HALVES: u32 = 33;

/// The program that picks a new session's backend for `open` and `connect`, which have no room for that on their stacks.
#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &mut *scratch };
    let Some(service) = choice::service_of(env, settings, &scratch.packet) else {
        return count::end(env, Outcome::NotOurs);
    };
    if scratch.after != after::PICK {
        return carry(env, service, scratch);
    }
    if scratch.path != 0 {
        let Some(pool) = pool(env, service, scratch.path) else { return count::end(env, Outcome::NotOurs) };
        let found = pick(env, pool, scratch.session, env.now());
        // None is 0 there.
        scratch.wanted = found.wrapping_add(1);
        scratch.again = again::PICKED;
        return env.tail(program::CONNECT);
    }
    let session = choice::session_left(service, settings, scratch);
    let mut found = NONE;
    if has_other_session(service, settings, &scratch.packet) {
        let session = choice::carry(env, service, settings, &scratch.packet, session);
        found = bound(env, service.id, session);
    }
    if found == NONE {
        found = pick(env, service, session, env.now());
    }
    if found == NONE {
        return answer::no_backend(env, &scratch.packet);
    }
    scratch.wanted = found.wrapping_add(1);
    env.tail(program::OPEN)
}

/// Whether the session of a new flow may be bound under another key: without affinity flows themselves are the sessions.
#[inline(always)]
pub(crate) fn has_other_session(service: &Service, settings: &Settings, packet: &Packet) -> bool {
    service.affinity == Affinity::SourceIp as u8 && choice::has_other_session(service, settings, packet)
}

/// Carries a session's binding over to its key for programs that have no room for that on their stacks, and goes on.
#[inline(always)]
fn carry<E: Env>(env: &E, service: &Service, scratch: &mut Scratch) -> Verdict {
    let after = scratch.after;
    let session = binding::carry(env, scratch.carried, scratch.session, scratch.other);
    if after == after::CONNECT {
        if session != scratch.session {
            splice::goes_by(env, scratch, session);
        }
        return env.tail(program::CONNECT);
    }
    scratch.session = session;
    if after == after::BIND {
        return env.tail(program::BIND);
    }
    if after == after::NAT_OF_SESSION {
        let mut found = bound(env, service.id, session);
        if found == NONE {
            found = choice::walk(env, service, session, Want::Accepts);
        }
        if found == NONE {
            found = choice::walk(env, service, session, Want::Serves);
        }
        scratch.wanted = found.wrapping_add(1);
    }
    env.tail(program::NAT)
}

/// The backend that a session is bound to and that serves it, or [`NONE`].
#[inline(never)]
fn bound<E: Env>(env: &E, service: u32, session: u64) -> u32 {
    let Some(found) = binding::find_again(env, &BindingKey::new(service, session), env.now()) else {
        return NONE;
    };
    if binding::backend(env, found.word).is_none() {
        return NONE;
    }
    found.word.backend() as u32
}

/// The pool of a path rule, or the service's own, as [`Scratch::path`](super::Scratch::path) says it.
#[inline(always)]
fn pool<'a, E: Env>(env: &'a E, service: &'a Service, path: u32) -> Option<&'a Service> {
    if path == 1 {
        return Some(service);
    }
    let rules = env.affinity_rules(service.slot)?;
    Some(&env.path_rule(rules.paths.wrapping_add(path).wrapping_sub(2))?.service)
}

/// Whether new sessions do not simply go to the first of their order.
#[inline(always)]
pub(crate) const fn hangs_on_load(service: &Service) -> bool {
    service.method != Method::Order as u8 || service.flags & ServiceFlags::LIMITED != 0
}

/// The backend of a session that has no binding, or [`NONE`].
#[inline(never)]
fn pick<E: Env>(env: &E, service: &Service, session: u64, now: u64) -> u32 {
    let recent = remembered(env, service.id, session, now);
    if recent != NONE && has_room(env, recent as u16) {
        return recent;
    }
    let compares_all = service.method >= Method::LeastConnections as u8;
    let found =
        if compares_all { least(env, service, session, now) } else { early(env, service, session, now) };
    if found != NONE {
        remember(env, service.id, session, found, now);
        return found;
    }
    if choice::walk(env, service, session, Want::Accepts) == NONE {
        // Nobody takes new sessions, so limits are not the reason.
        return choice::walk(env, service, session, Want::Serves);
    }
    env.count(Outcome::LimitsReached);
    NONE
}

/// The first of the session's order with room for it; of the first two the one with less to do, where two are compared.
#[inline(never)]
fn early<E: Env>(env: &E, service: &Service, session: u64, now: u64) -> u32 {
    let mut first = choice::walk(env, service, session, Want::Accepts);
    if first == NONE {
        return NONE;
    }
    if !has_room(env, first as u16) {
        let full = first as u16;
        first = walk(env, service, session, NONE);
        if first != NONE {
            vitals::note(env, full, Sign::Overflowed);
            env.count(Outcome::LimitPassed);
        }
    }
    if first == NONE || service.method != Method::TwoChoices as u8 {
        return first;
    }
    let second = walk(env, service, session, first);
    if second == NONE {
        return first;
    }
    let cost = |slot: u32| cost(env, slot as u16, Method::TwoChoices as u8, now);
    if cost(second) < cost(first) { second } else { first }
}

/// The first of the session's order but `other` that takes new sessions and has room for one more connection.
#[inline(never)]
fn walk<E: Env>(env: &E, service: &Service, session: u64, other: u32) -> u32 {
    choice::first_of(env, service, session, |slot| slot as u32 != other && has_room(env, slot))
}

/// Whether a backend takes new sessions and may have one more connection.
#[inline(never)]
fn has_room<E: Env>(env: &E, slot: u16) -> bool {
    let Some(backend) = env.backend(slot) else { return false };
    choice::takes(env, slot, Want::Accepts) && vitals::has_room(env, slot, backend.limit)
}

/// The member with least to do; among equals the first behind a place that the session says.
#[inline(never)]
fn least<E: Env>(env: &E, service: &Service, session: u64, now: u64) -> u32 {
    let count = service.member_count;
    if count == 0 {
        return NONE;
    }
    let start = Probes::new(session).value(PROBES) % count;
    let (members, method) = (service.members, service.method);
    let (mut found, mut lowest) = (NONE, u64::MAX);
    env.repeat(if count < COMPARED { count } else { COMPARED }, |i| {
        let place = start.wrapping_add(i);
        let place = if place >= count { place.wrapping_sub(count) } else { place };
        if let Some(slot) = env.arena(members.wrapping_add(place)) {
            let cost = cost(env, slot, method, now);
            if cost < lowest {
                lowest = cost;
                found = slot as u32;
            }
        }
        false
    });
    found
}

/// What one more connection costs at a backend, by its weight; the most there is when it cannot have one.
#[inline(never)]
fn cost<E: Env>(env: &E, slot: u16, method: u8, now: u64) -> u64 {
    const MOST: u64 = 1 << 24;
    let Some(backend) = env.backend(slot) else { return u64::MAX };
    if !has_room(env, slot) {
        return u64::MAX;
    }
    let load = vitals::connections(env, slot) + 1;
    let load = if load < MOST { load } else { MOST };
    let time = if method == Method::LeastTime as u8 { time(env, slot, now) } else { 1 };
    let weight = if backend.weight == 0 { 1 } else { backend.weight as u64 };
    ((load * time) << 10) / weight
}

/// How long the backend takes to answer a SYN, in units of about a millisecond, at least 1.
#[inline(always)]
fn time<E: Env>(env: &E, slot: u16, now: u64) -> u64 {
    const MOST: u64 = 1 << 20;
    let Some(vitals) = env.vitals(slot) else { return 1 };
    // SAFETY: from the environment.
    let (response, accepted) = unsafe {
        ((&raw const (*vitals).response).read_volatile(), (&raw const (*vitals).accepted).read_volatile())
    };
    let age = now.wrapping_sub(accepted) >> HALVES;
    let time = response >> if age < 40 { age } else { 40 } >> FLOOR;
    if time == 0 {
        1
    } else if time < MOST {
        time
    } else {
        MOST
    }
}

/// Where a session went a few seconds ago, if that backend is one of the service's; else [`NONE`].
#[inline(never)]
pub(crate) fn remembered<E: Env>(env: &E, service: u32, session: u64, now: u64) -> u32 {
    let hash = hash(service, session);
    let Some(cell) = env.choice(hash as u32 % CHOICE_ENTRIES) else { return NONE };
    // SAFETY: from the environment.
    let word = unsafe { cell.read_volatile() };
    let age = tick(now).wrapping_sub(word as u16);
    if word >> 32 != hash >> 32 || age > TICKS {
        return NONE;
    }
    let slot = (word >> 16) as u16;
    if env.backend(slot).is_none_or(|backend| backend.service != service) {
        return NONE;
    }
    if age != 0 {
        remember(env, service, session, slot as u32, now);
    }
    slot as u32
}

#[inline(always)]
fn remember<E: Env>(env: &E, service: u32, session: u64, slot: u32, now: u64) {
    let hash = hash(service, session);
    if let Some(cell) = env.choice(hash as u32 % CHOICE_ENTRIES) {
        let word = hash >> 32 << 32 | (slot as u64 & 0xffff) << 16 | tick(now) as u64;
        // SAFETY: from the environment; another session of the same place is forgotten.
        unsafe { cell.write_volatile(word) }
    }
}

#[inline(always)]
const fn tick(now: u64) -> u16 {
    (now >> TICK) as u16
}

#[inline(always)]
const fn hash(service: u32, session: u64) -> u64 {
    let hash = (session ^ (service as u64) << 32 ^ service as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

const _: () = assert!(CHOICE_ENTRIES.is_power_of_two());

#[cfg(test)]
mod tests;
