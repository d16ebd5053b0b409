//! What a measured frame looks like and how its flows differ: shared by the programs and the benchmark.

/// Bytes of a template's head.
pub const HEAD: usize = 1_536;
/// Bytes of it that are restored word by word.
pub const WORDS: usize = 128;

/// A pristine frame head that `restore` writes back before every run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Length of the frame.
    pub length: u32,
    /// Bytes that are restored: 64, 96 or 128, at most `length`.
    pub restored: u32,
    /// Offset of the big-endian word that tells flows apart; even, at most 60.
    pub vary_at: u32,
    /// That word in flow 0.
    pub vary_base: u32,
    /// Number of flows - 1, a power of two - 1; 0 leaves the word as it is.
    pub vary_mask: u32,
    /// 0: flows one after the other; 1: at random.
    pub random: u32,
    /// State of the sequence or of the random numbers.
    pub state: u64,
    /// Where the last 32 bytes begin that are restored too, because `length` is less than [`WORDS`] and no multiple of 32; 0 = nowhere.
    pub last: u32,
    /// Zero.
    pub pad: u32,
    /// Bytes behind [`WORDS`] that are restored too, for programs that make the frame shorter; 0 = none.
    pub rest: u32,
    /// 1: the program lets the frame grow at its end, not at its beginning.
    pub tail: u32,
    /// The head.
    pub head: [u8; HEAD],
}

/// A service as the reference programs know it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ReferenceKey {
    /// IPv4 destination as it stands in the packet.
    pub address: u32,
    /// Destination port as it stands in the packet.
    pub port: u16,
    /// IP protocol.
    pub protocol: u16,
}

/// Where the reference programs send a packet.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ReferenceReal {
    /// Tunnel destination.
    pub address: u32,
    /// Tunnel source.
    pub source: u32,
    /// Next hop's MAC.
    pub destination_mac: [u8; 6],
    /// Our MAC.
    pub source_mac: [u8; 6],
    /// Zero.
    pub pad: u32,
}

/// A connection as the full reference remembers it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ReferenceFlow {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port in the low half, destination port in the high half, as they stand in the packet.
    pub ports: u32,
    /// IP protocol.
    pub protocol: u32,
}

/// Entries of the full reference's selection ring.
pub const REFERENCE_RING: u32 = 65_536;

/// Which packets `lose` drops: of every `period` packets the first `lost`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Loss {
    /// Packets in a period; 0 = lose nothing.
    pub period: u32,
    /// Packets lost in each.
    pub lost: u32,
    /// Packets seen.
    pub seen: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// What a bad cable does to TCP segments, and what it has done.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Lost, out of 2^32.
    pub lose: u32,
    /// Sent twice, out of 2^32.
    pub double: u32,
    /// Sent behind the next one, out of 2^32.
    pub swap: u32,
    /// Length of the segment that waits.
    pub len: u32,
    /// State of the random numbers; at the start the seed.
    pub random: u64,
    /// Whether a segment waits: 0 no, 1 somebody is at it, 2 yes.
    pub state: u64,
    /// Segments seen.
    pub seen: u64,
    /// Lost.
    pub lost: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Made wait for the next one.
    pub swapped: u64,
    /// The segment that waits.
    pub frame: [u8; 2_048],
}

/// Places in the `DECAP` counters.
pub mod decap {
    /// Not a tunnel packet: passed as it came.
    pub const PLAIN: u32 = 0;
    /// IP in IP taken off.
    pub const IPIP: u32 = 1;
    /// GUE taken off.
    pub const GUE: u32 = 2;
    /// Outer header wrong (checksum, lengths): dropped.
    pub const BAD: u32 = 3;
    /// Number of counters.
    pub const COUNT: u32 = 4;
}
