//! The connection id of a whole packet.

use crate::packet::quic::{Destination, LENGTH, is_long};

/// The destination connection id of a packet; of one with a short header, which does not say how long it is, all
/// bytes that it may have.
pub fn destination(packet: &[u8]) -> Option<&[u8]> {
    let found = if is_long(*packet.first()?) {
        Destination::in_long(packet.len(), *packet.get(LENGTH)?)
    } else {
        Destination::in_short(packet.len())
    };
    let Destination { offset, room } = found?;
    packet.get(offset..offset + room)
}
