//! What holds when a key is not given.

use core::num::NonZero;
use core::time::Duration;
use lb_core::health::Policy;
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
/// Sessions that are moved a second where nobody waits for it.
pub(super) const DRAIN_RATE: u32 = 10_000;
/// Bits of an IPv4 client address.
pub(super) const PREFIX_V4: u8 = 32;
/// Bits of an IPv6 client address: a subscriber is given a /64 at least (RFC 6177).
pub(super) const PREFIX_V6: u8 = 64;
/// Lifetime of a binding without traffic.
pub(super) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// New bindings of a service a second.
pub(super) const BINDING_RATE: u32 = 100_000;
/// Age from which on connections are mirrored, where they are.
pub(super) const MIRROR_AGE: Duration = Duration::from_secs(2);
/// Bytes of a request head that are looked at.
pub(super) const HEAD_LIMIT: u16 = 4_096;
/// Share of a backend.
pub(super) const WEIGHT: u32 = 1;

/// Health checks: a backend that dies is out within 0.9 s, by two failures in a row.
pub(super) const HEALTH: Policy = Policy {
    interval: Duration::from_millis(400),
    fast: Duration::from_millis(50),
    slow: Duration::from_secs(2),
    timeout: Duration::from_millis(200),
    rise: NonZero::new(2).expect("not zero"),
    fall: NonZero::new(2).expect("not zero"),
    jitter: 10,
};
/// The same by a program, whose start alone costs milliseconds.
pub(super) const HEALTH_COMMAND: Policy = Policy {
    interval: Duration::from_secs(5),
    fast: Duration::from_secs(1),
    slow: Duration::from_secs(10),
    timeout: Duration::from_secs(2),
    ..HEALTH
};
/// Percentage of healthy backends below which all are used: when none is.
pub(super) const MINIMUM_HEALTHY: u8 = 1;
/// Percentage of backends that connections alone may take out.
pub(super) const MAX_EJECTED: u8 = 50;
/// How long a session is without traffic before it may go back.
pub(super) const FAILBACK_IDLE: Duration = Duration::from_secs(5 * 60);
/// Codes of answers that pass.
pub(super) const HEALTH_STATUS: &str = "200-399";

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

/// Where a switch's P4Runtime server listens, by the port that is registered for it.
pub(super) const SWITCH_ADDRESS: &str = "127.0.0.1:9559";
