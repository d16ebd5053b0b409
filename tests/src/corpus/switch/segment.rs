//! What the switch and the corpus have to know of a TCP segment, read by code that the product does not use.

use super::tags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Place of the IP header behind the tags.
const ETHERNET: usize = 14;
const TCP: u8 = 6;

/// A whole TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// Address and port.
    pub(super) source: (IpAddr, u16),
    /// The same of the other end.
    pub(super) destination: (IpAddr, u16),
    has_tags: bool,
    flags: u8,
    /// Whether there are no options, of IP or TCP.
    is_bare: bool,
    /// Bytes behind the header.
    data: usize,
}

impl Segment {
    /// Reads a frame; `None` = it is something else, or a fragment, or has extension headers.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET + 4 * tags(frame)..)?;
        let word = |place: usize| Some(u16::from_be_bytes(packet.get(place..place + 2)?.try_into().ok()?));
        let (source, destination, start, end, has_options): (IpAddr, IpAddr, _, _, _) =
            match packet.first()? >> 4 {
                4 if packet.get(9) == Some(&TCP) && word(6)? & 0x3fff == 0 => {
                    let address = |place: usize| {
                        Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(place..place + 4)?).ok()?))
                    };
                    let header = usize::from(packet[0] & 15) * 4;
                    (address(12)?.into(), address(16)?.into(), header, word(2)?.into(), header > 20)
                }
                6 if packet.get(6) == Some(&TCP) => {
                    let address = |place: usize| {
                        Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(place..place + 16)?).ok()?))
                    };
                    (address(8)?.into(), address(24)?.into(), 40, 40 + usize::from(word(4)?), false)
                }
                _ => return None,
            };
        let header = usize::from(packet.get(start + 12)? >> 4) * 4;
        Some(Self {
            source: (source, word(start)?),
            destination: (destination, word(start + 2)?),
            has_tags: tags(frame) > 0,
            flags: *packet.get(start + 13)?,
            is_bare: !has_options && header == 20,
            data: end.checked_sub(start + header)?,
        })
    }

    /// Whether the connection begins or ends with it.
    pub(super) const fn is_edge(&self) -> bool {
        self.flags & 0x07 != 0
    }

    /// Whether it asks for a connection.
    pub(super) const fn is_opening(&self) -> bool {
        self.flags & 0x12 == 0x02
    }

    /// Whether its frame has VLAN tags.
    pub(super) const fn has_tags(&self) -> bool {
        self.has_tags
    }

    /// Whether it acknowledges and has no options.
    pub(super) const fn is_plain(&self) -> bool {
        self.flags & 0x10 != 0 && self.is_bare
    }

    /// Whether it brings data.
    pub(super) const fn has_data(&self) -> bool {
        self.data > 0
    }
}
