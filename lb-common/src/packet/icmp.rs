//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::checksum::Sum;
use super::view::view;

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

view!(
    /// The eight bytes that every message used here starts with.
    Icmp of 8
);

impl Icmp {
    #[inline(always)]
    pub(crate) fn kind(self) -> u8 {
        self.read(0)
    }
    /// Replaces type (the code stays) and mends the checksum.
    #[inline(always)]
    pub(crate) fn set_kind(self, kind: u8) {
        let old: u16 = self.read(0);
        self.write(0, kind);
        self.write(2, Sum::of_field(self.read(2)).replace16(old, self.read(0)).nonzero_field());
    }
    /// Mends the checksum after changes elsewhere in what it covers.
    #[inline(always)]
    pub(crate) fn changed(self, change: Sum) {
        self.write(2, Sum::of_field(self.read(2)).plus(change).nonzero_field());
    }
    /// Writes type, code and the second word; `covered` is the sum of everything else the checksum covers.
    #[inline(always)]
    pub(crate) fn write_header(self, kind: u8, code: u8, rest: u32, covered: Sum) {
        let first = u16::from_ne_bytes([kind, code]);
        self.write(0, first);
        self.write(4, rest.to_be());
        self.write(2, covered.add16(first).add32(rest.to_be()).field());
    }
}
