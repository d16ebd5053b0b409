//! Puts a pristine frame in front of the program under test, again and again.
//!
//! `BPF_PROG_TEST_RUN` runs the program on the frame as its last run left it. This program restores
//! length and head, picks the flow, and tail-calls the program under test. Its cost is measured by
//! itself (with the MAC swap as program under test) and subtracted.

use crate::frame::at;
use crate::template::{HEAD, Template, WORDS};
use aya_ebpf::{
    bindings::xdp_action::XDP_ABORTED,
    btf_maps::{Array, ProgramArray},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The frame.
#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();

/// The program under test, at place 0.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// Restores the frame and runs the program under test.
#[xdp]
pub fn restore(ctx: XdpContext) -> u32 {
    if prepare(&ctx).is_some() {
        // SAFETY: nothing of this program is needed after the call.
        unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

#[inline(always)]
fn prepare(ctx: &XdpContext) -> Option<()> {
    let template = TEMPLATE.get_ptr_mut(0)?;
    // SAFETY: map memory that one benchmark uses at a time.
    let template = unsafe { &mut *template };
    let (length, wanted) = (ctx.data_end() - ctx.data(), template.length as usize);
    if length > wanted && template.tail != 0 {
        // SAFETY: the helper checks the distance.
        (unsafe { bpf_xdp_adjust_tail(ctx.ctx, wanted as i32 - length as i32) } == 0).then_some(())?;
    } else if length > wanted {
        // SAFETY: the helper checks the distance.
        (unsafe { bpf_xdp_adjust_head(ctx.ctx, (length - wanted) as i32) } == 0).then_some(())?;
    } else if length < wanted {
        // SAFETY: the helper checks the distance.
        (unsafe { bpf_xdp_adjust_tail(ctx.ctx, (wanted - length) as i32) } == 0).then_some(())?;
    }
    let head = template.head.as_ptr().cast::<u64>();
    copy::<8>(ctx, 0, head)?;
    if template.restored >= 96 {
        copy::<4>(ctx, 8, head)?;
    }
    if template.restored >= 128 {
        copy::<4>(ctx, 12, head)?;
    }
    let last = template.last as usize;
    if last > 0 && last <= WORDS - 32 {
        let to = at::<[u64; 4]>(ctx, last)?.cast::<u64>();
        let from = template.head.as_ptr().wrapping_add(last).cast::<u64>();
        for i in 0..4 {
            // SAFETY: `at` has checked the frame, and the place in the head has been compared with its length.
            unsafe { *to.add(i) = *from.add(i) };
        }
    }
    let rest = template.rest as usize;
    if rest > 0 && rest <= HEAD - WORDS {
        let from = template.head.as_mut_ptr().wrapping_add(WORDS).cast();
        // SAFETY: the length has been compared with the room in the map.
        (unsafe { bpf_xdp_store_bytes(ctx.ctx, WORDS as u32, from, rest as u32) } == 0).then_some(())?;
    }
    if template.vary_mask != 0 {
        let index = if template.random != 0 {
            template.state = template
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (template.state >> 33) as u32
        } else {
            template.state = template.state.wrapping_add(1);
            template.state as u32
        } & template.vary_mask;
        let word = template.vary_base.wrapping_add(index).to_be();
        let place = at::<u32>(ctx, (template.vary_at & 62) as usize)?;
        // SAFETY: `at` has checked the bounds.
        unsafe { *place = word };
    }
    Some(())
}

/// Copies `N` words of the head from word `first` on.
#[inline(always)]
fn copy<const N: usize>(ctx: &XdpContext, first: usize, head: *const u64) -> Option<()> {
    let to = at::<[u64; N]>(ctx, first * 8)?.cast::<u64>();
    for i in 0..N {
        // SAFETY: `at` has checked the frame; the template's head has 16 words.
        unsafe { *to.add(i) = *head.add(first + i) };
    }
    Some(())
}
