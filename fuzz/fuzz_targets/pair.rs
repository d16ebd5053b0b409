//! A ticket, and the servers of a sum.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::affinity::pair(data));
