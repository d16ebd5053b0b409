//! Bytes of a connection that wait: a request head that is not complete, or a request whose backend has not answered.

use super::FlowRef;

/// Bytes of the stream that one hold has room for; a power of two.
pub const HOLD_LEN: usize = 8_192;
/// Room behind them, so that a whole segment can be written at any place: offset and length are masked, not compared.
pub const HOLD_SLACK: usize = 2_048;
/// Room in front of them for a PROXY protocol header.
pub const HOLD_FRONT: usize = 64;
/// Default number of holds that connections share.
pub const DEFAULT_HOLDS: u32 = 2_048;
/// Backends one connection may have tried in vain.
pub const MAX_TRIED: usize = 4;

/// One hold.
///
/// The first ones, as many as there may be CPUs, belong to a CPU each and are only good while a program runs; the
/// others are claimed by a flow. Whoever changes one holds [`HoldWord::LOCKED`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// A [`HoldWord`].
    pub word: u64,
    /// When nobody needs it any more, nanoseconds of the monotonic clock.
    pub until: u64,
    /// The flow whose bytes these are.
    pub flow: FlowRef,
    /// Sequence number of the first byte, as the client counts.
    pub start: u32,
    /// Bytes that are here.
    pub len: u32,
    /// Bytes that were acknowledged to the client and that only this hold has.
    pub owned: u32,
    /// Position behind the last byte that was sent to the backend. Positions count from the first byte of the PROXY
    /// protocol header, `front` bytes before the stream.
    pub sent: u32,
    /// Position behind the last byte that the backend acknowledged.
    pub acknowledged: u32,
    /// Bits of [`HoldFlags`].
    pub flags: u32,
    /// Where the scan of the head goes on; the scanner's own.
    pub progress: [u64; 4],
    /// The session key, once the head was read.
    pub session: u64,
    /// Backends that refused or did not answer; the first `tried_count`.
    pub tried: [u16; MAX_TRIED],
    /// Number of them.
    pub tried_count: u32,
    /// Bytes of the PROXY protocol header; it ends where the stream begins.
    pub front: u32,
    /// A [`Said`].
    pub said: u32,
    /// The path rule that the request chose, plus 1 (counted from the service's first); 0 = none.
    pub path: u32,
    /// What the request names, if [`Self::said`] says so: primary and secondary; with [`HoldFlags::TOLD`] the session's.
    pub named: [Named; 2],
    /// The window field of the client's last segment, as it came.
    pub window: u16,
    /// The backend's MSS; 0 before it answered.
    pub mss: u16,
    /// What the client acknowledged last, as it counts.
    pub answered: u32,
    /// Folded one's-complement sum of the first `len` bytes, words as they lie in memory.
    pub sum: u32,
    /// Number of backends that the request names; the first ones of `named`.
    pub named_count: u32,
    /// Room for the PROXY protocol header.
    pub head: [u8; HOLD_FRONT],
    /// The bytes.
    pub bytes: [u8; HOLD_LEN + HOLD_SLACK],
}

impl Hold {
    /// The number that comes next, as the client counts.
    #[inline(always)]
    pub const fn next(&self) -> u32 {
        let fin = self.flags & HoldFlags::FIN != 0;
        self.start.wrapping_add(self.len).wrapping_add(fin as u32)
    }
}

impl Default for Hold {
    fn default() -> Self {
        // SAFETY: integers and arrays of them; all zero is a hold that nobody owns.
        unsafe { core::mem::zeroed() }
    }
}

/// What a request says of where it belongs.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Said {
    /// Nothing that can be used: it follows the fallback.
    Nothing = 0,
    /// A session key, see [`Hold::session`].
    Key = 1,
    /// Backends, see [`Hold::named`]; the key is that of the fallback, for when none of them serves.
    Servers = 2,
}

impl Said {
    /// The meaning of a number; unknown ones mean nothing.
    #[inline(always)]
    pub const fn from_u32(n: u32) -> Self {
        match n {
            1 => Self::Key,
            2 => Self::Servers,
            _ => Self::Nothing,
        }
    }
}

/// A backend that a request names.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Named {
    /// Its slot.
    pub slot: u16,
    /// [`super::Backend::generation`] of the slot.
    pub generation: u16,
}

/// Bits of [`Hold::flags`].
#[derive(Clone, Copy, Debug)]
pub struct HoldFlags;

impl HoldFlags {
    /// The client's FIN follows the last byte.
    pub const FIN: u32 = 1 << 0;
    /// The bytes are a response's, kept for their head.
    pub const RESPONSE: u32 = 1 << 3;
    /// It is known where the request belongs.
    pub const READ: u32 = 1 << 4;
    /// What the backend has not acknowledged was sent again, and still is not acknowledged.
    pub const AGAIN: u32 = 1 << 5;
    /// The other nodes were asked for the session's backend; whoever comes next does not ask again.
    pub const ASKED: u32 = 1 << 6;
    /// One of them told it: the first of [`Hold::named`].
    pub const TOLD: u32 = 1 << 7;
    /// One of the backends that were tried did not answer: a lost packet would look the same.
    pub const SILENT: u32 = 1 << 8;
}

/// Owner and lock of a hold in one exchangeable word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HoldWord(pub u64);

impl HoldWord {
    /// A CPU is at work in it.
    pub const LOCKED: u64 = 1 << 0;
    /// A flow owns it.
    pub const TAKEN: u64 = 1 << 1;

    /// Owned by the flow with that nonce, unlocked.
    #[inline(always)]
    pub const fn taken(nonce: u32) -> Self {
        Self((nonce as u64) << 32 | Self::TAKEN)
    }
    /// Nonce of the owner.
    #[inline(always)]
    pub const fn nonce(self) -> u32 {
        (self.0 >> 32) as u32
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

/// In front of a packet that grows: the XDP program leaves it to `fill`, which appends held bytes and sends.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Filling {
    /// [`Self::MAGIC`].
    pub magic: u32,
    /// The hold.
    pub hold: u32,
    /// Nonce of its owner.
    pub nonce: u32,
    /// First byte to append, counted from the front of the PROXY protocol header.
    pub from: u16,
    /// Bytes to append.
    pub len: u16,
    /// Interface to send to.
    pub ifindex: u32,
    /// 1 = the hold is free afterwards.
    pub last: u32,
}

impl Filling {
    /// Marks metadata as this one's; another program's is left alone.
    pub const MAGIC: u32 = 0x5b_f1_11_5b;
}

super::pod!(Filling: 24, Hold: 8 * 3 + 4 * 6 + 32 + 8 + 8 + 8 + 32 + HOLD_FRONT + HOLD_LEN + HOLD_SLACK);
