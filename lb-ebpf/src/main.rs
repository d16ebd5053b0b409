//! The XDP programs: `lb_common::datapath` over BPF maps.
//!
//! Each program runs one step of the data plane and turns its verdict into a return code; see
//! `lb_common::datapath` for how the steps hang together.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the target has 64-bit atomics but core offers them only as intrinsics"
)]

mod kernel;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use kernel::Kernel;
use lb_common::abi::program;
use lb_common::datapath::{self, Verdict};

/// Entry: attached to interfaces.
#[xdp]
pub fn stickleback(ctx: XdpContext) -> u32 {
    run(&ctx, |env| datapath::entry(env))
}

macro_rules! tail_programs {
    ($($name:ident = $number:path;)*) => {$(
        #[doc = concat!("Tail-called: `program::", stringify!($number), "`.")]
        #[xdp]
        pub fn $name(ctx: XdpContext) -> u32 {
            run(&ctx, |env| datapath::tail(env, $number))
        }
    )*};
}

tail_programs! {
    bind = program::BIND;
    nat = program::NAT;
    open = program::OPEN;
    establish = program::ESTABLISH;
    icmp = program::ICMP;
    fragment = program::FRAGMENT;
    answer = program::ANSWER;
}

/// Run by `lbd`: reclaims what has expired.
#[xdp]
pub fn sweep(ctx: XdpContext) -> u32 {
    run(&ctx, |env| datapath::sweep(env))
}

/// Run by `lbd`: applies binding records.
#[xdp]
pub fn apply(ctx: XdpContext) -> u32 {
    run(&ctx, |env| datapath::apply(env))
}

/// Runs a step of the data plane and turns its verdict into a return code.
#[inline(always)]
fn run(ctx: &XdpContext, step: impl Fn(&Kernel) -> Verdict) -> u32 {
    // Without settings there are no services either.
    let Some(env) = Kernel::new(ctx) else { return XDP_PASS };
    match step(&env) {
        Verdict::Pass => XDP_PASS,
        Verdict::Tx => XDP_TX,
        Verdict::Redirect => XDP_REDIRECT,
        // A tail call that came back has been counted.
        Verdict::Drop | Verdict::Tail => XDP_DROP,
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the code has no panicking path left; the verifier would refuse one.
    unsafe { core::hint::unreachable_unchecked() }
}
