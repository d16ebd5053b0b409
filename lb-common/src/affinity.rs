//! Session keys: what of a packet says whose it is.

pub mod bytes;
pub mod head;
pub mod pair;
pub mod path;
pub mod payload;
pub mod quic;
pub mod request;
pub mod response;
pub mod route;
pub mod segment;
mod siphash;
pub mod text;
pub mod ticket;

pub use bytes::{Bytes, Held, Slice, Span};
pub use siphash::siphash;

use crate::abi::{Addr, FlowKey};

/// The key of a client's address, cut to a prefix of `v4` or `v6` bits.
///
/// At most 64 bits stand as they are, so that a switch can match them; longer IPv6 prefixes are hashed
/// under the cluster's secret.
#[inline(always)]
pub fn source(address: &Addr, v4: u8, v6: u8, secret: &[u64; 2]) -> u64 {
    if address.is_v4() {
        let host = u32::from_be(address.v4_word());
        return (host & prefix_mask(v4 as u32, 32) as u32) as u64;
    }
    let (upper, lower) = halves(address);
    if v6 <= 64 {
        return upper & prefix_mask(v6 as u32, 64);
    }
    let lower = lower & prefix_mask(v6 as u32 - 64, 64);
    siphash(secret, &[upper.swap_bytes(), lower.swap_bytes()], 0, 16)
}

/// The key of a connection: the hash of its 5-tuple under the cluster's secret.
#[inline(always)]
pub fn connection(key: &FlowKey, secret: &[u64; 2]) -> u64 {
    let words = |a: &Addr| [pair(a.0[0], a.0[1]), pair(a.0[2], a.0[3])];
    let (s, d) = (words(&key.source), words(&key.destination));
    let tail = key.source_port.raw() as u64
        | (key.destination_port.raw() as u64) << 16
        | (key.protocol as u64) << 32;
    siphash(secret, &[s[0], s[1], d[0], d[1]], tail, 37)
}

/// Upper and lower half of an address as numbers.
#[inline(always)]
fn halves(address: &Addr) -> (u64, u64) {
    let half = |a: u32, b: u32| (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64;
    (half(address.0[0], address.0[1]), half(address.0[2], address.0[3]))
}

/// Two words as eight bytes in memory order, read as a little-endian number.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// A mask of the upper `len` of `width` bits.
#[inline(always)]
const fn prefix_mask(len: u32, width: u32) -> u64 {
    if len == 0 || len > width { 0_u64.wrapping_sub((len > width) as u64) } else { u64::MAX << (width - len) }
}

#[cfg(test)]
mod tests;
