//! A response head in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::affinity::response(data));
