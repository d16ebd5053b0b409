//! The program that asks the other nodes for the backend of a request's session.

use super::{outer_len, send};
use crate::abi::{Be16, Outcome, Peer, Question, Visit, program};
use crate::datapath::scratch::Scratch;
use crate::datapath::{Env, Verdict, count, frame, limits, link, splice};
use crate::packet::{Udp, put};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &*scratch };
    let ready = env.peer(0).filter(|peer| peer.id != 0 && link::is_resolved(&peer.hop));
    let Some(peer) = ready.filter(|peer| limits::may_inquire(env, peer.rate, env.now())) else {
        // Nobody can be asked now: this node decides.
        return env.tail(program::CONNECT);
    };
    let packet = &scratch.packet;
    let tags = link::tags(packet, peer.vlan);
    let at = link::header_len(tags.1) + outer_len(peer.address.is_v4()) + Udp::LEN;
    // The request is in its hold: all of the frame is written over.
    if !splice::make_room(env, at + Question::LEN) || write(env, scratch, peer, at).is_none() {
        return count::end(env, Outcome::NoRoom);
    }
    // Sessions spread over paths and receive queues.
    let port = Be16::new(0xc000 | scratch.session as u16 & 0x3fff);
    let about = (port, packet.traffic_class, (Udp::LEN + Question::LEN) as u16);
    send(env, settings, peer, (&tags.0, tags.1), about, Outcome::SessionAsked)
}

/// Writes the question.
#[inline(always)]
fn write<E: Env>(env: &E, scratch: &Scratch, peer: &Peer, at: usize) -> Option<()> {
    let p = frame::at(env, at, Question::LEN)?;
    let packet = &scratch.packet;
    let left = peer.count.saturating_sub(1) as u8;
    // SAFETY: checked for the whole of it.
    let word = |offset: usize, value: u32| unsafe { put(p.add(offset), value) };
    let pair = |offset: usize, value: u64| {
        word(offset, ((value >> 32) as u32).to_be());
        word(offset + 4, (value as u32).to_be());
    };
    word(0, u32::from_be_bytes([Visit::VERSION, Question::ASKS, left, 0]).to_be());
    word(4, scratch.pool.to_be());
    pair(8, peer.own);
    pair(16, scratch.session);
    pair(24, 0);
    word(32, ((packet.length as u32) << 16).to_be());
    word(36, packet.source_port.raw() as u32 | (packet.destination_port.raw() as u32) << 16);
    let mut i = 0;
    while i < 4 {
        word(40 + i * 4, packet.source.0[i]);
        word(56 + i * 4, packet.destination.0[i]);
        i += 1;
    }
    Some(())
}
