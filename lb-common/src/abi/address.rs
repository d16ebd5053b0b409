//! IPv4 and IPv6 addresses in one form.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address as four words in network order; IPv4 stands mapped (`::ffff:a.b.c.d`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Addr(pub [u32; 4]);

/// The third word of a mapped IPv4 address, as it lies in memory.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// The unspecified address; no packet carries it as a destination we serve.
    pub const NONE: Self = Self([0; 4]);

    /// An IPv4 address from the word as it stands in the packet.
    #[inline(always)]
    pub const fn v4_raw(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// A copy by words: the kernel target copies the whole by a loop over bytes.
    #[inline(always)]
    pub const fn by_words(&self) -> Self {
        Self([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 word as it stands in a packet; meaningless for IPv6.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// The 16 bytes in network order.
    pub fn octets(&self) -> [u8; 16] {
        let mut out = [0; 16];
        for (place, word) in out.chunks_exact_mut(4).zip(self.0) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4_raw(u32::from_ne_bytes(ip.octets()))
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        let o = ip.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        Ipv6Addr::from(addr.octets()).to_canonical()
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", IpAddr::from(*self))
    }
}

super::pod!(Addr: 16);
