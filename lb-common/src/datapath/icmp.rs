//! The program for ICMP and ICMPv6: ping to a VIP, and errors about our packets.

use super::count::Way;
use super::flow::{self, Live};
use super::scratch::{Packet, part};
use super::{Env, Verdict, answer, binding, choice, count, forward, frame, link, parse, peer, splice};
use crate::abi::{
    Addr, BindingKey, FlowKey, FlowWord, Mode, Outcome, Service, ServiceKey, Settings, SettingsFlags, program,
};
use crate::packet::{Icmp, Ipv4, Ipv6, Sum, Tcp, Udp, get, icmp4, icmp6, protocol, put};

/// TTL and hop limit of echo answers.
const TTL: u8 = 64;

/// What kind of message it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Echo,
    Error,
    NeighbourDiscovery,
    Other,
}

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let packet = unsafe { &(*scratch).packet };
    let vip = env.service(&ServiceKey::vip(packet.destination)).is_some();
    if packet.part != part::WHOLE {
        return count::end(env, if vip { Outcome::Fragment } else { Outcome::NotOurs });
    }
    let Some(kind) = kind(env, packet) else {
        return count::end(env, if vip { Outcome::Malformed } else { Outcome::NotOurs });
    };
    match (kind, vip) {
        (Kind::NeighbourDiscovery, _) => count::end(env, Outcome::NotOurs),
        (Kind::Echo, true) if !answer::is_answerable(env, &packet.source) => {
            count::end(env, Outcome::Malformed)
        }
        (Kind::Echo, true) => match echo(env, packet) {
            Some(()) => answer::send_back(env, settings, packet, Outcome::EchoAnswered),
            None => count::end(env, Outcome::Malformed),
        },
        (Kind::Error, true) => about_reply(env, settings, packet),
        (Kind::Error, false) if settings.flags & SettingsFlags::NAT != 0 => {
            about_forwarded(env, settings, packet)
        }
        (Kind::Other, true) => count::end(env, Outcome::IcmpIgnored),
        (Kind::Echo | Kind::Error | Kind::Other, false) => count::end(env, Outcome::NotOurs),
    }
}

#[inline(always)]
fn kind<E: Env>(env: &E, packet: &Packet) -> Option<Kind> {
    if packet.l4_len() < Icmp::LEN {
        return None;
    }
    let p = frame::at(env, packet.l4 as usize, Icmp::LEN)?;
    // SAFETY: checked for the header.
    let kind = unsafe { Icmp::new(p) }.kind();
    Some(if packet.is_v4() {
        match kind {
            icmp4::ECHO => Kind::Echo,
            icmp4::UNREACHABLE | icmp4::TIME_EXCEEDED | icmp4::PARAMETER => Kind::Error,
            _ => Kind::Other,
        }
    } else {
        match kind {
            icmp6::ECHO => Kind::Echo,
            icmp6::UNREACHABLE | icmp6::TOO_BIG | icmp6::TIME_EXCEEDED | icmp6::PARAMETER => Kind::Error,
            icmp6::ROUTER_SOLICITATION..=icmp6::REDIRECT => Kind::NeighbourDiscovery,
            _ => Kind::Other,
        }
    })
}

/// Turns an echo request into its answer.
#[inline(always)]
fn echo<E: Env>(env: &E, packet: &Packet) -> Option<()> {
    answer::turn_round(env)?;
    let l3 = packet.l3 as usize;
    let reply = if packet.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv4::new(p) };
        ip.set_addresses(packet.destination.v4_word(), packet.source.v4_word());
        ip.set_ttl(TTL);
        icmp4::ECHO_REPLY
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv6::new(p) };
        ip.set_addresses(&packet.destination, &packet.source);
        ip.set_hop_limit(TTL);
        icmp6::ECHO_REPLY
    };
    let p = frame::at(env, packet.l4 as usize, Icmp::LEN)?;
    // SAFETY: checked for the header.
    unsafe { Icmp::new(p) }.set_kind(reply);
    Some(())
}

/// An error about what a VIP sent to a client: it concerns the backend that sent it.
#[inline(always)]
fn about_reply<E: Env>(env: &E, settings: &Settings, packet: &Packet) -> Verdict {
    let Some(quoted) = quoted(env, packet) else { return count::end(env, Outcome::IcmpIgnored) };
    let key = quoted.flow_key();
    let Some(service) = choice::service_again(env, settings, &key.source, key.source_port, key.protocol)
    else {
        return count::end(env, Outcome::IcmpIgnored);
    };
    if service.mode != Mode::Nat as u8 {
        return to_direct(env, settings, service, packet, &key);
    }
    let now = env.now();
    match flow::find(env, &key.reversed(), now) {
        Some(live) if !live.reference.is_reply() => to_backend(env, settings, packet, &quoted, &live),
        _ if peer::may_know(settings, packet) => env.tail(program::ASK),
        _ => count::end(env, Outcome::IcmpIgnored),
    }
}

/// The whole message goes the way the session's packets go.
#[inline(always)]
fn to_direct<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
    reply: &FlowKey,
) -> Verdict {
    let session = choice::session_of_reply(env, service, settings.session_secret(), reply);
    let mut key = BindingKey::new(service.id, session);
    if choice::has_two_secrets(settings) {
        let other = choice::session_of_reply(env, service, settings.other_secret(), reply);
        key.session = binding::bound_as(env, service.id, session, other);
    }
    let bound = binding::find(env, &key, env.now()).and_then(|found| binding::backend(env, found.word));
    match bound.or_else(|| choice::choose(env, service, session)) {
        Some(chosen) => forward::direct(env, settings, service, packet, session, chosen, false),
        None => count::end(env, Outcome::NoBackend),
    }
}

/// The message is rewritten to speak of what the backend itself sent.
#[inline(always)]
fn to_backend<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    quoted: &Packet,
    live: &Live,
) -> Verdict {
    let flow = live.flow();
    if live.word.has(FlowWord::SPLICED) && !splice::is_joined(live.word) {
        return count::end(env, Outcome::IcmpIgnored);
    }
    let (server, slot, service_slot) = (&flow.server, flow.backend, flow.service_slot);
    let Some(backend) = env.backend(slot).filter(|b| b.generation == flow.backend_generation) else {
        return count::end(env, Outcome::IcmpIgnored);
    };
    if let Some(verdict) = forward::admissible(env, packet, backend, 0) {
        return verdict;
    }
    if rewrite(env, packet, quoted, server, &server.source).is_none() {
        return count::end(env, Outcome::Malformed);
    }
    if live.word.has(FlowWord::SPLICED) {
        renumber(env, packet, quoted, live);
    }
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    let tags = link::tags(packet, backend.vlan);
    let hop = &backend.hop;
    if !reframe(env, packet, tags.1)
        || !link::write(env, &hop.destination, &hop.source, (&tags.0, tags.1), packet.is_v4())
    {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, hop.ifindex);
    count::forwarded(env, verdict, (service_slot, slot), packet.length, false, Way::Forward);
    verdict
}

/// An error about what we sent to a backend: it concerns the client.
#[inline(always)]
fn about_forwarded<E: Env>(env: &E, settings: &Settings, packet: &Packet) -> Verdict {
    let Some(quoted) = quoted(env, packet) else { return count::end(env, Outcome::NotOurs) };
    let live = match flow::find(env, &quoted.flow_key().reversed(), env.now()) {
        Some(live) if live.reference.is_reply() => live,
        _ => return count::end(env, Outcome::NotOurs),
    };
    if packet.hop_limit <= 1 {
        return count::end(env, Outcome::HopLimit);
    }
    let flow = live.flow();
    if live.word.has(FlowWord::SPLICED) && !splice::is_joined(live.word) {
        return splice::narrow(env, packet, &quoted, &live);
    }
    let (client, slot, service_slot) = (&flow.client, flow.backend, flow.service_slot);
    let (mac, local, tags, ifindex) = (flow.client_mac, flow.local_mac, flow.tags, flow.ifindex);
    if rewrite(env, packet, &quoted, client, &client.source).is_none() {
        return count::end(env, Outcome::Malformed);
    }
    if live.word.has(FlowWord::SPLICED) {
        renumber(env, packet, &quoted, &live);
    }
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    let tag_count = tags.count();
    if !reframe(env, packet, tag_count) || !link::write(env, &mac, &local, (&tags, tag_count), packet.is_v4())
    {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, ifindex);
    count::forwarded(env, verdict, (service_slot, slot), packet.length, false, Way::Reply);
    verdict
}

#[inline(always)]
fn quoted<E: Env>(env: &E, packet: &Packet) -> Option<Packet> {
    let end = packet.l3 as usize + packet.length as usize;
    parse::quoted(env, packet.l4 as usize + Icmp::LEN, end, packet.is_v4())
}

/// Makes the start of the frame fit another number of tags.
#[inline(always)]
fn reframe<E: Env>(env: &E, packet: &Packet, tag_count: usize) -> bool {
    let growth = link::header_len(tag_count) as i32 - packet.l3 as i32;
    growth == 0 || env.adjust_head(-growth)
}

/// Gives the quoted segment of a spliced flow the numbers that it had when its sender sent it, as far as they are quoted.
///
/// A backend's segment was quoted with the sequence number that its client counts in; a client's, with the
/// acknowledgement that its backend counts in.
#[inline(never)]
fn renumber<E: Env>(env: &E, packet: &Packet, quoted: &Packet, live: &Live) -> u32 {
    let end = packet.l3 as usize + packet.length as usize;
    let l4 = quoted.l4 as usize;
    let offset = splice::translate::offset(live.flow());
    let mut message = if live.reference.is_reply() {
        add(env, l4 + 8, end, offset.wrapping_neg())
    } else {
        add(env, l4 + 4, end, offset)
    };
    if l4 + Tcp::CHECKSUM + 2 <= end
        && let Some(p) = frame::at(env, l4 + Tcp::CHECKSUM, 2)
    {
        // SAFETY: checked for two bytes.
        let old: u16 = unsafe { get(p) };
        let new = Sum::of_field(old).plus(message).field();
        // SAFETY: checked for two bytes.
        unsafe { put(p, new) };
        message = message.replace16(old, new);
    }
    let Some(p) = frame::at(env, packet.l4 as usize, Icmp::LEN) else { return 0 };
    // SAFETY: checked for the header.
    unsafe { Icmp::new(p) }.changed(message);
    1
}

/// Adds to the number at an offset, if it ends before `end`; answers the change of the sum.
#[inline(always)]
fn add<E: Env>(env: &E, offset: usize, end: usize, n: u32) -> Sum {
    if offset + 4 > end {
        return Sum::ZERO;
    }
    let Some(p) = frame::at(env, offset, 4) else { return Sum::ZERO };
    // SAFETY: checked for four bytes.
    let old: u32 = unsafe { get(p) };
    let new = u32::from_be(old).wrapping_add(n).to_be();
    // SAFETY: checked for four bytes.
    unsafe { put(p, new) };
    Sum::ZERO.replace32(old, new)
}

/// Sends the message to `destination` and makes the quoted packet one that carries `key`.
///
/// `key` is the quoted packet's own direction after the rewriting.
#[inline(never)]
fn rewrite<E: Env>(
    env: &E,
    packet: &Packet,
    quoted: &Packet,
    key: &FlowKey,
    destination: &Addr,
) -> Option<()> {
    forward::age(env, packet)?;
    let end = packet.l3 as usize + packet.length as usize;
    let mut message = Sum::ZERO;
    let addresses;
    if packet.is_v4() {
        let p = frame::at(env, quoted.l3 as usize, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv4::new(p) };
        let before = ip.header_checksum();
        addresses = ip.set_addresses(key.source.v4_word(), key.destination.v4_word());
        message = message.plus(addresses).replace16(before, ip.header_checksum());
        let p = frame::at(env, packet.l3 as usize, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.set_addresses(packet.source.v4_word(), destination.v4_word());
    } else {
        let p = frame::at(env, quoted.l3 as usize, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        addresses = unsafe { Ipv6::new(p) }.set_addresses(&key.source, &key.destination);
        let p = frame::at(env, packet.l3 as usize, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        let outer = unsafe { Ipv6::new(p) }.set_addresses(&packet.source, destination);
        message = message.plus(addresses).plus(outer);
    }
    let l4 = quoted.l4 as usize;
    let p = frame::at(env, l4, 4)?;
    // SAFETY: checked for four bytes.
    let (old_source, old_destination): (u16, u16) = unsafe { (get(p), get(p.add(2))) };
    let ports = Sum::ZERO
        .replace16(old_source, key.source_port.raw())
        .replace16(old_destination, key.destination_port.raw());
    // SAFETY: checked for four bytes.
    unsafe {
        put(p, key.source_port.raw());
        put(p.add(2), key.destination_port.raw());
    }
    message = message.plus(ports);
    let covered = addresses.plus(ports);
    let (place, is_udp) =
        if quoted.protocol == protocol::UDP { (Udp::CHECKSUM, true) } else { (Tcp::CHECKSUM, false) };
    if l4 + place + 2 <= end
        && let Some(p) = frame::at(env, l4 + place, 2)
    {
        // SAFETY: checked for two bytes.
        let old: u16 = unsafe { get(p) };
        if !(is_udp && old == 0) {
            let sum = Sum::of_field(old).plus(covered);
            let new = if is_udp { sum.nonzero_field() } else { sum.field() };
            // SAFETY: checked for two bytes.
            unsafe { put(p, new) };
            message = message.replace16(old, new);
        }
    }
    let p = frame::at(env, packet.l4 as usize, Icmp::LEN)?;
    // SAFETY: checked for the header.
    unsafe { Icmp::new(p) }.changed(message);
    Some(())
}
