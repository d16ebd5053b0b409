//! Destination NAT with connection state: packets of known flows.

mod establish;
mod open;
mod translate;

pub(crate) use establish::run as establish;
pub(crate) use open::{client_mtu, run as open, take_own_port, take_port};

use super::binding::Chosen;
use super::count::Way;
use super::flow::{self, Live};
use super::scratch::{Packet, Scratch, part, to_service};
use super::splice::Anew;
use super::vitals::Sign;
use super::{
    Env, Verdict, answer, bind, binding, choice, count, forward, fragment, frame, link, mss, parse, peer,
    splice, vitals,
};
use crate::abi::{
    Backend, Be16, BindingKey, FlowKey, FlowRef, FlowState, FlowWord, Outcome, Settings, SettingsFlags,
    Status, program,
};
use crate::packet::{Sum, Tcp, flag, protocol};
use crate::splice::Attempt;

/// How far behind the SYN-ACK the first acknowledgement may be: a backend may send data before it (RFC 7413).
const MAX_AHEAD: u32 = 0xffff;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (scratch, to_service) = unsafe { (&mut *scratch, (*scratch).to_service) };
    let now = env.now();
    let (is_left, is_sought) = (to_service == to_service::REPLY, to_service == to_service::TAKEN);
    let to_service = match to_service {
        to_service::REPLY => to_service::NONE,
        to_service::TAKEN => to_service::SPLICED,
        other => other,
    };
    let reply = to_service == to_service::NONE || to_service == to_service::SETTLED;
    let mut found = if is_left {
        flow::by_ref(env, scratch.flow, now)
    } else {
        flow::find_at_home(env, &scratch.packet, reply, now)
    };
    if found.is_none()
        && to_service == to_service::SPLICED
        && !is_sought
        && let Some(verdict) = splice::begins(env, &scratch.packet, now)
    {
        return verdict;
    }
    if found.is_none() {
        found = flow::find(env, &scratch.packet.flow_key(), now);
    }
    if scratch.wanted != 0 && is_for_another(scratch.wanted, found.as_ref()) {
        let reference = found.map_or(0, |live| live.reference.0);
        found = flow::by_ref(env, aside(env, scratch, reference), now);
        if found.is_none() {
            return env.tail(program::OPEN);
        }
    }
    let Some(live) = found else {
        return unknown(env, settings, &scratch.packet, to_service);
    };
    let packet = &mut scratch.packet;
    if to_service == to_service::NONE
        && let Err(outcome) = parse::transport(env, packet)
    {
        return count::end(env, outcome);
    }
    if live.word.has(FlowWord::SPLICED | FlowWord::REOPENED)
        && to_service != to_service::SETTLED
        && let Some(verdict) = spliced(env, packet, &live)
    {
        return verdict;
    }
    if live.reference.is_reply() {
        from_backend(env, settings, packet, &live, now)
    } else {
        from_client(env, settings, packet, &live, now)
    }
}

/// Whether the flow of a client's packet, if there is one, is not to the backend that the packet is for.
#[inline(always)]
fn is_for_another(wanted: u32, found: Option<&Live>) -> bool {
    found.is_none_or(|live| live.flow().backend as u32 + 1 != wanted && !live.reference.is_reply())
}

/// The flow beside the one of the 5-tuple, which is for another backend, or the place for it; out of line, for a second key
/// does not fit on the stack.
#[inline(never)]
fn aside<E: Env>(env: &E, scratch: &mut Scratch, other: u64) -> FlowRef {
    let key = scratch.packet.flow_key().aside(scratch.wanted);
    let reference = flow::reference(env, &key).unwrap_or_default();
    // A flow that is of no use gives way.
    let stays = reference.0 != 0 || is_of_use(env, FlowRef(other));
    scratch.aside = if stays { scratch.wanted } else { 0 };
    reference
}

/// Whether the backend of a flow still serves it.
#[inline(always)]
fn is_of_use<E: Env>(env: &E, reference: FlowRef) -> bool {
    if reference.0 == 0 {
        return false;
    }
    let Some(record) = env.flow(reference.index()) else { return false };
    // SAFETY: from the environment; recycled meanwhile, it is a flow that was of use.
    let (slot, generation) = unsafe { ((*record).backend, (*record).backend_generation) };
    let Some(backend) = env.backend(slot) else { return false };
    backend.generation == generation && Status::serves(env.status(Status::word(slot)).unwrap_or(0), slot)
}

/// A packet that belongs to no flow.
#[inline(always)]
fn unknown<E: Env>(env: &E, settings: &Settings, packet: &Packet, to_service: u32) -> Verdict {
    if to_service == to_service::NONE {
        let migrating = settings.flags & SettingsFlags::MIGRATING != 0;
        if migrating && is_from_backend(env, packet) {
            return count::end(env, Outcome::Migrating);
        }
        if peer::is_visit(env, settings, packet) {
            return env.tail(program::VISIT);
        }
        return stray(env, packet);
    }
    if to_service == to_service::SPLICED && packet.protocol == protocol::TCP {
        if bind::opens_tcp(packet.tcp_flags) {
            return splice::meet(env, settings, packet);
        }
        return splice::unsettled(env, packet, program::COLLECT, FlowRef::default());
    }
    if packet.protocol != protocol::TCP || bind::opens_tcp(packet.tcp_flags) {
        return env.tail(program::OPEN);
    }
    if packet.tcp_flags & flag::RST == 0 && settings.flags & SettingsFlags::MIGRATING != 0 {
        return count::end(env, Outcome::Migrating);
    }
    if peer::may_know(settings, packet) {
        return env.tail(program::ASK);
    }
    answer::reset(env, packet, Outcome::Raced)
}

/// A packet to no service and of no flow: not ours, but for the late answer of a backend to a SYN of the balancer's.
///
/// The client's connection is with another backend by then. Where the backend answers a source-NAT address, no host
/// would tell it so; elsewhere the packet goes on, for it may belong to a connection that is none of the balancer's.
#[inline(always)]
fn stray<E: Env>(env: &E, packet: &Packet) -> Verdict {
    if packet.protocol != protocol::TCP || packet.part != part::WHOLE || !answers_syn(env, packet) {
        return count::end(env, Outcome::NotOurs);
    }
    let ours = FlowKey::mark(packet.destination, Be16::new(0));
    if packet.l4_len() < Tcp::LEN || !is_from_backend(env, packet) || env.flow_ref(&ours).is_none() {
        return count::end(env, Outcome::NotOurs);
    }
    answer::reset(env, packet, Outcome::NotOurs)
}

/// Whether a TCP packet that has not been checked is a SYN-ACK.
#[inline(always)]
fn answers_syn<E: Env>(env: &E, packet: &Packet) -> bool {
    let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN) else { return false };
    // SAFETY: checked for the fixed header.
    let flags = unsafe { Tcp::new(p) }.flags();
    flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN | flag::ACK
}

/// A packet of a spliced flow that is not merely translated.
#[inline(always)]
fn spliced<E: Env>(env: &E, packet: &Packet, live: &Live) -> Option<Verdict> {
    let reply = live.reference.is_reply();
    if !reply && (live.word.has(FlowWord::REOPENED) || live.word.state() == FlowState::Closed) {
        match splice::is_replaced(env, packet, live) {
            Anew::No => {}
            Anew::Wait => return Some(count::end(env, Outcome::Early)),
            Anew::Yes => {
                return Some(splice::unsettled(env, packet, program::COLLECT, FlowRef::default()));
            }
        }
    }
    if !live.word.has(FlowWord::SPLICED) {
        return None;
    }
    let number = if reply { program::TURN } else { program::COLLECT };
    match live.word.state() {
        FlowState::Releasing if !reply && owner(env, live).is_none() => Some(lost(env, packet, live)),
        FlowState::Collecting | FlowState::Connecting | FlowState::Releasing => {
            Some(splice::unsettled(env, packet, number, live.reference))
        }
        // The backend did not get the balancer's acknowledgement.
        FlowState::Established | FlowState::Closing if reply && packet.tcp_flags & flag::SYN != 0 => {
            Some(splice::unsettled(env, packet, number, live.reference))
        }
        // The client reset the connection before its backend had answered.
        FlowState::Closed if reply && packet.tcp_flags & flag::SYN != 0 => {
            Some(answer::reset(env, packet, Outcome::Swallowed))
        }
        // It was over before any backend had answered, so there is nothing to translate by.
        FlowState::Closed if !reply && Attempt(live.flow().answer) == Attempt::NONE => {
            Some(if packet.tcp_flags & flag::RST != 0 {
                count::end(env, Outcome::GivenUp)
            } else {
                answer::reset(env, packet, Outcome::GivenUp)
            })
        }
        FlowState::Established | FlowState::Closing => splice::readers(env, packet, live),
        FlowState::Closed
        | FlowState::Opening
        | FlowState::Answered
        | FlowState::Free
        | FlowState::Claimed => None,
    }
}

/// Whether a packet may be the reply of a flow that has yet to be copied: untranslated, whoever gets it would reset it.
///
/// `lbd` marks backends while it replaces tables.
#[inline(always)]
fn is_from_backend<E: Env>(env: &E, packet: &Packet) -> bool {
    let mut mark = FlowKey::mark(packet.source, packet.source_port);
    if env.flow_ref(&mark).is_some() {
        return true;
    }
    // A backend that keeps the port of its clients' packets.
    mark.source_port = Be16::new(0);
    env.flow_ref(&mark).is_some()
}

#[inline(always)]
pub(crate) fn from_client<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    live: &Live,
    now: u64,
) -> Verdict {
    let flow = live.flow();
    let tcp = packet.protocol == protocol::TCP;
    let slot = flow.backend;
    let Some(backend) = owner(env, live) else { return disowned(env, settings, packet, live) };
    if !serves(env, slot) {
        return orphaned(env, packet, live);
    }
    let state = live.word.state();
    // Its first SYN was lost, or met nobody.
    if tcp && state == FlowState::Opening && bind::opens_tcp(packet.tcp_flags) {
        vitals::note(env, slot, Sign::Suspected);
    }
    if tcp && bind::opens_tcp(packet.tcp_flags) && matches!(state, FlowState::Closing | FlowState::Closed) {
        return env.tail(program::OPEN);
    }
    if let Some(verdict) = forward::admissible(env, packet, backend, 0) {
        return verdict;
    }
    // Whoever sends datagrams to the same port after a reply most likely got it.
    if state == FlowState::Answered && (!tcp || proves(env, packet, live)) {
        return settle(env, live);
    }
    if tcp {
        live.advance(env, true, packet.tcp_flags);
    }
    refresh(env, live, now);
    to_backend(env, settings, packet, live, (slot, backend), false)
}

#[inline(always)]
pub(crate) fn from_backend<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &mut Packet,
    live: &Live,
    now: u64,
) -> Verdict {
    if packet.hop_limit <= 1 {
        // Told as if the VIP were the hop that met it: the backend sent towards it.
        packet.destination = live.flow().client.destination;
        return answer::time_exceeded(env, packet);
    }
    if let Some(mtu) = too_narrow(packet, live) {
        return answer::too_big(env, packet, mtu);
    }
    if packet.protocol == protocol::TCP {
        if live.word.state() == FlowState::Opening && packet.tcp_flags & flag::SYN != 0 {
            note_answer(env, packet, live);
        }
        if live.word.state() == FlowState::Opening {
            note_health(env, packet, live, now);
        }
        live.advance(env, false, packet.tcp_flags);
    } else if live.word.state() == FlowState::Opening {
        live.change(env, live.word.with_state(FlowState::Answered));
    }
    refresh(env, live, now);
    to_client(env, settings, packet, live)
}

/// The MTU of the client's link, when the reply is larger.
#[inline(always)]
fn too_narrow(packet: &Packet, live: &Live) -> Option<u32> {
    let mtu = live.flow().client_mtu;
    if mtu != 0 && packet.length > mtu { Some(mtu as u32) } else { None }
}

/// Notes what a backend makes of a client's first segment. Clients can cause refusals, so those are a mere suspicion.
#[inline(never)]
fn note_health<E: Env>(env: &E, packet: &Packet, live: &Live, now: u64) -> u32 {
    let flow = live.flow();
    if packet.tcp_flags & flag::RST != 0 {
        return vitals::note(env, flow.backend, Sign::Suspected);
    }
    if packet.tcp_flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK {
        return vitals::accepted(env, flow.backend, now.wrapping_sub(flow.last_seen), now);
    }
    0
}

/// Keeps the sequence number that the client must acknowledge.
#[inline(always)]
fn note_answer<E: Env>(env: &E, packet: &Packet, live: &Live) {
    let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN) else { return };
    // SAFETY: checked for the fixed header; the record is from the environment, and recycled it only loses a handshake.
    unsafe { (&raw mut (*live.record).answer).write_volatile(Tcp::new(p).sequence()) };
}

/// Whether the segment acknowledges the backend's SYN-ACK, which a forged source address never got to see.
#[inline(always)]
fn proves<E: Env>(env: &E, packet: &Packet, live: &Live) -> bool {
    if packet.tcp_flags & (flag::SYN | flag::ACK | flag::RST) != flag::ACK {
        return false;
    }
    let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN) else { return false };
    // SAFETY: checked for the fixed header.
    let acknowledged = unsafe { Tcp::new(p) }.acknowledgement();
    // SAFETY: from the environment.
    let answer = unsafe { (&raw const (*live.record).answer).read_volatile() };
    let ahead = acknowledged.wrapping_sub(answer);
    ahead != 0 && ahead <= MAX_AHEAD
}

/// A client's packet of a flow whose backend is gone.
#[inline(always)]
fn disowned<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live) -> Verdict {
    if live.word.has(FlowWord::SPLICED) && !bind::opens_tcp(packet.tcp_flags) {
        return lost(env, packet, live);
    }
    unknown(env, settings, packet, to_service::PLAIN)
}

/// A client's segment of a spliced flow whose backend is gone: what that backend got nobody else can go on with.
///
/// The flow stays for a while, so that every segment is answered.
#[inline(always)]
fn lost<E: Env>(env: &E, packet: &Packet, live: &Live) -> Verdict {
    splice::close(env, live);
    answer::reset(env, packet, Outcome::NoBackend)
}

/// The backend of a flow, while it owns its slot.
#[inline(always)]
pub(crate) fn owner<'a, E: Env>(env: &'a E, live: &Live) -> Option<&'a Backend> {
    let flow = live.flow();
    env.backend(flow.backend).filter(|backend| backend.generation == flow.backend_generation)
}

#[inline(always)]
fn serves<E: Env>(env: &E, slot: u16) -> bool {
    env.status(Status::word(slot)).is_some_and(|word| Status::serves(word, slot))
}

/// A flow whose backend is down: what can begin anew does, the rest is reset.
#[inline(always)]
fn orphaned<E: Env>(env: &E, packet: &Packet, live: &Live) -> Verdict {
    if packet.protocol != protocol::TCP || bind::opens_tcp(packet.tcp_flags) {
        return env.tail(program::OPEN);
    }
    live.change(env, live.word.with(FlowWord::RESET).with_state(FlowState::Closed));
    answer::reset(env, packet, Outcome::NoBackend)
}

/// Notes the packet in the flow and, from time to time, in its session's binding.
#[inline(always)]
fn refresh<E: Env>(env: &E, live: &Live, now: u64) {
    let seen = live.flow().last_seen;
    if live.touch(now) && live.word.has(FlowWord::BOUND) {
        touch_binding(env, live, seen, now);
    }
}

/// Extends the session's binding, if the clock has passed a multiple of a part of its lifetime since the flow's last packet.
///
/// The binding is far away when there are many, so most packets leave it alone.
#[inline(never)]
fn touch_binding<E: Env>(env: &E, live: &Live, seen: u64, now: u64) -> u32 {
    let flow = live.flow();
    let client = &flow.client;
    let Some(settings) = env.settings() else { return 0 };
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let Some(service) = service else { return 0 };
    let part = (service.lifetime / binding::TOUCH_PART).max(1);
    if seen / part == now / part {
        return 0;
    }
    if let Some(found) = binding::find(env, &BindingKey::new(flow.service, flow.session), now) {
        binding::touch(&found, now, service.lifetime);
        return 1;
    }
    0
}

/// Translates towards the backend and sends.
#[inline(always)]
pub(crate) fn to_backend<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    live: &Live,
    (slot, backend): Chosen<'_>,
    opens: bool,
) -> Verdict {
    let flow = live.flow();
    clamp(env, settings, packet, live);
    let mut change = Sum::ZERO;
    if live.word.has(FlowWord::SPLICED)
        && packet.part != part::LATER
        && let Some(numbers) = splice::translate::outbound(env, packet, live)
    {
        change = numbers;
    }
    if packet.part == part::FIRST {
        fragment::keep(env, packet, live.reference, (slot, backend));
    }
    let server = &flow.server;
    let done = translate::run(
        env,
        packet,
        change,
        (&server.destination, server.destination_port),
        (&server.source, server.source_port),
    );
    let (tags, tag_count) = link::tags(packet, backend.vlan);
    let service_slot = flow.service_slot;
    if done.is_none() {
        return count::end(env, Outcome::Malformed);
    }
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    let growth = link::header_len(tag_count) as i32 - packet.l3 as i32;
    if growth != 0 && !env.adjust_head(-growth) {
        return count::end(env, Outcome::NoRoom);
    }
    let hop = &backend.hop;
    if !link::write(env, &hop.destination, &hop.source, (&tags, tag_count), packet.is_v4()) {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, hop.ifindex);
    count::forwarded(env, verdict, (service_slot, slot), packet.length, opens, Way::Forward);
    verdict
}

/// Translates towards the client and sends.
#[inline(always)]
pub(crate) fn to_client<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live) -> Verdict {
    let flow = live.flow();
    clamp(env, settings, packet, live);
    let mut change = Sum::ZERO;
    if live.word.has(FlowWord::SPLICED)
        && packet.part != part::LATER
        && let Some(numbers) = splice::translate::inbound(env, packet, live)
    {
        change = numbers;
    }
    if packet.part == part::FIRST
        && let Some(backend) = env.backend(flow.backend)
    {
        fragment::keep(env, packet, live.reference, (flow.backend, backend));
    }
    let client = &flow.client;
    let done = translate::run(
        env,
        packet,
        change,
        (&client.destination, client.destination_port),
        (&client.source, client.source_port),
    );
    let (tags, mac, local, ifindex) = (flow.tags, flow.client_mac, flow.local_mac, flow.ifindex);
    let (service_slot, slot) = (flow.service_slot, flow.backend);
    if done.is_none() {
        return count::end(env, Outcome::Malformed);
    }
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    let tag_count = tags.count();
    let growth = link::header_len(tag_count) as i32 - packet.l3 as i32;
    if growth != 0 && !env.adjust_head(-growth) {
        return count::end(env, Outcome::NoRoom);
    }
    if !link::write(env, &mac, &local, (&tags, tag_count), packet.is_v4()) {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, ifindex);
    count::forwarded(env, verdict, (service_slot, slot), packet.length, false, Way::Reply);
    verdict
}

/// Clamps the MSS that either side announces, where the service says so.
#[inline(always)]
fn clamp<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live) {
    if packet.protocol != protocol::TCP || packet.tcp_flags & flag::SYN == 0 {
        return;
    }
    let client = &live.flow().client;
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    if let Some(service) = service
        && service.mss != 0
    {
        mss::clamp(env, packet, service.mss);
    }
}

/// Sends a later fragment after its first one.
#[inline(always)]
pub(crate) fn send_fragment<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live) -> Verdict {
    if live.reference.is_reply() {
        if packet.hop_limit <= 1 {
            return count::end(env, Outcome::HopLimit);
        }
        if let Some(mtu) = too_narrow(packet, live) {
            return answer::too_big(env, packet, mtu);
        }
        return to_client(env, settings, packet, live);
    }
    let slot = live.flow().backend;
    let Some(backend) = owner(env, live) else { return count::end(env, Outcome::Fragment) };
    if let Some(verdict) = forward::admissible(env, packet, backend, 0) {
        return verdict;
    }
    to_backend(env, settings, packet, live, (slot, backend), false)
}

/// Hands the packet to the program that settles a flow.
#[inline(always)]
fn settle<E: Env>(env: &E, live: &Live) -> Verdict {
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe { (*scratch).flow = live.reference };
    }
    env.tail(program::ESTABLISH)
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn a_mark_tells_replies_by_address_and_port() {
        let model = Model::new(4, 4);
        let address = |last| Ipv4Addr::new(10, 2, 0, last).into();
        model.insert_flow_ref(&FlowKey::mark(address(1), Be16::new(8_080)), FlowRef::default());
        model.insert_flow_ref(&FlowKey::mark(address(2), Be16::new(0)), FlowRef::default());
        let is_reply = |last, port| {
            let packet = Packet { source: address(last), source_port: Be16::new(port), ..Packet::default() };
            is_from_backend(&model, &packet)
        };
        assert!(is_reply(1, 8_080));
        assert!(!is_reply(1, 22));
        assert!(is_reply(2, 22), "this backend keeps its clients' ports");
        assert!(!is_reply(3, 8_080));
    }
}
