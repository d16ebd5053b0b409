//! The program that opens a flow: choose, claim a record, find a source port, make it findable.

use super::super::binding::{self, Chosen};
use super::super::flow::{self, Live, Room};
use super::super::scratch::{Packet, Scratch, after};
use super::super::{Env, Insert, Verdict, answer, choice, count, forward, frame, fresh, vitals};
use super::to_backend;
use crate::abi::{
    Be16, BindingKey, Flow, FlowKey, FlowRef, FlowState, FlowWord, Outcome, Service, ServiceFlags, Settings,
    program,
};
use crate::affinity;
use crate::packet::{Ethernet, protocol};

/// Source ports tried, the client's own first.
const PORT_TRIES: u32 = 32;
/// First port that source NAT uses.
const FIRST_PORT: u32 = 1024;
/// Number of ports from there on.
const PORTS: u32 = 64_512;
/// Step between candidates; odd and prime to [`PORTS`].
const PORT_STEP: u32 = 7_919;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &mut *scratch };
    let packet = &scratch.packet;
    let Some(service) = choice::service_of(env, settings, packet) else {
        return count::end(env, Outcome::NotOurs);
    };
    let session = choice::session_left(service, settings, scratch);
    let now = env.now();
    if scratch.wanted == 0
        && (fresh::hangs_on_load(service) || fresh::has_other_session(service, settings, packet))
        && binding::find_again(env, &BindingKey::new(service.id, session), now).is_none()
    {
        scratch.path = 0;
        scratch.after = after::PICK;
        return env.tail(program::PICK);
    }
    let Some((slot, backend)) = chosen(env, service, session, scratch.wanted, now) else {
        return answer::no_backend(env, packet);
    };
    if let Some(verdict) = forward::admissible(env, packet, backend, 0) {
        return verdict;
    }
    forget_old(env, scratch);
    let Some(live) = flow::allocate(env, Room::HalfOpen, (&packet.source, packet.source_port), now) else {
        return count::end(env, Outcome::FlowsFull);
    };
    if fill(env, service, scratch, &live, session, (slot, backend), now).is_none() {
        return count::end(env, Outcome::Malformed);
    }
    match publish(env, settings, service, packet, &live) {
        Ok(live) => to_backend(env, settings, packet, &live, (slot, backend), true),
        Err(outcome) => count::end(env, outcome),
    }
}

/// The backend that was found on the way here, that the session is bound to, or that comes first in its order.
#[inline(always)]
fn chosen<'a, E: Env>(
    env: &'a E,
    service: &Service,
    session: u64,
    wanted: u32,
    now: u64,
) -> Option<Chosen<'a>> {
    if wanted != 0 {
        let slot = (wanted - 1) as u16;
        return Some((slot, env.backend(slot)?));
    }
    let bound = binding::find(env, &BindingKey::new(service.id, session), now)
        .and_then(|found| binding::backend(env, found.word));
    bound.or_else(|| choice::choose(env, service, session))
}

/// Ends the flow that was found by the same key before; out of line for the sake of the stack.
#[inline(never)]
fn forget_old<E: Env>(env: &E, scratch: &Scratch) {
    let Some(cell) = env.flow_ref(&scratch.packet.flow_key().aside(scratch.aside)) else { return };
    // SAFETY: from the environment.
    let reference = FlowRef(unsafe { cell.read_volatile() });
    let Some(record) = env.flow(reference.index()) else { return };
    let word = flow::word_of(record);
    if word.nonce() == reference.nonce() && !matches!(word.state(), FlowState::Free | FlowState::Claimed) {
        flow::release(env, record, reference.index(), word);
    }
}

/// Writes the record, which nobody can find yet; its server side is completed with the source port.
#[inline(always)]
fn fill<E: Env>(
    env: &E,
    service: &Service,
    scratch: &Scratch,
    live: &Live,
    session: u64,
    (slot, backend): Chosen<'_>,
    now: u64,
) -> Option<()> {
    let packet = &scratch.packet;
    let p = frame::head(env, Ethernet::LEN)?;
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    let (local_mac, client_mac) = (ethernet.destination(), ethernet.source());
    let port = if backend.port.raw() == 0 { packet.destination_port } else { backend.port };
    let snat = service.flags & ServiceFlags::SNAT != 0;
    let toward = if snat { service.source } else { packet.source };
    // SAFETY: claimed by this CPU; the word is left as it is.
    let record = unsafe { &mut *live.record };
    record.last_seen = now;
    // Not `flow_key`: a second key put together by words does not fit on the stack.
    record.client = FlowKey {
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        pad: [0; 3],
    }
    .aside(scratch.aside);
    record.server = FlowKey {
        source: backend.address,
        destination: toward,
        source_port: port,
        destination_port: packet.source_port,
        protocol: packet.protocol,
        pad: [0; 3],
    };
    record.session = session;
    record.service = service.id;
    record.service_slot = service.slot;
    record.backend = slot;
    record.backend_generation = backend.generation;
    record.client_mac = client_mac;
    record.local_mac = local_mac;
    record.window = 0;
    record.client_mtu = client_mtu(env);
    record.ifindex = packet.ingress(env);
    record.tags = packet.tags;
    record.answer = 0;
    Some(())
}

/// The MTU of the client's link, as far as an IP packet's length reaches.
#[inline(always)]
pub(crate) fn client_mtu<E: Env>(env: &E) -> u16 {
    let mtu = env.ingress_mtu();
    if mtu > u16::MAX as u32 { u16::MAX } else { mtu as u16 }
}

/// Finds a source port whose reply key is free, and makes the flow findable from both sides.
#[inline(always)]
fn publish<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
    live: &Live,
) -> Result<Live, Outcome> {
    let reference = live.reference;
    let reply = FlowRef::new(reference.index(), reference.nonce(), true);
    let opening = FlowWord::new(reference.nonce(), FlowState::Opening).with(FlowWord::COUNTED);
    let opening = if packet.protocol == protocol::TCP { opening } else { opening.with(FlowWord::DATAGRAM) };
    if !take_port(env, settings, service, live.record, reply) {
        flow::vacate(live);
        return Err(Outcome::PortsExhausted);
    }
    // SAFETY: from the environment; written above, and changed by nobody.
    let (client, server) = unsafe { ((*live.record).client, (*live.record).server) };
    // Both sides can find it from here on, so the record is complete first.
    vitals::joins(env, live.record);
    // SAFETY: from the environment.
    unsafe { (&raw mut (*live.record).word).write_volatile(opening.0) };
    let taken = flow::take_key(env, &client, reference, env.now());
    if taken == Insert::Done && live.is_same() {
        return Ok(Live { word: opening, ..*live });
    }
    // Another CPU opened the same flow, or the ring came round and whoever took the record missed the new entries.
    flow::forget_key(env, &client, reference);
    flow::forget_key(env, &server, reply);
    flow::release(env, live.record, reference.index(), opening);
    Err(if taken == Insert::Full { Outcome::FlowsFull } else { Outcome::Raced })
}

/// Writes the first free source port into the record and takes its reply key.
#[inline(always)]
pub(crate) fn take_port<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    record: *mut Flow,
    reply: FlowRef,
) -> bool {
    // SAFETY: this CPU's to change, and filled in.
    let client = unsafe { &(*record).client };
    let hash = affinity::connection(client, settings.session_secret()) as u32;
    let own = client.source_port;
    let keeps_own = service.flags & ServiceFlags::SNAT == 0 || own.host() as u32 >= FIRST_PORT;
    let now = env.now();
    let mut taken = false;
    env.repeat(PORT_TRIES, |i| {
        let port = if i == 0 {
            if !keeps_own {
                return false;
            }
            own
        } else {
            Be16::new((FIRST_PORT + hash.wrapping_add(i * PORT_STEP) % PORTS) as u16)
        };
        // SAFETY: claimed by this CPU.
        let server = unsafe { &mut (*record).server };
        server.destination_port = port;
        match flow::take_key(env, server, reply, now) {
            Insert::Done => taken = true,
            Insert::Taken => return false,
            Insert::Full => {}
        }
        true
    });
    taken
}

/// Takes the reply key with the client's own port, if that is free; nearly always it is, and the others need a hash.
#[inline(never)]
pub(crate) fn take_own_port<E: Env>(env: &E, service: &Service, record: *mut Flow, reply: FlowRef) -> bool {
    // SAFETY: this CPU's to change, and filled in.
    let record = unsafe { &mut *record };
    let own = record.client.source_port;
    if service.flags & ServiceFlags::SNAT != 0 && (own.host() as u32) < FIRST_PORT {
        return false;
    }
    record.server.destination_port = own;
    flow::take_key(env, &record.server, reply, env.now()) == Insert::Done
}

const _: () = assert!(FIRST_PORT + PORTS == 65_536);

#[cfg(test)]
mod tests;
