//! Programs that lead health checks the way of the traffic, so that a backend which answers only beside it counts as dead.
//!
//! The socket of a probe is connected to the backend's own address and marked. `probe_out`, at the egress of the interface that the
//! stack has chosen, gives the packet the service's address as destination and puts the tunnel's headers around it; `probe_back`, at
//! the ingress, gives the answer, which comes from the service's address, the backend's as source before the stack looks at it. So
//! the service's address may be one of the balancer's own, and no route, rule, tunnel device or namespace is needed. Where the backend
//! is of another family than the service, both make one family's header into the other's, and the balancer asks as an address of
//! its own of the service's family.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::{Array, LruHashMap},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_proto,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::{btf_map, classifier},
    programs::TcContext,
};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use lb_common::abi::{self, Addr, Be16, PROBE_MARK, ProbeAnswer, ProbeEnvelope, ProbeKey, ProbeWay};

#[btf_map]
static PROBE_WAYS: Array<ProbeWay, { abi::PROBE_WAYS as usize }> = Array::new();
/// Backends by what their answers look like.
#[btf_map]
static PROBE_ANSWERS: LruHashMap<ProbeKey, ProbeAnswer, { abi::PROBE_ANSWERS as usize }> = LruHashMap::new();

/// `TCX_NEXT`, in older kernels `TC_ACT_UNSPEC`: the next program decides.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: the packet is lost.
const LOST: i32 = 2;

const ETH: u32 = 14;
const VLAN: u32 = 4;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// Echo request and reply.
const ECHO: u8 = 8;
const REPLY: u8 = 0;
const ECHO6: u8 = 128;
const REPLY6: u8 = 129;

/// `BPF_F_RECOMPUTE_CSUM`: what the card has summed up is corrected.
const SUMMED: u64 = 1;
/// `BPF_F_PSEUDO_HDR`.
const PSEUDO: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of zero stays.
const MANGLED: u64 = 1 << 5;
/// `BPF_F_IPV6`, since Linux 6.16: without it checksums that the card has summed up are spoilt with IPv6.
const SUM_IPV6: u64 = 1 << 7;
/// `BPF_ADJ_ROOM_MAC`.
const BEHIND_MAC: u32 = 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L3_IPV4`, `_IPV6` and `_L4_UDP`.
const ENCAP_IPV4: u64 = 1 << 1;
const ENCAP_IPV6: u64 = 1 << 2;
const ENCAP_UDP: u64 = 1 << 4;

/// Where the parts of an IP packet stand.
struct Packet {
    l3: u32,
    l4: u32,
    is_v4: bool,
    protocol: u8,
    /// From the IP header on.
    length: u16,
}

/// What goes into a tunnel.
struct Load {
    is_v4: bool,
    /// From the IP header on.
    length: u16,
}

impl Packet {
    /// The protocol that it is of in the other family.
    #[inline(always)]
    const fn sibling(&self) -> u8 {
        match self.protocol {
            ICMP => ICMP6,
            ICMP6 => ICMP,
            other => other,
        }
    }
}

/// At the egress: marked packets get the service's address, and their envelope.
#[classifier]
pub fn probe_out(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs.
    let mark = unsafe { (*skb).mark };
    if mark & 0xffff_0000 != PROBE_MARK {
        return NEXT;
    }
    let Some(way) = PROBE_WAYS.get(mark & 0xffff) else { return LOST };
    // What cannot be led there must not arrive on another way.
    match lead(skb, way) {
        Some(()) => NEXT,
        None => LOST,
    }
}

/// At the ingress: answers to probes come from the backend.
#[classifier]
pub fn probe_back(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let _ = bring(skb);
    NEXT
}

#[inline(always)]
fn lead(skb: *mut __sk_buff, way: &ProbeWay) -> Option<()> {
    if way.envelope == 0 {
        return None;
    }
    let packet = parse(skb)?;
    let (source, destination) = addresses(skb, &packet)?;
    if destination.0 != way.backend.0 {
        return None;
    }
    let (own_port, port) = match packet.protocol {
        TCP | UDP => (load::<u16>(skb, packet.l4)?, load::<u16>(skb, packet.l4 + 2)?),
        _ => (load::<u16>(skb, packet.l4 + 4)?, 0),
    };
    let crosses = way.inner.0 != [0; 4];
    let own = if crosses { source.by_words() } else { Addr::NONE };
    let key = key(&way.vip, port, own_port, if crosses { packet.sibling() } else { packet.protocol });
    PROBE_ANSWERS.insert(key, ProbeAnswer { backend: way.backend.by_words(), own }, 0).ok()?;
    let length = if crosses {
        cross(skb, &packet, [&source, &destination], [&way.inner, &way.vip])?
    } else {
        replace(skb, &packet, destination_at(&packet), &destination, &way.vip)?;
        packet.length
    };
    if way.envelope == ProbeEnvelope::Plain as u32 {
        return if crosses { name(skb, !packet.is_v4) } else { Some(()) };
    }
    let outer_source = if way.source.0 == [0; 4] { source } else { way.source };
    let load = Load { is_v4: packet.is_v4 != crosses, length };
    wrap(skb, &packet, &load, way, &outer_source, own_port)
}

#[inline(always)]
fn bring(skb: *mut __sk_buff) -> Option<()> {
    let packet = parse(skb)?;
    let (source, destination) = addresses(skb, &packet)?;
    let (port, own_port) = match packet.protocol {
        TCP | UDP => (load::<u16>(skb, packet.l4)?, load::<u16>(skb, packet.l4 + 2)?),
        _ => (0, load::<u16>(skb, packet.l4 + 4)?),
    };
    let key = key(&source, port, own_port, packet.protocol);
    // SAFETY: a copy is made at once; at worst it is another probe's backend.
    let answer = unsafe { PROBE_ANSWERS.get(key) }?;
    let (backend, own) = (answer.backend.by_words(), answer.own.by_words());
    if own.0 == [0; 4] {
        return replace(skb, &packet, source_at(&packet), &source, &backend);
    }
    if own.is_v4() == packet.is_v4 {
        return None;
    }
    cross(skb, &packet, [&source, &destination], [&backend, &own])?;
    name(skb, !packet.is_v4)
}

#[inline(always)]
fn key(vip: &Addr, port: u16, own_port: u16, protocol: u8) -> ProbeKey {
    let (port, own_port) = (Be16::new(port.to_be()), Be16::new(own_port.to_be()));
    ProbeKey { vip: vip.by_words(), port, own_port, protocol, pad: [0; 3] }
}

/// The packet, when it is one that probes are made of.
#[inline(always)]
fn parse(skb: *mut __sk_buff) -> Option<Packet> {
    let (mut l3, mut ethertype) = (ETH, load::<u16>(skb, 12)?.to_be());
    if ethertype == 0x8100 {
        ethertype = load::<u16>(skb, 16)?.to_be();
        l3 = ETH + VLAN;
    }
    let packet = match ethertype {
        IPV4 => {
            let first = load::<u8>(skb, l3)?;
            // Neither a fragment nor the first of several.
            if load::<u16>(skb, l3 + 6)?.to_be() & 0x3fff != 0 {
                return None;
            }
            let l4 = l3 + u32::from(first & 0x0f) * 4;
            let (length, protocol) = (load::<u16>(skb, l3 + 2)?.to_be(), load::<u8>(skb, l3 + 9)?);
            Packet { l3, l4, is_v4: true, protocol, length }
        }
        IPV6 => {
            let (payload, protocol) = (load::<u16>(skb, l3 + 4)?.to_be(), load::<u8>(skb, l3 + 6)?);
            Packet { l3, l4: l3 + 40, is_v4: false, protocol, length: payload.wrapping_add(40) }
        }
        _ => return None,
    };
    match (packet.protocol, packet.is_v4) {
        (TCP | UDP, _) | (ICMP, true) | (ICMP6, false) => Some(packet),
        _ => None,
    }
}

#[inline(always)]
const fn source_at(packet: &Packet) -> u32 {
    packet.l3 + if packet.is_v4 { 12 } else { 8 }
}

#[inline(always)]
const fn destination_at(packet: &Packet) -> u32 {
    packet.l3 + if packet.is_v4 { 16 } else { 24 }
}

#[inline(always)]
fn addresses(skb: *mut __sk_buff, packet: &Packet) -> Option<(Addr, Addr)> {
    if packet.is_v4 {
        let word = |at| load::<u32>(skb, at).map(Addr::v4_raw);
        Some((word(source_at(packet))?, word(destination_at(packet))?))
    } else {
        let words = |at| load::<[u32; 4]>(skb, at).map(Addr);
        Some((words(source_at(packet))?, words(destination_at(packet))?))
    }
}

/// Writes another address, and corrects what is summed up over it.
#[inline(always)]
fn replace(skb: *mut __sk_buff, packet: &Packet, at: u32, old: &Addr, new: &Addr) -> Option<()> {
    let (mut old, mut new) = (old.by_words().0, new.by_words().0);
    let (first, len) = if packet.is_v4 { (3, 4_u32) } else { (0, 16) };
    // SAFETY: both are four words on the stack, and as much is read as is there.
    let change =
        unsafe { bpf_csum_diff(old.as_mut_ptr().add(first), len, new.as_mut_ptr().add(first), len, 0) };
    let change = u64::from(change as u32);
    let sum = match packet.protocol {
        TCP => Some((16, PSEUDO)),
        UDP => Some((6, PSEUDO | MANGLED)),
        ICMP6 => Some((2, PSEUDO)),
        _ => None,
    };
    // SAFETY: helpers that check offsets and lengths themselves; the words are on the stack.
    unsafe {
        if let Some((offset, flags)) = sum {
            let at = packet.l4 + offset;
            let is_done = !packet.is_v4 && bpf_l4_csum_replace(skb, at, 0, change, flags | SUM_IPV6) == 0;
            if !is_done && bpf_l4_csum_replace(skb, at, 0, change, flags) != 0 {
                return None;
            }
        }
        if packet.is_v4 && bpf_l3_csum_replace(skb, packet.l3 + 10, 0, change, 0) != 0 {
            return None;
        }
        let stored = bpf_skb_store_bytes(skb, at, new.as_ptr().add(first).cast(), len, 0);
        if stored == 0 { Some(()) } else { None }
    }
}

/// Makes the packet's IP header one of the other family, between these addresses; answers the packet's new length. What the Ethernet
/// header calls it stays.
#[inline(always)]
fn cross(skb: *mut __sk_buff, packet: &Packet, old: [&Addr; 2], new: [&Addr; 2]) -> Option<u16> {
    let header = if packet.is_v4 { 20 } else { 40 };
    // Neither a tag nor options.
    if packet.l3 != ETH || packet.l4 != ETH + header {
        return None;
    }
    let payload = packet.length.wrapping_sub(header as u16);
    let protocol = packet.sibling();
    // What the checksum covers besides the payload. The words of IPv4 addresses besides the last one sum up to nothing.
    let (mut before, mut after) = (words(old), words(new));
    if protocol != packet.protocol {
        // Addresses, length and protocol count with ICMPv6 only, and messages have other numbers.
        let kind = load::<u8>(skb, packet.l4)?;
        let (other, pseudo) = match (packet.is_v4, kind) {
            (true, ECHO) => (ECHO6, &mut after),
            (true, REPLY) => (REPLY6, &mut after),
            (false, ECHO6) => (ECHO, &mut before),
            (false, REPLY6) => (REPLY, &mut before),
            (true | false, _) => return None,
        };
        pseudo[8] = (u32::from(payload) + u32::from(ICMP6)).to_be();
        let bare = if packet.is_v4 { &mut before } else { &mut after };
        *bare = [0; 10];
        before[9] = u32::from(kind);
        after[9] = u32::from(other);
        write(skb, packet.l4, &other, SUMMED)?;
    }
    // SAFETY: forty bytes each, on the stack.
    let change = unsafe { bpf_csum_diff(before.as_mut_ptr(), 40, after.as_mut_ptr(), 40, 0) };
    let (at, flags) = match packet.protocol {
        TCP => (16, PSEUDO),
        UDP => (6, PSEUDO | MANGLED),
        _ => (2, PSEUDO),
    };
    let ethertype = if packet.is_v4 { IPV6 } else { IPV4 };
    // SAFETY: helpers that check their arguments themselves.
    unsafe {
        if bpf_l4_csum_replace(skb, packet.l4 + at, 0, u64::from(change as u32), flags) != 0
            || bpf_skb_change_proto(skb, ethertype.to_be(), 0) != 0
        {
            return None;
        }
    }
    if packet.is_v4 {
        write(skb, ETH, &header_v6(payload, protocol, new[0], new[1]), SUMMED)?;
        Some(payload.wrapping_add(40))
    } else {
        let length = payload.wrapping_add(20);
        write(skb, ETH, &header_v4(length, protocol, new[0], new[1]), SUMMED)?;
        Some(length)
    }
}

/// Two addresses as words, and room for two more.
#[inline(always)]
const fn words(addresses: [&Addr; 2]) -> [u32; 10] {
    let [a, b] = [addresses[0].0, addresses[1].0];
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], 0, 0]
}

/// Has the Ethernet header say what the packet is.
#[inline(always)]
fn name(skb: *mut __sk_buff, is_v4: bool) -> Option<()> {
    write(skb, 12, &if is_v4 { IPV4 } else { IPV6 }.to_be(), 0)
}

/// A header of IPv4; don't fragment, 64 hops.
#[inline(always)]
fn header_v4(length: u16, protocol: u8, source: &Addr, destination: &Addr) -> [u32; 5] {
    let mut header: [u32; 5] = [
        (0x4500_0000 | u32::from(length)).to_be(),
        0x0000_4000_u32.to_be(),
        (64 << 24 | u32::from(protocol) << 16).to_be(),
        source.v4_word(),
        destination.v4_word(),
    ];
    // SAFETY: the header is on the stack.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, header.as_mut_ptr(), 20, 0) } as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // As it lies in memory: the low half of the third word is its second half.
    header[2] |= (!sum & 0xffff) << 16;
    header
}

/// A header of IPv6; 64 hops.
#[inline(always)]
fn header_v6(payload: u16, protocol: u8, source: &Addr, destination: &Addr) -> [u32; 10] {
    let (s, d) = (&source.0, &destination.0);
    let first = 0x6000_0000_u32.to_be();
    let second = (u32::from(payload) << 16 | u32::from(protocol) << 8 | 64).to_be();
    [first, second, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]
}

/// Puts the tunnel's headers in front of what has become of the packet.
#[inline(always)]
fn wrap(
    skb: *mut __sk_buff,
    packet: &Packet,
    inner: &Load,
    way: &ProbeWay,
    source: &Addr,
    own_port: u16,
) -> Option<()> {
    // A tag in the packet itself, instead of beside it, would come to stand between the headers.
    if packet.l3 != ETH {
        return None;
    }
    let is_udp = way.envelope == ProbeEnvelope::IpUdp as u32;
    let (ip, flags): (u16, u64) = if packet.is_v4 { (20, ENCAP_IPV4) } else { (40, ENCAP_IPV6) };
    let (udp, flags): (u16, u64) = if is_udp { (8, flags | ENCAP_UDP) } else { (0, flags) };
    // SAFETY: a helper that checks its arguments itself.
    if unsafe { bpf_skb_adjust_room(skb, i32::from(ip + udp), BEHIND_MAC, flags) } != 0 {
        return None;
    }
    let payload = inner.length.wrapping_add(udp);
    let protocol = match (is_udp, inner.is_v4) {
        (true, _) => UDP,
        (false, true) => 4,
        (false, false) => 41,
    };
    if packet.is_v4 {
        let header = header_v4(payload.wrapping_add(ip), protocol, source, &way.backend);
        store(skb, ETH, &header)?;
    } else {
        store(skb, ETH, &header_v6(payload, protocol, source, &way.backend))?;
    }
    if is_udp {
        let entropy = 0xc000 | u32::from(own_port & 0x3fff);
        let header: [u32; 2] =
            [(entropy << 16 | (way.gue_port & 0xffff)).to_be(), (u32::from(payload) << 16).to_be()];
        store(skb, ETH + u32::from(ip), &header)?;
    }
    Some(())
}

#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills all of it or says that it did not; only integers are asked for.
    unsafe {
        let done = bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32);
        if done == 0 { Some(value.assume_init()) } else { None }
    }
}

#[inline(always)]
fn store<T>(skb: *mut __sk_buff, at: u32, value: &T) -> Option<()> {
    write(skb, at, value, 0)
}

#[inline(always)]
fn write<T>(skb: *mut __sk_buff, at: u32, value: &T, flags: u64) -> Option<()> {
    let value = (&raw const *value).cast();
    // SAFETY: as much is read as is there.
    let done = unsafe { bpf_skb_store_bytes(skb, at, value, size_of::<T>() as u32, flags) };
    if done == 0 { Some(()) } else { None }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
