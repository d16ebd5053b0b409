//! Held bytes on their way to the backend.

use super::hold::Held;
use crate::abi::{Filling, Flow, HOLD_FRONT, HOLD_LEN, HOLD_SLACK, Hold, HoldFlags, Outcome, Settings};
use crate::datapath::{Env, Verdict, count, frame, link};
use crate::packet::{Ipv4, Ipv6, Sum, Tcp, flag, get, opaque_offset};

/// Bytes that are summed up at once: as many as older kernels take.
const ROUND: u32 = 512;
/// Behind the last byte of a hold's front and stream.
const END: u32 = (HOLD_FRONT + HOLD_LEN) as u32;

/// Bytes in a segment that every host takes and every way has room for (RFC 9293 section 3.7.1).
pub(crate) const LEAST_V4: u16 = 536;
/// The same over IPv6.
pub(crate) const LEAST_V6: u16 = 1_220;

/// Held bytes that go in one packet.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    /// Position of the first one.
    pub(crate) from: u32,
    /// How many.
    pub(crate) len: u32,
    /// Their folded sum.
    pub(crate) sum: u32,
    /// Whether the client's FIN follows them.
    pub(crate) fin: bool,
}

impl Chunk {
    /// Flags of a segment that carries them.
    #[inline(always)]
    pub(crate) const fn flags(&self) -> u8 {
        let push = if self.len != 0 { flag::PSH } else { 0 };
        flag::ACK | push | if self.fin { flag::FIN } else { 0 }
    }
}

/// Bytes that fit a packet to the backend: its MSS, and the MTU of the way.
#[inline(always)]
pub(crate) fn room(held: &Held, mtu: u16, v4: bool) -> u32 {
    let headers = Tcp::LEN + if v4 { Ipv4::LEN } else { Ipv6::LEN };
    let fits = (mtu as u32).saturating_sub(headers as u32);
    let mss = held.get().mss as u32;
    let room = if mss != 0 && mss < fits { mss } else { fits };
    if room < HOLD_SLACK as u32 { room } else { HOLD_SLACK as u32 }
}

/// The sequence number that a chunk has.
#[inline(always)]
pub(crate) fn sequence(held: &Held, chunk: &Chunk, flow: &Flow) -> u32 {
    flow.start.wrapping_sub(held.get().front).wrapping_add(chunk.from)
}

/// What has not been sent, at most `room` bytes of it.
#[inline(always)]
pub(crate) fn next<E: Env>(env: &E, held: &Held, room: u32) -> Chunk {
    chunk(env, held, held.get().sent, room)
}

/// What has not been acknowledged, at most `room` bytes of it.
#[inline(always)]
pub(crate) fn again<E: Env>(env: &E, held: &Held, room: u32) -> Chunk {
    chunk(env, held, held.get().acknowledged, room)
}

#[inline(always)]
fn chunk<E: Env>(env: &E, held: &Held, from: u32, room: u32) -> Chunk {
    let hold = held.get();
    let end = hold.front.wrapping_add(hold.len);
    let left = end.saturating_sub(from);
    let len = if left < room { left } else { room };
    let whole = hold.front | from == 0 && len == hold.len;
    let sum = if whole { hold.sum } else { sum(env, held.as_ptr(), place(hold, from), len) };
    let fin = from.wrapping_add(len) == end && hold.flags & HoldFlags::FIN != 0;
    Chunk { from, len, sum, fin }
}

/// Notes how far the backend has got; `acknowledgement` as its segment has it.
#[inline(always)]
pub(crate) fn acknowledge(held: &mut Held, acknowledgement: u32, flow: &Flow) {
    let start = flow.start;
    let hold = held.get_mut();
    let position = acknowledgement.wrapping_sub(start.wrapping_sub(hold.front));
    // What follows the held bytes is acknowledged with them: a FIN, or what the client has sent since.
    if position.wrapping_sub(hold.acknowledged) as i32 > 0 {
        hold.acknowledged = if position < hold.sent { position } else { hold.sent };
        hold.flags &= !HoldFlags::AGAIN;
    }
}

/// Notes that what the backend has not acknowledged is to be sent again. At the second time, it goes in packets that pass
/// any router: nobody tells the balancer that a larger one did not.
#[inline(always)]
pub(crate) fn repeated(held: &mut Held, v4: bool) {
    let hold = held.get_mut();
    let least = if v4 { LEAST_V4 } else { LEAST_V6 };
    if hold.flags & HoldFlags::AGAIN != 0 && (hold.mss == 0 || hold.mss > least) {
        hold.mss = least;
    }
    hold.flags |= HoldFlags::AGAIN;
}

/// Whether the backend has acknowledged all that it was sent, and there is more.
#[inline(always)]
pub(crate) fn waits(held: &Held) -> bool {
    let hold = held.get();
    !sent(held) && hold.acknowledged >= hold.sent
}

/// Whether the backend has yet to acknowledge bytes that the client cannot send again.
#[inline(always)]
pub(crate) fn kept(held: &Held) -> bool {
    let hold = held.get();
    hold.acknowledged < hold.front.wrapping_add(hold.owned)
}

/// Whether everything was sent.
#[inline(always)]
pub(crate) fn sent(held: &Held) -> bool {
    let hold = held.get();
    hold.sent >= hold.front.wrapping_add(hold.len)
}

/// Whether the hold is of no use any more: everything was sent, and the client can send again what may get lost.
#[inline(always)]
pub(crate) fn done(held: &Held) -> bool {
    sent(held) && !kept(held)
}

/// Puts a chunk behind the headers, which are final, and sends the frame.
///
/// `at` is where the payload begins. A frame that cannot grow here is left to the program at the ingress of the stack.
#[inline(always)]
pub(crate) fn put<E: Env>(
    env: &E,
    settings: &Settings,
    held: &mut Held,
    chunk: &Chunk,
    (at, ifindex): (u32, u32),
    last: bool,
) -> Verdict {
    let behind = chunk.from.wrapping_add(chunk.len);
    let hold = held.get_mut();
    if behind > hold.sent {
        hold.sent = behind;
    }
    let verdict = write(env, settings, held, chunk, (at, ifindex), last);
    // What is left to the program that appends the bytes, that one counts.
    if verdict != Verdict::Drop && verdict != Verdict::Pass {
        env.count(Outcome::TurnedRound);
    }
    verdict
}

/// Gives the hold back from which a chunk was put: for good when it was the `last` one.
#[inline(always)]
pub(crate) fn leave<E: Env>(env: &E, held: Held, last: bool, verdict: Verdict) -> Verdict {
    // The program that appends the bytes frees the hold itself.
    if last && verdict != Verdict::Pass {
        held.free(env);
    } else {
        held.unlock(env);
    }
    verdict
}

#[inline(always)]
fn write<E: Env>(
    env: &E,
    settings: &Settings,
    held: &Held,
    chunk: &Chunk,
    (at, ifindex): (u32, u32),
    last: bool,
) -> Verdict {
    let now = frame::len(env) as u32;
    let growth = at.wrapping_add(chunk.len).wrapping_sub(now) as i32;
    if growth != 0 && !env.adjust_tail(growth) {
        // Nothing but headers may be in front of what is appended.
        let excess = at.wrapping_sub(now) as i32;
        let filling = Filling {
            magic: Filling::MAGIC,
            hold: held.number.wrapping_sub(1),
            nonce: held.nonce(),
            from: chunk.from as u16,
            len: chunk.len as u16,
            ifindex,
            last: last as u32,
        };
        let left = (excess == 0 || env.adjust_tail(excess)) && env.leave_to_fill(&filling);
        return if left { Verdict::Pass } else { count::end(env, Outcome::NoRoom) };
    }
    if chunk.len != 0 && !store(env, held.as_ptr(), place(held.get(), chunk.from), at, chunk.len) {
        return count::end(env, Outcome::NoRoom);
    }
    link::transmit(env, settings, ifindex)
}

/// Copies held bytes into the frame.
#[inline(always)]
fn store<E: Env>(env: &E, hold: *mut Hold, place: u32, at: u32, len: u32) -> bool {
    let place = opaque_offset(place as usize);
    let len = opaque_offset(len as usize);
    if place >= END as usize || len == 0 || len > HOLD_SLACK {
        return false;
    }
    // SAFETY: front, stream and slack stand behind each other, so that the slack's length can be read from any place.
    unsafe { env.store(at, (&raw const (*hold).head).cast::<u8>().add(place), len as u32) }
}

/// Place of a position, from the beginning of the front's room.
#[inline(always)]
pub(crate) const fn place(hold: &Hold, position: u32) -> u32 {
    (HOLD_FRONT as u32).wrapping_sub(hold.front).wrapping_add(position)
}

/// Folded sum of `len` held bytes from `place` on, as if they began at an even place.
#[inline(never)]
pub(crate) fn sum<E: Env>(env: &E, hold: *mut Hold, place: u32, len: u32) -> u32 {
    let mut total = Sum::ZERO;
    let sum = &mut total;
    env.repeat(len / ROUND, move |i| {
        *sum = sum.plus(words(env, hold, place.wrapping_add(i.wrapping_mul(ROUND)), ROUND));
        false
    });
    let rest = len % ROUND;
    let at = place.wrapping_add(len - rest);
    let whole = rest & !3;
    total.plus(words(env, hold, at, whole)).plus(last(hold, at.wrapping_add(whole), rest & 3)).folded() as u32
}

/// Sum of so many bytes, a multiple of four up to a round.
#[inline(always)]
fn words<E: Env>(env: &E, hold: *mut Hold, place: u32, len: u32) -> Sum {
    let (Some(start), len) = (from(hold, place), opaque_offset(len as usize)) else { return Sum::ZERO };
    if len > ROUND as usize {
        return Sum::ZERO;
    }
    // SAFETY: a round fits into the slack.
    Sum::ZERO.add32(unsafe { env.sum(start, len as u32) })
}

/// Sum of the last, at most three bytes.
#[inline(always)]
fn last(hold: *mut Hold, place: u32, len: u32) -> Sum {
    let Some(start) = from(hold, place) else { return Sum::ZERO };
    // SAFETY: inside the slack.
    let word: u32 = unsafe { get(start) };
    let mask = u32::from_le((1_u32 << (8 * len)).wrapping_sub(1));
    Sum::ZERO.add32(word & mask)
}

/// The bytes from a place on, of which a round can be read from any place, for the slack.
#[inline(always)]
fn from(hold: *mut Hold, place: u32) -> Option<*const u8> {
    let place = opaque_offset(place as usize);
    if place >= END as usize {
        return None;
    }
    // SAFETY: inside front and stream.
    Some(unsafe { (&raw const (*hold).head).cast::<u8>().add(place) })
}

#[cfg(test)]
mod tests;
