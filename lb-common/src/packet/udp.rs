//! UDP (RFC 768).

use super::checksum::Sum;
use super::view::view;
use crate::abi::Be16;

view!(
    /// A UDP header.
    Udp of 8
);

impl Udp {
    /// Offset of the checksum.
    pub(crate) const CHECKSUM: usize = 6;
    /// The length field: header and data.
    #[inline(always)]
    pub(crate) fn len(self) -> u16 {
        Be16(self.read(4)).host()
    }
    /// Replaces both ports and mends the checksum, which covers `addresses` too; 0 stays "none".
    #[inline(always)]
    pub(crate) fn set_ports(self, source: Be16, destination: Be16, addresses: Sum) {
        let checksum = self.read(Self::CHECKSUM);
        if checksum != 0 {
            let sum = Sum::of_field(checksum)
                .plus(addresses)
                .replace16(self.read(0), source.raw())
                .replace16(self.read(2), destination.raw());
            self.write(Self::CHECKSUM, sum.nonzero_field());
        }
        self.write(0, source.raw());
        self.write(2, destination.raw());
    }
    /// Writes a header without a checksum.
    #[inline(always)]
    pub(crate) fn write_header(self, source: Be16, destination: Be16, len: u16) {
        self.write(0, source.raw());
        self.write(2, destination.raw());
        self.write(4, len.to_be());
        self.write(Self::CHECKSUM, 0_u16);
    }
}
