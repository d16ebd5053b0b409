//! Takes tunnel headers off in front of a test backend whose kernel has no tunnel devices.
//!
//! IP in IP (all four combinations) and GUE variant 1. Stricter than a real backend: an outer header
//! with a wrong checksum or length is dropped and counted.

use crate::frame::{ETH, IPV4, IPV6, at, fold, read, sum_header, write};
use crate::template::decap;
use aya_ebpf::{
    Global,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    btf_maps::PerCpuArray,
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Counters by the places of [`decap`].
#[btf_map]
static DECAP: PerCpuArray<u64, { decap::COUNT as usize }> = PerCpuArray::new();

/// UDP port of GUE, host order.
#[unsafe(no_mangle)]
static GUE_PORT: Global<u16> = Global::new(6080);

const IPIP4: u8 = 4;
const IPIP6: u8 = 41;
const UDP: u8 = 17;

/// Takes off one tunnel header, if there is one, and passes.
#[xdp]
pub fn decap_pass(ctx: XdpContext) -> u32 {
    let Some(ethertype) = read::<u16>(&ctx, 12) else { return XDP_PASS };
    let outer = match ethertype {
        IPV4 => outer_v4(&ctx),
        IPV6 => outer_v6(&ctx),
        _ => Outer::Plain,
    };
    match outer {
        Outer::Plain => {
            count(decap::PLAIN);
            XDP_PASS
        }
        Outer::Bad => {
            count(decap::BAD);
            XDP_DROP
        }
        Outer::Tunnel { header, kind } => strip(&ctx, header, kind).unwrap_or(XDP_ABORTED),
    }
}

/// What the outer header is.
enum Outer {
    Plain,
    Bad,
    Tunnel { header: usize, kind: u32 },
}

#[inline(always)]
fn outer_v4(ctx: &XdpContext) -> Outer {
    let (Some(first), Some(protocol)) = (read::<u8>(ctx, ETH), read::<u8>(ctx, ETH + 9)) else {
        return Outer::Plain;
    };
    let kind = match protocol {
        IPIP4 | IPIP6 => decap::IPIP,
        UDP if gue(ctx, ETH + 20) => decap::GUE,
        _ => return Outer::Plain,
    };
    let (Some(header), Some(total)) = (at::<[u32; 5]>(ctx, ETH), read::<u16>(ctx, ETH + 2)) else {
        return Outer::Bad;
    };
    let room = ctx.data_end() - ctx.data() - ETH;
    let total = u16::from_be(total) as usize;
    if first != 0x45 || fold(sum_header(header)) != 0 || total > room {
        return Outer::Bad;
    }
    finish(ctx, kind, 20, total - 20, protocol)
}

#[inline(always)]
fn outer_v6(ctx: &XdpContext) -> Outer {
    let Some(next) = read::<u8>(ctx, ETH + 6) else { return Outer::Plain };
    let kind = match next {
        IPIP4 | IPIP6 => decap::IPIP,
        UDP if gue(ctx, ETH + 40) => decap::GUE,
        _ => return Outer::Plain,
    };
    let Some(payload) = read::<u16>(ctx, ETH + 4) else { return Outer::Bad };
    let payload = u16::from_be(payload) as usize;
    if payload + 40 + ETH > ctx.data_end() - ctx.data() {
        return Outer::Bad;
    }
    finish(ctx, kind, 40, payload, next)
}

/// Checks what stands behind the outer IP header.
#[inline(always)]
fn finish(ctx: &XdpContext, kind: u32, ip: usize, payload: usize, protocol: u8) -> Outer {
    if kind == decap::IPIP {
        let version = if protocol == IPIP4 { 4 } else { 6 };
        return match read::<u8>(ctx, ETH + ip) {
            Some(first) if first >> 4 == version => Outer::Tunnel { header: ip, kind },
            _ => Outer::Bad,
        };
    }
    match read::<u16>(ctx, ETH + ip + 4) {
        Some(length) if u16::from_be(length) as usize == payload => Outer::Tunnel { header: ip + 8, kind },
        _ => Outer::Bad,
    }
}

/// Whether the UDP header there is GUE's.
#[inline(always)]
fn gue(ctx: &XdpContext, udp: usize) -> bool {
    read::<u16>(ctx, udp + 2) == Some(GUE_PORT.load().to_be())
}

#[inline(always)]
fn strip(ctx: &XdpContext, header: usize, kind: u32) -> Option<u32> {
    let macs: (u32, u32, u32) = (read(ctx, 0)?, read(ctx, 4)?, read(ctx, 8)?);
    // Constants to the helper, so that the verifier keeps the offsets apart.
    let moved = match header {
        20 => adjust(ctx, 20),
        28 => adjust(ctx, 28),
        40 => adjust(ctx, 40),
        48 => adjust(ctx, 48),
        _ => false,
    };
    if !moved {
        return None;
    }
    let ethertype = match read::<u8>(ctx, ETH)? >> 4 {
        4 => IPV4,
        6 => IPV6,
        _ => {
            count(decap::BAD);
            return Some(XDP_DROP);
        }
    };
    let done =
        write(ctx, 0, macs.0) && write(ctx, 4, macs.1) && write(ctx, 8, macs.2) && write(ctx, 12, ethertype);
    count(kind);
    done.then_some(XDP_PASS)
}

#[inline(always)]
fn adjust(ctx: &XdpContext, by: i32) -> bool {
    // SAFETY: the helper checks the distance.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, by) == 0 }
}

#[inline(always)]
fn count(place: u32) {
    if let Some(counter) = DECAP.get_ptr_mut(place) {
        // SAFETY: memory of this CPU.
        unsafe { *counter += 1 };
    }
}
