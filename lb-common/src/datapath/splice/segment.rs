//! Segments that the balancer itself writes, over whatever packet is in the frame.

use super::super::answer::{ip_len, resize, write_ip_at};
use super::super::flow::Live;
use super::super::scratch::Packet;
use super::super::{Env, frame, link, nat};
use crate::abi::{Addr, Be16, Mac, VLAN_KEEP, VLAN_NONE, VlanTags};
use crate::packet::{Ethernet, Sum, Tcp, TcpHeader, ethertype, flag, protocol, put};
use crate::splice::{OPTIONS, option};

/// What a segment says; numbers are those that its receiver counts in.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    /// The window field.
    pub(crate) window: u16,
    pub(crate) flags: u8,
}

/// Who sends it to whom.
#[derive(Clone, Copy)]
struct Ends<'a> {
    source: &'a Addr,
    destination: &'a Addr,
    source_port: Be16,
    destination_port: Be16,
    to: Mac,
    from: Mac,
    tags: VlanTags,
}

/// Options of a SYN to a backend.
#[derive(Clone, Copy, Default)]
pub(crate) struct SynOptions {
    pub(crate) mss: u16,
    /// [`crate::abi::Flow::NO_SCALE`] = none.
    pub(crate) scale: u8,
    pub(crate) sack: bool,
}

/// Writes the headers of a segment from the flow's client to its backend, for `payload` bytes whose sum is `sum`.
///
/// Answers where the payload goes. Without one the frame ends there; with one, whoever puts it in looks at the frame's
/// length: where it could not be made as long, it is left as it was.
#[inline(always)]
pub(crate) fn to_backend<E: Env>(
    env: &E,
    live: &Live,
    segment: &Segment,
    payload: u32,
    sum: u32,
) -> Option<u32> {
    some(write_to_backend(env, live, segment, payload, sum))
}

#[inline(never)]
fn write_to_backend<E: Env>(env: &E, live: &Live, segment: &Segment, payload: u32, sum: u32) -> u32 {
    let Some(ends) = backend_ends(env, live) else { return 0 };
    write(env, &ends, segment, payload as u16, Sum::ZERO.add32(sum)).unwrap_or(0)
}

/// An offset, where 0 says that there is none: out of line functions answer in one register.
#[inline(always)]
const fn some(offset: u32) -> Option<u32> {
    if offset == 0 { None } else { Some(offset) }
}

/// Writes the SYN to a flow's backend.
#[inline(always)]
pub(crate) fn syn<E: Env>(
    env: &E,
    live: &Live,
    sequence: u32,
    window: u16,
    options: &SynOptions,
) -> Option<u32> {
    some(write_syn(env, live, sequence, window, options))
}

#[inline(never)]
fn write_syn<E: Env>(env: &E, live: &Live, sequence: u32, window: u16, options: &SynOptions) -> u32 {
    let Some(ends) = backend_ends(env, live) else { return 0 };
    syn_between(env, &ends, sequence, window, options).unwrap_or(0)
}

#[inline(always)]
fn syn_between<E: Env>(
    env: &E,
    ends: &Ends<'_>,
    sequence: u32,
    window: u16,
    options: &SynOptions,
) -> Option<u32> {
    let scale = if options.scale < 15 { option::scale(options.scale) } else { option::PADDING };
    let sack = if options.sack { option::SACK_PERMITTED } else { option::PADDING };
    let words = [option::mss(options.mss).to_be(), sack.to_be(), scale.to_be()];
    let sum = Sum::ZERO.add32(words[0]).add32(words[1]).add32(words[2]);
    let segment = Segment { sequence, acknowledgement: 0, window, flags: flag::SYN };
    let header = (Tcp::LEN + OPTIONS) as u8;
    let l4 = write_sized(env, ends, &segment, header, 0, sum)?;
    let p = frame::at(env, l4 as usize + Tcp::LEN, OPTIONS)?;
    // SAFETY: checked for three words.
    unsafe {
        put(p, words[0]);
        put(p.add(4), words[1]);
        put(p.add(8), words[2]);
    }
    Some(l4 + header as u32)
}

/// Writes a segment without data from the service to the flow's client.
#[inline(always)]
pub(crate) fn to_client<E: Env>(env: &E, live: &Live, segment: &Segment) -> Option<u32> {
    some(write_to_client(env, live, segment))
}

#[inline(never)]
fn write_to_client<E: Env>(env: &E, live: &Live, segment: &Segment) -> u32 {
    let flow = live.flow();
    let client = &flow.client;
    let ends = Ends {
        source: &client.destination,
        destination: &client.source,
        source_port: client.destination_port,
        destination_port: client.source_port,
        to: flow.client_mac,
        from: flow.local_mac,
        tags: flow.tags,
    };
    write(env, &ends, segment, 0, Sum::ZERO).unwrap_or(0)
}

/// Turns a client's segment round: writes one without data from the service, with the frame's own addresses.
#[inline(always)]
pub(crate) fn back<E: Env>(env: &E, packet: &Packet, segment: &Segment) -> Option<u32> {
    some(write_back(env, packet, segment))
}

#[inline(never)]
fn write_back<E: Env>(env: &E, packet: &Packet, segment: &Segment) -> u32 {
    let Some(p) = frame::head(env, Ethernet::LEN) else { return 0 };
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    let ends = Ends {
        source: &packet.destination,
        destination: &packet.source,
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        to: ethernet.source(),
        from: ethernet.destination(),
        tags: packet.tags,
    };
    write(env, &ends, segment, 0, Sum::ZERO).unwrap_or(0)
}

/// The flow's side towards its backend.
#[inline(always)]
fn backend_ends<'a, E: Env>(env: &E, live: &'a Live) -> Option<Ends<'a>> {
    let flow = live.flow();
    let server = &flow.server;
    // Another backend may have its slot by now.
    let backend = nat::owner(env, live)?;
    if !link::is_resolved(&backend.hop) {
        return None;
    }
    let tags = match backend.vlan {
        VLAN_KEEP => flow.tags,
        VLAN_NONE => VlanTags::default(),
        id => VlanTags { outer: [ethertype::VLAN, Be16::new(id & 0x0fff)], inner: [Be16::default(); 2] },
    };
    Some(Ends {
        source: &server.destination,
        destination: &server.source,
        source_port: server.destination_port,
        destination_port: server.source_port,
        to: backend.hop.destination,
        from: backend.hop.source,
        tags,
    })
}

#[inline(always)]
fn write<E: Env>(env: &E, ends: &Ends<'_>, segment: &Segment, payload: u16, sum: Sum) -> Option<u32> {
    let l4 = write_sized(env, ends, segment, Tcp::LEN as u8, payload, sum)?;
    Some(l4 + Tcp::LEN as u32)
}

/// Makes the frame so long, at its end or else at its beginning: all that was in it is written over.
#[inline(always)]
pub(crate) fn make_room<E: Env>(env: &E, len: usize) -> bool {
    let growth = len as i32 - frame::len(env) as i32;
    growth == 0 || env.adjust_tail(growth) || growth > 0 && env.adjust_head(-growth)
}

/// Writes all headers but TCP options, whose sum `sum` includes; answers where the TCP header is.
#[inline(always)]
fn write_sized<E: Env>(
    env: &E,
    ends: &Ends<'_>,
    segment: &Segment,
    header: u8,
    payload: u16,
    sum: Sum,
) -> Option<u32> {
    let v4 = ends.source.is_v4();
    let tag_count = ends.tags.count();
    let l3 = link::header_len(tag_count);
    let l4 = l3 + ip_len(v4);
    let len = l4 + header as usize;
    // A payload that there is no room for is left to the program that can make some.
    if !make_room(env, len + payload as usize) && (payload == 0 || frame::len(env) < len) {
        resize(env, len)?;
    }
    if !link::write(env, &ends.to, &ends.from, (&ends.tags, tag_count), v4) {
        return None;
    }
    let len = header as u16 + payload;
    let pseudo = write_ip_at(env, l3, (ends.source, ends.destination), len, protocol::TCP)?;
    let p = frame::at(env, l4, Tcp::LEN)?;
    let written = TcpHeader {
        source_port: ends.source_port,
        destination_port: ends.destination_port,
        sequence: segment.sequence,
        acknowledgement: segment.acknowledgement,
        window: segment.window,
        flags: segment.flags,
        len: header,
    };
    // SAFETY: checked for the fixed header.
    unsafe { Tcp::new(p) }.write_header(&written, pseudo.plus(sum));
    Some(l4 as u32)
}
