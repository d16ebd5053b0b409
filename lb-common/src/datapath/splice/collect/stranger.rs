//! Segments without a flow: all that is known of their connection is the cookie that they acknowledge.

use super::super::UNSOUGHT;
use super::open::{self, Unmade};
use super::{Arrived, Way, back};
use crate::abi::{Affinity, FlowRef, FlowState, Outcome, Service, SettingsFlags, program};
use crate::datapath::scratch::{Packet, to_service};
use crate::datapath::{Env, Verdict, answer, count, entry, flow, frame, peer};
use crate::packet::{flag, get};
use crate::splice::{Proof, SynCookie, wanted};

#[inline(always)]
pub(super) fn run<E: Env>(env: &E, way: &Way<'_>, service: &Service, segment: &Arrived) -> Verdict {
    if segment.has(flag::RST) {
        return ask_or(env, way, Outcome::GivenUp);
    }
    if segment.flags & (flag::SYN | flag::ACK) != flag::ACK {
        return answer::reset(env, way.packet, Outcome::GivenUp);
    }
    match if is_unsought(env) { Proof::First } else { judge(env, way, segment, 0, 0) } {
        Proof::First if may_be_another(env, way, service, segment) => {
            if is_unsought(env) {
                entry::to_nat(env, to_service::TAKEN)
            } else {
                env.tail(program::ASK)
            }
        }
        Proof::First if segment.len != 0 => match open::run(env, way, service, segment) {
            Ok(verdict) => verdict,
            // There may be a flow after all; if not, the segment comes back here.
            Err(_) if is_unsought(env) => entry::to_nat(env, to_service::TAKEN),
            Err(Unmade::Full) => answer::refuse(env),
            Err(Unmade::Lost(outcome)) => count::end(env, outcome),
        },
        Proof::First if segment.has(flag::FIN) => {
            let numbers = (segment.acknowledgement, segment.sequence.wrapping_add(1));
            back(env, way, numbers, window(way, segment), flag::FIN | flag::ACK, Outcome::IdleAnswered)
        }
        Proof::First => count::end(env, Outcome::HandshakeDone),
        Proof::Early | Proof::Wrong if is_last(env, way, segment) => count::end(env, Outcome::HandshakeDone),
        Proof::Early => early(env, way, segment),
        Proof::Wrong => wrong(env, way),
    }
}

/// Whether the segment has data and has been found to begin a connection, but its flow has not been looked for in the index. Read
/// each time for the sake of the stack.
#[inline(always)]
fn is_unsought<E: Env>(env: &E) -> bool {
    // SAFETY: this CPU's own scratch.
    env.scratch().is_some_and(|scratch| unsafe { (*scratch).flow } == UNSOUGHT)
}

/// Whether a segment with a right cookie may all the same belong to a connection of another node.
///
/// Of the segments that follow little more than the SYN-ACK, as those of an upload do, one in 8,192 has the cookie's tags by chance.
/// What begins like a request is one; of everything else the others are asked first.
#[inline(always)]
fn may_be_another<E: Env>(env: &E, way: &Way<'_>, service: &Service, segment: &Arrived) -> bool {
    if !peer::may_know(way.settings, way.packet) || (segment.len == 0 && !segment.has(flag::FIN)) {
        return false;
    }
    service.affinity != Affinity::HttpCookie as u8 || !begins_request(env, segment)
}

/// Whether the payload begins with one of the usual methods.
#[inline(always)]
fn begins_request<E: Env>(env: &E, segment: &Arrived) -> bool {
    const METHODS: [&[u8; 4]; 7] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC"];
    if segment.len < 4 {
        return false;
    }
    let Some(p) = frame::at(env, segment.at as usize, 4) else { return false };
    // SAFETY: checked for four bytes.
    let word: u32 = unsafe { get(p) };
    let mut found = false;
    let mut i = 0;
    while i < METHODS.len() {
        found |= word == u32::from_ne_bytes(*METHODS[i]);
        i += 1;
    }
    found
}

/// Whether it is the last acknowledgement of a connection without a request, where both FINs count.
#[inline(always)]
fn is_last<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived) -> bool {
    let last = 1_u32.wrapping_neg();
    segment.len == 0 && !segment.has(flag::FIN) && judge(env, way, segment, last, last) == Proof::First
}

/// A segment that does not follow the SYN: ahead of the first one, behind a head that took too long, or a sign of life.
#[inline(always)]
fn early<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived) -> Verdict {
    if took_too_long(env, way.packet) {
        return answer::reset(env, way.packet, Outcome::GivenUp);
    }
    if peer::may_know(way.settings, way.packet) {
        return env.tail(program::ASK);
    }
    // A keep-alive probe (RFC 1122 section 4.2.3.6) repeats the number before the first one.
    if segment.len <= 1 && !segment.has(flag::FIN) && judge(env, way, segment, 1, 0) == Proof::First {
        let numbers = (segment.acknowledgement, segment.sequence.wrapping_add(1));
        return back(env, way, numbers, window(way, segment), flag::ACK, Outcome::IdleAnswered);
    }
    count::end(env, Outcome::Early)
}

/// Asks the other nodes whose connection it is; what nobody knows is lost.
#[inline(always)]
fn ask_or<E: Env>(env: &E, way: &Way<'_>, outcome: Outcome) -> Verdict {
    if peer::may_know(way.settings, way.packet) { env.tail(program::ASK) } else { count::end(env, outcome) }
}

/// A segment that acknowledges no cookie of its connection.
#[inline(always)]
fn wrong<E: Env>(env: &E, way: &Way<'_>) -> Verdict {
    if way.settings.flags & SettingsFlags::MIGRATING != 0 {
        return count::end(env, Outcome::Migrating);
    }
    if !took_too_long(env, way.packet) {
        if peer::may_know(way.settings, way.packet) {
            return env.tail(program::ASK);
        }
        env.count(Outcome::SynCookieWrong);
    }
    answer::reset(env, way.packet, Outcome::GivenUp)
}

/// What the segment's numbers, moved by so much, prove.
#[inline(always)]
fn judge<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, sequence: u32, acknowledgement: u32) -> Proof {
    let isn = segment.sequence.wrapping_add(sequence).wrapping_sub(1);
    let cookie = segment.acknowledgement.wrapping_add(acknowledgement).wrapping_sub(1);
    super::super::judge(env, way.packet, cookie, isn, way.now)
}

/// Whether the connection's head was being collected, until its time was over.
#[inline(always)]
fn took_too_long<E: Env>(env: &E, packet: &Packet) -> bool {
    let Some(cell) = env.flow_ref(&packet.flow_key()) else { return false };
    // SAFETY: from the environment.
    let reference = FlowRef(unsafe { cell.read_volatile() });
    let Some(record) = env.flow(reference.index()) else { return false };
    let word = flow::word_of(record);
    word.nonce() == reference.nonce() && word.state() == FlowState::Collecting
}

/// The window that goes with an answer.
#[inline(always)]
fn window(way: &Way<'_>, segment: &Arrived) -> u16 {
    let offer = SynCookie(segment.acknowledgement.wrapping_sub(1)).offer();
    wanted(way.mss(), offer.scales())
}
