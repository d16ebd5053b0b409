//! A handshake and its cookie, and a SYN's options.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickleback_fuzz::syncookie::syn_cookie(data));
