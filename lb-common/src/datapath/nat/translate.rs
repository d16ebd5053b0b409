//! Rewriting addresses and ports of a packet.

use super::super::scratch::{Packet, part};
use super::super::{Env, frame};
use crate::abi::{Addr, Be16};
use crate::packet::{Ipv4, Ipv6, Tcp, Udp, protocol};

/// Replaces source and destination; later fragments have no ports.
#[inline(always)]
pub(super) fn run<E: Env>(
    env: &E,
    packet: &Packet,
    (source, source_port): (&Addr, Be16),
    (destination, destination_port): (&Addr, Be16),
) -> Option<()> {
    let l3 = packet.l3 as usize;
    let addresses = if packet.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.set_addresses(source.v4_word(), destination.v4_word())
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv6::new(p) }.set_addresses(source, destination)
    };
    if packet.part == part::LATER {
        return Some(());
    }
    if packet.protocol == protocol::TCP {
        let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Tcp::new(p) }.set_ports(source_port, destination_port, addresses);
    } else {
        let p = frame::at(env, packet.l4 as usize, Udp::LEN)?;
        // SAFETY: checked for the header.
        unsafe { Udp::new(p) }.set_ports(source_port, destination_port, addresses);
    }
    Some(())
}
