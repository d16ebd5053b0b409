//! What the XDP programs and userspace both know: packets, session keys, selection and the layout
//! of every map.
//!
//! No allocation, no I/O and no clock: packets, maps and time come in through [`datapath::Env`], which
//! the kernel programs implement over BPF maps and the tests over plain collections.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod affinity;
pub mod datapath;
mod packet;
pub mod select;
pub mod splice;
