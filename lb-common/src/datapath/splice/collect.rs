//! The program that takes a client's segments until its request can be sent to a backend.
//!
//! ```text
//!            first segment            head complete          SYN-ACK
//!  (none) ───────────────> Collecting ─────────────> Connecting ───────> Releasing or Established
//!                           │ ^ │                      │ ^
//!                           └─┘ acknowledged           └─┘ held, not acknowledged
//! ```
//! What is acknowledged is the balancer's to deliver; what is not, the client sends again, and each time it does, the
//! next step is tried again.

mod append;
mod arrived;
mod open;
mod stranger;
mod wait;

pub(super) use arrived::{Arrived, Place};
pub(crate) use wait::run as wait;

use super::hold::{self, Held};
use super::segment::{self, Segment};
use super::{has_moved, step};
use crate::abi::{AffinityRules, Flow, FlowState, FlowWord, HoldFlags, Outcome, Settings, program};
use crate::datapath::flow::{self, Live};
use crate::datapath::scratch::{Packet, again, part, to_service};
use crate::datapath::{Env, Verdict, answer, choice, count, entry};
use crate::packet::flag;
use crate::splice::{Attempt, wanted};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&(*scratch).packet, (*scratch).flow) };
    if packet.part != part::WHOLE {
        return count::end(env, Outcome::Fragment);
    }
    let Some(segment) = Arrived::read(env, packet) else { return count::end(env, Outcome::Malformed) };
    let Some(service) = choice::service_of(env, settings, packet) else {
        return answer::reset(env, packet, Outcome::NotOurs);
    };
    let Some(rules) = env.affinity_rules(service.slot) else { return Verdict::Drop };
    let way = Way { settings, packet, rules, now: env.now() };
    let Some(live) = flow::by_ref(env, reference, way.now) else {
        return stranger::run(env, &way, service, &segment);
    };
    match live.word.state() {
        FlowState::Collecting => collecting(env, &way, &segment, &live),
        FlowState::Connecting | FlowState::Releasing => env.tail(program::WAIT),
        FlowState::Established | FlowState::Closing | FlowState::Closed => look_again(env),
        FlowState::Free | FlowState::Opening | FlowState::Answered | FlowState::Claimed => {
            count::end(env, Outcome::Raced)
        }
    }
}

/// What every step needs to know.
pub(super) struct Way<'a> {
    pub(super) settings: &'a Settings,
    pub(super) packet: &'a Packet,
    pub(super) rules: &'a AffinityRules,
    pub(super) now: u64,
}

/// A segment of a request head that is not complete.
#[inline(always)]
fn collecting<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    if live.word.has(FlowWord::BUSY) {
        // Another CPU has the request, and no hold to keep it in.
        return count::end(env, Outcome::NotHeld);
    }
    let Some(mut held) = hold::lock(env, live.flow().hold, live.reference) else {
        return missing(env, way, live);
    };
    if has_moved(live) {
        held.unlock(env);
        return look_again(env);
    }
    match unfit(live.flow(), segment, held.get().next()) {
        Some(Unfit::Ends) => return give_up(env, live, held),
        Some(Unfit::Lost(outcome)) => {
            held.unlock(env);
            return count::end(env, outcome);
        }
        None => {}
    }
    let place = Place::of(held.get(), segment);
    let follows = segment.sequence == held.get().start.wrapping_add(held.get().len);
    if place == Place::Next {
        if !append::run(env, way.settings, way.packet, segment, &mut held) {
            held.unlock(env);
            return count::end(env, Outcome::NotHeld);
        }
    } else if !segment.ends(held.get()) {
        let hold = held.get();
        let (end, idle) = (hold.start.wrapping_add(hold.len), segment.len == 0);
        let owned = hold.start.wrapping_add(hold.owned);
        if !idle && place == Place::Before && (end != owned || hold.flags & HoldFlags::READ != 0) {
            // What was done with these bytes did not come to its end.
            return go_on(env, live, held, again::FIRST, program::READ);
        }
        // Nothing new, or not yet: it is told again how far the bytes go that the balancer answers for.
        held.unlock(env);
        if idle && segment.sequence == end {
            return count::end(env, Outcome::HandshakeDone);
        }
        let outcome = if idle { Outcome::IdleAnswered } else { Outcome::HeadAcknowledged };
        return acknowledge(env, way, live.flow(), owned, outcome);
    }
    note(&mut held, segment);
    if follows && held.get().flags & HoldFlags::ASKED != 0 {
        // More of the request while the other nodes are asked about its session; what comes again waits no longer.
        held.unlock(env);
        return count::end(env, Outcome::Held);
    }
    go_on(env, live, held, again::FIRST, program::READ)
}

/// Why a segment is not looked at.
pub(super) enum Unfit {
    /// It is the client's reset.
    Ends,
    /// It is none of the client's, or of no use.
    Lost(Outcome),
}

/// What becomes of a segment that cannot be the client's while no backend has answered: it has been sent nothing but the
/// SYN-ACK, and a reset has the number that comes next (RFC 9293 section 3.10.7.4, RFC 5961 sections 3 and 5).
#[inline(always)]
pub(super) fn unfit(flow: &Flow, segment: &Arrived, end: u32) -> Option<Unfit> {
    if segment.has(flag::RST) {
        return Some(if segment.sequence == end { Unfit::Ends } else { Unfit::Lost(Outcome::GivenUp) });
    }
    let follows = segment.acknowledgement == flow.isn.wrapping_add(1);
    if follows && segment.flags & (flag::SYN | flag::ACK) == flag::ACK {
        return None;
    }
    Some(Unfit::Lost(Outcome::NotHeld))
}

/// Notes what the segment says besides its bytes.
#[inline(always)]
pub(super) fn note(held: &mut Held, segment: &Arrived) {
    let ends = segment.ends(held.get());
    let hold = held.get_mut();
    hold.window = segment.window;
    hold.answered = segment.acknowledgement;
    if ends {
        hold.flags |= HoldFlags::FIN;
    }
}

/// Hands the hold to the program that reads it, or the one that connects.
#[inline(always)]
pub(super) fn go_on<E: Env>(env: &E, live: &Live, held: Held, why: u32, number: u32) -> Verdict {
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).flow = live.reference;
            (*scratch).hold = held.number;
            (*scratch).again = why;
        }
    }
    held.unlock(env);
    env.tail(number)
}

/// Acknowledges all that is held: the balancer answers for it now.
#[inline(always)]
pub(super) fn own<E: Env>(env: &E, way: &Way<'_>, live: &Live, mut held: Held) -> Verdict {
    let hold = held.get_mut();
    hold.owned = hold.len;
    let end = hold.start.wrapping_add(hold.len);
    held.unlock(env);
    acknowledge(env, way, live.flow(), end, Outcome::HeadAcknowledged)
}

/// Turns the segment round as an acknowledgement.
#[inline(always)]
pub(super) fn acknowledge<E: Env>(
    env: &E,
    way: &Way<'_>,
    flow: &Flow,
    acknowledgement: u32,
    outcome: Outcome,
) -> Verdict {
    let scales = flow.client_scale != Flow::NO_SCALE;
    let window = wanted(way.mss(), scales);
    back(env, way, (flow.isn.wrapping_add(1), acknowledgement), window, flag::ACK, outcome)
}

/// Turns the segment round with other numbers.
#[inline(always)]
pub(super) fn back<E: Env>(
    env: &E,
    way: &Way<'_>,
    (sequence, acknowledgement): (u32, u32),
    window: u16,
    flags: u8,
    outcome: Outcome,
) -> Verdict {
    let answer = Segment { sequence, acknowledgement, window, flags };
    if segment::back(env, way.packet, &answer).is_none() {
        return count::end(env, Outcome::NoRoom);
    }
    answer::send_back(env, way.settings, way.packet, outcome)
}

impl Way<'_> {
    /// The MSS that the client was told.
    #[inline(always)]
    pub(super) const fn mss(&self) -> u16 {
        if self.packet.is_v4() { self.rules.mss_v4 } else { self.rules.mss_v6 }
    }
}

/// The client's reset, before any backend has got a byte.
#[inline(always)]
pub(super) fn give_up<E: Env>(env: &E, live: &Live, held: Held) -> Verdict {
    held.free(env);
    end_unanswered(env, live, live.word.state());
    count::end(env, Outcome::GivenUp)
}

/// The connection is over; it stays known for a while, for what comes late.
#[inline(always)]
pub(super) fn end<E: Env>(env: &E, live: &Live) {
    step(env, live, live.word.state(), FlowState::Closed, FlowWord::RESET);
}

/// The same where no backend has answered: what comes late from the client has nowhere to go, and is answered with a reset.
#[inline(always)]
pub(super) fn end_unanswered<E: Env>(env: &E, live: &Live, state: FlowState) {
    // SAFETY: from the environment; before the step, which lets other CPUs go by it.
    unsafe { (&raw mut (*live.record).answer).write_volatile(Attempt::NONE.0) };
    step(env, live, state, FlowState::Closed, FlowWord::RESET);
}

/// The flow is found anew: another CPU has brought it to another state.
#[inline(always)]
pub(super) fn look_again<E: Env>(env: &E) -> Verdict {
    entry::to_nat(env, to_service::SPLICED)
}

/// The hold cannot be had: it is not needed any more, another CPU is at it for long, or it is lost, and with it what was
/// acknowledged.
#[inline(always)]
pub(super) fn missing<E: Env>(env: &E, way: &Way<'_>, live: &Live) -> Verdict {
    if has_moved(live) {
        return look_again(env);
    }
    if !hold::is_lost(env, live.flow().hold, live.reference) {
        return count::end(env, Outcome::NotHeld);
    }
    if live.word.state() == FlowState::Releasing {
        end(env, live);
    } else {
        end_unanswered(env, live, live.word.state());
    }
    answer::reset(env, way.packet, Outcome::GivenUp)
}
