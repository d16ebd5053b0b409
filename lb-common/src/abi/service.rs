//! Services: what a packet's destination means.

use super::{Addr, Be16};

/// What a packet is looked up by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Addr,
    /// Destination port; 0 = any port.
    pub port: Be16,
    /// IP protocol (6 TCP, 17 UDP).
    pub protocol: u8,
    /// Which question the entry answers: [`Self::BY_PORT`], [`Self::VIP`] or [`Self::ALONE`].
    pub kind: u8,
}

impl ServiceKey {
    /// The service of an address, port (0 = any) and protocol.
    pub const BY_PORT: u8 = 0;
    /// Marks a VIP: port 0, protocol 0. The value is not used.
    pub const VIP: u8 = 1;
    /// The service that is the only one of its address and protocol; port 0. Fragments without ports belong to it.
    pub const ALONE: u8 = 2;

    /// Key of a service.
    #[inline(always)]
    pub const fn service(address: Addr, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, kind: Self::BY_PORT }
    }
    /// Key of the marker of a VIP.
    #[inline(always)]
    pub const fn vip(address: Addr) -> Self {
        Self { address, port: Be16::new(0), protocol: 0, kind: Self::VIP }
    }
    /// Key of the only service of an address and protocol.
    #[inline(always)]
    pub const fn alone(address: Addr, protocol: u8) -> Self {
        Self { address, port: Be16::new(0), protocol, kind: Self::ALONE }
    }
}

/// A service as the data plane needs it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Service {
    /// Id from the service's name; part of every binding key.
    pub id: u32,
    /// Place of its counters and rate bucket.
    pub slot: u16,
    /// A [`Mode`].
    pub mode: u8,
    /// An [`super::Affinity`].
    pub affinity: u8,
    /// First slot of its selection table in the arena.
    pub table: u32,
    /// Table size - 1; sizes are powers of two.
    pub table_mask: u32,
    /// First arena slot of the member list that the linear walk reads.
    pub members: u32,
    /// Length of the member list.
    pub member_count: u32,
    /// IPv4 prefix length of the session key (1..=32).
    pub prefix_v4: u8,
    /// IPv6 prefix length of the session key (1..=128).
    pub prefix_v6: u8,
    /// Bits of [`ServiceFlags`].
    pub flags: u16,
    /// New bindings a second.
    pub binding_rate: u32,
    /// Lifetime of a binding without traffic, in nanoseconds.
    pub lifetime: u64,
    /// Source address for `SNAT`, of the service's family.
    pub source: Addr,
    /// MSS that is written into SYN segments when larger; 0 = leave.
    pub mss: u16,
    /// A [`Method`].
    pub method: u8,
    /// Zero.
    pub pad: u8,
    /// Zero.
    pub pad2: u32,
}

/// Services that each CPU has at hand; a power of two.
pub const SERVICES_AT_HAND: u32 = 512;

/// A service that this CPU looked up lately: a hash look-up costs more than the rest of the way.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ServiceAtHand {
    /// Its key.
    pub key: ServiceKey,
    /// [`super::Settings::version`] when it was looked up; another one makes it void.
    pub version: u32,
    /// The service.
    pub service: Service,
}

impl ServiceAtHand {
    /// Place of a key.
    #[inline(always)]
    pub const fn place(key: &ServiceKey) -> u32 {
        let a = &key.address.0;
        let words = a[0] ^ a[1].rotate_left(8) ^ a[2].rotate_left(16) ^ a[3];
        let rest = (key.port.raw() as u32) << 16 | (key.protocol as u32) << 8 | key.kind as u32;
        (words.wrapping_mul(0x9e37_79b1) ^ rest.wrapping_mul(0x85eb_ca6b)) >> (32 - SERVICES_AT_HAND.ilog2())
    }

    /// Whether it is what `key` means under `version`.
    #[inline(always)]
    pub const fn answers(&self, key: &ServiceKey, version: u32) -> bool {
        let (a, b) = (&self.key.address.0, &key.address.0);
        self.version == version
            && (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
            && self.key.port.raw() == key.port.raw()
            && self.key.protocol == key.protocol
            && self.key.kind == key.kind
    }
}

/// How a packet gets to its backend.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Destination NAT, replies translated back.
    Nat = 0,
    /// Direct return: only the MAC changes.
    L2 = 1,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213), any family in any.
    Ipip = 2,
    /// Generic UDP encapsulation, variant 1 (IP directly in UDP; draft-ietf-intarea-gue).
    Gue = 3,
}

impl Mode {
    /// The mode with that number.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Nat,
            1 => Self::L2,
            2 => Self::Ipip,
            3 => Self::Gue,
            _ => return None,
        })
    }
}

/// How the backend of a new session is chosen.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Method {
    /// The first of the session's order.
    Order = 0,
    /// The one with fewer connections of the first two of the session's order.
    TwoChoices = 1,
    /// The one with the fewest connections.
    LeastConnections = 2,
    /// The one with the least product of connections and time to answer a SYN.
    LeastTime = 3,
}

/// Bits of [`Service::flags`].
#[derive(Clone, Copy, Debug)]
pub struct ServiceFlags;

impl ServiceFlags {
    /// `nat` with source NAT from [`Service::source`].
    pub const SNAT: u16 = 1 << 0;
    /// The balancer answers the client's handshake itself and connects to the backend when it has read the request.
    pub const SPLICE: u16 = 1 << 1;
    /// Some backend has a limit of connections.
    pub const LIMITED: u16 = 1 << 2;
    /// TCP timestamps carry the number of the backend (a switch only).
    pub const STAMPED: u16 = 1 << 3;
}

super::pod!(ServiceKey: 20, Service: 64, ServiceAtHand: 88);
