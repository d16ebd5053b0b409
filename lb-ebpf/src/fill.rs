//! The program at the ingress of the stack: it makes packets larger that XDP could not make larger.
//!
//! The XDP program has written final headers and left a [`Filling`] in the packet's metadata; here held bytes are put
//! behind the headers, and the packet goes on its way. Any other packet is left alone.

use crate::maps;
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes},
};
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use lb_common::abi::{Filling, Hold, HoldWord, Outcome, hand};
use lb_common::datapath::filled;

/// `TCX_NEXT`, in older kernels `TC_ACT_UNSPEC`: the next program decides.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: the packet is lost.
const LOST: i32 = 2;

/// Appends what the packet's metadata says, if it says anything.
#[inline(always)]
pub(crate) fn run(skb: *mut __sk_buff) -> i32 {
    let Some(filling) = filling(skb) else { return NEXT };
    let Some(hold) = maps::HOLDS.get_ptr_mut(filling.hold) else { return lost() };
    let taken = HoldWord::taken(filling.nonce);
    if !is_owner(hold, filling.nonce) || !append(skb, hold, &filling) || !is_owner(hold, filling.nonce) {
        return lost();
    }
    if filling.last != 0 {
        // SAFETY: the hold's word; it is free only when nobody else is at it.
        let (_, freed) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                &raw mut (*hold).word,
                taken.0,
                HoldWord::default().0,
            )
        };
        if freed && let Some(live) = maps::HANDS.get_ptr_mut(hand::HOLDS_LIVE) {
            // SAFETY: a map value.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(live.cast(), u64::MAX) };
        }
    }
    count(Outcome::TurnedRound);
    // SAFETY: a helper with numbers for arguments.
    unsafe { bpf_redirect(filling.ifindex, 0) as i32 }
}

/// The metadata, when it is ours.
#[inline(always)]
fn filling(skb: *mut __sk_buff) -> Option<Filling> {
    // SAFETY: the context is valid while the program runs; the metadata is checked to be long enough, and the kernel
    // aligns it to four bytes.
    unsafe {
        let meta = (*skb).data_meta as usize as *const u8;
        if meta.wrapping_add(size_of::<Filling>()) as usize > (*skb).data as usize {
            return None;
        }
        let filling = *meta.cast::<Filling>();
        if filling.magic == Filling::MAGIC { Some(filling) } else { None }
    }
}

/// Whether the hold is still the flow's with that nonce.
#[inline(always)]
fn is_owner(hold: *mut Hold, nonce: u32) -> bool {
    // SAFETY: a map value.
    HoldWord(unsafe { (&raw const (*hold).word).read_volatile() }).nonce() == nonce
}

#[inline(always)]
fn append(skb: *mut __sk_buff, hold: *mut Hold, filling: &Filling) -> bool {
    // SAFETY: the context is valid, and so is the map value.
    let (end, front) = unsafe { ((*skb).len, (*hold).front) };
    let Some((place, len)) = filled(filling, front) else { return false };
    // SAFETY: front, stream and slack stand behind each other, so that the slack's length can be read from any place.
    unsafe {
        let bytes = (&raw const (*hold).head).cast::<u8>().add(place);
        bpf_skb_change_tail(skb, end.wrapping_add(len), 0) == 0
            && bpf_skb_store_bytes(skb, end, bytes.cast(), len, 0) == 0
    }
}

#[inline(always)]
fn lost() -> i32 {
    count(Outcome::NoRoom);
    LOST
}

/// Counts what became of the packet: the XDP program has left that to this one.
#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(counter) = maps::OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own counter.
        unsafe { *counter += 1 }
    }
}
