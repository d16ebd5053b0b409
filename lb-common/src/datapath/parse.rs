//! From bytes to a [`Packet`].

use super::scratch::{Packet, part};
use super::{Env, frame};
use crate::abi::{Addr, Be16, Be32, Outcome, VlanTags};
use crate::packet::{Ethernet, Ipv4, Ipv6, Tcp, Udp, ethertype, extension, get, protocol};

/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 6;

/// Reads link and network headers, and the ports where there are any.
#[inline(always)]
pub(crate) fn parse<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    packet.clear();
    match link(env, packet)? {
        ethertype::IPV4 => ipv4(env, packet)?,
        ethertype::IPV6 => ipv6(env, packet)?,
        _ => return Err(Outcome::NotIp),
    }
    ports(env, packet)
}

/// Checks the transport header of a packet that is ours, and reads the TCP flags.
#[inline(always)]
pub(crate) fn transport<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    let room = packet.l4_len();
    if packet.protocol == protocol::TCP {
        if room < Tcp::LEN {
            return Err(Outcome::Malformed);
        }
        let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN) else { return Err(Outcome::Malformed) };
        // SAFETY: checked for a whole header.
        let tcp = unsafe { Tcp::new(p) };
        if tcp.header_len() < Tcp::LEN || tcp.header_len() > room {
            return Err(Outcome::Malformed);
        }
        packet.tcp_flags = tcp.flags();
    } else {
        if room < Udp::LEN {
            return Err(Outcome::Malformed);
        }
        let Some(p) = frame::at(env, packet.l4 as usize, Udp::LEN) else { return Err(Outcome::Malformed) };
        // SAFETY: checked for a whole header.
        let len = unsafe { Udp::new(p) }.len() as usize;
        // The length of a datagram in fragments speaks of the whole datagram.
        if len < Udp::LEN || (packet.part == part::WHOLE && len > room) {
            return Err(Outcome::Malformed);
        }
    }
    Ok(())
}

/// Reads what an ICMP error quotes: a packet cut short, from `offset` up to `end`.
#[inline(always)]
pub(crate) fn quoted<E: Env>(env: &E, offset: usize, end: usize, v4: bool) -> Option<Packet> {
    let mut packet =
        Packet { l3: offset as u16, length: end.wrapping_sub(offset) as u16, ..Packet::default() };
    if v4 {
        let p = frame::at(env, offset, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv4::new(p) };
        if ip.version() != 4 || ip.header_len() < Ipv4::LEN || ip.fragment_offset() != 0 {
            return None;
        }
        packet.source = Addr::v4_raw(ip.source());
        packet.destination = Addr::v4_raw(ip.destination());
        packet.l4 = packet.l3 + ip.header_len() as u16;
        packet.protocol = ip.protocol();
    } else {
        let p = frame::at(env, offset, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv6::new(p) };
        if ip.version() != 6 {
            return None;
        }
        packet.source = ip.source();
        packet.destination = ip.destination();
        if packet.source.is_v4() || packet.destination.is_v4() {
            return None;
        }
        packet.l4 = packet.l3 + Ipv6::LEN as u16;
        packet.protocol = ip.next_header();
        if is_extension(packet.protocol) && extensions(env, &mut packet).is_err() {
            return None;
        }
    }
    let has_ports = packet.protocol == protocol::TCP || packet.protocol == protocol::UDP;
    if !has_ports || packet.part == part::LATER || packet.l4 as usize + 4 > end {
        return None;
    }
    let p = frame::at(env, packet.l4 as usize, 4)?;
    // SAFETY: checked for four bytes.
    let (source, destination) = unsafe { (Be16(get(p)), Be16(get(p.add(2)))) };
    packet.source_port = source;
    packet.destination_port = destination;
    Some(packet)
}

/// Ethernet and tags; answers the EtherType.
#[inline(always)]
fn link<E: Env>(env: &E, packet: &mut Packet) -> Result<Be16, Outcome> {
    let Some(p) = frame::head(env, Ethernet::LEN) else { return Err(Outcome::NotIp) };
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    // Everyone on the segment gets it, and a group is nobody to answer as.
    if ethernet.is_for_group() {
        return Err(Outcome::NotOurs);
    }
    let kind = ethernet.field(12);
    packet.l3 = Ethernet::LEN as u16;
    if !is_tag(kind) { Ok(kind) } else { tags(env, packet, kind) }
}

#[inline(always)]
fn tags<E: Env>(env: &E, packet: &mut Packet, outer: Be16) -> Result<Be16, Outcome> {
    let one = Ethernet::LEN + Ethernet::TAG;
    let Some(p) = frame::head(env, one) else { return Err(Outcome::NotIp) };
    // SAFETY: checked for one tag.
    let ethernet = unsafe { Ethernet::new(p) };
    let kind = ethernet.field(16);
    packet.tags = VlanTags { outer: [outer, ethernet.field(14)], inner: [Be16::default(); 2] };
    packet.l3 = one as u16;
    if !is_tag(kind) {
        return Ok(kind);
    }
    let two = one + Ethernet::TAG;
    let Some(p) = frame::head(env, two) else { return Err(Outcome::NotIp) };
    // SAFETY: checked for two tags.
    let ethernet = unsafe { Ethernet::new(p) };
    let innermost = ethernet.field(20);
    packet.tags.inner = [kind, ethernet.field(18)];
    packet.l3 = two as u16;
    if is_tag(innermost) { Err(Outcome::TooDeep) } else { Ok(innermost) }
}

#[inline(always)]
fn is_tag(kind: Be16) -> bool {
    kind == ethertype::VLAN || kind == ethertype::PROVIDER_VLAN
}

#[inline(always)]
fn ipv4<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    let Some(p) = frame::at(env, packet.l3 as usize, Ipv4::LEN) else { return Err(Outcome::Malformed) };
    // SAFETY: checked for the fixed header.
    let ip = unsafe { Ipv4::new(p) };
    let (header, total) = (ip.header_len(), ip.total_len());
    if ip.version() != 4 || header < Ipv4::LEN || (total as usize) < header {
        return Err(Outcome::Malformed);
    }
    if packet.l3 as usize + total as usize > frame::len(env) {
        return Err(Outcome::Malformed);
    }
    packet.source = Addr::v4_raw(ip.source());
    packet.destination = Addr::v4_raw(ip.destination());
    packet.l4 = packet.l3 + header as u16;
    packet.length = total;
    packet.protocol = ip.protocol();
    packet.hop_limit = ip.ttl();
    packet.traffic_class = ip.tos();
    packet.part = match (ip.fragment_offset(), ip.more_fragments()) {
        (0, false) => part::WHOLE,
        (0, true) => part::FIRST,
        _ => part::LATER,
    };
    packet.identification = Be32::new(ip.identification().host() as u32);
    packet.train = packet.protocol;
    Ok(())
}

#[inline(always)]
fn ipv6<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    let Some(p) = frame::at(env, packet.l3 as usize, Ipv6::LEN) else { return Err(Outcome::Malformed) };
    // SAFETY: checked for the fixed header.
    let ip = unsafe { Ipv6::new(p) };
    let total = Ipv6::LEN + ip.payload_len() as usize;
    if ip.version() != 6 || packet.l3 as usize + total > frame::len(env) {
        return Err(Outcome::Malformed);
    }
    packet.source = ip.source();
    packet.destination = ip.destination();
    // Mapped addresses do not belong on the wire, and would pass for IPv4 from here on.
    if packet.source.is_v4() || packet.destination.is_v4() {
        return Err(Outcome::Malformed);
    }
    packet.l4 = packet.l3 + Ipv6::LEN as u16;
    packet.length = total as u16;
    packet.protocol = ip.next_header();
    packet.hop_limit = ip.hop_limit();
    packet.traffic_class = ip.traffic_class();
    if is_extension(packet.protocol) { extensions(env, packet) } else { Ok(()) }
}

#[inline(always)]
fn is_extension(header: u8) -> bool {
    matches!(
        header,
        extension::HOP_BY_HOP | extension::ROUTING | extension::FRAGMENT | extension::DESTINATION
    )
}

/// Follows extension headers up to the transport header or a later fragment's payload.
#[inline(never)]
fn extensions<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    let end = packet.l3 as usize + packet.length as usize;
    let mut offset = packet.l4 as usize;
    let mut header = packet.protocol;
    let mut steps = 0;
    while steps < MAX_EXTENSIONS {
        let Some(p) = frame::at(env, offset, 8) else { return Err(Outcome::Malformed) };
        if offset + 8 > end {
            return Err(Outcome::Malformed);
        }
        // SAFETY: checked for eight bytes.
        let (next, second): (u8, u8) = unsafe { (get(p), get(p.add(1))) };
        let len = if header == extension::FRAGMENT {
            // SAFETY: checked for eight bytes.
            let (place, identification) = unsafe { (Be16(get(p.add(2))).host(), Be32(get(p.add(4)))) };
            packet.identification = identification;
            packet.train = next;
            packet.part = match (place & 0xfff8, place & 1) {
                (0, 0) => part::WHOLE,
                (0, _) => part::FIRST,
                _ => part::LATER,
            };
            8
        } else {
            (second as usize + 1) * 8
        };
        if offset + len > end {
            return Err(Outcome::Malformed);
        }
        offset += len;
        header = next;
        packet.protocol = header;
        packet.l4 = offset as u16;
        if packet.part == part::LATER || !is_extension(header) {
            return Ok(());
        }
        steps += 1;
    }
    Err(Outcome::TooDeep)
}

/// Ports of TCP and UDP, where the packet has them.
#[inline(always)]
fn ports<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Outcome> {
    let has_ports = packet.protocol == protocol::TCP || packet.protocol == protocol::UDP;
    if !has_ports || packet.part == part::LATER {
        return Ok(());
    }
    if packet.l4_len() < 4 {
        return Err(Outcome::Malformed);
    }
    let Some(p) = frame::at(env, packet.l4 as usize, 4) else { return Err(Outcome::Malformed) };
    // SAFETY: checked for four bytes.
    let (source, destination) = unsafe { (Be16(get(p)), Be16(get(p.add(2)))) };
    packet.source_port = source;
    packet.destination_port = destination;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    const PORTS: [u8; 4] = [0x9c, 0x40, 0x00, 0x50];
    const OFFSET: usize = 42;

    /// The headers in front of the quoted ports, whether they are IPv4, and the protocol.
    fn quotes() -> [(Vec<u8>, bool, u8); 4] {
        let four = |options: usize, protocol| {
            let mut header = vec![0_u8; Ipv4::LEN + options];
            header[0] = 0x45 + (options / 4) as u8;
            header[9] = protocol;
            header
        };
        let six = |next: u8, extensions: &[u8]| {
            let mut header = vec![0_u8; Ipv6::LEN];
            (header[0], header[6], header[8], header[24]) = (0x60, next, 0x20, 0x20);
            [&header, extensions].concat()
        };
        let chain = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[protocol::TCP, 1], &[0; 14]].concat();
        [
            (four(0, protocol::TCP), true, protocol::TCP),
            (four(8, protocol::UDP), true, protocol::UDP),
            (six(protocol::UDP, &[]), false, protocol::UDP),
            (six(extension::HOP_BY_HOP, &chain), false, protocol::TCP),
        ]
    }

    #[test]
    fn a_quote_is_read_when_its_ports_are_there_and_never_beyond_its_end() {
        let model = Model::new(0, 0);
        for (header, v4, protocol) in quotes() {
            let whole = [&header[..], &PORTS, &[0xee; 16]].concat();
            for len in 0..=whole.len() {
                // Padding that looks like more of the quote, and none.
                for padding in [&whole[len..], &[]] {
                    model.set_frame(&[&[0; OFFSET], &whole[..len], padding].concat());
                    let read = quoted(&model, OFFSET, OFFSET + len, v4);
                    assert_eq!(
                        read.is_some(),
                        len >= header.len() + PORTS.len(),
                        "{len} bytes of {whole:x?}"
                    );
                    if let Some(packet) = read {
                        assert_eq!((packet.source_port.host(), packet.destination_port.host()), (40_000, 80));
                        assert_eq!((packet.protocol, packet.l4 as usize), (protocol, OFFSET + header.len()));
                    }
                }
            }
        }
    }
}
