//! Losing packets by a pattern.

use crate::template::Loss;
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The pattern and what it did.
#[btf_map]
static LOSS: Array<Loss, 1> = Array::new();

/// Drops the first packets of every period, passes the others.
#[xdp]
pub fn drop_some(_ctx: XdpContext) -> u32 {
    let Some(loss) = LOSS.get_ptr_mut(0) else { return XDP_PASS };
    // SAFETY: map memory; counts may lose an increment to another CPU, which only shifts the pattern.
    let loss = unsafe { &mut *loss };
    let place = loss.seen % (loss.period.max(1) as u64);
    loss.seen += 1;
    if place < loss.lost as u64 && loss.period != 0 {
        loss.dropped += 1;
        XDP_DROP
    } else {
        XDP_PASS
    }
}
