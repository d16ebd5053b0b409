//! The binding table: look-up, insert with reclaim, moving a session.

use super::{Env, Insert, limits};
use crate::abi::{
    Addr, Backend, Binding, BindingEvent, BindingEventKind, BindingKey, BindingWord, Outcome, Service,
    Status, hand,
};

/// Ring slots an insert looks at for one to reuse.
const RING_PROBES: u32 = 16;
/// An expired entry is reclaimed this much later (ns), so that nobody is still about to revive it.
const GRACE: u64 = 1_000_000_000;
/// The expiry is written when it moves by more than this part of the lifetime.
const TOUCH_PART: u64 = 16;
/// A new binding lives no longer than this (ns) when nothing proves that its client is real; its next packet makes it
/// a whole lifetime. Forged packets that come once thus take no room for long.
const UNPROVED: u64 = 30_000_000_000;

/// The client that a binding is for.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) address: &'a Addr,
    /// Whether it showed that it receives what is sent to its address.
    pub(crate) proved: bool,
}

/// A live binding, as it was when it was read.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    cell: *mut Binding,
    pub(crate) word: BindingWord,
    pub(crate) expires: u64,
}

/// A backend with its slot.
pub(crate) type Chosen<'a> = (u16, &'a Backend);

/// Finds the binding of a key, if it lives.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, key: &BindingKey, now: u64) -> Option<Found> {
    let cell = env.binding(key)?;
    // SAFETY: from the environment; other CPUs write, so every field is read once.
    let (word, expires, tag) = unsafe {
        (
            BindingWord((&raw const (*cell).word).read_volatile()),
            (&raw const (*cell).expires).read_volatile(),
            (&raw const (*cell).tag).read_volatile(),
        )
    };
    if tag != key.tag() || expires <= now || word.has(BindingWord::DEAD) {
        return None;
    }
    Some(Found { cell, word, expires })
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
        // SAFETY: from the environment. Should the entry have been recycled, a stranger's binding lives longer by at
        // most one lifetime, which is harmless.
        unsafe { (&raw mut (*found.cell).expires).write_volatile(expires) }
    }
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
    match env.binding(key) {
        Some(cell) => renew(env, service, key, cell, (slot, backend), client, now),
        None => {
            if !limits::may_bind(env, service, limits::prefix(client.address), now) {
                return;
            }
            let expires = now.wrapping_add(first_lifetime(service, client));
            let word = BindingWord::new(slot, backend.generation, 0).with(BindingWord::UNSYNCED);
            if insert(env, key, word, expires, now) {
                super::count::bound(env, service.slot, slot);
                tell(env, key, BindingEventKind::Made, word, expires);
            }
        }
    }
}

/// How long a new binding lives without another packet.
#[inline(always)]
fn first_lifetime(service: &Service, client: Client<'_>) -> u64 {
    if client.proved || service.lifetime < UNPROVED { service.lifetime } else { UNPROVED }
}

/// Gives an existing entry another backend: the session moved, or the binding had expired.
///
/// Where it had expired, the new one is a new binding in every respect but the room it takes.
#[inline(always)]
fn renew<E: Env>(
    env: &E,
    service: &Service,
    key: &BindingKey,
    cell: *mut Binding,
    (slot, backend): Chosen<'_>,
    client: Client<'_>,
    now: u64,
) {
    // SAFETY: from the environment.
    let (old, old_expires, tag) = unsafe {
        (
            BindingWord((&raw const (*cell).word).read_volatile()),
            (&raw const (*cell).expires).read_volatile(),
            (&raw const (*cell).tag).read_volatile(),
        )
    };
    if tag != key.tag() || old.has(BindingWord::DEAD) {
        return;
    }
    let moved = old_expires > now;
    if moved && old.backend() == slot && old.slot_generation() == backend.generation {
        return;
    }
    if !moved && !limits::may_bind(env, service, limits::prefix(client.address), now) {
        return;
    }
    let lifetime = if moved { service.lifetime } else { first_lifetime(service, client) };
    let expires = now.wrapping_add(lifetime);
    let generation = if moved { old.generation().wrapping_add(1) } else { 0 };
    let word = BindingWord::new(slot, backend.generation, generation).with(BindingWord::UNSYNCED);
    // SAFETY: from the environment.
    if unsafe { env.exchange(&raw mut (*cell).word, old.0, word.0) } {
        // SAFETY: from the environment.
        unsafe { (&raw mut (*cell).expires).write_volatile(expires) }
        let kind = if moved {
            BindingEventKind::Moved
        } else {
            super::count::bound(env, service.slot, slot);
            BindingEventKind::Made
        };
        tell(env, key, kind, word, expires);
    }
}

/// Inserts a key that is absent, taking over the ring slot of an expired one. Whether it is in.
#[inline(always)]
pub(crate) fn insert<E: Env>(env: &E, key: &BindingKey, word: BindingWord, expires: u64, now: u64) -> bool {
    let Some(ring) = free_ring_slot(env, now) else {
        env.count(Outcome::BindingsFull);
        return false;
    };
    let Some(place) = env.binding_ring(ring) else { return false };
    // SAFETY: from the environment. Another CPU can be here only if it went round the whole ring since the slot was
    // found; the entry that loses its slot then lives until its key is used again.
    unsafe { place.write_volatile(*key) };
    let binding = Binding { word: word.0, expires, ring, tag: key.tag() };
    match env.insert_binding(key, &binding) {
        Insert::Done => {
            live(env, 1);
            true
        }
        Insert::Taken => false,
        Insert::Full => {
            env.count(Outcome::BindingsFull);
            false
        }
    }
}

/// Deletes an entry that has been expired for a while. Whether its ring slot is free.
///
/// The entry is marked dead first and the expiry looked at again, so that a session revived at that moment stays.
#[inline(always)]
pub(crate) fn reclaim<E: Env>(env: &E, key: &BindingKey, ring: u32, now: u64) -> bool {
    let Some(cell) = env.binding(key) else { return true };
    // SAFETY: from the environment.
    let (word, expires, own) = unsafe {
        (
            BindingWord((&raw const (*cell).word).read_volatile()),
            (&raw const (*cell).expires).read_volatile(),
            (&raw const (*cell).ring).read_volatile(),
        )
    };
    if own != ring {
        return true;
    }
    if expires.wrapping_add(GRACE) > now || word.has(BindingWord::DEAD) {
        return false;
    }
    delete(env, key, cell, word, |expires| expires <= now)
}

/// Marks an entry dead, asks again, and deletes it.
#[inline(always)]
pub(crate) fn delete<E: Env>(
    env: &E,
    key: &BindingKey,
    cell: *mut Binding,
    word: BindingWord,
    still: impl Fn(u64) -> bool,
) -> bool {
    // SAFETY: from the environment.
    unsafe {
        if !env.exchange(&raw mut (*cell).word, word.0, word.with(BindingWord::DEAD).0) {
            return false;
        }
        if !still((&raw const (*cell).expires).read_volatile()) {
            env.exchange(&raw mut (*cell).word, word.with(BindingWord::DEAD).0, word.0);
            return false;
        }
    }
    if env.delete_binding(key) {
        live(env, u64::MAX);
    }
    true
}

/// Tells `lbd` of a binding; a lost event is found again by the unsynced flag.
#[inline(always)]
pub(crate) fn tell<E: Env>(
    env: &E,
    key: &BindingKey,
    kind: BindingEventKind,
    word: BindingWord,
    expires: u64,
) {
    let event =
        BindingEvent { session: key.session, service: key.service, kind: kind as u32, word: word.0, expires };
    if !env.tell(&event) {
        env.count(Outcome::EventLost);
    }
}

/// A ring slot whose key is gone or can go.
#[inline(always)]
fn free_ring_slot<E: Env>(env: &E, now: u64) -> Option<u32> {
    let len = env.settings()?.binding_ring;
    if len == 0 {
        return None;
    }
    let hand = env.hand(hand::BINDING)?;
    let mut free = None;
    env.repeat(RING_PROBES, |_| {
        // SAFETY: from the environment.
        let slot = unsafe { env.add(hand, 1) } as u32 % len;
        let Some(place) = env.binding_ring(slot) else { return true };
        // SAFETY: from the environment.
        let key = unsafe { place.read_volatile() };
        if key.service == 0 || reclaim(env, &key, slot, now) {
            free = Some(slot);
            return true;
        }
        false
    });
    free
}

/// Keeps the number of live bindings.
#[inline(always)]
fn live<E: Env>(env: &E, change: u64) {
    if let Some(cell) = env.hand(hand::BINDINGS_LIVE) {
        // SAFETY: from the environment.
        unsafe { env.add(cell, change) };
    }
}
