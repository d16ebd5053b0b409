//! Ethernet II and 802.1Q / 802.1ad tags.

use super::memory::{get, put};
use crate::abi::{Be16, Mac};

/// EtherTypes.
pub(crate) mod ethertype {
    use crate::abi::Be16;

    pub(crate) const IPV4: Be16 = Be16::new(0x0800);
    pub(crate) const IPV6: Be16 = Be16::new(0x86dd);
    pub(crate) const VLAN: Be16 = Be16::new(0x8100);
    pub(crate) const PROVIDER_VLAN: Be16 = Be16::new(0x88a8);
}

/// The two addresses at the head of a frame, and what follows them.
#[derive(Clone, Copy)]
pub(crate) struct Ethernet(*mut u8);

impl Ethernet {
    /// Addresses and EtherType.
    pub(crate) const LEN: usize = 14;
    /// One VLAN tag.
    pub(crate) const TAG: usize = 4;

    /// # Safety
    /// `p` points to at least [`Self::LEN`] bytes of the frame, and to the tags that are read or written.
    #[inline(always)]
    pub(crate) const unsafe fn new(p: *mut u8) -> Self {
        Self(p)
    }

    #[inline(always)]
    pub(crate) fn destination(self) -> Mac {
        // SAFETY: checked by `new`.
        unsafe { mac(self.0) }
    }

    /// Whether the frame is for a group of stations: broadcast or multicast.
    #[inline(always)]
    pub(crate) fn is_for_group(self) -> bool {
        // SAFETY: checked by `new`.
        unsafe { get::<u8>(self.0) & 1 != 0 }
    }

    #[inline(always)]
    pub(crate) fn source(self) -> Mac {
        // SAFETY: checked by `new`.
        unsafe { mac(self.0.add(6)) }
    }

    #[inline(always)]
    pub(crate) fn set_addresses(self, destination: &Mac, source: &Mac) {
        // SAFETY: checked by `new`; a MAC is six bytes.
        unsafe {
            let (d, s) = (destination.0.as_ptr(), source.0.as_ptr());
            put(self.0, get::<u32>(d));
            put(self.0.add(4), get::<u16>(d.add(4)));
            put(self.0.add(6), get::<u32>(s));
            put(self.0.add(10), get::<u16>(s.add(4)));
        }
    }

    /// The 16-bit field at an offset: an EtherType, a tag protocol or tag control.
    #[inline(always)]
    pub(crate) fn field(self, offset: usize) -> Be16 {
        // SAFETY: the caller of `new` checked as far as it reads.
        Be16(unsafe { get(self.0.add(offset)) })
    }

    #[inline(always)]
    pub(crate) fn set_field(self, offset: usize, value: Be16) {
        // SAFETY: the caller of `new` checked as far as it writes.
        unsafe { put(self.0.add(offset), value.raw()) }
    }
}

#[inline(always)]
unsafe fn mac(p: *const u8) -> Mac {
    // SAFETY: the caller has checked six bytes.
    unsafe {
        let (a, b): (u32, u16) = (get(p), get(p.add(4)));
        let (a, b) = (a.to_ne_bytes(), b.to_ne_bytes());
        Mac([a[0], a[1], a[2], a[3], b[0], b[1]])
    }
}
