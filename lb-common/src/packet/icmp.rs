//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::checksum::Sum;
use super::memory::{get, put};

/// ICMPv4 types.
pub(crate) mod icmp4 {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const FRAGMENTATION_NEEDED: u8 = 4;
    pub(crate) const ECHO: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER: u8 = 12;
}

/// ICMPv6 types.
pub(crate) mod icmp6 {
    pub(crate) const UNREACHABLE: u8 = 1;
    pub(crate) const TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER: u8 = 4;
    pub(crate) const ECHO: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
    pub(crate) const ROUTER_SOLICITATION: u8 = 133;
    pub(crate) const REDIRECT: u8 = 137;
}

/// The eight bytes that every message used here starts with.
#[derive(Clone, Copy)]
pub(crate) struct Icmp(*mut u8);

impl Icmp {
    /// Type, code, checksum and the rest of the header.
    pub(crate) const LEN: usize = 8;

    /// # Safety
    /// `p` points to at least [`Self::LEN`] bytes of the frame.
    #[inline(always)]
    pub(crate) const unsafe fn new(p: *mut u8) -> Self {
        Self(p)
    }
    #[inline(always)]
    pub(crate) fn kind(self) -> u8 {
        // SAFETY: checked by `new`.
        unsafe { get(self.0) }
    }
    /// Replaces type (the code stays) and mends the checksum.
    #[inline(always)]
    pub(crate) fn set_kind(self, kind: u8) {
        // SAFETY: checked by `new`.
        unsafe {
            let old: u16 = get(self.0);
            put(self.0, kind);
            let new: u16 = get(self.0);
            put(self.0.add(2), Sum::of_field(get(self.0.add(2))).replace16(old, new).nonzero_field());
        }
    }
    /// Mends the checksum after changes elsewhere in what it covers.
    #[inline(always)]
    pub(crate) fn changed(self, change: Sum) {
        // SAFETY: checked by `new`.
        unsafe { put(self.0.add(2), Sum::of_field(get(self.0.add(2))).plus(change).nonzero_field()) }
    }
    /// Writes type, code and the second word; `covered` is the sum of everything else the checksum covers.
    #[inline(always)]
    pub(crate) fn write_header(self, kind: u8, code: u8, rest: u32, covered: Sum) {
        let first = u16::from_ne_bytes([kind, code]);
        // SAFETY: checked by `new`.
        unsafe {
            put(self.0, first);
            put(self.0.add(4), rest.to_be());
            put(self.0.add(2), covered.add16(first).add32(rest.to_be()).field());
        }
    }
}
