//! The program for segments that come while the backend is being asked, or is being sent what is held.

use super::super::hold::{self, Held};
use super::super::segment::{self, Segment};
use super::super::{has_moved, release, step, translate};
use super::{
    Arrived, Place, Unfit, Way, acknowledge, append, end, end_unanswered, give_up, go_on, look_again,
    missing, note, unfit,
};
use crate::abi::{FlowState, FlowWord, HOLD_SLACK, Hold, HoldFlags, Outcome, program};
use crate::datapath::flow::{self, Live};
use crate::datapath::scratch::again;
use crate::datapath::{Env, Verdict, count, forward, nat};
use crate::packet::{flag, unknown_zero};
use crate::splice::window_to_backend;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&(*scratch).packet, (*scratch).flow) };
    let Some(segment) = Arrived::read(env, packet) else { return count::end(env, Outcome::Malformed) };
    let now = env.now();
    let Some(live) = flow::by_ref(env, reference, now) else { return count::end(env, Outcome::Raced) };
    let Some(rules) = env.affinity_rules(live.flow().service_slot) else { return Verdict::Drop };
    let way = Way { settings, packet, rules, now };
    match live.word.state() {
        FlowState::Connecting => connecting(env, &way, &segment, &live),
        FlowState::Releasing => releasing(env, &way, &segment, &live),
        FlowState::Established | FlowState::Closing | FlowState::Closed => look_again(env),
        FlowState::Free
        | FlowState::Opening
        | FlowState::Answered
        | FlowState::Collecting
        | FlowState::Claimed => count::end(env, Outcome::Raced),
    }
}

/// While the backend has not answered.
#[inline(always)]
fn connecting<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    // SAFETY: from the environment. Volatile: whoever gives the hold back changes the state first, so it is read last.
    let number = unsafe { (&raw const (*live.record).hold).read_volatile() };
    if number == 0 && !has_moved(live) {
        return without(env, way, segment, live);
    }
    let Some(mut held) = hold::lock(env, number, live.reference) else {
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
    // Whatever the client sends again is what it has waited for.
    let repeated = unfollowed(segment, repeats(held.get(), segment));
    let taken = place == Place::Next && append::run(env, way.settings, way.packet, segment, &mut held);
    let taken = unfollowed(segment, taken || is_new_end(held.get(), segment));
    if taken {
        note(&mut held, segment);
    }
    if repeated {
        let hold = held.get();
        let owned = hold.start.wrapping_add(hold.owned);
        if !segment.has(flag::FIN)
            && segment.sequence.wrapping_add(segment.len).wrapping_sub(owned) as i32 <= 0
        {
            held.unlock(env);
            return acknowledge(env, way, live.flow(), owned, Outcome::HeadAcknowledged);
        }
        return go_on(env, live, held, again::RETRANSMITTED, program::CONNECT);
    }
    held.unlock(env);
    count::end(
        env,
        if taken {
            Outcome::Held
        } else if segment.len == 0 {
            Outcome::HandshakeDone
        } else {
            Outcome::NotHeld
        },
    )
}

/// A truth that the verifier does not follow: ways that only differ in it are looked at once.
#[inline(always)]
fn unfollowed(segment: &Arrived, truth: bool) -> bool {
    truth as usize | unknown_zero(segment.window as u8) != 0
}

/// Whether a segment begins with something that is held: a byte, or the FIN of a client that has nothing else to send.
#[inline(always)]
fn repeats(hold: &Hold, segment: &Arrived) -> bool {
    let known = segment.sequence.wrapping_sub(hold.start);
    if segment.len == 0 {
        segment.has(flag::FIN) && hold.flags & HoldFlags::FIN != 0 && known == hold.len
    } else {
        known < hold.len
    }
}

/// Whether a segment brings the FIN behind what is held.
#[inline(always)]
fn is_new_end(hold: &Hold, segment: &Arrived) -> bool {
    hold.flags & HoldFlags::FIN == 0 && segment.ends(hold)
}

/// While the backend has not answered, and the request was read without being kept.
#[inline(always)]
fn without<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    let flow = live.flow();
    // How many bytes there were is not known: one segment's at most.
    let far = segment.sequence.wrapping_sub(flow.start);
    let next = if far <= HOLD_SLACK as u32 { segment.sequence } else { flow.start };
    match unfit(flow, segment, next) {
        Some(Unfit::Ends) => {
            end_unanswered(env, live, live.word.state());
            return count::end(env, Outcome::GivenUp);
        }
        Some(Unfit::Lost(outcome)) => return count::end(env, outcome),
        None => {}
    }
    if segment.len == 0 || segment.sequence != flow.start {
        return count::end(env, if segment.len == 0 { Outcome::HandshakeDone } else { Outcome::NotHeld });
    }
    let Some(mut held) = hold::own(env, way.settings, live.reference) else {
        return count::end(env, Outcome::NotHeld);
    };
    held.get_mut().start = segment.sequence;
    if !append::run(env, way.settings, way.packet, segment, &mut held) {
        held.free(env);
        return count::end(env, Outcome::NotHeld);
    }
    note(&mut held, segment);
    go_on(env, live, held, again::RETRANSMITTED, program::READ)
}

/// While held bytes are on their way to the backend.
#[inline(always)]
fn releasing<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    let Some(mut held) = hold::lock(env, live.flow().hold, live.reference) else {
        return missing(env, way, live);
    };
    if segment.flags & (flag::SYN | flag::ACK | flag::RST) != flag::ACK {
        // The backend judges it; what is held only goes with a reset that has the next number.
        if segment.has(flag::RST) && segment.sequence == held.get().next() {
            held.free(env);
            end(env, live);
        } else {
            held.unlock(env);
        }
        return pass_on(env, way, live);
    }
    let place = Place::of(held.get(), segment);
    let repeated = unfollowed(segment, repeats(held.get(), segment));
    if !release::sent(&held) {
        // Nothing may overtake what is held.
        let taken = place == Place::Next && append::run(env, way.settings, way.packet, segment, &mut held);
        let taken = unfollowed(segment, taken || is_new_end(held.get(), segment));
        note(&mut held, segment);
        if !repeated && (taken || segment.len != 0) {
            held.unlock(env);
            return count::end(env, if taken { Outcome::Held } else { Outcome::NotHeld });
        }
    } else {
        note(&mut held, segment);
    }
    let again = repeated && (release::kept(&held) || segment.len != 0 && place == Place::Before);
    if again {
        release::repeated(&mut held, live.flow().client.source.is_v4());
    }
    // A backend that answers all the while acknowledges with data only, which is not turned round.
    let more = !repeated && segment.len == 0 && release::waits(&held);
    if unfollowed(segment, again || more) {
        return resend(env, way, segment, live, held);
    }
    held.unlock(env);
    if segment.has(flag::FIN) {
        step(env, live, FlowState::Releasing, FlowState::Releasing, FlowWord::FIN_CLIENT);
    }
    pass_on(env, way, live)
}

/// Sends a segment on to the flow's backend.
#[inline(always)]
fn pass_on<E: Env>(env: &E, way: &Way<'_>, live: &Live) -> Verdict {
    let Some(backend) = nat::owner(env, live) else { return count::end(env, Outcome::Raced) };
    if let Some(verdict) = forward::admissible(env, way.packet, backend, 0) {
        return verdict;
    }
    nat::to_backend(env, way.settings, way.packet, live, (live.flow().backend, backend), false)
}

/// Sends what the backend has not acknowledged again, in the place of what the client sent again.
#[inline(always)]
fn resend<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live, mut held: Held) -> Verdict {
    let flow = live.flow();
    let Some(backend) = env.backend(flow.backend) else {
        held.unlock(env);
        return count::end(env, Outcome::NoBackend);
    };
    let hop = &backend.hop;
    let chunk = release::again(env, &held, release::room(&held, hop.mtu, way.packet.is_v4()));
    if chunk.len == 0 {
        held.unlock(env);
        return count::end(env, Outcome::NotHeld);
    }
    let segment = Segment {
        sequence: release::sequence(&held, &chunk, flow),
        acknowledgement: segment.acknowledgement.wrapping_add(translate::offset(flow)),
        window: window_to_backend(segment.window, flow.client_scale, flow.server_scale),
        flags: chunk.flags(),
    };
    let Some(at) = segment::to_backend(env, live, &segment, chunk.len, chunk.sum) else {
        held.unlock(env);
        return count::end(env, Outcome::NoRoom);
    };
    let verdict = release::put(env, way.settings, &mut held, &chunk, (at, hop.ifindex), false);
    release::leave(env, held, false, verdict)
}
