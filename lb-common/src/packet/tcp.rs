//! TCP (RFC 9293).

use super::checksum::Sum;
use super::view::view;
use crate::abi::{Be16, Be32};

/// Flag bits.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

view!(
    /// The fixed part of a TCP header.
    Tcp of 20
);

impl Tcp {
    /// Offset of the checksum.
    pub(crate) const CHECKSUM: usize = 16;
    #[inline(always)]
    pub(crate) fn sequence(self) -> u32 {
        Be32(self.read(4)).host()
    }
    #[inline(always)]
    pub(crate) fn acknowledgement(self) -> u32 {
        Be32(self.read(8)).host()
    }
    /// Header length in bytes, 0..=60.
    #[inline(always)]
    pub(crate) fn header_len(self) -> usize {
        ((self.read::<u8>(12) >> 4) as usize) << 2
    }
    #[inline(always)]
    pub(crate) fn flags(self) -> u8 {
        self.read(13)
    }
    /// Replaces both ports and mends the checksum, which covers `addresses` too.
    #[inline(always)]
    pub(crate) fn set_ports(self, source: Be16, destination: Be16, addresses: Sum) {
        let sum = Sum::of_field(self.read(Self::CHECKSUM))
            .plus(addresses)
            .replace16(self.read(0), source.raw())
            .replace16(self.read(2), destination.raw());
        self.write(0, source.raw());
        self.write(2, destination.raw());
        self.write(Self::CHECKSUM, sum.field());
    }
    /// Accounts for a replaced word elsewhere in the segment.
    #[inline(always)]
    pub(crate) fn replaced16(self, old: u16, new: u16) {
        self.write(Self::CHECKSUM, Sum::of_field(self.read(Self::CHECKSUM)).replace16(old, new).field());
    }
    /// Writes a header without options, window 0; the checksum covers `pseudo` (addresses, protocol, length).
    #[inline(always)]
    pub(crate) fn write_reset(self, reset: &Reset, pseudo: Sum) {
        let words = [
            reset.source_port.raw() as u32 | (reset.destination_port.raw() as u32) << 16,
            reset.sequence.to_be(),
            reset.acknowledgement.to_be(),
            u32::from_ne_bytes([5 << 4, reset.flags, 0, 0]),
        ];
        let mut i = 0;
        while i < 4 {
            self.write(4 * i, words[i]);
            i += 1;
        }
        self.write(Self::CHECKSUM, 0_u32);
        self.write(Self::CHECKSUM, pseudo.add_words(&words).field());
    }
}

/// What [`Tcp::write_reset`] writes.
pub(crate) struct Reset {
    pub(crate) source_port: Be16,
    pub(crate) destination_port: Be16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
}
