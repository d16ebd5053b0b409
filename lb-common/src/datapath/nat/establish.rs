//! The program that settles a flow which proved itself: binds its session and moves it out of the half-open ring.

use super::super::binding::Client;
use super::super::flow::{self, Live, Room};
use super::super::scratch::Packet;
use super::super::{Env, Verdict, answer, binding, choice, count, vitals};
use super::{owner, to_backend};
use crate::abi::{
    Affinity, BindingKey, Flow, FlowKey, FlowRef, FlowState, FlowWord, Outcome, Service, Settings,
};
use crate::packet::protocol;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&(*scratch).packet, (*scratch).flow) };
    let now = env.now();
    let Some(live) = flow::by_ref(env, reference, now) else { return count::end(env, Outcome::Raced) };
    let established = live.word.with_state(FlowState::Established);
    // The segment that proves may also be the client's last.
    let established = if packet.protocol == protocol::TCP {
        flow::after_segment(established, true, packet.tcp_flags)
    } else {
        established
    };
    // One CPU settles the flow; the others use the record as it is until it is moved.
    if live.word.state() != FlowState::Answered || !live.change(env, established) {
        return send(env, settings, packet, &live);
    }
    let live = Live { word: established, ..live };
    let bound = bind(env, settings, &live, now);
    match promote(env, &live, bound, now) {
        Ok(promoted) => send(env, settings, packet, &promoted),
        Err(Outcome::FlowsFull) => full(env, packet, &live),
        Err(outcome) => count::end(env, outcome),
    }
}

#[inline(always)]
fn send<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live) -> Verdict {
    match owner(env, live) {
        Some(backend) => to_backend(env, settings, packet, live, (live.flow().backend, backend), false),
        None => count::end(env, Outcome::Raced),
    }
}

/// Binds the flow's session to its backend. Whether the session has a binding.
#[inline(always)]
fn bind<E: Env>(env: &E, settings: &Settings, live: &Live, now: u64) -> bool {
    let flow = live.flow();
    let client = &flow.client;
    let service: Option<&Service> =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let (Some(service), Some(backend)) = (service, owner(env, live)) else { return false };
    if !is_session(env, settings, service, flow) {
        return false;
    }
    let key = BindingKey::new(flow.service, flow.session);
    match binding::find_again(env, &key, now) {
        Some(found) if binding::backend(env, found.word).is_some() => {
            binding::touch(&found, now, service.lifetime);
        }
        _ => {
            let client = Client { address: &client.source, proved: true, learnt: false };
            binding::bind(env, service, &key, (flow.backend, backend), client, now);
        }
    }
    true
}

/// Whether the flow's key is a session's that bindings are made for.
///
/// Without affinity the flow itself is the session, and its record pins it; a server's name in a connection id needs nobody to remember it.
#[inline(never)]
fn is_session<E: Env>(env: &E, settings: &Settings, service: &Service, flow: &Flow) -> bool {
    if service.affinity <= Affinity::SourceIp as u8 {
        return service.affinity == Affinity::SourceIp as u8;
    }
    let Some(rules) = env.affinity_rules(service.slot) else { return false };
    let by_source = rules.fallback == Affinity::SourceIp as u8;
    // The flow may have been opened while the other secret was in use.
    let is_fallback = is_key(service, rules.fallback, settings.session_secret(), flow)
        || choice::has_two_secrets(settings)
            && is_key(service, rules.fallback, settings.other_secret(), flow);
    if service.affinity == Affinity::QuicCid as u8 {
        by_source && is_fallback
    } else {
        by_source || !is_fallback
    }
}

/// Whether the flow's key is the one that its addresses and ports make under a secret.
#[inline(never)]
fn is_key(service: &Service, affinity: u8, secret: &[u64; 2], flow: &Flow) -> bool {
    flow.session == choice::session_of_client(affinity, service, secret, &flow.client)
}

/// Copies the flow to an established record, points both directions at it, and frees the half-open one.
#[inline(always)]
fn promote<E: Env>(env: &E, live: &Live, bound: bool, now: u64) -> Result<Live, Outcome> {
    let room = if live.word.has(FlowWord::DATAGRAM) { Room::Datagrams } else { Room::Established };
    let old = live.flow();
    let client = (&old.client.source, old.client.source_port);
    let place = flow::allocate(env, room, client, now).ok_or(Outcome::FlowsFull)?;
    let mut word = FlowWord(live.word.0 & 0xffff_ffff | (place.reference.nonce() as u64) << 32);
    if bound {
        word = word.with(FlowWord::BOUND);
    }
    // SAFETY: claimed by this CPU, and distinct from the half-open record.
    let new = unsafe { &mut *place.record };
    new.last_seen = now;
    new.client = old.client;
    new.server = old.server;
    new.session = old.session;
    new.service = old.service;
    new.service_slot = old.service_slot;
    new.backend = old.backend;
    new.backend_generation = old.backend_generation;
    new.client_mac = old.client_mac;
    new.local_mac = old.local_mac;
    new.window = 0;
    new.client_mtu = old.client_mtu;
    new.ifindex = old.ifindex;
    new.tags = old.tags;
    new.answer = old.answer;
    // The half-open ring may have come round meanwhile. At home the copy can be found from the next line on, so it has to
    // be of one flow.
    if !live.is_same() {
        flow::vacate(&place);
        return Err(Outcome::Raced);
    }
    let (index, nonce) = (place.reference.index(), place.reference.nonce());
    // SAFETY: from the environment; complete before it can be found.
    unsafe { (&raw mut (*place.record).word).write_volatile(word.0) };
    // One after the other: two CPUs that do this at once must not get one direction each, and both give up.
    let both = point(env, live, &new.client, FlowRef::new(index, nonce, false))
        && point(env, live, &new.server, FlowRef::new(index, nonce, true));
    if !both {
        // What is released leaves the count, where the old record still is.
        if word.has(FlowWord::COUNTED) {
            vitals::joins(env, place.record);
        }
        // Another CPU does the same, or the half-open ring came round before both directions had left the old record.
        flow::release(env, place.record, index, word);
        return Err(Outcome::Raced);
    }
    // A FIN that another CPU noted in the old record meanwhile is noted again with the next segment.
    let last = flow::word_of(live.record);
    let free = FlowWord::new(last.nonce(), FlowState::Free);
    let frees = last.nonce() == live.reference.nonce()
        // SAFETY: from the environment.
        && unsafe { env.exchange(&raw mut (*live.record).word, last.0, free.0) };
    // The count goes over with the word; where somebody else had the old one, he took it from there.
    if word.has(FlowWord::COUNTED) && !(frees && last.has(FlowWord::COUNTED)) {
        vitals::joins(env, place.record);
    }
    Ok(Live { record: place.record, reference: place.reference, word })
}

/// Points one direction's entry from the old record to the new one; whether it still was the old one's.
#[inline(always)]
fn point<E: Env>(env: &E, live: &Live, key: &FlowKey, new: FlowRef) -> bool {
    let old = FlowRef::new(live.reference.index(), live.reference.nonce(), new.is_reply());
    // SAFETY: from the environment.
    env.flow_ref(key).is_some_and(|cell| unsafe { env.exchange(cell, old.0, new.0) })
}

/// No room for another flow: the connection is refused.
#[inline(always)]
fn full<E: Env>(env: &E, packet: &Packet, live: &Live) -> Verdict {
    flow::release(env, live.record, live.reference.index(), live.word);
    if packet.protocol == protocol::TCP { answer::refuse(env) } else { count::end(env, Outcome::FlowsFull) }
}

#[cfg(test)]
mod tests;
