//! QUIC headers, as far as every version has them (RFC 8999).

/// Bytes of a long header up to the destination connection id: first byte, version, length.
const LONG: usize = 6;
/// Offset of a long header's connection id length.
pub(crate) const LENGTH: usize = 5;
/// Bytes of a short header up to the destination connection id.
const SHORT: usize = 1;
/// Set in the first byte of a long header.
const IS_LONG: u8 = 0x80;

/// Where a packet's destination connection id is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Destination {
    /// Offset from the start of the packet.
    pub(crate) offset: usize,
    /// Bytes that it may have: its length in a long header, all the rest of the packet in a short one, which does not say.
    pub(crate) room: usize,
}

/// Whether the first byte is a long header's.
#[inline(always)]
pub(crate) const fn is_long(first: u8) -> bool {
    first & IS_LONG != 0
}

impl Destination {
    /// In a short header's packet of `len` bytes.
    #[inline(always)]
    pub(crate) const fn in_short(len: usize) -> Option<Self> {
        if len < SHORT { None } else { Some(Self { offset: SHORT, room: len - SHORT }) }
    }

    /// In a long header's packet of `len` bytes that names a connection id of `room` bytes.
    #[inline(always)]
    pub(crate) const fn in_long(len: usize, room: u8) -> Option<Self> {
        if len < LONG + room as usize { None } else { Some(Self { offset: LONG, room: room as usize }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_is_inside_its_packet() {
        for len in 0..64 {
            for id in 0..=255 {
                let found = Destination::in_long(len, id);
                assert_eq!(found.is_some(), len >= 6 + usize::from(id));
                assert!(found.is_none_or(|d| d.offset + d.room <= len && d.room == usize::from(id)));
            }
            let found = Destination::in_short(len);
            assert!(found.map_or(len == 0, |d| d.offset + d.room == len));
        }
        assert!(is_long(0xc0) && is_long(0x80) && !is_long(0x40) && !is_long(0x00));
    }
}
