//! What of a packet's bytes says whose it is: the rules of one service.

use super::Service;

/// Longest cookie name.
pub const MAX_COOKIE_NAME: usize = 64;
/// Longest payload segment.
pub const MAX_PAYLOAD_SEGMENT: usize = 64;
/// Longest prefix of a path rule.
pub const MAX_PATH_PREFIX: usize = 120;
/// Most path rules of one service.
pub const MAX_PATH_RULES: u32 = 16;
/// Path rules of all services.
pub const PATH_ENTRIES: u32 = 1_024;
/// Marks of servers of all services.
pub const SERVER_ENTRIES: u32 = 65_536;

/// How the session key is taken from a packet.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Affinity {
    /// The 5-tuple: every connection is a session of its own.
    None = 0,
    /// The client's address, cut to a prefix.
    SourceIp = 1,
    /// A cookie of the connection's first HTTP request, or a segment of it (`nat` and TCP only).
    HttpCookie = 2,
    /// The server id in a QUIC connection id (UDP only).
    QuicCid = 3,
    /// Bytes at a fixed place of the payload.
    Payload = 4,
}

impl Affinity {
    /// The affinity with that number.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::None,
            1 => Self::SourceIp,
            2 => Self::HttpCookie,
            3 => Self::QuicCid,
            4 => Self::Payload,
            _ => return None,
        })
    }
}

/// What the cookie's segment means.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reading {
    /// Its hash is the session key; the binding says where.
    Bind = 0,
    /// It names the backend, see [`Server::mark`].
    Route = 1,
    /// It names primary and secondary by the sum of their server numbers.
    Pair = 2,
    /// It names the backend and carries a MAC.
    SealedRoute = 3,
}

/// What another session's cookie later on a connection does.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnMismatch {
    /// It is counted.
    Count = 0,
    /// It is counted, and the connection is reset.
    Reset = 1,
}

/// Bits of [`AffinityRules::flags`].
#[derive(Clone, Copy, Debug)]
pub struct AffinityFlags;

impl AffinityFlags {
    /// Responses are scanned for `Set-Cookie`, and the value bound to their backend.
    pub const LEARN: u16 = 1 << 0;
    /// A PROXY protocol header (version 2) goes in front of the first request.
    pub const PROXY: u16 = 1 << 2;
}

/// The rules of one service, by its slot; all zero for services whose affinity needs none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AffinityRules {
    /// A [`Reading`].
    pub reading: u8,
    /// What parts the cookie's value; 0 = all of it is the segment.
    pub delimiter: u8,
    /// Which part is the segment, from 0.
    pub index: u8,
    /// [`Affinity::None`] or [`Affinity::SourceIp`]: where a packet goes that cannot be read.
    pub fallback: u8,
    /// An [`OnMismatch`].
    pub on_mismatch: u8,
    /// Bytes of `name`.
    pub name_len: u8,
    /// Bits of [`AffinityFlags`].
    pub flags: u16,
    /// Bytes of a request head that are looked at, at most.
    pub head_limit: u16,
    /// Payload: offset of the segment.
    pub offset: u16,
    /// Payload: bytes of the segment, 1..=[`MAX_PAYLOAD_SEGMENT`].
    pub length: u16,
    /// MSS that is announced to IPv4 clients.
    pub mss_v4: u16,
    /// MSS that is announced to IPv6 clients.
    pub mss_v6: u16,
    /// Zero.
    pub pad: u16,
    /// First entry of its servers in [`super::map::SERVERS`].
    pub servers: u32,
    /// Number of them.
    pub server_count: u32,
    /// First entry of its path rules in [`super::map::PATHS`], longest prefix first.
    pub paths: u32,
    /// Number of them, at most [`MAX_PATH_RULES`].
    pub path_count: u32,
    /// Name of the cookie, zeros behind it.
    pub name: [u8; MAX_COOKIE_NAME],
    /// Payload: what is kept of each byte.
    pub mask: [u8; MAX_PAYLOAD_SEGMENT],
    /// Zero.
    pub pad2: [u32; 7],
}

impl Default for AffinityRules {
    fn default() -> Self {
        // SAFETY: integers and arrays of them; all zero is what a service without rules has.
        unsafe { core::mem::zeroed() }
    }
}

/// A server as a segment or a connection id names it; those of one service stand together, sorted by mark.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Server {
    /// `route`: hash of the text; `pair`: the server number; `quic-cid`: hash of the server id.
    pub mark: u64,
    /// Backend slot.
    pub backend: u16,
    /// [`super::Backend::generation`].
    pub generation: u16,
    /// Zero.
    pub pad: u32,
}

/// Requests whose path begins so go to a pool of their own.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathRule {
    /// The pool: id, table and members of its own; counters, mode, lifetime and source of the service.
    pub service: Service,
    /// The prefix, zeros behind it.
    pub prefix: [u8; MAX_PATH_PREFIX],
    /// First entry of the pool's servers in [`super::map::SERVERS`].
    pub servers: u32,
    /// Number of them.
    pub server_count: u16,
    /// Bytes of the prefix.
    pub len: u8,
    /// Zero.
    pub pad: u8,
}

impl Default for PathRule {
    fn default() -> Self {
        // SAFETY: integers and arrays of them.
        unsafe { core::mem::zeroed() }
    }
}

super::pod!(AffinityRules: 192, Server: 16, PathRule: 192);
