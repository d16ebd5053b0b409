//! How packets of health checks take the way of the traffic.

use super::{Addr, Be16};

/// High half of the mark of packets that belong to health checks; the low half is the place of their [`ProbeWay`].
pub const PROBE_MARK: u32 = 0x5b1c_0000;
/// Places of ways.
pub const PROBE_WAYS: u32 = 65_536;
/// Probes that are remembered for the sake of their answers.
pub const PROBE_ANSWERS: u32 = 65_536;

/// What is put around a packet.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProbeEnvelope {
    /// Nothing: only the destination becomes the service's (`l2`).
    Plain = 1,
    /// An IP header (`ipip`).
    Ip = 2,
    /// IP and UDP headers (`gue`).
    IpUdp = 3,
}

/// Where a backend's probes go.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProbeWay {
    /// The service's address, which takes the place of the destination.
    pub vip: Addr,
    /// The backend's own address, which the socket is connected to.
    pub backend: Addr,
    /// Source of the outer header, of the backend's family; all zero = that of the packet.
    pub source: Addr,
    /// Where the backend is of another family than the service: the balancer's own address of the service's family, as which it asks.
    /// All zero: they are of one.
    pub inner: Addr,
    /// A [`ProbeEnvelope`]; 0 = nobody's place.
    pub envelope: u32,
    /// UDP destination port of `gue`.
    pub gue_port: u32,
}

/// What the answer to a probe looks like.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ProbeKey {
    /// The service's address.
    pub vip: Addr,
    /// The port there; 0 for pings.
    pub port: Be16,
    /// The balancer's port, or the id of a ping.
    pub own_port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What an answer becomes before the stack looks at it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProbeAnswer {
    /// Its source: the backend's own address.
    pub backend: Addr,
    /// Its destination, where that is of another family than the answer: the address of the probe's socket. All zero: it stays.
    pub own: Addr,
}

super::pod!(ProbeWay: 72, ProbeKey: 24, ProbeAnswer: 32);
