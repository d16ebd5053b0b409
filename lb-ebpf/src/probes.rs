//! Programs that lead health checks the way of the traffic, so that a backend which answers only beside it counts as dead.
//!
//! The socket of a probe is connected to the backend's own address and marked. `probe_out`, at the egress of the interface that the
//! stack has chosen, gives the packet the service's address as destination and puts the tunnel's headers around it; `probe_back`, at
//! the ingress, gives the answer, which comes from the service's address, the backend's as source before the stack looks at it. So
//! the service's address may be one of the balancer's own, and no route, rule, tunnel device or namespace is needed.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::{Array, LruHashMap},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    macros::{btf_map, classifier},
    programs::TcContext,
};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use lb_common::abi::{self, Addr, Be16, PROBE_MARK, ProbeEnvelope, ProbeKey, ProbeWay};

#[btf_map]
static PROBE_WAYS: Array<ProbeWay, { abi::PROBE_WAYS as usize }> = Array::new();
/// Backends by what their answers look like.
#[btf_map]
static PROBE_ANSWERS: LruHashMap<ProbeKey, Addr, { abi::PROBE_ANSWERS as usize }> = LruHashMap::new();

/// `TCX_NEXT`, in older kernels `TC_ACT_UNSPEC`: the next program decides.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: the packet is lost.
const LOST: i32 = 2;

const ETH: u32 = 14;
const VLAN: u32 = 4;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

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
    let key = key(&way.vip, port, own_port, packet.protocol);
    PROBE_ANSWERS.insert(key, way.backend, 0).ok()?;
    replace(skb, &packet, destination_at(&packet), &destination, &way.vip)?;
    if way.envelope == ProbeEnvelope::Plain as u32 {
        return Some(());
    }
    let outer_source = if way.source.0 == [0; 4] { source } else { way.source };
    wrap(skb, &packet, way, &outer_source, own_port)
}

#[inline(always)]
fn bring(skb: *mut __sk_buff) -> Option<()> {
    let packet = parse(skb)?;
    let (source, _) = addresses(skb, &packet)?;
    let (port, own_port) = match packet.protocol {
        TCP | UDP => (load::<u16>(skb, packet.l4)?, load::<u16>(skb, packet.l4 + 2)?),
        _ => (0, load::<u16>(skb, packet.l4 + 4)?),
    };
    let key = key(&source, port, own_port, packet.protocol);
    // SAFETY: a copy is made at once; at worst it is another probe's backend.
    let backend = unsafe { PROBE_ANSWERS.get(key) }?.by_words();
    replace(skb, &packet, source_at(&packet), &source, &backend)
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
        0x0800 => {
            let first = load::<u8>(skb, l3)?;
            // Neither a fragment nor the first of several.
            if load::<u16>(skb, l3 + 6)?.to_be() & 0x3fff != 0 {
                return None;
            }
            let l4 = l3 + u32::from(first & 0x0f) * 4;
            let (length, protocol) = (load::<u16>(skb, l3 + 2)?.to_be(), load::<u8>(skb, l3 + 9)?);
            Packet { l3, l4, is_v4: true, protocol, length }
        }
        0x86dd => {
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

/// Puts the tunnel's headers in front of the packet.
#[inline(always)]
fn wrap(skb: *mut __sk_buff, packet: &Packet, way: &ProbeWay, source: &Addr, own_port: u16) -> Option<()> {
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
    let payload = packet.length.wrapping_add(udp);
    let protocol: u32 = match (is_udp, packet.is_v4) {
        (true, _) => 17,
        (false, true) => 4,
        (false, false) => 41,
    };
    if packet.is_v4 {
        let total = u32::from(payload.wrapping_add(ip));
        // Don't fragment, 64 hops.
        let mut header: [u32; 5] = [
            (0x4500_0000 | total).to_be(),
            0x0000_4000_u32.to_be(),
            (64 << 24 | protocol << 16).to_be(),
            source.v4_word(),
            way.backend.v4_word(),
        ];
        // SAFETY: the header is on the stack.
        let sum = unsafe { bpf_csum_diff(null_mut(), 0, header.as_mut_ptr(), 20, 0) } as u32;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        // As it lies in memory: the low half of the third word is its second half.
        header[2] |= (!sum & 0xffff) << 16;
        store(skb, ETH, &header)?;
    } else {
        let (s, d) = (source.by_words().0, way.backend.by_words().0);
        let header: [u32; 10] = [
            0x6000_0000_u32.to_be(),
            (u32::from(payload) << 16 | protocol << 8 | 64).to_be(),
            s[0],
            s[1],
            s[2],
            s[3],
            d[0],
            d[1],
            d[2],
            d[3],
        ];
        store(skb, ETH, &header)?;
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
    // SAFETY: as much is read as is there.
    let done = unsafe { bpf_skb_store_bytes(skb, at, (&raw const *value).cast(), size_of::<T>() as u32, 0) };
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
