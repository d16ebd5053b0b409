//! Counters and limits.

/// Per-CPU traffic counters of a service or a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Packets towards the backend.
    pub packets: u64,
    /// Bytes of those packets, from the IP header on, before encapsulation.
    pub bytes: u64,
    /// Packets from the backend that were translated back.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Bindings made.
    pub bindings: u64,
    /// Connections opened (TCP SYN, first UDP packet).
    pub connections: u64,
}

impl Counters {
    /// What both have counted together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            reply_packets: self.reply_packets.wrapping_add(other.reply_packets),
            reply_bytes: self.reply_bytes.wrapping_add(other.reply_bytes),
            bindings: self.bindings.wrapping_add(other.bindings),
            connections: self.connections.wrapping_add(other.connections),
        }
    }
}

/// Rate of new bindings of one service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TokenBucket {
    /// Window (2^30 ns of the monotonic clock) in the high half, bindings made in it in the low half.
    pub word: u64,
}

/// New bindings of one source prefix.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Quota {
    /// Number of the window in the high half, bindings made in it in the low half.
    pub word: u64,
}

/// A number that CPUs add to, on a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hand {
    /// The number.
    pub value: u64,
    /// What else belongs to it: of [`super::hand::ASKED`], since when no question about a session has been answered, as
    /// `limits::may_inquire` has it.
    pub since: u64,
    /// Zero.
    pub pad: [u64; 6],
}

super::pod!(Counters: 48, TokenBucket: 8, Quota: 8, Hand: 64);
