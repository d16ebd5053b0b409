//! A damaged journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::replication::journal_file(data));
