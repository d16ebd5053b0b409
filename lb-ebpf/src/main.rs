//! The XDP programs: `lb_common::datapath` over BPF maps.
//!
//! Each program runs one step of the data plane and turns its verdict into a return code; see
//! `lb_common::datapath` for how the steps hang together.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![expect(
    internal_features,
    reason = "the target has 64-bit atomics but core offers them only as intrinsics"
)]

mod fill;
mod kernel;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use kernel::Kernel;
use lb_common::abi::program;
use lb_common::datapath;

/// Runs a step of the data plane; its verdict is the return code.
///
/// A macro, because all of it has to end up in the program itself: a tail call from a function would come back to that
/// function's caller with the other program's return code. For the same reason programs are inlined into what the kernel calls.
macro_rules! run {
    ($ctx:ident, $step:path $(, $number:path)?) => {
        match Kernel::new(&$ctx) {
            Some(env) => $step(&env $(, $number)?) as u32,
            // Without settings there are no services either.
            None => XDP_PASS,
        }
    };
}

/// Entry: attached to interfaces.
#[xdp]
#[inline(always)]
pub fn stickleback(ctx: XdpContext) -> u32 {
    run!(ctx, datapath::entry)
}

macro_rules! tail_programs {
    ($($name:ident = $number:path;)*) => {$(
        #[doc = concat!("Tail-called: `program::", stringify!($number), "`.")]
        #[xdp]
        #[inline(always)]
        pub fn $name(ctx: XdpContext) -> u32 {
            run!(ctx, datapath::tail, $number)
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
    greet = program::GREET;
    collect = program::COLLECT;
    read = program::READ;
    wait = program::WAIT;
    connect = program::CONNECT;
    turn = program::TURN;
    learn = program::LEARN;
    inspect = program::INSPECT;
    quic = program::QUIC;
    ask = program::ASK;
    visit = program::VISIT;
    pick = program::PICK;
    inquire = program::INQUIRE;
    reply = program::REPLY;
}

/// Attached at the ingress of the stack: appends held bytes.
#[classifier]
pub fn fill(ctx: TcContext) -> i32 {
    fill::run(ctx.skb.skb)
}

/// Run by `lbd`: reclaims what has expired.
#[xdp]
pub fn sweep(ctx: XdpContext) -> u32 {
    run!(ctx, datapath::sweep)
}

/// Run by `lbd`: applies binding records.
#[xdp]
pub fn apply(ctx: XdpContext) -> u32 {
    run!(ctx, datapath::apply)
}

/// Run by `lbd`: takes over the flow of a node that died.
#[xdp]
pub fn adopt(ctx: XdpContext) -> u32 {
    run!(ctx, datapath::adopt)
}

/// Run by `lbd`: moves sessions.
#[xdp]
pub fn rebind(ctx: XdpContext) -> u32 {
    run!(ctx, datapath::rebind)
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
