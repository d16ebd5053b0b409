//! Traffic counters.

use lb_common::abi::Counters;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Counters since the data plane was first attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Packets towards backends.
    pub packets: u64,
    /// Bytes of those packets, from the IP header on, before encapsulation.
    pub bytes: u64,
    /// Packets from backends that were translated back (`nat` only).
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Bindings made.
    pub bindings: u64,
    /// Connections opened (TCP SYN, first UDP packet).
    pub connections: u64,
}

impl From<Counters> for Traffic {
    fn from(counters: Counters) -> Self {
        Self {
            packets: counters.packets,
            bytes: counters.bytes,
            reply_packets: counters.reply_packets,
            reply_bytes: counters.reply_bytes,
            bindings: counters.bindings,
            connections: counters.connections,
        }
    }
}
