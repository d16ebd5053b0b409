//! Link-layer next hops.

use super::endian::Be16;

/// A MAC address; aligned so that the kernel copies it by halves and not by bytes.
#[repr(C, align(2))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Mac(pub [u8; 6]);

/// Up to two VLAN tags, outermost first, as they stand in the frame; a zero protocol ends the list.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct VlanTags {
    /// Tag protocol (0x8100 or 0x88a8) and tag control of the outer tag.
    pub outer: [Be16; 2],
    /// The same of the inner tag.
    pub inner: [Be16; 2],
}

impl VlanTags {
    /// Number of tags.
    #[inline(always)]
    pub const fn count(&self) -> usize {
        (self.outer[0].raw() != 0) as usize + (self.inner[0].raw() != 0) as usize
    }
}

/// Where a frame goes: addresses, interface and tags.
///
/// Each address shares its aligned eight bytes with fields that change together, so that `lbd` can
/// replace a neighbour's MAC while packets use the record.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hop {
    /// Destination MAC; all zero while the neighbour is not resolved.
    pub destination: Mac,
    /// Largest IP packet the way to the next hop takes, in bytes.
    pub mtu: u16,
    /// Our MAC on that link.
    pub source: Mac,
    /// Zero.
    pub pad: u16,
    /// Interface index.
    pub ifindex: u32,
    /// Zero.
    pub pad2: u32,
}

super::pod!(Mac: 6, VlanTags: 8, Hop: 24);
