//! What a journal holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::replication::journal_values(data));
