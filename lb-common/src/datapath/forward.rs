//! Sending a packet to its backend in the direct modes: `l2`, `ipip`, `gue`.

use super::binding::Chosen;
use super::count::Way;
use super::scratch::Packet;
use super::{Env, Verdict, answer, count, frame, link, mss};
use crate::abi::{Backend, Be16, Mode, Outcome, Service, Settings};
use crate::packet::{Ipv4, Ipv4Header, Ipv6, Ipv6Header, Udp, flag, protocol};

/// TTL and hop limit of outer headers.
const OUTER_TTL: u8 = 64;

/// What goes in front of the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Envelope {
    None,
    Ip,
    IpUdp,
}

impl Envelope {
    #[inline(always)]
    fn of(mode: u8) -> Self {
        if mode == Mode::Ipip as u8 {
            Self::Ip
        } else if mode == Mode::Gue as u8 {
            Self::IpUdp
        } else {
            Self::None
        }
    }

    #[inline(always)]
    fn len(self, outer_v4: bool) -> usize {
        let ip = if outer_v4 { Ipv4::LEN } else { Ipv6::LEN };
        match self {
            Self::None => 0,
            Self::Ip => ip,
            Self::IpUdp => ip + Udp::LEN,
        }
    }
}

/// Sends a packet to a backend as the service's mode says.
#[inline(always)]
pub(crate) fn direct<E: Env>(
    env: &E,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
    session: u64,
    (slot, backend): Chosen<'_>,
    opens: bool,
) -> Verdict {
    let envelope = Envelope::of(service.mode);
    let outer_v4 = backend.address.is_v4();
    let overhead = envelope.len(outer_v4);
    if let Some(verdict) = admissible(env, packet, backend, overhead) {
        return verdict;
    }
    let Some(()) = age(env, packet) else { return count::end(env, Outcome::Malformed) };
    if service.mss != 0 && packet.protocol == protocol::TCP && packet.tcp_flags & flag::SYN != 0 {
        mss::clamp(env, packet, service.mss);
    }
    let (tags, tag_count) = link::tags(packet, backend.vlan);
    let l3 = link::header_len(tag_count);
    let padding = frame::len(env).wrapping_sub(packet.l3 as usize + packet.length as usize);
    if envelope != Envelope::None && padding != 0 && !env.adjust_tail(-(padding as i32)) {
        return count::end(env, Outcome::NoRoom);
    }
    let growth = (l3 + overhead) as i32 - packet.l3 as i32;
    if growth != 0 && !env.adjust_head(-growth) {
        return count::end(env, Outcome::NoRoom);
    }
    let v4 = if envelope == Envelope::None { packet.is_v4() } else { outer_v4 };
    let written = link::write(env, &backend.hop.destination, &backend.hop.source, (&tags, tag_count), v4)
        && match envelope {
            Envelope::None => true,
            Envelope::Ip | Envelope::IpUdp => {
                outer(env, settings, packet, session, backend, envelope, l3).is_some()
            }
        };
    if !written {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, backend.hop.ifindex);
    count::forwarded(env, verdict, (service.slot, slot), packet.length, opens, Way::Forward);
    verdict
}

/// Whether the packet may go that way; else what becomes of it.
#[inline(always)]
pub(crate) fn admissible<E: Env>(
    env: &E,
    packet: &Packet,
    backend: &Backend,
    overhead: usize,
) -> Option<Verdict> {
    if packet.hop_limit <= 1 {
        return Some(answer::time_exceeded(env, packet));
    }
    if !link::is_resolved(&backend.hop) {
        return Some(count::end(env, Outcome::NoHop));
    }
    let mtu = backend.hop.mtu as usize;
    if packet.length as usize + overhead > mtu {
        return Some(answer::too_big(env, packet, mtu.saturating_sub(overhead) as u32));
    }
    None
}

/// Takes one from the TTL or hop limit, which is at least 2.
#[inline(always)]
pub(crate) fn age<E: Env>(env: &E, packet: &Packet) -> Option<()> {
    if packet.is_v4() {
        let p = frame::at(env, packet.l3 as usize, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.decrement_ttl();
    } else {
        let p = frame::at(env, packet.l3 as usize, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv6::new(p) }.set_hop_limit(packet.hop_limit - 1);
    }
    Some(())
}

/// Writes the outer headers at `l3`.
#[inline(always)]
fn outer<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    session: u64,
    backend: &Backend,
    envelope: Envelope,
    l3: usize,
) -> Option<()> {
    let (inner_protocol, udp) = match envelope {
        Envelope::IpUdp => (protocol::UDP, Udp::LEN),
        Envelope::None | Envelope::Ip => (if packet.is_v4() { protocol::IPIP } else { protocol::IPV6 }, 0),
    };
    let payload = packet.length + udp as u16;
    let l4 = if backend.address.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.write_header(&Ipv4Header {
            tos: packet.traffic_class,
            total_len: payload + Ipv4::LEN as u16,
            ttl: OUTER_TTL,
            protocol: inner_protocol,
            source: settings.tunnel_v4.v4_word(),
            destination: backend.address.v4_word(),
        });
        l3 + Ipv4::LEN
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv6::new(p) }.write_header(&Ipv6Header {
            traffic_class: packet.traffic_class,
            payload_len: payload,
            next_header: inner_protocol,
            hop_limit: OUTER_TTL,
            source: &settings.tunnel_v6,
            destination: &backend.address,
        });
        l3 + Ipv6::LEN
    };
    if envelope == Envelope::IpUdp {
        let p = frame::at(env, l4, Udp::LEN)?;
        // SAFETY: checked for the header.
        unsafe { Udp::new(p) }.write_header(
            Be16::new(entropy(session)),
            Be16::new(settings.gue_port as u16),
            payload,
        );
    }
    Some(())
}

/// Source port of a tunnel packet: spreads sessions over paths and receive queues.
#[inline(always)]
const fn entropy(session: u64) -> u16 {
    let f = session ^ (session >> 32);
    let f = f ^ (f >> 16);
    0xc000 | (f & 0x3fff) as u16
}
