//! The program that takes what another node asks about.

use super::send;
use crate::abi::{Be16, FlowRef, MAX_PEERS, Mac, Outcome, Peer, Question, Visit, VlanTags, program};
use crate::datapath::scratch::{Packet, Scratch, part, to_service};
use crate::datapath::{Env, Verdict, choice, count, entry, flow, frame, link, parse};
use crate::packet::{Ethernet, Icmp, Ipv4, Ipv6, Udp, get, protocol, put};

/// How a packet that goes on here would have come in.
struct Door {
    ifindex: u32,
    local: Mac,
    client: Mac,
    tags: VlanTags,
}

/// What the header of a visit says, but for the way to the packet's sender.
struct Read {
    kind: u8,
    left: u8,
    origin: u64,
}

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let Some(scratch) = env.scratch() else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &mut *scratch };
    let packet = &scratch.packet;
    let Some(sender) = sender(env, packet) else { return count::end(env, Outcome::NotOurs) };
    let at = packet.l4 as usize + Udp::LEN;
    if packet.l4_len() < Udp::LEN + Visit::LEN + Ipv4::LEN {
        return count::end(env, Outcome::Malformed);
    }
    let Some(read) = read(env, at) else { return count::end(env, Outcome::Malformed) };
    if read.kind == Question::ASKS || read.kind == Question::ANSWERS {
        if packet.l4_len() < Udp::LEN + Question::LEN {
            return count::end(env, Outcome::Malformed);
        }
        return env.tail(program::REPLY);
    }
    let (inner, end) = (at + Visit::LEN, packet.l3 as usize + packet.length as usize);
    if read.kind == Visit::RETURNS && read.origin == sender.own {
        let Some(door) = returned(env, at) else { return count::end(env, Outcome::Malformed) };
        return enter(env, scratch, inner, &door);
    }
    if read.kind != Visit::ASKS {
        return count::end(env, Outcome::Malformed);
    }
    let now = env.now();
    let reference = FlowRef(known(env, inner, end, now));
    let Some(live) = flow::by_ref(env, reference, now).filter(|_| reference.0 != 0) else {
        return pass_on(env, packet, at, &read);
    };
    let flow = live.flow();
    let door =
        Door { ifindex: flow.ifindex, local: flow.local_mac, client: flow.client_mac, tags: flow.tags };
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    env.count(Outcome::VisitKnown);
    enter(env, scratch, inner, &door)
}

/// The row of the node that a packet came from.
#[inline(always)]
fn sender<'a, E: Env>(env: &'a E, packet: &Packet) -> Option<&'a Peer> {
    let mut row = 0;
    while row < MAX_PEERS {
        let peer = env.peer(row)?;
        if peer.id != 0 && peer.address == packet.source && peer.source == packet.destination {
            return Some(peer);
        }
        row += 1;
    }
    None
}

/// Reads the header of a visit.
#[inline(always)]
fn read<E: Env>(env: &E, at: usize) -> Option<Read> {
    let p = frame::at(env, at, Visit::LEN)?;
    // SAFETY: checked for the whole of it.
    let (version, kind, left): (u8, u8, u8) = unsafe { (get(p), get(p.add(1)), get(p.add(2))) };
    // SAFETY: as above.
    let origin: (u32, u32) = unsafe { (get(p.add(8)), get(p.add(12))) };
    let origin = (u32::from_be(origin.0) as u64) << 32 | u32::from_be(origin.1) as u64;
    (version == Visit::VERSION).then_some(Read { kind, left, origin })
}

/// The way to its sender that this node gave a packet.
#[inline(always)]
fn returned<E: Env>(env: &E, at: usize) -> Option<Door> {
    let p = frame::at(env, at, Visit::LEN)?;
    // SAFETY: checked for the whole of it; the addresses lie there as in a frame.
    let (ifindex, ethernet) = unsafe { (get::<u32>(p.add(4)), Ethernet::new(p.add(16))) };
    let (local, client) = (ethernet.destination(), ethernet.source());
    // SAFETY: as above.
    let field = |offset: usize| Be16(unsafe { get(p.add(offset)) });
    let tags = VlanTags { outer: [field(28), field(30)], inner: [field(32), field(34)] };
    Some(Door { ifindex: u32::from_be(ifindex), local, client, tags })
}

/// The flow of the packet in the tunnel, or the one that an ICMP error speaks of, by its client's 5-tuple; 0 = none.
/// Out of line for the sake of the stack.
#[inline(never)]
fn known<E: Env>(env: &E, inner: usize, end: usize, now: u64) -> u64 {
    let Some(p) = frame::at(env, inner, Ipv4::LEN) else { return 0 };
    // SAFETY: checked for the fixed header of IPv4; of IPv6, only what lies in these bytes is read.
    let v4 = unsafe { get::<u8>(p) } >> 4 == 4;
    let (upper, header) = if v4 {
        // SAFETY: as above.
        let ip = unsafe { Ipv4::new(p) };
        (ip.protocol(), ip.header_len())
    } else {
        // SAFETY: as above.
        (unsafe { get::<u8>(p.add(6)) }, Ipv6::LEN)
    };
    let is_error = upper == if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let at = if is_error { inner + header + Icmp::LEN } else { inner };
    let Some(quoted) = parse::quoted(env, at, end, v4) else { return 0 };
    let key = if is_error { quoted.flow_key().reversed() } else { quoted.flow_key() };
    match flow::find(env, &key, now) {
        Some(live) if !live.reference.is_reply() => live.reference.0,
        _ => 0,
    }
}

/// Takes the packet out of its tunnel, into the frame that it came in or might have come in.
#[inline(always)]
fn enter<E: Env>(env: &E, scratch: &mut Scratch, inner: usize, door: &Door) -> Verdict {
    let Some(settings) = env.settings() else { return Verdict::Drop };
    let Some(p) = frame::at(env, inner, 1) else { return count::end(env, Outcome::Malformed) };
    // SAFETY: checked for one byte.
    let v4 = unsafe { get::<u8>(p) } >> 4 == 4;
    let tag_count = door.tags.count();
    let cut = inner as i32 - link::header_len(tag_count) as i32;
    if !env.adjust_head(cut) || !link::write(env, &door.local, &door.client, (&door.tags, tag_count), v4) {
        return count::end(env, Outcome::NoRoom);
    }
    let packet = &mut scratch.packet;
    if let Err(outcome) = parse::parse(env, packet) {
        return count::end(env, if outcome.is_drop() { outcome } else { Outcome::Malformed });
    }
    packet.back = door.ifindex;
    if packet.part != part::WHOLE || packet.back == 0 {
        return count::end(env, Outcome::Malformed);
    }
    let error = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    if packet.protocol == error {
        return env.tail(crate::abi::program::ICMP);
    }
    if packet.protocol != protocol::TCP {
        return count::end(env, Outcome::Malformed);
    }
    let Some(service) = choice::service_of(env, settings, packet) else {
        return entry::to_nat(env, to_service::NONE);
    };
    let to_service = to_service::of(service);
    if let Err(outcome) = parse::transport(env, packet) {
        return count::end(env, outcome);
    }
    entry::to_nat(env, to_service)
}

/// Sends what is not known here to the next node, or back to the one that asked when all have seen it.
#[inline(always)]
fn pass_on<E: Env>(env: &E, packet: &Packet, at: usize, read: &Read) -> Verdict {
    let next = env.peer(0).filter(|next| read.left != 0 && next.id != read.origin);
    let (peer, kind, left) = match next {
        Some(next) => (next, Visit::ASKS, read.left - 1),
        None => match origin(env, read.origin) {
            Some(origin) => (origin, Visit::RETURNS, 0),
            None => return count::end(env, Outcome::NoHop),
        },
    };
    let Some(p) = frame::at(env, at, 3) else { return count::end(env, Outcome::Malformed) };
    // SAFETY: checked for three bytes.
    unsafe {
        put(p.add(1), kind);
        put(p.add(2), left);
    }
    carry_on(env, packet, peer, Outcome::VisitPassed)
}

/// Sends what came from a node in UDP to another one.
#[inline(always)]
pub(super) fn carry_on<E: Env>(env: &E, packet: &Packet, peer: &Peer, outcome: Outcome) -> Verdict {
    let Some(settings) = env.settings() else { return Verdict::Drop };
    if !link::is_resolved(&peer.hop) || peer.address.is_v4() != packet.is_v4() {
        return count::end(env, Outcome::NoHop);
    }
    if packet.length > peer.hop.mtu {
        return count::end(env, Outcome::NoRoom);
    }
    let tags = link::tags(packet, peer.vlan);
    // An outer header with options or extensions does not come from a node.
    if packet.l4 as usize - packet.l3 as usize != super::outer_len(packet.is_v4()) {
        return count::end(env, Outcome::Malformed);
    }
    let growth = link::header_len(tags.1) as i32 - packet.l3 as i32;
    if growth != 0 && !env.adjust_head(-growth) {
        return count::end(env, Outcome::NoRoom);
    }
    let length = packet.l4_len() as u16;
    let about = (packet.source_port, packet.traffic_class, length);
    send(env, settings, peer, (&tags.0, tags.1), about, outcome)
}

/// The row of a node.
#[inline(always)]
pub(super) fn origin<E: Env>(env: &E, id: u64) -> Option<&Peer> {
    let mut row = 0;
    while row < MAX_PEERS {
        let peer = env.peer(row)?;
        if peer.id == id && id != 0 {
            return Some(peer);
        }
        row += 1;
    }
    None
}
