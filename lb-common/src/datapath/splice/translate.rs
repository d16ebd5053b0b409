//! What a spliced flow's segments need besides new addresses: sequence numbers, selective acknowledgements, windows.
//!
//! The client counts the backend's bytes from the balancer's SYN cookie, `offset` behind the backend's own numbers. Its
//! own bytes have the same numbers on both sides.

use super::super::flow::Live;
use super::super::scratch::Packet;
use super::super::{Env, frame};
use crate::abi::{Flow, SpliceFlags};
use crate::packet::{Sum, Tcp, flag, get, put, unknown_zero};
use crate::splice::{window_to_backend, window_to_client};

/// Option kinds.
const END: u8 = 0;
const PADDING: u8 = 1;
const SACK: u8 = 5;
/// Options at most, each of two bytes or padding.
const MAX_OPTIONS: u32 = 40;
/// Edges of blocks in one option at most.
const MAX_EDGES: u32 = 8;

/// A client's segment, for its backend. Answers the change for the checksum, which is left to the caller; options mend it themselves.
#[inline(always)]
pub(crate) fn outbound<E: Env>(env: &E, packet: &Packet, live: &Live) -> Option<Sum> {
    let flow = live.flow();
    let offset = offset(flow);
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let mut change = Sum::ZERO;
    if packet.tcp_flags & flag::ACK != 0 {
        change = tcp.set_acknowledgement(tcp.acknowledgement().wrapping_add(offset));
    }
    if flow.server_scale == Flow::NO_SCALE {
        let window = window_to_backend(tcp.window(), flow.client_scale, flow.server_scale);
        change = change.plus(tcp.set_window(window));
    }
    let options = tcp.header_len();
    if options > Tcp::LEN {
        selective(env, packet, options, offset, flow.splice & SpliceFlags::SACK != 0);
    }
    Some(change)
}

/// A backend's segment, for its client. Answers the change for the checksum, which is left to the caller.
#[inline(always)]
pub(crate) fn inbound<E: Env>(env: &E, packet: &Packet, live: &Live) -> Option<Sum> {
    let flow = live.flow();
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let mut change = tcp.set_sequence(tcp.sequence().wrapping_sub(offset(flow)));
    if flow.server_scale != crate::splice::SCALE {
        let window = window_to_client(tcp.window(), flow.client_scale, flow.server_scale);
        change = change.plus(tcp.set_window(window));
    }
    Some(change)
}

/// What the backend's numbers are ahead of those that its client counts in.
#[inline(always)]
pub(crate) fn offset(flow: &Flow) -> u32 {
    flow.answer.wrapping_sub(flow.isn)
}

/// Moves the edges of selective acknowledgements by `offset`, or blanks them out where the backend did not permit any.
///
/// RFC 2018, and RFC 2883 for duplicates, whose block stands first and is moved like any other.
#[inline(never)]
fn selective<E: Env>(env: &E, packet: &Packet, header: usize, offset: u32, permitted: bool) {
    let l4 = packet.l4 as usize;
    let mut at = Tcp::LEN;
    let mut block = 0;
    env.repeat(MAX_OPTIONS, |_| {
        if at + 2 > header {
            return true;
        }
        let Some(p) = frame::at(env, l4 + at, 2) else { return true };
        // SAFETY: checked for two bytes.
        let (kind, len): (u8, u8) = unsafe { (get(p), get(p.add(1))) };
        let len = if kind == PADDING { 1 } else { len as usize };
        if kind == END || at + len > header || (len < 2 && kind != PADDING) {
            return true;
        }
        if kind == SACK {
            block = at | len << 8;
            return true;
        }
        // Inside the header, so below 64.
        at = (at + len + unknown_zero(kind)) & 0x3f;
        false
    });
    let (at, len) = (block & 0x3f, block >> 8);
    if block == 0 {
        return;
    }
    let change = if permitted { moved(env, l4 + at, len, offset) } else { blanked(env, l4, at, len) };
    let Some(p) = frame::at(env, l4, Tcp::LEN) else { return };
    // An edge at an odd place adds to the sum with its bytes swapped.
    let change = if permitted && at & 1 != 0 { change.swapped() } else { change };
    // SAFETY: checked for the fixed header.
    unsafe { Tcp::new(p) }.changed(change);
}

/// Adds `offset` to the edges behind kind and length; answers the change, as if they stood at an even place.
#[inline(always)]
fn moved<E: Env>(env: &E, option: usize, len: usize, offset: u32) -> Sum {
    let edges = (len.wrapping_sub(2) / 4) as u32;
    let mut change = Sum::ZERO;
    env.repeat(if edges < MAX_EDGES { edges } else { MAX_EDGES }, |i| {
        let Some(p) = frame::at(env, option + 2 + (i as usize & 7) * 4, 4) else { return true };
        // SAFETY: checked for four bytes.
        let old: u32 = unsafe { get(p) };
        let new = u32::from_be(old).wrapping_add(offset).to_be();
        // SAFETY: checked for four bytes.
        unsafe { put(p, new) };
        change = change.replace32(old, new);
        false
    });
    change
}

/// Overwrites the option with padding; answers the change.
#[inline(always)]
fn blanked<E: Env>(env: &E, l4: usize, at: usize, len: usize) -> Sum {
    let mut change = Sum::ZERO;
    env.repeat(len as u32 & 0x3f, |i| {
        let place = at + (i as usize & 0x3f);
        let Some(p) = frame::at(env, l4 + place, 1) else { return true };
        // SAFETY: checked for one byte.
        let old: u8 = unsafe { get(p) };
        // SAFETY: checked for one byte.
        unsafe { put(p, PADDING) };
        let word = |byte: u8| if place & 1 == 0 { [byte, 0] } else { [0, byte] };
        change = change.replace16(u16::from_ne_bytes(word(old)), u16::from_ne_bytes(word(PADDING)));
        false
    });
    change
}

#[cfg(test)]
mod tests;
