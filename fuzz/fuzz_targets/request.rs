//! A request head in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::affinity::request(data));
