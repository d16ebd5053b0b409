//! Bindings: following one, making one, moving a session.

pub(crate) mod table;

use super::{Env, Insert, limits};
use crate::abi::{
    Addr, Backend, BindingEvent, BindingEventKind, BindingKey, BindingSlot, BindingWord, Outcome, Service,
    SlotState, Status, UNPROVED_LIFETIME,
};

/// The expiry is written when it moves by more than this part of the lifetime.
pub(crate) const TOUCH_PART: u64 = 16;
/// The client that a binding is for.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) address: &'a Addr,
    /// Whether it showed that it receives what is sent to its address.
    pub(crate) proved: bool,
    /// Whether its backend said itself whose the session is.
    pub(crate) learnt: bool,
}

/// A live binding, as it was when it was read.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    slot: *mut BindingSlot,
    pub(crate) word: BindingWord,
    pub(crate) expires: u64,
}

/// A backend with its slot.
pub(crate) type Chosen<'a> = (u16, &'a Backend);

/// Finds the binding of a key, if it lives.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, key: &BindingKey, now: u64) -> Option<Found> {
    let found = read(table::find(env, key)?, key)?;
    if found.expires <= now { None } else { Some(found) }
}

/// The same, out of line: for the programs where size counts more than a call.
#[inline(always)]
pub(crate) fn find_again<E: Env>(env: &E, key: &BindingKey, now: u64) -> Option<Found> {
    at(env, key, table::seek(env, key)).filter(|found| found.expires > now)
}

/// What is in a slot, if it is still that key's.
#[inline(always)]
fn read(slot: *mut BindingSlot, key: &BindingKey) -> Option<Found> {
    let (word, expires) = (table::word_of(slot), table::expiry_of(slot));
    // Other CPUs write: who claims a slot changes its word before and after the key.
    if word.slot_state() == SlotState::Live && table::is_of(slot, key) {
        Some(Found { slot, word, expires })
    } else {
        None
    }
}

/// The backend of a binding, if it still owns its slot and serves bound sessions.
#[inline(always)]
pub(crate) fn backend<E: Env>(env: &E, word: BindingWord) -> Option<Chosen<'_>> {
    let slot = word.backend();
    let backend = env.backend(slot)?;
    let status = env.status(Status::word(slot))?;
    if backend.generation == word.slot_generation() && Status::serves(status, slot) {
        Some((slot, backend))
    } else {
        None
    }
}

/// Extends a binding that is used.
#[inline(always)]
pub(crate) fn touch(found: &Found, now: u64, lifetime: u64) {
    let expires = now.wrapping_add(lifetime);
    if expires.wrapping_sub(found.expires) > lifetime / TOUCH_PART {
        extend(found, expires);
    }
}

/// Lets a binding end later. Should the slot be another one's by now, a stranger's lives longer by at most one lifetime,
/// which is harmless.
#[inline(always)]
pub(crate) fn extend(found: &Found, expires: u64) {
    // SAFETY: from the environment.
    unsafe { (&raw mut (*found.slot).expires).write_volatile(expires) }
}

/// Binds a session to a backend, or moves it there.
#[inline(always)]
pub(crate) fn bind<E: Env>(
    env: &E,
    service: &Service,
    key: &BindingKey,
    (slot, backend): Chosen<'_>,
    client: Client<'_>,
    now: u64,
) {
    match table::seek(env, key) {
        table::BUSY => {}
        table::ABSENT => {
            if !limits::may_bind(env, service, limits::prefix(client.address), now) {
                return;
            }
            let expires = now.wrapping_add(first_lifetime(service, client));
            let word = BindingWord::new(slot, backend.generation, 0).with(BindingWord::UNSYNCED);
            if insert(env, key, word, expires, now) == Insert::Done {
                super::count::bound(env, service.slot, slot);
                tell(env, key, BindingEventKind::Made, word, expires);
            }
        }
        number => {
            if let Some(found) = at(env, key, number) {
                renew(env, service, key, &found, (slot, backend), client, now);
            }
        }
    }
}

/// Gives a session that has no binding under its key the one that it has under the key which the other secret makes; answers the
/// key to go by.
///
/// The same backend, for as long, with the same home. The binding under the other key stays, for nodes and connections that go by
/// it. There are as many of those as were made before, so neither rate nor quota is asked, nor whether the client is real. Where no
/// copy can be made, because the table is full or another CPU is at the slot, the other key is the one to go by.
#[inline(never)]
pub(crate) fn carry<E: Env>(env: &E, service: u32, session: u64, other: u64) -> u64 {
    if session == other {
        return session;
    }
    let now = env.now();
    // One key for both look-ups, for the sake of the stack.
    let mut key = BindingKey::new(service, session);
    let number = table::seek(env, &key);
    if is_live(env, &key, number, now) {
        return session;
    }
    key.session = other;
    let Some(found) = find_again(env, &key, now) else { return session };
    key.session = session;
    let word = found.word.content().with(BindingWord::UNSYNCED);
    let is_done = match number {
        table::BUSY => false,
        table::ABSENT => add(env, &key, word, &found, now),
        _ => give(env, &key, number, word, &found),
    };
    if !is_done {
        return other;
    }
    tell(env, &key, BindingEventKind::Made, word, found.expires);
    session
}

/// The key under which a session is bound, for packets that bind nothing: its own, unless there is only a binding under the other one.
#[inline(never)]
pub(crate) fn bound_as<E: Env>(env: &E, service: u32, session: u64, other: u64) -> u64 {
    let now = env.now();
    let is_bound = |session: u64| find_again(env, &BindingKey::new(service, session), now).is_some();
    if !is_bound(session) && is_bound(other) { other } else { session }
}

/// Whether the binding in a key's slot has not ended.
#[inline(always)]
fn is_live<E: Env>(env: &E, key: &BindingKey, number: u32, now: u64) -> bool {
    match at(env, key, number) {
        Some(found) => found.expires > now,
        None => false,
    }
}

/// Puts a copy of a binding in under a key that is absent; whether it is in.
#[inline(always)]
fn add<E: Env>(env: &E, key: &BindingKey, word: BindingWord, like: &Found, now: u64) -> bool {
    if insert(env, key, word, like.expires, now) != Insert::Done {
        return false;
    }
    let home = home(like);
    if home != 0 {
        set_home(env, key, home);
    }
    true
}

/// Makes what is in a key's slot, where it is over, a copy of another binding; whether nobody else changed it meanwhile.
#[inline(always)]
fn give<E: Env>(env: &E, key: &BindingKey, number: u32, word: BindingWord, like: &Found) -> bool {
    let Some(old) = at(env, key, number) else { return false };
    if !replace(env, &old, word, like.expires) {
        return false;
    }
    table::set_home(old.slot, home(like));
    true
}

/// How long a new binding lives without another packet.
#[inline(always)]
fn first_lifetime(service: &Service, client: Client<'_>) -> u64 {
    if client.proved || service.lifetime < UNPROVED_LIFETIME { service.lifetime } else { UNPROVED_LIFETIME }
}

/// Gives an existing binding another backend: the session moved, or the binding had expired.
///
/// Where it had expired, the new one is a new binding in every respect but the room it takes.
#[inline(always)]
fn renew<E: Env>(
    env: &E,
    service: &Service,
    key: &BindingKey,
    old: &Found,
    (slot, backend): Chosen<'_>,
    client: Client<'_>,
    now: u64,
) {
    let moved = old.expires > now;
    if moved && old.word.backend() == slot && old.word.slot_generation() == backend.generation {
        return;
    }
    if !moved && !limits::may_bind(env, service, limits::prefix(client.address), now) {
        return;
    }
    let lifetime = if moved { service.lifetime } else { first_lifetime(service, client) };
    let expires = now.wrapping_add(lifetime);
    let generation = if moved { old.word.generation().wrapping_add(1) } else { 0 };
    let word = BindingWord::new(slot, backend.generation, generation).with(BindingWord::UNSYNCED);
    if replace(env, old, word, expires) {
        if moved && !client.learnt {
            leave_home(old);
        } else {
            table::set_home(old.slot, 0);
        }
        let kind = if moved {
            BindingEventKind::Moved
        } else {
            super::count::bound(env, service.slot, slot);
            BindingEventKind::Made
        };
        tell(env, key, kind, word, expires);
    }
}

/// Gives a binding another word and expiry; whether nobody else changed it meanwhile.
///
/// The expiry goes first, so that nobody reclaims an expired slot that has its new word already. In the slot of a stranger
/// it does no harm.
#[inline(always)]
pub(crate) fn replace<E: Env>(env: &E, old: &Found, content: BindingWord, expires: u64) -> bool {
    extend(old, expires);
    change(env, old, content)
}

/// Notes where a session has come from that had to move, unless it had to before.
#[inline(always)]
pub(crate) fn leave_home(old: &Found) {
    if table::home_of(old.slot) == 0 {
        table::set_home(old.slot, old.word.place());
    }
}

/// What is noted of a session with another word: it moved, ended, or somebody wants it there.
#[inline(always)]
pub(crate) fn note_home(old: &Found, new: BindingWord, now: u64) {
    if old.expires <= now || new.has(BindingWord::PINNED) {
        table::set_home(old.slot, 0);
    } else if old.word.backend() != new.backend() || old.word.slot_generation() != new.slot_generation() {
        leave_home(old);
    }
}

/// Where a session was before it had to move; 0 = unknown.
#[inline(always)]
pub(crate) fn home(found: &Found) -> u16 {
    table::home_of(found.slot)
}

/// Notes where a session that was copied had been.
#[inline(always)]
pub(crate) fn set_home<E: Env>(env: &E, key: &BindingKey, home: u16) {
    if let Some(found) = at(env, key, table::seek(env, key)) {
        table::set_home(found.slot, home);
    }
}

/// Gives a binding another word; whether nobody else changed it meanwhile.
#[inline(always)]
pub(crate) fn change<E: Env>(env: &E, old: &Found, content: BindingWord) -> bool {
    // SAFETY: from the environment.
    unsafe { env.exchange(&raw mut (*old.slot).word, old.word.0, old.word.with_content(content).0) }
}

/// Puts a binding in that is absent; a full table is counted.
#[inline(always)]
pub(crate) fn insert<E: Env>(env: &E, key: &BindingKey, word: BindingWord, expires: u64, now: u64) -> Insert {
    let inserted = table::put(env, key, word, expires, now);
    if inserted == Insert::Full {
        env.count(Outcome::BindingsFull);
    }
    inserted
}

/// The slot of a key with what is in it, expired or not; `None` while it is claimed.
#[inline(always)]
pub(crate) fn at<E: Env>(env: &E, key: &BindingKey, number: u32) -> Option<Found> {
    read(table::slot(env, number)?, key)
}

/// Tells `lbd` of a binding; a lost event is found again by the unsynced flag.
#[inline(never)]
pub(crate) fn tell<E: Env>(
    env: &E,
    key: &BindingKey,
    kind: BindingEventKind,
    word: BindingWord,
    expires: u64,
) {
    let event = BindingEvent {
        session: key.session,
        service: key.service,
        kind: kind as u32,
        word: word.content().0,
        expires,
    };
    if !env.tell(&event) {
        env.count(Outcome::EventLost);
    }
}

#[cfg(test)]
mod tests;
