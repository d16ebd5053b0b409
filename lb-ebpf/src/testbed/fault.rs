//! A bad cable: at the egress of an interface TCP segments are lost, doubled and moved behind their successors.

use crate::template::Fault;
use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::Array,
    helpers::generated::{
        bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    macros::{btf_map, classifier},
    programs::TcContext,
};
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Rates, the state of the random numbers, and the segment that waits.
#[btf_map]
static FAULT: Array<Fault, 1> = Array::new();

/// `TCX_NEXT`, in older kernels `TC_ACT_UNSPEC`: the packet goes on.
const ON: i32 = -1;
/// `TC_ACT_SHOT`: the packet is lost.
const LOST: i32 = 2;
/// Mark of packets that have been through this program.
const DONE: u32 = 0x5b5b_5b5b;
/// Largest frame that can wait.
const LARGEST: u32 = 1_600;
/// Nobody is at the waiting segment, and there is none.
const FREE: u64 = 0;
/// Somebody writes or reads it.
const BUSY: u64 = 1;
/// It is there.
const FULL: u64 = 2;
/// EtherTypes and the protocol's number, as `skb.protocol` and the packet have them.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const TCP: u8 = 6;

/// Loses, doubles and swaps TCP segments at random; everything else goes on.
#[classifier]
pub fn bad_cable(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs.
    let (mark, len, ifindex) = unsafe { ((*skb).mark, (*skb).len, (*skb).ifindex) };
    let Some(fault) = FAULT.get_ptr_mut(0) else { return ON };
    if mark == DONE || len > LARGEST || !is_tcp(skb) {
        return ON;
    }
    // SAFETY: map memory; what several CPUs write is written atomically, the frame only by whoever made it BUSY.
    unsafe {
        count(&raw mut (*fault).seen);
        if chance(fault, (*fault).lose) {
            count(&raw mut (*fault).lost);
            return LOST;
        }
        if chance(fault, (*fault).double) {
            count(&raw mut (*fault).doubled);
            (*skb).mark = DONE;
            bpf_clone_redirect(skb, ifindex, 0);
            return ON;
        }
        if chance(fault, (*fault).swap) && take(fault, FREE) {
            // The segment is taken off here and sent behind the next one.
            let kept = keep(skb, fault, len);
            (*fault).state = if kept { FULL } else { FREE };
            if kept {
                count(&raw mut (*fault).swapped);
                return LOST;
            }
        } else if take(fault, FULL) {
            (*skb).mark = DONE;
            bpf_clone_redirect(skb, ifindex, 0);
            let sent = send_kept(skb, fault);
            (*fault).state = FREE;
            return if sent { ON } else { LOST };
        }
    }
    ON
}

#[inline(always)]
fn is_tcp(skb: *mut __sk_buff) -> bool {
    let mut protocol = 0_u8;
    // SAFETY: the context is valid, and the helper checks the bounds.
    unsafe {
        let place = match (*skb).protocol {
            IPV4 => 14 + 9,
            IPV6 => 14 + 6,
            _ => return false,
        };
        bpf_skb_load_bytes(skb.cast(), place, (&raw mut protocol).cast(), 1) == 0 && protocol == TCP
    }
}

/// Whether something that happens in `rate` of 2^32 cases happens now.
#[inline(always)]
unsafe fn chance(fault: *mut Fault, rate: u32) -> bool {
    // SAFETY: map memory. SplitMix64: every step is one atomic addition.
    let before = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*fault).random, 0x9e37_79b9_7f4a_7c15)
    };
    let mixed = (before ^ before >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed >> 32) as u32) < rate
}

#[inline(always)]
unsafe fn take(fault: *mut Fault, from: u64) -> bool {
    // SAFETY: map memory.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            &raw mut (*fault).state,
            from,
            BUSY,
        )
        .1
    }
}

#[inline(always)]
unsafe fn count(cell: *mut u64) {
    // SAFETY: map memory.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell, 1) };
}

#[inline(always)]
unsafe fn keep(skb: *mut __sk_buff, fault: *mut Fault, len: u32) -> bool {
    if !(34..=LARGEST).contains(&len) {
        return false;
    }
    // SAFETY: map memory that is BUSY for us; the length is within the buffer.
    unsafe {
        (*fault).len = len;
        bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*fault).frame).cast(), len) == 0
    }
}

/// Makes the packet the one that was kept.
#[inline(always)]
unsafe fn send_kept(skb: *mut __sk_buff, fault: *mut Fault) -> bool {
    // SAFETY: map memory that is BUSY for us; the length is within the buffer.
    unsafe {
        let len = (*fault).len;
        if !(34..=LARGEST).contains(&len) {
            return false;
        }
        bpf_skb_change_tail(skb, len, 0) == 0
            && bpf_skb_pull_data(skb, len) == 0
            && bpf_skb_store_bytes(skb.cast(), 0, (&raw const (*fault).frame).cast(), len, 0) == 0
    }
}
