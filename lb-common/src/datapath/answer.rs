//! The program that sends the balancer's own answers: TCP resets and ICMP errors.

use super::scratch::{Packet, part};
use super::{Env, Verdict, count, frame, limits, link};
use crate::abi::{Addr, Outcome, ServiceKey, Settings, program};
use crate::packet::{
    Ethernet, Icmp, Ipv4, Ipv4Header, Ipv6, Ipv6Header, Sum, Tcp, TcpHeader, flag, get, icmp4, icmp6,
    protocol,
};

/// Kinds of answers in [`super::Scratch::answer`].
mod kind {
    pub(super) const RESET: u32 = 0;
    pub(super) const TIME_EXCEEDED: u32 = 1;
    pub(super) const TOO_BIG: u32 = 2;
    pub(super) const REFUSAL: u32 = 3;
}

/// Bytes of the packet that an ICMP error quotes at most.
const QUOTE: usize = 128;
/// TTL and hop limit of answers.
const TTL: u8 = 64;

/// No backend of the service takes the packet.
#[inline(always)]
pub(crate) fn no_backend<E: Env>(env: &E, packet: &Packet) -> Verdict {
    if packet.protocol != protocol::TCP {
        return count::end(env, Outcome::NoBackend);
    }
    reset(env, packet, Outcome::NoBackend)
}

/// Answers a TCP segment with a reset; one that is a reset itself ends as `silent`.
#[inline(always)]
pub(crate) fn reset<E: Env>(env: &E, packet: &Packet, silent: Outcome) -> Verdict {
    if packet.tcp_flags & flag::RST != 0 || packet.part == part::LATER {
        return count::end(env, silent);
    }
    request(env, kind::RESET, 0)
}

/// Resets a connection that there is no room for; counted as that.
#[inline(always)]
pub(crate) fn refuse<E: Env>(env: &E) -> Verdict {
    request(env, kind::REFUSAL, 0)
}

/// The packet's hop limit is used up.
#[inline(always)]
pub(crate) fn time_exceeded<E: Env>(env: &E, packet: &Packet) -> Verdict {
    if !may_be_told(packet) {
        return count::end(env, Outcome::HopLimit);
    }
    request(env, kind::TIME_EXCEEDED, 0)
}

/// The packet is larger than `mtu`, which is what the way to the backend, or to the client, has room for.
#[inline(always)]
pub(crate) fn too_big<E: Env>(env: &E, packet: &Packet, mtu: u32) -> Verdict {
    if !may_be_told(packet) {
        return count::end(env, Outcome::NoRoom);
    }
    request(env, kind::TOO_BIG, mtu)
}

/// No ICMP error about an ICMP error or a later fragment (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
#[inline(always)]
fn may_be_told(packet: &Packet) -> bool {
    (packet.protocol == protocol::TCP || packet.protocol == protocol::UDP) && packet.part != part::LATER
}

/// Whether an answer to an address goes to one host, and not to ourselves: this network, loopback, groups, broadcast
/// and VIPs are no senders.
#[inline(always)]
pub(crate) fn is_answerable<E: Env>(env: &E, address: &Addr) -> bool {
    let words = &address.0;
    let no_sender = if address.is_v4() {
        let network = u32::from_be(words[3]) >> 24;
        network == 0 || network == 127 || network >= 224
    } else {
        let is_small = words[0] | words[1] | words[2] == 0 && u32::from_be(words[3]) <= 1;
        is_small || u32::from_be(words[0]) >> 24 == 0xff
    };
    !no_sender && env.service(&ServiceKey::vip(*address)).is_none()
}

#[inline(always)]
fn request<E: Env>(env: &E, kind: u32, mtu: u32) -> Verdict {
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).answer = kind;
            (*scratch).mtu = mtu;
        }
    }
    env.tail(program::ANSWER)
}

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, kind, mtu) = unsafe { (&(*scratch).packet, (*scratch).answer, (*scratch).mtu) };
    if !is_answerable(env, &packet.source) {
        return count::end(env, Outcome::Malformed);
    }
    if !limits::may_answer(env) {
        return count::end(env, Outcome::AnswerLimited);
    }
    let v4 = packet.is_v4();
    let (outcome, written) = match kind {
        kind::RESET | kind::REFUSAL => {
            let outcome = if kind == kind::RESET { Outcome::ResetSent } else { Outcome::FlowsFull };
            (outcome, send_reset(env, packet))
        }
        kind::TIME_EXCEEDED => {
            let (kind, code) = if v4 { (icmp4::TIME_EXCEEDED, 0) } else { (icmp6::TIME_EXCEEDED, 0) };
            (Outcome::TimeExceededSent, send_error(env, packet, kind, code, 0))
        }
        _ => {
            let (kind, code) =
                if v4 { (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED) } else { (icmp6::TOO_BIG, 0) };
            (Outcome::TooBigSent, send_error(env, packet, kind, code, mtu))
        }
    };
    match written {
        Some(()) => send_back(env, settings, packet, outcome),
        None => count::end(env, Outcome::NoRoom),
    }
}

/// Sends the answer in the frame, and counts it unless it could not be sent, which has been counted.
#[inline(always)]
pub(crate) fn send_back<E: Env>(env: &E, settings: &Settings, packet: &Packet, outcome: Outcome) -> Verdict {
    let verdict = match packet.back {
        0 => link::back(env, settings),
        ifindex => link::transmit(env, settings, ifindex),
    };
    if verdict != Verdict::Drop {
        env.count(outcome);
    }
    verdict
}

/// Turns the segment into a reset (RFC 9293 section 3.5.2).
#[inline(always)]
fn send_reset<E: Env>(env: &E, packet: &Packet) -> Option<()> {
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let flags = tcp.flags();
    let payload = (packet.l4_len() as u32).wrapping_sub(tcp.header_len() as u32);
    let controls = (flags & flag::SYN != 0) as u32 + (flags & flag::FIN != 0) as u32;
    let reset = if flags & flag::ACK != 0 {
        TcpHeader {
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            sequence: tcp.acknowledgement(),
            acknowledgement: 0,
            window: 0,
            flags: flag::RST,
            len: Tcp::LEN as u8,
        }
    } else {
        TcpHeader {
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            sequence: 0,
            acknowledgement: tcp.sequence().wrapping_add(payload).wrapping_add(controls),
            window: 0,
            flags: flag::RST | flag::ACK,
            len: Tcp::LEN as u8,
        }
    };
    turn_round(env)?;
    let l3 = packet.l3 as usize;
    let header = ip_len(packet.is_v4());
    resize(env, l3 + header + Tcp::LEN)?;
    let pseudo = write_ip(env, packet, Tcp::LEN as u16, protocol::TCP)?;
    let p = frame::at(env, l3 + header, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    unsafe { Tcp::new(p) }.write_header(&reset, pseudo);
    Some(())
}

/// Puts an ICMP error in front of the packet's first bytes.
#[inline(always)]
fn send_error<E: Env>(env: &E, packet: &Packet, kind: u8, code: u8, rest: u32) -> Option<()> {
    let v4 = packet.is_v4();
    let (l3, header) = (packet.l3 as usize, ip_len(v4));
    let quote = if packet.length as usize > QUOTE { QUOTE } else { packet.length as usize };
    let p = frame::head(env, Ethernet::LEN)?;
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    let (destination, source) = (ethernet.destination(), ethernet.source());
    resize(env, l3 + quote)?;
    if !env.adjust_head(-((header + Icmp::LEN) as i32)) {
        return None;
    }
    if !link::write(env, &source, &destination, (&packet.tags, packet.tag_count()), v4) {
        return None;
    }
    let len = (Icmp::LEN + quote) as u16;
    let pseudo = write_ip(env, packet, len, if v4 { protocol::ICMP } else { protocol::ICMPV6 })?;
    let covered = sum(env, l3 + header + Icmp::LEN, quote);
    let covered = if v4 { covered } else { covered.plus(pseudo) };
    let p = frame::at(env, l3 + header, Icmp::LEN)?;
    // SAFETY: checked for the header.
    unsafe { Icmp::new(p) }.write_header(kind, code, rest, covered);
    Some(())
}

/// Length of a plain IP header.
#[inline(always)]
pub(crate) const fn ip_len(v4: bool) -> usize {
    if v4 { Ipv4::LEN } else { Ipv6::LEN }
}

/// Swaps the MACs.
#[inline(always)]
pub(crate) fn turn_round<E: Env>(env: &E) -> Option<()> {
    let p = frame::head(env, Ethernet::LEN)?;
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    let (destination, source) = (ethernet.destination(), ethernet.source());
    ethernet.set_addresses(&source, &destination);
    Some(())
}

/// Gives the frame a length.
#[inline(always)]
pub(crate) fn resize<E: Env>(env: &E, len: usize) -> Option<()> {
    let delta = len as i32 - frame::len(env) as i32;
    (delta == 0 || env.adjust_tail(delta)).then_some(())
}

/// Writes the IP header of an answer from the packet's destination; answers the sum of its pseudo-header.
#[inline(always)]
fn write_ip<E: Env>(env: &E, packet: &Packet, payload: u16, protocol: u8) -> Option<Sum> {
    write_ip_at(env, packet.l3 as usize, (&packet.destination, &packet.source), payload, protocol)
}

/// Writes a plain IP header at an offset; answers the sum of its pseudo-header.
#[inline(always)]
pub(crate) fn write_ip_at<E: Env>(
    env: &E,
    l3: usize,
    (from, to): (&Addr, &Addr),
    payload: u16,
    protocol: u8,
) -> Option<Sum> {
    let lengths = Sum::ZERO.add16(payload.to_be()).add16((protocol as u16).to_be());
    if from.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.write_header(&Ipv4Header {
            tos: 0,
            total_len: payload + Ipv4::LEN as u16,
            ttl: TTL,
            protocol,
            source: from.v4_word(),
            destination: to.v4_word(),
        });
        Some(lengths.add32(from.v4_word()).add32(to.v4_word()))
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv6::new(p) }.write_header(&Ipv6Header {
            traffic_class: 0,
            payload_len: payload,
            next_header: protocol,
            hop_limit: TTL,
            source: from,
            destination: to,
        });
        Some(lengths.add_words(&from.0).add_words(&to.0))
    }
}

/// Sum of `len` bytes, at most [`QUOTE`], from `offset` on.
#[inline(always)]
fn sum<E: Env>(env: &E, offset: usize, len: usize) -> Sum {
    let mut total = Sum::ZERO;
    env.repeat(len as u32 / 2, |i| {
        let Some(p) = frame::at(env, offset + (i as usize & 0x3f) * 2, 2) else { return true };
        // SAFETY: checked for two bytes.
        total = total.add16(unsafe { get(p) });
        false
    });
    if len & 1 == 1
        && let Some(p) = frame::at(env, offset + (len & 0xff) - 1, 1)
    {
        // SAFETY: checked for one byte.
        total = total.add16(u16::from_ne_bytes([unsafe { get(p) }, 0]));
    }
    total
}
