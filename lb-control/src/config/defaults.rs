//! What holds when a key is not given.

use core::time::Duration;
use lb_core::pool::Timeouts;

pub(super) use lb_common::abi::{
    DEFAULT_BINDINGS as BINDINGS, DEFAULT_FLOWS as FLOWS, DEFAULT_HOLDS as HELD,
};

/// Where `lbd` keeps what must survive a restart.
pub(super) const STATE_DIR: &str = "/var/lib/stickleback";
/// Socket of the admin API.
pub(super) const ADMIN_SOCKET: &str = "/run/stickleback/lbd.sock";
/// Where other nodes reach this one.
pub(super) const CLUSTER_LISTEN: &str = "[::]:7117";
/// How long announced addresses stay when nobody renews them.
pub(super) const ANNOUNCE_LIFETIME: Duration = crate::cluster::announce::LIFETIME;
/// The port that IANA assigned to GUE.
pub(super) const GUE_PORT: u16 = 6_080;
/// ICMP answers and resets a second.
pub(super) const ANSWER_RATE: u32 = 1_000;
/// New bindings of a source prefix per window; 0 = no limit.
pub(super) const PREFIX_QUOTA: u32 = 0;
/// Length of that window.
pub(super) const PREFIX_WINDOW: Duration = Duration::from_secs(10);
/// Bits of an IPv4 client address.
pub(super) const PREFIX_V4: u8 = 32;
/// Bits of an IPv6 client address: a subscriber is given a /64 at least (RFC 6177).
pub(super) const PREFIX_V6: u8 = 64;
/// Lifetime of a binding without traffic.
pub(super) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// New bindings of a service a second.
pub(super) const BINDING_RATE: u32 = 100_000;
/// Bytes of a request head that are looked at.
pub(super) const HEAD_LIMIT: u16 = 4_096;
/// Share of a backend.
pub(super) const WEIGHT: u32 = 1;

/// Lifetimes of flows: established TCP lasts beyond two hours (RFC 5382, REQ-5), UDP five minutes (RFC 4787, REQ-5).
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    tcp_half_open: Duration::from_secs(10),
    tcp_established: Duration::from_secs(150 * 60),
    tcp_closing: Duration::from_secs(60),
    tcp_reset: Duration::from_secs(10),
    udp_new: Duration::from_secs(30),
    udp_established: Duration::from_secs(5 * 60),
    request_head: Duration::from_secs(20),
    connect: Duration::from_secs(10),
};
