//! IPv4 (RFC 791).

use super::checksum::Sum;
use super::view::view;
use crate::abi::Be16;

view!(
    /// The fixed part of an IPv4 header.
    Ipv4 of 20
);

impl Ipv4 {
    /// "Don't fragment" and offset 0.
    pub(crate) const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
    #[inline(always)]
    pub(crate) fn version(self) -> u8 {
        self.read::<u8>(0) >> 4
    }
    /// Header length in bytes, 0..=60.
    #[inline(always)]
    pub(crate) fn header_len(self) -> usize {
        ((self.read::<u8>(0) & 0x0f) as usize) << 2
    }
    #[inline(always)]
    pub(crate) fn tos(self) -> u8 {
        self.read(1)
    }
    #[inline(always)]
    pub(crate) fn total_len(self) -> u16 {
        Be16(self.read(2)).host()
    }
    #[inline(always)]
    pub(crate) fn identification(self) -> Be16 {
        Be16(self.read(4))
    }
    /// Offset in units of eight bytes.
    #[inline(always)]
    pub(crate) fn fragment_offset(self) -> u16 {
        Be16(self.read(6)).host() & 0x1fff
    }
    #[inline(always)]
    pub(crate) fn more_fragments(self) -> bool {
        Be16(self.read(6)).host() & 0x2000 != 0
    }
    #[inline(always)]
    pub(crate) fn ttl(self) -> u8 {
        self.read(8)
    }
    #[inline(always)]
    pub(crate) fn protocol(self) -> u8 {
        self.read(9)
    }
    #[inline(always)]
    pub(crate) fn source(self) -> u32 {
        self.read(12)
    }
    #[inline(always)]
    pub(crate) fn destination(self) -> u32 {
        self.read(16)
    }
    /// Replaces the TTL and mends the checksum.
    #[inline(always)]
    pub(crate) fn set_ttl(self, ttl: u8) {
        let (old, new) = self.put_ttl(ttl);
        self.write(10, Sum::of_field(self.read(10)).replace16(old, new).field());
    }
    /// Writes the TTL; answers its word before and after, which is not read back: that would wait for the byte to be written.
    #[inline(always)]
    fn put_ttl(self, ttl: u8) -> (u16, u16) {
        let old: u16 = self.read(8);
        let [_, protocol] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([ttl, protocol]);
        self.write(8, new);
        (old, new)
    }
    /// Takes one from the TTL and mends the checksum.
    #[inline(always)]
    pub(crate) fn decrement_ttl(self) {
        self.set_ttl(self.ttl().wrapping_sub(1));
    }
    /// Replaces both addresses and mends the checksum; answers the change for the transport checksum.
    #[inline(always)]
    pub(crate) fn set_addresses(self, source: u32, destination: u32) -> Sum {
        let change = Sum::ZERO.replace32(self.source(), source).replace32(self.destination(), destination);
        self.write(12, source);
        self.write(16, destination);
        self.write(10, Sum::of_field(self.read(10)).plus(change).field());
        change
    }
    /// Does both, takes one from the TTL and replaces the addresses, and mends the checksum once.
    #[inline(always)]
    pub(crate) fn pass_on(self, source: u32, destination: u32) -> Sum {
        let change = Sum::ZERO.replace32(self.source(), source).replace32(self.destination(), destination);
        let (old, new) = self.put_ttl(self.ttl().wrapping_sub(1));
        self.write(12, source);
        self.write(16, destination);
        self.write(10, Sum::of_field(self.read(10)).replace16(old, new).plus(change).field());
        change
    }
    #[inline(always)]
    pub(crate) fn header_checksum(self) -> u16 {
        self.read(10)
    }
    /// Writes a whole header without options, checksum included.
    #[inline(always)]
    pub(crate) fn write_header(self, header: &Ipv4Header) {
        self.write(0, 0x45_u8);
        self.write(1, header.tos);
        self.write(2, header.total_len.to_be());
        self.write(4, 0_u16);
        self.write(6, Self::DONT_FRAGMENT.raw());
        self.write(8, header.ttl);
        self.write(9, header.protocol);
        self.write(12, header.source);
        self.write(16, header.destination);
        let first = u16::from_ne_bytes([0x45, header.tos]);
        let third = u16::from_ne_bytes([header.ttl, header.protocol]);
        let sum = Sum::ZERO
            .add16(first)
            .add16(header.total_len.to_be())
            .add16(Self::DONT_FRAGMENT.raw())
            .add16(third)
            .add32(header.source)
            .add32(header.destination);
        self.write(10, sum.field());
    }
}

/// What [`Ipv4::write_header`] writes; addresses as they stand in memory.
pub(crate) struct Ipv4Header {
    pub(crate) tos: u8,
    pub(crate) total_len: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}
