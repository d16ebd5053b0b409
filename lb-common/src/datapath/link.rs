//! The link layer of an outgoing frame.

use super::scratch::Packet;
use super::{Env, Verdict, frame};
use crate::abi::{Be16, Hop, Mac, Settings, SettingsFlags, VLAN_KEEP, VLAN_NONE, VlanTags};
use crate::packet::{Ethernet, ethertype, get};

/// The tags that a frame leaves with.
#[inline(always)]
pub(crate) fn tags(packet: &Packet, vlan: u16) -> (VlanTags, usize) {
    match vlan {
        VLAN_KEEP => (packet.tags, packet.tag_count()),
        VLAN_NONE => (VlanTags::default(), 0),
        id => (VlanTags { outer: [ethertype::VLAN, Be16::new(id & 0x0fff)], inner: [Be16::default(); 2] }, 1),
    }
}

/// Length of Ethernet header and tags.
#[inline(always)]
pub(crate) const fn header_len(tag_count: usize) -> usize {
    Ethernet::LEN + tag_count * Ethernet::TAG
}

/// Writes addresses, tags and EtherType at the start of the frame. Whether the frame was long enough.
#[inline(always)]
pub(crate) fn write<E: Env>(
    env: &E,
    destination: &Mac,
    source: &Mac,
    (tags, count): (&VlanTags, usize),
    v4: bool,
) -> bool {
    let kind = if v4 { ethertype::IPV4 } else { ethertype::IPV6 };
    let Some(p) = frame::head(env, Ethernet::LEN) else { return false };
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    ethernet.set_addresses(destination, source);
    if count == 0 {
        ethernet.set_field(12, kind);
        return true;
    }
    let Some(p) = frame::head(env, header_len(1)) else { return false };
    // SAFETY: checked for one tag.
    let ethernet = unsafe { Ethernet::new(p) };
    ethernet.set_field(12, tags.outer[0]);
    ethernet.set_field(14, tags.outer[1]);
    if count == 1 {
        ethernet.set_field(16, kind);
        return true;
    }
    let Some(p) = frame::head(env, header_len(2)) else { return false };
    // SAFETY: checked for two tags.
    let ethernet = unsafe { Ethernet::new(p) };
    ethernet.set_field(16, tags.inner[0]);
    ethernet.set_field(18, tags.inner[1]);
    ethernet.set_field(20, kind);
    true
}

/// Sends the frame out of an interface.
#[inline(always)]
pub(crate) fn transmit<E: Env>(env: &E, settings: &Settings, ifindex: u32) -> Verdict {
    if ifindex != env.ingress() {
        return env.redirect(ifindex);
    }
    back(env, settings)
}

/// Sends the frame out of the interface that the packet came in on.
#[inline(always)]
pub(crate) fn back<E: Env>(env: &E, settings: &Settings) -> Verdict {
    if settings.flags & SettingsFlags::TX_BY_REDIRECT != 0 {
        env.redirect(env.ingress())
    } else {
        Verdict::Tx
    }
}

/// Whether the next hop's MAC is known.
#[inline(always)]
pub(crate) fn is_resolved(hop: &Hop) -> bool {
    let mac = hop.destination.0.as_ptr();
    // SAFETY: a MAC is six bytes.
    unsafe { get::<u32>(mac) != 0 || get::<u16>(mac.add(4)) != 0 }
}
