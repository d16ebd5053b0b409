//! Flows: transport connections that are translated.

use super::{Addr, Be16, Be32, Mac, Settings, VlanTags};

/// A 5-tuple as it stands in a packet of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FlowKey {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port; the identifier for ICMP echo.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero, but in the client's key of a flow that stands beside the one of its 5-tuple, see [`Self::aside`].
    pub pad: [u8; 3],
}

impl FlowKey {
    /// A key of these parts, put together by words: the kernel target makes loops over bytes of anything else.
    #[inline(always)]
    pub const fn new(
        source: &Addr,
        destination: &Addr,
        source_port: Be16,
        destination_port: Be16,
        protocol: u8,
    ) -> Self {
        let (s, d) = (&source.0, &destination.0);
        let ports = (source_port.raw() as u32).to_le() | ((destination_port.raw() as u32) << 16).to_le();
        let words = [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], ports, (protocol as u32).to_le()];
        // SAFETY: both are forty bytes of integers, and the last word is the protocol followed by zeros.
        unsafe { core::mem::transmute(words) }
    }

    /// The key under which the 5-tuple's client is found when its packets for one backend stand beside its flow to
    /// another; `backend` is the slot plus one.
    ///
    /// A client's socket may carry connections to several backends, and packets say which.
    #[inline(always)]
    pub const fn aside(mut self, backend: u32) -> Self {
        self.pad = [backend as u8, (backend >> 8) as u8, (backend >> 16) as u8];
        self
    }

    /// The key of the other direction.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self::new(&self.destination, &self.source, self.destination_port, self.source_port, self.protocol)
    }

    /// The key that marks a backend's address and port in the index while tables are replaced; no packet has it.
    #[inline(always)]
    pub const fn mark(backend: Addr, port: Be16) -> Self {
        Self {
            source: backend,
            destination: Addr::NONE,
            source_port: port,
            destination_port: Be16::new(0),
            protocol: 0,
            pad: [0; 3],
        }
    }
}

/// Records in a row in which the flow of a client is looked for before the index is asked; a power of two.
pub const HOME_LEN: u32 = 4;

/// The first of the records in which the flow of a client's address and port is looked for first, see [`HOME_LEN`].
///
/// Both directions of a connection show them, unless source NAT replaces them. No flow has to stand there.
#[inline(always)]
pub const fn flow_home(settings: &Settings, address: &Addr, port: Be16) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let a = &address.0;
    let (upper, lower) = (a[0] as u64 | (a[1] as u64) << 32, a[2] as u64 | (a[3] as u64) << 32);
    let key = settings.seed ^ MIX;
    let hash = upper.wrapping_mul(key | 1);
    let hash = (hash ^ hash >> 32 ^ lower ^ port.raw() as u64).wrapping_mul(key.rotate_left(32) | 1);
    let homes = settings.flows.saturating_sub(HOME_LEN - 1) as u64;
    settings.half_open.wrapping_add(((hash >> 32).wrapping_mul(homes) >> 32) as u32)
}

/// Where a flow's record is: index and nonce in one word that is replaced at once.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowRef(pub u64);

impl FlowRef {
    /// Set when the key is the direction from the backend.
    const REPLY: u64 = 1 << 31;

    /// A reference to record `index` while its nonce is `nonce`.
    #[inline(always)]
    pub const fn new(index: u32, nonce: u32, reply: bool) -> Self {
        Self((nonce as u64) << 32 | if reply { Self::REPLY } else { 0 } | (index & 0x7fff_ffff) as u64)
    }
    /// Index of the record.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }
    /// Nonce that the record must carry.
    #[inline(always)]
    pub const fn nonce(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// Whether the key is the direction from the backend.
    #[inline(always)]
    pub const fn is_reply(self) -> bool {
        self.0 & Self::REPLY != 0
    }
}

/// State of a flow.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlowState {
    /// No flow.
    Free = 0,
    /// TCP: SYN seen from the client. UDP: packets from the client only.
    Opening = 1,
    /// TCP: SYN-ACK seen from the backend. UDP: a packet from the backend.
    Answered = 2,
    /// Both sides proved themselves; UDP: the client went on after a reply.
    Established = 3,
    /// A FIN from either side.
    Closing = 4,
    /// FIN from both sides, or a reset.
    Closed = 5,
    /// Claimed by a CPU that is filling it in.
    Claimed = 6,
    /// Spliced: the client proved its address, its request head is not complete.
    Collecting = 7,
    /// Spliced: the backend has not answered the balancer's SYN.
    Connecting = 8,
    /// Spliced: the backend answered, held bytes are on their way to it.
    Releasing = 9,
}

impl FlowState {
    /// The state with that number; unknown numbers are `Free`.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::Opening,
            2 => Self::Answered,
            3 => Self::Established,
            4 => Self::Closing,
            5 => Self::Closed,
            6 => Self::Claimed,
            7 => Self::Collecting,
            8 => Self::Connecting,
            9 => Self::Releasing,
            _ => Self::Free,
        }
    }
}

/// Nonce, state and flags of a flow in one exchangeable word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowWord(pub u64);

impl FlowWord {
    /// A FIN came from the client.
    pub const FIN_CLIENT: u64 = 1 << 8;
    /// A FIN came from the backend.
    pub const FIN_SERVER: u64 = 1 << 9;
    /// A reset ended it.
    pub const RESET: u64 = 1 << 10;
    /// Its session has been bound.
    pub const BOUND: u64 = 1 << 11;
    /// Carries UDP or another protocol without connections.
    pub const DATAGRAM: u64 = 1 << 12;
    /// The reset carried the client's address and ended an established flow; anyone may have forged it.
    pub const DOUBTFUL: u64 = 1 << 13;
    /// Delayed binding: the balancer answered the client's SYN itself, and sequence numbers are translated.
    pub const SPLICED: u64 = 1 << 14;
    /// Spliced: the client sent data since the backend last did; the backend's next data begins a response.
    pub const ASKED: u64 = 1 << 15;
    /// Spliced: a SYN came for this 5-tuple; a segment that proves a new connection replaces the flow.
    pub const REOPENED: u64 = 1 << 16;
    /// Spliced, without a hold whose lock would say so: a CPU asks a backend for it, or reads the answer.
    pub const BUSY: u64 = 1 << 17;
    /// It is one of its backend's [`super::Vitals::connections`]: whoever takes this away takes one from there.
    pub const COUNTED: u64 = 1 << 18;

    /// A word without flags.
    #[inline(always)]
    pub const fn new(nonce: u32, state: FlowState) -> Self {
        Self((nonce as u64) << 32 | state as u64)
    }
    /// Its nonce; never 0 in a used record.
    #[inline(always)]
    pub const fn nonce(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// Its state.
    #[inline(always)]
    pub const fn state(self) -> FlowState {
        FlowState::from_u8(self.0 as u8)
    }
    /// With another state.
    #[inline(always)]
    pub const fn with_state(self, state: FlowState) -> Self {
        Self(self.0 & !0xff | state as u64)
    }
    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
    /// With a flag set.
    #[inline(always)]
    pub const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }
    /// With a flag cleared.
    #[inline(always)]
    pub const fn without(self, flag: u64) -> Self {
        Self(self.0 & !flag)
    }
}

impl core::fmt::Debug for FlowWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "FlowWord({:?}, nonce {:#x}, flags {:#x})",
            self.state(),
            self.nonce(),
            self.0 >> 8 & 0xff_ffff
        )
    }
}

/// One flow, both directions.
///
/// Everything but `word` and `last_seen` is written once, before the flow can be found.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow {
    /// A [`FlowWord`].
    pub word: u64,
    /// Last packet, nanoseconds of the monotonic clock; written when it moved noticeably.
    pub last_seen: u64,
    /// Client -> VIP, as it stands in the client's packets.
    pub client: FlowKey,
    /// Backend -> client (or source-NAT address), as it stands in the backend's packets.
    pub server: FlowKey,
    /// The session key.
    pub session: u64,
    /// [`super::Service::id`].
    pub service: u32,
    /// Counter place of the service.
    pub service_slot: u16,
    /// Backend slot.
    pub backend: u16,
    /// [`super::Backend::generation`] when the flow was opened.
    pub backend_generation: u16,
    /// The client's next hop: MAC that its packets came from.
    pub client_mac: Mac,
    /// Our MAC that its packets came to.
    pub local_mac: Mac,
    /// Largest IP packet that the client's link takes, as it was when the flow was opened; 0 = not known.
    pub client_mtu: u16,
    /// Interface that its packets came in on.
    pub ifindex: u32,
    /// Tags its packets carried.
    pub tags: VlanTags,
    /// Sequence number of the backend's SYN-ACK, host order: the client's ACK must follow it. Written while the
    /// flow is half-open. Spliced: what the client's acknowledgements are translated to.
    pub answer: u32,
    /// Spliced: the sequence number of the balancer's SYN-ACK, a SYN cookie; the client counts from it.
    pub isn: u32,
    /// Spliced: sequence number of the first request byte, as the client counts.
    pub start: u32,
    /// Spliced: the hold with its bytes, plus 1; 0 = none.
    pub hold: u32,
    /// Spliced: the client's window scale; [`Self::NO_SCALE`] = it did not offer one.
    pub client_scale: u8,
    /// Spliced: the backend's window scale.
    pub server_scale: u8,
    /// Spliced: bits of [`SpliceFlags`].
    pub splice: u16,
    /// Spliced: the window field of the client's last segment, as it stood there; kept until a backend answers.
    pub window: u16,
    /// Spliced: when a segment last claimed with a wrong cookie to begin a connection anew, in units of 2^29 ns.
    pub guessed: u16,
    /// With [`FlowWord::REOPENED`]: the initial sequence number of the latest SYN for this 5-tuple.
    pub syn: u32,
}

impl Flow {
    /// No window scaling (RFC 7323 section 2.2).
    pub const NO_SCALE: u8 = 15;
}

/// Bits of [`Flow::splice`].
#[derive(Clone, Copy, Debug)]
pub struct SpliceFlags;

impl SpliceFlags {
    /// Client and backend both permitted selective acknowledgements.
    pub const SACK: u16 = 1 << 0;
    /// Responses are to be scanned for the session's cookie.
    pub const LEARN: u16 = 1 << 1;
    /// Later requests are to be scanned for another session's cookie.
    pub const INSPECT: u16 = 1 << 2;
    /// The session's key was read from the request; else the flow follows the fallback.
    pub const READ: u16 = 1 << 3;
    /// The session is bound to the backend once that has answered.
    pub const BIND: u16 = 1 << 4;
}

/// What names one train of fragments.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FragmentKey {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Identification (16 bits in IPv4, 32 in IPv6).
    pub identification: Be32,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What the first fragment decided for the rest.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FragmentRef {
    /// The flow of a `nat` service, else 0.
    pub flow: u64,
    /// The backend of a direct mode.
    pub backend: u16,
    /// Its slot generation.
    pub backend_generation: u16,
    /// Ports of the first fragment, so that the rest finds the same service.
    pub destination_port: Be16,
    /// Source port of the first fragment.
    pub source_port: Be16,
    /// IP protocol of the first fragment; later ones know only the header behind the fragment header.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 7],
}

super::pod!(FlowKey: 40, FlowRef: 8, Flow: 168, FragmentKey: 40, FragmentRef: 24);
