//! What another node tells of its connections.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::replication::connections(data));
