//! Reference work: what any tunnelling balancer has to do, and nothing else.
//!
//! `reference_ipip` is one hash look-up and the encapsulation. `reference_full` does the steps of a
//! connection-tracking balancer: service, connection (LRU), selection ring for new ones, real,
//! statistics, encapsulation. IPv4 only.

use crate::frame::{ETH, IPV4, at, fold, read, sum_header, write};
use crate::template::{REFERENCE_RING, ReferenceFlow, ReferenceKey, ReferenceReal};
use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Service -> place in `REFERENCE_REALS` (`reference_full`: number of the service).
#[btf_map]
static REFERENCE_SERVICES: HashMap<ReferenceKey, u32, 4096> = HashMap::new();

/// Service -> real, for the one look-up of `reference_ipip`.
#[btf_map]
static REFERENCE_ONE: HashMap<ReferenceKey, ReferenceReal, 4096> = HashMap::new();

/// Connections.
#[btf_map]
static REFERENCE_FLOWS: LruHashMap<ReferenceFlow, u32, 1_048_576> = LruHashMap::new();

/// Selection ring: hash -> real.
#[btf_map]
static REFERENCE_SELECTION: Array<u32, { REFERENCE_RING as usize }> = Array::new();

/// Reals.
#[btf_map]
static REFERENCE_REALS: Array<ReferenceReal, 4096> = Array::new();

/// Packets and bytes a service (0..512) and a real (512..).
#[btf_map]
static REFERENCE_STATS: PerCpuArray<[u64; 2], 8192> = PerCpuArray::new();

/// One look-up and the encapsulation.
#[xdp]
pub fn reference_ipip(ctx: XdpContext) -> u32 {
    one_lookup(&ctx).unwrap_or(XDP_PASS)
}

/// The work of a connection-tracking balancer.
#[xdp]
pub fn reference_full(ctx: XdpContext) -> u32 {
    full(&ctx).unwrap_or(XDP_PASS)
}

/// What both read from the packet.
struct Packet {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u8,
    tos: u8,
    length: u16,
}

impl Packet {
    #[inline(always)]
    fn parse(ctx: &XdpContext) -> Option<Self> {
        if read::<u16>(ctx, 12)? != IPV4 || read::<u8>(ctx, ETH)? != 0x45 {
            return None;
        }
        let protocol = read::<u8>(ctx, ETH + 9)?;
        if protocol != 6 && protocol != 17 {
            return None;
        }
        if read::<u16>(ctx, ETH + 6)? & 0x3fff_u16.to_be() != 0 {
            return None;
        }
        Some(Self {
            source: read(ctx, ETH + 12)?,
            destination: read(ctx, ETH + 16)?,
            ports: read(ctx, ETH + 20)?,
            protocol,
            tos: read(ctx, ETH + 1)?,
            length: u16::from_be(read(ctx, ETH + 2)?),
        })
    }

    #[inline(always)]
    fn service(&self) -> ReferenceKey {
        ReferenceKey {
            address: self.destination,
            port: (self.ports >> 16) as u16,
            protocol: self.protocol as u16,
        }
    }
}

#[inline(always)]
fn one_lookup(ctx: &XdpContext) -> Option<u32> {
    let packet = Packet::parse(ctx)?;
    let real = REFERENCE_ONE.get_ptr(packet.service())?;
    // SAFETY: map memory, written before the run.
    encapsulate(ctx, &packet, unsafe { &*real })
}

#[inline(always)]
fn full(ctx: &XdpContext) -> Option<u32> {
    let packet = Packet::parse(ctx)?;
    let service = REFERENCE_SERVICES.get_ptr(packet.service())?;
    // SAFETY: map memory, written before the run.
    let service = unsafe { *service };
    let flow = ReferenceFlow {
        source: packet.source,
        destination: packet.destination,
        ports: packet.ports,
        protocol: packet.protocol as u32,
    };
    let real = match REFERENCE_FLOWS.get_ptr(flow) {
        // SAFETY: map memory; a recycled element gives another valid place.
        Some(real) => unsafe { *real },
        None => {
            let mixed = (packet.source ^ packet.ports.rotate_left(16)).wrapping_mul(0x9e37_79b1);
            let real = *REFERENCE_SELECTION.get(mixed >> 16)?;
            REFERENCE_FLOWS.insert(flow, real, 0).ok()?;
            real
        }
    };
    let to = REFERENCE_REALS.get_ptr(real)?;
    for place in [service & 511, 512 + (real & 4095)] {
        let stats = REFERENCE_STATS.get_ptr_mut(place)?;
        // SAFETY: memory of this CPU.
        unsafe {
            (*stats)[0] += 1;
            (*stats)[1] += packet.length as u64;
        }
    }
    // SAFETY: map memory, written before the run.
    encapsulate(ctx, &packet, unsafe { &*to })
}

/// Puts an outer IPv4 header in front and sends the frame back.
#[inline(always)]
fn encapsulate(ctx: &XdpContext, packet: &Packet, real: &ReferenceReal) -> Option<u32> {
    // SAFETY: the helper checks the head room.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } != 0 {
        return Some(XDP_DROP);
    }
    let mac = |m: &[u8; 6]| (u32::from_ne_bytes([m[0], m[1], m[2], m[3]]), u16::from_ne_bytes([m[4], m[5]]));
    let (to, from) = (mac(&real.destination_mac), mac(&real.source_mac));
    let done = write(ctx, 0, to.0)
        && write(ctx, 4, to.1)
        && write(ctx, 6, from.0)
        && write(ctx, 10, from.1)
        && write(ctx, 12, IPV4);
    if !done {
        return Some(XDP_ABORTED);
    }
    let Some(outer) = at::<[u32; 5]>(ctx, ETH) else { return Some(XDP_ABORTED) };
    // SAFETY: `at` has checked the bounds.
    let words = unsafe { &mut *outer };
    words[0] = (0x4500_0000 | (packet.tos as u32) << 16 | (packet.length as u32 + 20)).to_be();
    words[1] = 0x0000_4000_u32.to_be();
    words[2] = 0x4004_0000_u32.to_be();
    words[3] = real.source;
    words[4] = real.address;
    let sum = fold(sum_header(outer));
    write(ctx, ETH + 10, sum).then_some(XDP_TX)
}
