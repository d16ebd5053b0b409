//! The program that asks the other nodes about a packet.

use super::{overhead, send};
use crate::abi::{Be16, Outcome, Visit, VlanTags};
use crate::datapath::{Env, Verdict, answer, count, frame, limits, link};
use crate::packet::{Ethernet, Udp, get, put};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let packet = unsafe { &(*scratch).packet };
    // As long as `lbd` has not said who the others are, one of them may know it: its sender tries again.
    let Some(peer) = env.peer(0).filter(|peer| peer.id != 0) else {
        return count::end(env, Outcome::Migrating);
    };
    if !link::is_resolved(&peer.hop) {
        return count::end(env, Outcome::NoHop);
    }
    let v4 = peer.address.is_v4();
    let (overhead, mtu) = (overhead(v4), peer.hop.mtu as usize);
    if packet.length as usize + overhead > mtu {
        return answer::too_big(env, packet, mtu.saturating_sub(overhead) as u32);
    }
    if !limits::may_ask(env, peer.rate) {
        return count::end(env, Outcome::AskLimited);
    }
    let Some(p) = frame::head(env, Ethernet::LEN) else { return count::end(env, Outcome::Malformed) };
    // SAFETY: checked for twelve bytes.
    let addresses: [u32; 3] = unsafe { [get(p), get(p.add(4)), get(p.add(8))] };
    let padding = frame::len(env).wrapping_sub(packet.l3 as usize + packet.length as usize);
    if padding != 0 && !env.adjust_tail(-(padding as i32)) {
        return count::end(env, Outcome::NoRoom);
    }
    let tags = link::tags(packet, peer.vlan);
    let l3 = link::header_len(tags.1);
    let growth = (l3 + overhead) as i32 - packet.l3 as i32;
    if !env.adjust_head(-growth) {
        return count::end(env, Outcome::NoRoom);
    }
    let at = l3 + overhead - Visit::LEN;
    let Some(p) = frame::at(env, at, Visit::LEN) else { return count::end(env, Outcome::NoRoom) };
    let left = peer.count.saturating_sub(1) as u8;
    let own = [(peer.own >> 32) as u32, peer.own as u32];
    let tag_words = words(&packet.tags);
    // SAFETY: checked for the whole of it.
    unsafe {
        put(p, Visit::VERSION);
        put(p.add(1), Visit::ASKS);
        put(p.add(2), left);
        put(p.add(3), 0_u8);
        put(p.add(4), env.ingress().to_be());
        put(p.add(8), own[0].to_be());
        put(p.add(12), own[1].to_be());
        put(p.add(16), addresses[0]);
        put(p.add(20), addresses[1]);
        put(p.add(24), addresses[2]);
        put(p.add(28), tag_words[0]);
        put(p.add(32), tag_words[1]);
        put(p.add(36), 0_u32);
    }
    // Clients' ports spread connections over paths and receive queues.
    let port = Be16::new(0xc000 | packet.source_port.host() & 0x3fff);
    let length = packet.length + (Udp::LEN + Visit::LEN) as u16;
    send(env, settings, peer, (&tags.0, tags.1), (port, packet.traffic_class, length), Outcome::Asked)
}

/// Tags as two words, as they lie in memory.
#[inline(always)]
fn words(tags: &VlanTags) -> [u32; 2] {
    let word = |a: Be16, b: Be16| (a.raw() as u32).to_le() | ((b.raw() as u32) << 16).to_le();
    [word(tags.outer[0], tags.outer[1]), word(tags.inner[0], tags.inner[1])]
}
