//! IPv6 (RFC 8200).

use super::checksum::{Sum, complement};
use super::view::view;
use crate::abi::{Addr, Be16};

/// Next-header values that are followed.
pub(crate) mod extension {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const DESTINATION: u8 = 60;
}

view!(
    /// The fixed IPv6 header.
    Ipv6 of 40
);

impl Ipv6 {
    #[inline(always)]
    pub(crate) fn version(self) -> u8 {
        self.read::<u8>(0) >> 4
    }
    #[inline(always)]
    pub(crate) fn traffic_class(self) -> u8 {
        (Be16(self.read(0)).host() >> 4) as u8
    }
    #[inline(always)]
    pub(crate) fn payload_len(self) -> u16 {
        Be16(self.read(4)).host()
    }
    #[inline(always)]
    pub(crate) fn next_header(self) -> u8 {
        self.read(6)
    }
    #[inline(always)]
    pub(crate) fn hop_limit(self) -> u8 {
        self.read(7)
    }
    #[inline(always)]
    pub(crate) fn set_hop_limit(self, value: u8) {
        self.write(7, value);
    }
    #[inline(always)]
    pub(crate) fn source(self) -> Addr {
        Addr([self.read(8), self.read(12), self.read(16), self.read(20)])
    }
    #[inline(always)]
    pub(crate) fn destination(self) -> Addr {
        Addr([self.read(24), self.read(28), self.read(32), self.read(36)])
    }
    #[inline(always)]
    fn put_addresses(self, source: &Addr, destination: &Addr) {
        let mut i = 0;
        while i < 4 {
            self.write(8 + 4 * i, source.0[i]);
            self.write(24 + 4 * i, destination.0[i]);
            i += 1;
        }
    }
    /// Replaces both addresses; answers the change for the transport checksum.
    #[inline(always)]
    pub(crate) fn set_addresses(self, source: &Addr, destination: &Addr) -> Sum {
        let change = complement(&self.source().0)
            .plus(complement(&self.destination().0))
            .add_words(&source.0)
            .add_words(&destination.0);
        self.put_addresses(source, destination);
        change
    }
    /// Writes a whole header with flow label 0.
    #[inline(always)]
    pub(crate) fn write_header(self, header: &Ipv6Header<'_>) {
        self.write(0, (0x6000_0000_u32 | (header.traffic_class as u32) << 20).to_be());
        self.write(4, header.payload_len.to_be());
        self.write(6, header.next_header);
        self.write(7, header.hop_limit);
        self.put_addresses(header.source, header.destination);
    }
}

/// What [`Ipv6::write_header`] writes.
pub(crate) struct Ipv6Header<'a> {
    pub(crate) traffic_class: u8,
    pub(crate) payload_len: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: &'a Addr,
    pub(crate) destination: &'a Addr,
}
