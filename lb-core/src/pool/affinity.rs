//! What makes a session, and how packets say it.

use lb_common::abi::{OnMismatch, Reading};
use lb_common::affinity::quic::Layout;

/// Where the session key comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AffinitySpec {
    /// The 5-tuple.
    None,
    /// The client's address, cut to a prefix for each family.
    SourceIp {
        /// IPv4 prefix length, 1..=32.
        v4: u8,
        /// IPv6 prefix length, 1..=128.
        v6: u8,
    },
    /// A cookie of the connection's first HTTP request (TCP with `nat`).
    HttpCookie(CookieSpec),
    /// The server id in QUIC connection ids (UDP).
    QuicCid(QuicSpec),
    /// Bytes at a fixed place of the payload (UDP, or TCP with `nat`).
    Payload(PayloadSpec),
}

/// Where a packet goes that does not say whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fallback {
    /// Each connection by itself.
    None,
    /// By the client's address, cut to a prefix for each family.
    SourceIp {
        /// IPv4 prefix length, 1..=32.
        v4: u8,
        /// IPv6 prefix length, 1..=128.
        v6: u8,
    },
}

/// A cookie, and what of it says whose the session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CookieSpec {
    /// Its name: a token (RFC 6265 section 4.1.1), at most 64 bytes.
    pub name: String,
    /// What the segment means.
    pub reading: Reading,
    /// What parts the value, and which part is the segment, from 0; `None` = all of it is.
    pub part: Option<(u8, u8)>,
    /// Whether responses are scanned for the cookie, and its value bound to their backend.
    pub learn: bool,
    /// Where requests go that have no such cookie.
    pub fallback: Fallback,
    /// What another session's cookie later on a connection does.
    pub on_mismatch: OnMismatch,
    /// Bytes of a request head that are looked at, at most.
    pub head_limit: u16,
}

/// How servers are named in QUIC connection ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicSpec {
    /// Configurations, by rotation without repetition.
    pub configurations: Vec<QuicConfiguration>,
    /// Where packets go whose connection id names no server.
    pub fallback: Fallback,
}

/// One configuration of connection ids (draft-ietf-quic-load-balancers-21 section 3).
#[derive(Clone, PartialEq, Eq)]
pub struct QuicConfiguration {
    /// The three bits that name it, 0..=6.
    pub rotation: u8,
    /// Bytes of server id and nonce.
    pub layout: Layout,
    /// AES-128 key; `None` = server id and nonce stand as they are.
    pub key: Option<[u8; 16]>,
}

/// Bytes at a fixed place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadSpec {
    /// Bytes in front of them.
    pub offset: u16,
    /// What is kept of each byte; as long as the segment, 1..=64.
    pub mask: Vec<u8>,
    /// Where packets go that end before the segment does.
    pub fallback: Fallback,
}

impl AffinitySpec {
    /// Name of its kind, as the configuration has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SourceIp { .. } => "source-ip",
            Self::HttpCookie(_) => "http-cookie",
            Self::QuicCid(_) => "quic-cid",
            Self::Payload(_) => "payload",
        }
    }

    /// What a packet follows that does not say whose it is; for affinities that read addresses, themselves.
    pub const fn fallback(&self) -> Fallback {
        match self {
            Self::None => Fallback::None,
            Self::SourceIp { v4, v6 } => Fallback::SourceIp { v4: *v4, v6: *v6 },
            Self::HttpCookie(cookie) => cookie.fallback,
            Self::QuicCid(quic) => quic.fallback,
            Self::Payload(payload) => payload.fallback,
        }
    }

    /// The affinity's cookie, if it reads one.
    pub const fn cookie(&self) -> Option<&CookieSpec> {
        match self {
            Self::HttpCookie(cookie) => Some(cookie),
            Self::None | Self::SourceIp { .. } | Self::QuicCid(_) | Self::Payload(_) => None,
        }
    }

    /// The affinity's QUIC configurations, if it reads connection ids.
    pub const fn quic(&self) -> Option<&QuicSpec> {
        match self {
            Self::QuicCid(quic) => Some(quic),
            Self::None | Self::SourceIp { .. } | Self::HttpCookie(_) | Self::Payload(_) => None,
        }
    }
}

impl core::fmt::Debug for QuicConfiguration {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("QuicConfiguration")
            .field("rotation", &self.rotation)
            .field("layout", &self.layout)
            .field("key", &self.key.map(|_| "secret"))
            .finish()
    }
}
