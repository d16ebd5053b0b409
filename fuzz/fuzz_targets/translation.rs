//! Segments of a spliced connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::translation::translation(data));
