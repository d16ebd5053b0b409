//! The least that a program can do, so that everything else can be counted from there.

use crate::frame::{read, write};
use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};

/// Drops.
#[xdp]
pub fn floor_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Passes; on a veth end it makes the other end's `XDP_TX` and redirects work.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Swaps the MAC addresses and sends the frame back.
#[xdp]
pub fn floor_tx(ctx: XdpContext) -> u32 {
    swap(&ctx).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn swap(ctx: &XdpContext) -> Option<u32> {
    let destination: (u32, u16) = (read(ctx, 0)?, read(ctx, 4)?);
    let source: (u32, u16) = (read(ctx, 6)?, read(ctx, 10)?);
    let done = write(ctx, 0, source.0)
        && write(ctx, 4, source.1)
        && write(ctx, 6, destination.0)
        && write(ctx, 10, destination.1);
    done.then_some(XDP_TX)
}
