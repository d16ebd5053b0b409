//! The program for segments that come while the backend is being asked, or is being sent what is held.

use super::super::hold::{self, Held};
use super::super::segment::{self, Segment};
use super::super::{release, translate};
use super::{Arrived, Place, Way, acknowledge, append, end, give_up, go_on, missing, note};
use crate::abi::{FlowState, HoldFlags, Outcome, program};
use crate::datapath::flow::{self, Live};
use crate::datapath::scratch::again;
use crate::datapath::{Env, Verdict, count, forward, nat};
use crate::packet::flag;
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
    if live.word.state() == FlowState::Connecting {
        connecting(env, &way, &segment, &live)
    } else {
        releasing(env, &way, &segment, &live)
    }
}

/// While the backend has not answered.
#[inline(always)]
fn connecting<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    let number = live.flow().hold;
    if number == 0 {
        return without(env, way, segment, live);
    }
    let Some(mut held) = hold::lock(env, number, live.reference) else {
        return missing(env, way, live);
    };
    if segment.has(flag::RST) {
        return give_up(env, live, held);
    }
    let place = Place::of(held.get(), segment);
    let before = held.get().start.wrapping_add(held.get().len);
    let held_fin = held.get().flags & HoldFlags::FIN != 0;
    let taken = place == Place::Next && append::run(env, way.settings, way.packet, segment, &mut held);
    let ended = segment.ends(held.get()) && !held_fin;
    if taken || ended {
        note(&mut held, segment);
    }
    // Whatever the client sends again is what it has waited for.
    let repeated = segment.len != 0 && segment.sequence.wrapping_sub(before) as i32 <= -1;
    if repeated {
        let hold = held.get();
        let owned = hold.start.wrapping_add(hold.owned);
        if segment.sequence.wrapping_add(segment.len).wrapping_sub(owned) as i32 <= 0 {
            held.unlock(env);
            return acknowledge(env, way, live.flow(), owned, Outcome::HeadAcknowledged);
        }
        return go_on(env, live, held, again::RETRANSMITTED, program::CONNECT);
    }
    held.unlock(env);
    count::end(
        env,
        if taken || ended {
            Outcome::Held
        } else if segment.len == 0 {
            Outcome::HandshakeDone
        } else {
            Outcome::NotHeld
        },
    )
}

/// While the backend has not answered, and the request was read without being kept.
#[inline(always)]
fn without<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live) -> Verdict {
    let flow = live.flow();
    if segment.has(flag::RST) {
        end(env, live);
        return count::end(env, Outcome::GivenUp);
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
    if segment.has(flag::RST) {
        held.free(env);
        live.advance(env, true, segment.flags);
        return pass_on(env, way, live);
    }
    let place = Place::of(held.get(), segment);
    let before = held.get().start.wrapping_add(held.get().len);
    let repeated = segment.len != 0 && segment.sequence.wrapping_sub(before) as i32 <= -1;
    if !release::sent(&held) {
        // Nothing may overtake what is held.
        let taken = place == Place::Next && append::run(env, way.settings, way.packet, segment, &mut held);
        let ended = segment.ends(held.get()) && held.get().flags & HoldFlags::FIN == 0;
        note(&mut held, segment);
        if !repeated && segment.len != 0 || ended {
            held.unlock(env);
            return count::end(env, if taken || ended { Outcome::Held } else { Outcome::NotHeld });
        }
    } else {
        note(&mut held, segment);
    }
    if repeated && (release::kept(&held) || place == Place::Before) {
        return resend(env, way, segment, live, held);
    }
    held.unlock(env);
    live.advance(env, true, segment.flags);
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
fn resend<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live, held: Held) -> Verdict {
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
    release::put(env, way.settings, held, &chunk, (at, hop.ifindex), false)
}
