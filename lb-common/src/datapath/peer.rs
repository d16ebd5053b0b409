//! Packets of flows and sessions that another node of the cluster has.
//!
//! ```text
//! ask     a packet of a flow that nobody here knows: in a tunnel to the next node of the ring
//! visit   what came out of a tunnel: known here, it goes on as if it had come in where its flow's packets do;
//!         else to the next node, or back to the one that asked, which does what it does with such packets
//! inquire a request of a session that nobody here knows: the packet becomes a question to the next node of the ring
//! reply   such a question: answered, or on to the next node; or its answer, with which the request goes on
//! ```
//! The packet carries with it all that has to be remembered: who asked, how many nodes are left, and the way to its sender, or
//! the flow that waits.

mod ask;
mod inquire;
mod reply;
mod visit;

pub(crate) use ask::run as ask;
pub(crate) use inquire::run as inquire;
pub(crate) use reply::{Asked, run as reply};
pub(crate) use visit::run as visit;

use super::count;
use super::scratch::{Packet, part};
use super::{Env, Verdict, frame, link};
use crate::abi::{Be16, Outcome, Peer, Settings, SettingsFlags, Visit, VlanTags};
use crate::packet::{Ipv4, Ipv4Header, Ipv6, Ipv6Header, Udp, protocol};

/// TTL and hop limit of outer headers.
const OUTER_TTL: u8 = 64;

/// Whether another node may know a packet that this one does not: once it has been asked, it does not.
#[inline(always)]
pub(crate) const fn may_know(settings: &Settings, packet: &Packet) -> bool {
    settings.flags & SettingsFlags::PEERS != 0 && packet.back == 0 && packet.part == part::WHOLE
}

/// Whether a packet to no service looks like one that another node does not know.
#[inline(always)]
pub(crate) fn is_visit<E: Env>(env: &E, settings: &Settings, packet: &Packet) -> bool {
    settings.flags & SettingsFlags::PEERS != 0
        && packet.protocol == protocol::UDP
        && packet.part == part::WHOLE
        && packet.back == 0
        && env.peer(0).is_some_and(|peer| peer.port.raw() == packet.destination_port.raw())
}

/// Bytes that are put in front of an IP packet.
#[inline(always)]
const fn overhead(v4: bool) -> usize {
    outer_len(v4) + Udp::LEN + Visit::LEN
}

#[inline(always)]
const fn outer_len(v4: bool) -> usize {
    if v4 { Ipv4::LEN } else { Ipv6::LEN }
}

/// Writes the headers down to the one of UDP, behind which the rest stands already, and sends.
///
/// `length` is what the UDP header speaks of.
#[inline(always)]
fn send<E: Env>(
    env: &E,
    settings: &Settings,
    peer: &Peer,
    (tags, tag_count): (&VlanTags, usize),
    (source_port, traffic_class, length): (Be16, u8, u16),
    outcome: Outcome,
) -> Verdict {
    let v4 = peer.address.is_v4();
    let l3 = link::header_len(tag_count);
    let written = link::write(env, &peer.hop.destination, &peer.hop.source, (tags, tag_count), v4)
        && outer(env, peer, l3, traffic_class, length).is_some()
        && ports(env, peer, l3 + outer_len(v4), source_port, length).is_some();
    if !written {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, peer.hop.ifindex);
    if verdict != Verdict::Drop {
        env.count(outcome);
    }
    verdict
}

#[inline(always)]
fn outer<E: Env>(env: &E, peer: &Peer, l3: usize, traffic_class: u8, length: u16) -> Option<()> {
    if peer.address.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.write_header(&Ipv4Header {
            tos: traffic_class,
            total_len: length + Ipv4::LEN as u16,
            ttl: OUTER_TTL,
            protocol: protocol::UDP,
            source: peer.source.v4_word(),
            destination: peer.address.v4_word(),
        });
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv6::new(p) }.write_header(&Ipv6Header {
            traffic_class,
            payload_len: length,
            next_header: protocol::UDP,
            hop_limit: OUTER_TTL,
            source: &peer.source,
            destination: &peer.address,
        });
    }
    Some(())
}

#[inline(always)]
fn ports<E: Env>(env: &E, peer: &Peer, l4: usize, source_port: Be16, length: u16) -> Option<()> {
    let p = frame::at(env, l4, Udp::LEN)?;
    // SAFETY: checked for the header.
    unsafe { Udp::new(p) }.write_header(source_port, peer.port, length);
    Some(())
}
