//! The entry program: parse, find the service, and send bound sessions of the direct modes on their way.

use super::scratch::{Scratch, part, to_service};
use super::{Env, Verdict, bind, binding, choice, count, flow, forward, parse};
use crate::abi::{BindingKey, FlowWord, Mode, Outcome, ServiceFlags, ServiceKey, SettingsFlags, program};
use crate::packet::protocol;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let Some(scratch) = env.scratch() else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &mut *scratch };
    let packet = &mut scratch.packet;
    if let Err(outcome) = parse::parse(env, packet) {
        return count::end(env, outcome);
    }
    match packet.protocol {
        protocol::TCP | protocol::UDP if packet.part == part::WHOLE => transport(env, scratch),
        protocol::TCP | protocol::UDP => env.tail(program::FRAGMENT),
        protocol::ICMP if packet.is_v4() => env.tail(program::ICMP),
        protocol::ICMPV6 if !packet.is_v4() => env.tail(program::ICMP),
        // In IPv6 the rest of a train may name an extension header that only the first fragment has.
        _ if packet.part == part::LATER => env.tail(program::FRAGMENT),
        _ => count::end(env, Outcome::NotOurs),
    }
}

#[inline(always)]
fn transport<E: Env>(env: &E, scratch: &mut Scratch) -> Verdict {
    let Some(settings) = env.settings() else { return count::end(env, Outcome::NotOurs) };
    let packet = &mut scratch.packet;
    let key = ServiceKey::service(packet.destination.by_words(), packet.destination_port, packet.protocol);
    let nat = settings.flags & SettingsFlags::NAT != 0;
    let service = match env.service_at_hand(&key) {
        Some(service) => Some(service),
        None if nat && is_spliced_reply(env, scratch) => return leave(env, scratch, to_service::REPLY),
        None => choice::service_by(env, settings, &key),
    };
    let Some(service) = service else {
        return if nat { leave(env, scratch, to_service::NONE) } else { count::end(env, Outcome::NotOurs) };
    };
    let packet = &mut scratch.packet;
    if let Err(outcome) = parse::transport(env, packet) {
        return count::end(env, outcome);
    }
    if choice::reads_payload(service, packet) {
        return env.tail(program::QUIC);
    }
    if service.mode == Mode::Nat as u8 {
        let spliced = service.flags & ServiceFlags::SPLICE != 0;
        if spliced && packet.protocol == protocol::TCP && bind::opens_tcp(packet.tcp_flags) {
            scratch.service_slot = service.slot;
            return env.tail(program::GREET);
        }
        return leave(env, scratch, to_service::of(service));
    }
    let session = choice::session(service, settings, packet);
    let now = env.now();
    let found = binding::find(env, &BindingKey::new(service.id, session), now);
    let chosen = match &found {
        Some(found) => {
            let chosen = binding::backend(env, found.word);
            if chosen.is_some() {
                binding::touch(found, now, service.lifetime);
            }
            chosen
        }
        // A SYN binds nothing, so it need not go through `bind`.
        None if packet.protocol == protocol::TCP
            && !bind::may_bind_tcp(packet.tcp_flags)
            && !(choice::has_two_secrets(settings) && choice::is_hashed(service, packet)) =>
        {
            choice::first(env, service, session)
        }
        None => None,
    };
    match chosen {
        Some(chosen) => {
            let opens = packet.protocol == protocol::TCP && bind::opens_tcp(packet.tcp_flags);
            forward::direct(env, settings, service, packet, session, chosen, opens)
        }
        None => env.tail(program::BIND),
    }
}

/// Whether the packet is for the client of a spliced flow at home, which is left in the scratch: there is no need to look for a
/// service then. Nobody with the address of one gets a SYN-ACK.
#[inline(always)]
fn is_spliced_reply<E: Env>(env: &E, scratch: &mut Scratch) -> bool {
    let packet = &scratch.packet;
    if packet.protocol != protocol::TCP {
        return false;
    }
    let Some(live) = flow::find_at_home(env, packet, true, env.now()) else { return false };
    let (client, to) = (&live.flow().client.source.0, &packet.destination.0);
    // With source NAT the reply is to an address of the balancer's, which may be a service's too.
    let is_to_client =
        (client[0] ^ to[0]) | (client[1] ^ to[1]) | (client[2] ^ to[2]) | (client[3] ^ to[3]) == 0;
    scratch.flow = live.reference;
    is_to_client && live.word.has(FlowWord::SPLICED)
}

/// Leaves the packet to the program that knows flows.
#[inline(always)]
pub(crate) fn to_nat<E: Env>(env: &E, to_service: u32) -> Verdict {
    let Some(scratch) = env.scratch() else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    leave(env, unsafe { &mut *scratch }, to_service)
}

/// The same for who has the scratch at hand.
#[inline(always)]
fn leave<E: Env>(env: &E, scratch: &mut Scratch, to_service: u32) -> Verdict {
    scratch.to_service = to_service;
    scratch.wanted = 0;
    scratch.aside = 0;
    env.tail(program::NAT)
}
