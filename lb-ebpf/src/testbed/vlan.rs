//! A VLAN without a VLAN device, which not every kernel has: frames get a tag as they leave, and lose it for the stack.

use aya_ebpf::{
    btf_maps::Array,
    helpers::generated::{bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Number of the VLAN, then how many tags were taken off.
#[btf_map]
static VLAN: Array<u32, 2> = Array::new();

/// `TCX_NEXT`, in older kernels `TC_ACT_UNSPEC`: the packet goes on.
const ON: i32 = -1;
/// The EtherType of tags, as the helper takes it.
const TAG: u16 = 0x8100_u16.to_be();

/// At the egress: puts the tag on what has none.
#[classifier]
pub fn tag(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs.
    let tagged = unsafe { (*skb).vlan_present != 0 || (*skb).protocol == u32::from(TAG) };
    if let Some(vlan) = VLAN.get(0)
        && !tagged
    {
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_push(skb, TAG, *vlan as u16) };
    }
    ON
}

/// At the ingress, behind everybody else: takes the tag off.
#[classifier]
pub fn untag(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs.
    let tagged = unsafe { (*skb).vlan_present != 0 && bpf_skb_vlan_pop(skb) == 0 };
    if let Some(taken) = VLAN.get_ptr_mut(1)
        && tagged
    {
        // SAFETY: map memory; a count that another CPU loses does not matter.
        unsafe { *taken += 1 };
    }
    ON
}
