//! Fragments: the first one decides, the rest follows.

use super::binding::Chosen;
use super::scratch::{Packet, part, to_service};
use super::{Env, Verdict, binding, choice, count, entry, flow, forward, nat, parse};
use crate::abi::{
    Affinity, BindingKey, BindingWord, FlowRef, FragmentKey, FragmentRef, Mode, Outcome, Service, ServiceKey,
    Settings, SettingsFlags, program,
};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let packet = unsafe { &mut (*scratch).packet };
    if packet.part == part::FIRST { first(env, settings, packet) } else { later(env, settings, packet) }
}

/// Keeps what the first fragment decided.
#[inline(always)]
pub(crate) fn keep<E: Env>(env: &E, packet: &Packet, flow: FlowRef, (slot, backend): Chosen<'_>) {
    env.keep_fragment(
        &key(packet),
        &FragmentRef {
            flow: flow.0,
            backend: slot,
            backend_generation: backend.generation,
            destination_port: packet.destination_port,
            source_port: packet.source_port,
            protocol: packet.protocol,
            pad: [0; 7],
        },
    );
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        identification: packet.identification,
        protocol: packet.train,
        pad: [0; 3],
    }
}

/// A first fragment has ports and goes the way of whole packets.
#[inline(always)]
fn first<E: Env>(env: &E, settings: &Settings, packet: &mut Packet) -> Verdict {
    let Some(service) = choice::service_of(env, settings, packet) else {
        if settings.flags & SettingsFlags::NAT == 0 {
            return count::end(env, Outcome::NotOurs);
        }
        return entry::to_nat(env, to_service::NONE);
    };
    if let Err(outcome) = parse::transport(env, packet) {
        return count::end(env, outcome);
    }
    if choice::reads_payload(service, packet) {
        return env.tail(program::QUIC);
    }
    if service.mode == Mode::Nat as u8 {
        entry::to_nat(env, to_service::of(service))
    } else {
        env.tail(program::BIND)
    }
}

/// A later fragment takes the first one's decision.
#[inline(always)]
fn later<E: Env>(env: &E, settings: &Settings, packet: &mut Packet) -> Verdict {
    match env.fragment(&key(packet)) {
        Some(decision) if decision.flow != 0 => match flow::by_ref(env, FlowRef(decision.flow), env.now()) {
            Some(live) => nat::send_fragment(env, settings, packet, &live),
            None => count::end(env, Outcome::Fragment),
        },
        Some(decision) => {
            packet.source_port = decision.source_port;
            packet.destination_port = decision.destination_port;
            packet.protocol = decision.protocol;
            let word = BindingWord::new(decision.backend, decision.backend_generation, 0);
            match (choice::service_of(env, settings, packet), binding::backend(env, word)) {
                (Some(service), Some(chosen)) => send(env, settings, service, packet, chosen),
                _ => count::end(env, Outcome::Fragment),
            }
        }
        None => unguided(env, settings, packet),
    }
}

/// A later fragment that came before the first one.
#[inline(always)]
fn unguided<E: Env>(env: &E, settings: &Settings, packet: &Packet) -> Verdict {
    if env.service(&ServiceKey::vip(packet.destination)).is_none() {
        return count::end(env, Outcome::NotOurs);
    }
    let Some(service) = env.service(&ServiceKey::alone(packet.destination, packet.protocol)) else {
        return count::end(env, Outcome::Fragment);
    };
    if service.affinity != Affinity::SourceIp as u8 || service.mode == Mode::Nat as u8 {
        return count::end(env, Outcome::Fragment);
    }
    let session = choice::session(service, settings, packet);
    let mut key = BindingKey::new(service.id, session);
    if choice::has_other_session(service, settings, packet) {
        let other = choice::other_session(service.affinity, service, settings, packet);
        key.session = binding::bound_as(env, service.id, session, other);
    }
    let bound = binding::find(env, &key, env.now()).and_then(|found| binding::backend(env, found.word));
    match bound.or_else(|| choice::choose(env, service, session)) {
        Some(chosen) => send(env, settings, service, packet, chosen),
        None => count::end(env, Outcome::NoBackend),
    }
}

#[inline(always)]
fn send<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
    chosen: Chosen<'_>,
) -> Verdict {
    let session = choice::session(service, settings, packet);
    forward::direct(env, settings, service, packet, session, chosen, false)
}
