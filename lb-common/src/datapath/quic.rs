//! The program for datagrams that say themselves whose they are: QUIC connection ids and payload segments.
//!
//! A server's name in a connection id decides at once and leaves no trace. A segment is a session like any other. What
//! cannot be read goes by the service's fallback, as if that were its affinity.
//!
//! In `nat` the datagram's 5-tuple still finds its flow; one that is for another backend than the flow's has
//! a flow of its own beside it ([`FlowKey::aside`](crate::abi::FlowKey::aside)).

mod connection;
mod segment;

use super::binding::{self, Chosen};
use super::scratch::{Packet, Scratch, after, part};
use super::{Env, Verdict, answer, choice, count, forward, fragment};
use crate::abi::{
    Affinity, AffinityRules, BindingKey, FlowRef, Mode, Outcome, Service, Settings, Status, program,
};
use crate::packet::Udp;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &mut *scratch };
    let Some(service) = choice::service_of(env, settings, &scratch.packet) else {
        return count::end(env, Outcome::NotOurs);
    };
    let Some(rules) = env.affinity_rules(service.slot) else { return count::end(env, Outcome::NotOurs) };
    if service.affinity == Affinity::QuicCid as u8 {
        let Some((session, slot)) = connection::server(env, service, rules, &scratch.packet) else {
            env.count(Outcome::QuicUnroutable);
            return fallback(env, settings, service, rules, scratch);
        };
        let Some(chosen) = serving(env, service, session, slot) else {
            return answer::no_backend(env, &scratch.packet);
        };
        scratch.session = session;
        return send(env, settings, service, scratch, wanted(Some(chosen)));
    }
    let Some(session) = segment::session(env, settings, rules, scratch) else {
        env.count(Outcome::PayloadShort);
        return fallback(env, settings, service, rules, scratch);
    };
    scratch.session = session;
    let mut slot = bound(env, service, session);
    if slot == 0 && rules.length as usize > size_of::<u64>() && choice::has_two_secrets(settings) {
        scratch.other = segment::other_session(settings, rules, scratch);
        let is_nat = service.mode == Mode::Nat as u8;
        return carry(env, service, scratch, if is_nat { after::NAT_OF_SESSION } else { after::BIND });
    }
    if slot == 0 && service.mode == Mode::Nat as u8 {
        slot = wanted(choice::choose(env, service, session));
    }
    send(env, settings, service, scratch, slot)
}

/// A backend's slot plus one; 0 = none. An option of a pair would leave bytes undefined, which the verifier refuses.
#[inline(always)]
fn wanted(chosen: Option<Chosen<'_>>) -> u32 {
    match chosen {
        Some((slot, _)) => slot as u32 + 1,
        None => 0,
    }
}

/// The payload of a datagram whose header has been checked: offset and length, inside the packet.
#[inline(always)]
fn payload<E: Env>(env: &E, packet: &Packet) -> Option<(usize, usize)> {
    let start = packet.l4 as usize + Udp::LEN;
    let room = packet.l4_len().wrapping_sub(Udp::LEN);
    let p = super::frame::at(env, packet.l4 as usize, Udp::LEN)?;
    // SAFETY: checked for the header.
    let len = (unsafe { Udp::new(p) }.len() as usize).wrapping_sub(Udp::LEN);
    // A first fragment's length speaks of the whole datagram.
    Some((start, if len < room { len } else { room }))
}

/// The named backend, or while it is down the first one in the order of the connections to it.
#[inline(always)]
fn serving<'a, E: Env>(env: &'a E, service: &Service, session: u64, slot: u16) -> Option<Chosen<'a>> {
    if env.status(Status::word(slot)).is_some_and(|word| Status::serves(word, slot)) {
        return Some((slot, env.backend(slot)?));
    }
    env.count(Outcome::ServerDown);
    choice::choose(env, service, session)
}

/// The backend that a session is bound to, as [`wanted`] has it.
#[inline(never)]
fn bound<E: Env>(env: &E, service: &Service, session: u64) -> u32 {
    let now = env.now();
    let Some(found) = binding::find_again(env, &BindingKey::new(service.id, session), now) else { return 0 };
    if binding::backend(env, found.word).is_none() {
        return 0;
    }
    binding::touch(&found, now, service.lifetime);
    found.word.backend() as u32 + 1
}

/// Leaves a datagram that cannot be read to the programs that know 5-tuples and addresses.
#[inline(always)]
fn fallback<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    rules: &AffinityRules,
    scratch: &mut Scratch,
) -> Verdict {
    scratch.session = choice::session_by(rules.fallback, service, settings.session_secret(), &scratch.packet);
    let is_nat = service.mode == Mode::Nat as u8;
    if choice::has_two_secrets(settings) {
        scratch.other = choice::other_session(rules.fallback, service, settings, &scratch.packet);
        if scratch.other != scratch.session {
            return carry(env, service, scratch, if is_nat { after::NAT } else { after::BIND });
        }
    }
    scratch.wanted = 0;
    scratch.aside = 0;
    scratch.to_service = 1;
    env.tail(if is_nat { program::NAT } else { program::BIND })
}

/// Leaves it to another program, which has room for that, to carry the session's binding over to its key.
#[inline(always)]
fn carry<E: Env>(env: &E, service: &Service, scratch: &mut Scratch, after: u32) -> Verdict {
    scratch.wanted = 0;
    scratch.aside = 0;
    scratch.to_service = 1;
    scratch.carried = service.id;
    scratch.after = after;
    env.tail(program::PICK)
}

/// Sends a datagram to its backend; without one it is for the program that binds.
#[inline(always)]
fn send<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    scratch: &mut Scratch,
    wanted: u32,
) -> Verdict {
    if service.mode == Mode::Nat as u8 {
        scratch.wanted = wanted;
        scratch.aside = 0;
        scratch.to_service = 1;
        return env.tail(program::NAT);
    }
    if wanted == 0 {
        return env.tail(program::BIND);
    }
    let slot = wanted.wrapping_sub(1) as u16;
    let Some(backend) = env.backend(slot) else { return env.tail(program::BIND) };
    let chosen = (slot, backend);
    let packet = &scratch.packet;
    if packet.part == part::FIRST {
        fragment::keep(env, packet, FlowRef::default(), chosen);
    }
    forward::direct(env, settings, service, packet, scratch.session, chosen, false)
}
