//! Views of packet headers: checked once, then read and rewritten in place.
//!
//! A view holds a pointer into the frame; it is only made by the frame's own bounds check, and is
//! dead once the frame is resized.

mod checksum;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod memory;
pub(crate) mod quic;
mod tcp;
mod udp;
mod view;

pub(crate) use checksum::Sum;
pub(crate) use ethernet::{Ethernet, ethertype};
pub(crate) use icmp::{Icmp, icmp4, icmp6};
pub(crate) use ipv4::{Ipv4, Ipv4Header};
pub(crate) use ipv6::{Ipv6, Ipv6Header, extension};
pub(crate) use memory::{get, opaque, opaque_offset, put, unknown_zero};
pub(crate) use tcp::{Tcp, TcpHeader, flag};
pub(crate) use udp::Udp;

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPIP: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ICMPV6: u8 = 58;
}
