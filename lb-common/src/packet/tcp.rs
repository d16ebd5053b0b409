//! TCP (RFC 9293).

use super::checksum::Sum;
use super::view::view;
use crate::abi::{Be16, Be32};

/// Flag bits.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
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
    /// The window field as a number.
    #[inline(always)]
    pub(crate) fn window(self) -> u16 {
        Be16(self.read(14)).host()
    }
    /// Replaces the sequence number; answers the change for the checksum.
    #[inline(always)]
    pub(crate) fn set_sequence(self, sequence: u32) -> Sum {
        self.replace32(4, sequence.to_be())
    }
    /// Replaces the acknowledgement number; answers the change for the checksum.
    #[inline(always)]
    pub(crate) fn set_acknowledgement(self, acknowledgement: u32) -> Sum {
        self.replace32(8, acknowledgement.to_be())
    }
    /// Replaces the window field; answers the change for the checksum.
    #[inline(always)]
    pub(crate) fn set_window(self, window: u16) -> Sum {
        let (old, new): (u16, u16) = (self.read(14), window.to_be());
        self.write(14, new);
        Sum::ZERO.replace16(old, new)
    }
    #[inline(always)]
    fn replace32(self, offset: usize, new: u32) -> Sum {
        let old: u32 = self.read(offset);
        self.write(offset, new);
        Sum::ZERO.replace32(old, new)
    }
    /// Accounts for changes elsewhere in what the checksum covers.
    #[inline(always)]
    pub(crate) fn changed(self, change: Sum) {
        self.write(Self::CHECKSUM, Sum::of_field(self.read(Self::CHECKSUM)).plus(change).field());
    }
    /// Writes a header, urgent pointer 0; the checksum covers `rest` (addresses, protocol, length, options, data).
    #[inline(always)]
    pub(crate) fn write_header(self, header: &TcpHeader, rest: Sum) {
        let words = [
            header.source_port.raw() as u32 | (header.destination_port.raw() as u32) << 16,
            header.sequence.to_be(),
            header.acknowledgement.to_be(),
            (header.len as u32 / 4) << 28 | (header.flags as u32) << 16 | header.window as u32,
        ];
        let words = [words[0], words[1], words[2], words[3].to_be()];
        let mut i = 0;
        while i < 4 {
            self.write(4 * i, words[i]);
            i += 1;
        }
        self.write(Self::CHECKSUM, rest.add_words(&words).field() as u32);
    }
}

/// What [`Tcp::write_header`] writes.
pub(crate) struct TcpHeader {
    pub(crate) source_port: Be16,
    pub(crate) destination_port: Be16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) flags: u8,
    /// Bytes of it, options included.
    pub(crate) len: u8,
}
