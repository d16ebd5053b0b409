//! Putting a segment's bytes behind those that are held.

use super::super::hold::{self, Held};
use super::super::release;
use super::Arrived;
use crate::abi::{HOLD_FRONT, HOLD_LEN, HOLD_SLACK, Hold, Settings};
use crate::datapath::scratch::Packet;
use crate::datapath::{Env, frame};
use crate::packet::{Sum, Tcp, get, opaque_offset};

/// Takes what is new of a segment that is in order, as far as there is room. Whether there was, and the segment was whole.
///
/// Nobody behind the balancer can find an error in bytes that it acknowledged, so the checksum is verified here.
#[inline(always)]
pub(in super::super) fn run<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    segment: &Arrived,
    held: &mut Held,
) -> bool {
    let hold = held.as_ptr();
    let (start, len) = (held.get().start, held.get().len);
    let known = start.wrapping_add(len).wrapping_sub(segment.sequence);
    let room = (HOLD_LEN as u32).saturating_sub(len);
    let new = segment.len.wrapping_sub(known);
    let taken = if new < room { new } else { room };
    if taken == 0 || !load(env, hold, segment.at.wrapping_add(known), len, taken) {
        return false;
    }
    let sum = release::sum(env, hold, HOLD_FRONT as u32 + len, taken);
    let covered = if known == 0 && taken == segment.len {
        sum
    } else {
        // Only a part of it is taken, but the checksum is over all of it.
        whole(env, settings, segment, held)
    };
    if covered == NOTHING || !intact(env, packet, segment, covered) {
        return false;
    }
    let hold = held.get_mut();
    hold.sum = joined(hold.sum, sum, len);
    hold.len = len.wrapping_add(taken);
    true
}

/// Copies a part of the frame to a place of the stream.
#[inline(always)]
fn load<E: Env>(env: &E, hold: *mut Hold, at: u32, place: u32, len: u32) -> bool {
    let (place, len) = (opaque_offset(place as usize), opaque_offset(len as usize));
    if place >= HOLD_LEN || len == 0 || len > HOLD_SLACK {
        return false;
    }
    // SAFETY: the slack lets its length be written at any place.
    unsafe { env.load(at, (&raw mut (*hold).bytes).cast::<u8>().add(place), len as u32) }
}

/// No sum: sums are folded.
const NOTHING: u32 = u32::MAX;

/// Sum of the segment's whole payload, taken in this CPU's own hold.
#[inline(never)]
fn whole<E: Env>(env: &E, settings: &Settings, segment: &Arrived, held: &Held) -> u32 {
    if held.number <= settings.cpu_holds {
        return NOTHING;
    }
    let Some(own) = hold::own(env, settings, held.get().flow) else { return NOTHING };
    let loaded = load(env, own.as_ptr(), segment.at, 0, segment.len);
    let sum = release::sum(env, own.as_ptr(), HOLD_FRONT as u32, segment.len);
    own.free(env);
    if loaded { sum } else { NOTHING }
}

/// The sum of bytes behind `len` others, whose sum is `first`.
#[inline(always)]
const fn joined(first: u32, second: u32, len: u32) -> u32 {
    // At an odd place the bytes of each word change places.
    let second = if len & 1 == 0 { second } else { (second as u16).swap_bytes() as u32 };
    let sum = first.wrapping_add(second);
    (sum & 0xffff) + (sum >> 16)
}

/// Whether the segment is as it was sent: header, addresses and payload add up. What IPv4 addresses are mapped by
/// adds nothing: 0xffff is a zero.
#[inline(never)]
fn intact<E: Env>(env: &E, packet: &Packet, segment: &Arrived, payload: u32) -> bool {
    let l4 = packet.l4 as u32;
    let header = segment.at.wrapping_sub(l4);
    let mut sum = Sum::ZERO
        .add32(payload)
        .add_words(&packet.source.0)
        .add_words(&packet.destination.0)
        .add16((header.wrapping_add(segment.len) as u16).to_be())
        .add16((packet.protocol as u16).to_be());
    let Some(p) = frame::at(env, l4 as usize, Tcp::LEN) else { return false };
    let mut i = 0;
    while i < Tcp::LEN {
        // SAFETY: checked for the fixed header.
        sum = sum.add32(unsafe { get(p.add(i)) });
        i += 4;
    }
    // Most segments with data have no options: the balancer agrees to none that they carry.
    if header > Tcp::LEN as u32 {
        let options = l4.wrapping_add(Tcp::LEN as u32);
        let total = &mut sum;
        env.repeat((header - Tcp::LEN as u32) / 4, move |i| {
            let Some(p) = frame::at(env, options.wrapping_add(i.wrapping_mul(4)) as usize, 4) else {
                return true;
            };
            // SAFETY: checked for a word.
            *total = total.add32(unsafe { get(p) });
            false
        });
    }
    sum.folded() == 0xffff
}

#[cfg(test)]
mod tests;
