//! Programs for tests and benchmarks: floors, packet restoring, reference work, decapsulation, loss, bad cables, VLANs, reading application bytes.
//!
//! Never embedded in `lbd`.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

#[path = "testbed/decap.rs"]
mod decap;
#[path = "testbed/fault.rs"]
mod fault;
#[path = "testbed/floor.rs"]
mod floor;
#[path = "testbed/frame.rs"]
mod frame;
#[path = "testbed/loss.rs"]
mod loss;
#[path = "testbed/question.rs"]
mod question;
#[path = "testbed/reading.rs"]
mod reading;
#[path = "testbed/reference.rs"]
mod reference;
#[path = "testbed/restore.rs"]
mod restore;
#[path = "testbed/template.rs"]
mod template;
#[path = "testbed/vlan.rs"]
mod vlan;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
