//! The program that reads what responses set: the session's cookie is bound to its backend before its client gets it.
//!
//! The backend's first data after data of the client is taken for the beginning of a response. A head in several segments is
//! kept in a hold as far as it has come; whatever cannot be read to its end is counted, and goes on all the same.

use super::collect::{Arrived, Place};
use super::hold::{self, Held};
use crate::abi::{
    AffinityRules, BindingKey, FlowState, FlowWord, HOLD_LEN, HOLD_SLACK, Hold, HoldFlags, Outcome, Service,
    Settings, SpliceFlags,
};
use crate::affinity::head::{Head, Progress};
use crate::affinity::{self, response, segment, text};
use crate::datapath::binding::Client;
use crate::datapath::flow::{self, Live};
use crate::datapath::{Env, Verdict, binding, choice, count, nat};
use crate::packet::opaque_offset;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&mut (*scratch).packet, (*scratch).flow) };
    let now = env.now();
    let Some(live) = flow::by_ref(env, reference, now) else { return count::end(env, Outcome::Raced) };
    if let Some(segment) = Arrived::read(env, packet)
        && let Some(rules) = super::rules(env, settings, &live)
    {
        read(env, settings, rules, &segment, &live);
    }
    nat::from_backend(env, settings, packet, &live, now)
}

/// Reads on in the response.
#[inline(always)]
fn read<E: Env>(env: &E, settings: &Settings, rules: &AffinityRules, segment: &Arrived, live: &Live) {
    let number = kept(env, live);
    let held = if number == 0 {
        hold::own(env, settings, live.reference)
    } else {
        hold::lock(env, number, live.reference)
    };
    let Some(mut held) = held else { return missed(env, live) };
    if number == 0 {
        held.get_mut().start = segment.sequence;
    }
    match Place::of(held.get(), segment) {
        Place::Next => {}
        // The client lost it, and has it sent again.
        Place::Before => return held.unlock(env),
        Place::Ahead => {
            let_go(env, live, held);
            return missed(env, live);
        }
    }
    if !take(env, segment, &mut held) {
        let_go(env, live, held);
        return missed(env, live);
    }
    match scan(env, rules, held.as_ptr()) {
        Head::Complete => {
            let sets = session(env, rules, held.get_mut());
            let (mut session, other) = (held.get().session, held.get().progress[OTHER]);
            let_go(env, live, held);
            over(live, env);
            if sets && choice::has_two_secrets(settings) {
                session = binding::carry(env, live.flow().service, session, other);
            }
            if sets {
                learn(env, settings, live, session);
            }
        }
        Head::Incomplete if live.flow().hold == held.number => held.unlock(env),
        Head::Incomplete => keep(env, settings, segment, live, held),
        Head::NotHttp | Head::TooLong => {
            let_go(env, live, held);
            missed(env, live);
        }
    }
}

/// The hold with the head's first segments, plus 1; 0 = none.
#[inline(always)]
fn kept<E: Env>(env: &E, live: &Live) -> u32 {
    let number = live.flow().hold;
    if live.word.state() == FlowState::Releasing {
        // It has the request's bytes.
        return 0;
    }
    if number != 0 && hold::is_lost(env, number, live.reference) {
        forget(live);
        return 0;
    }
    number
}

/// Notes that there is no hold.
#[inline(always)]
fn forget(live: &Live) {
    if live.is_same() {
        // SAFETY: from the environment; an established flow's hold is this program's.
        unsafe { (&raw mut (*live.record).hold).write_volatile(0) };
    }
}

/// Appends what is new of the segment.
#[inline(always)]
fn take<E: Env>(env: &E, segment: &Arrived, held: &mut Held) -> bool {
    let hold = held.as_ptr();
    let (start, len) = (held.get().start, held.get().len);
    let known = start.wrapping_add(len).wrapping_sub(segment.sequence);
    let new = segment.len.wrapping_sub(known);
    let new = if new < HOLD_SLACK as u32 { new } else { HOLD_SLACK as u32 };
    let (place, taken) = (opaque_offset(len as usize), opaque_offset(new as usize));
    if place >= HOLD_LEN || taken == 0 || taken > HOLD_SLACK {
        return false;
    }
    // SAFETY: the slack lets its length be written at any place.
    let loaded = unsafe {
        let to = (&raw mut (*hold).bytes).cast::<u8>().add(place);
        env.load(segment.at.wrapping_add(known), to, taken as u32)
    };
    let end = len.wrapping_add(taken as u32);
    held.get_mut().len = if end < HOLD_LEN as u32 { end } else { HOLD_LEN as u32 };
    loaded
}

/// Reads on in the hold's bytes.
#[inline(always)]
fn scan<E: Env>(env: &E, rules: &AffinityRules, hold: *mut Hold) -> Head {
    // SAFETY: the hold's bytes go on for more than what can be reached; it keeps the scanner's words, and is locked by this
    // CPU.
    unsafe {
        let bytes = affinity::Held::new(env, (&raw const (*hold).bytes).cast());
        let progress = &mut *(&raw mut (*hold).progress).cast::<Progress>();
        response::scan(&bytes, (*hold).len, progress, rules)
    }
}

/// Moves an incomplete head to a hold that stays. Out of line for the sake of the stack.
#[inline(never)]
fn keep<E: Env>(env: &E, settings: &Settings, segment: &Arrived, live: &Live, own: Held) {
    if live.word.state() == FlowState::Releasing {
        own.free(env);
        return missed(env, live);
    }
    let now = env.now();
    let until = now.wrapping_add(settings.connect_timeout);
    let Some(mut held) = hold::claim(env, live.reference, until, now) else {
        own.free(env);
        env.count(Outcome::HoldsFull);
        return missed(env, live);
    };
    let from = own.get().progress;
    let hold = held.get_mut();
    hold.start = segment.sequence;
    hold.flags = HoldFlags::RESPONSE;
    let mut i = 0;
    while i < from.len() {
        hold.progress[i] = from[i];
        i += 1;
    }
    own.free(env);
    if !take(env, segment, &mut held) {
        held.free(env);
        return missed(env, live);
    }
    // SAFETY: from the environment; an established flow's hold is this program's.
    unsafe { (&raw mut (*live.record).hold).write_volatile(held.number) };
    held.unlock(env);
}

/// The word of a hold's progress that is left alone by the scanner: the session's key under the other secret.
const OTHER: usize = 3;

/// Gives the hold back.
#[inline(always)]
fn let_go<E: Env>(env: &E, live: &Live, held: Held) {
    if live.flow().hold == held.number {
        forget(live);
    }
    held.free(env);
}

/// The response is over as far as this program is concerned.
#[inline(always)]
fn over<E: Env>(live: &Live, env: &E) {
    let word = flow::word_of(live.record);
    if word.nonce() == live.reference.nonce() {
        // SAFETY: from the environment.
        unsafe {
            env.exchange(&raw mut (*live.record).word, word.0, word.without(FlowWord::ASKED).0);
        }
    }
}

#[inline(always)]
fn missed<E: Env>(env: &E, live: &Live) {
    env.count(Outcome::LearnMissed);
    over(live, env);
}

/// Notes the session key of the cookie that the head sets; whether it sets it. Out of line for the sake of the stack.
#[inline(never)]
fn session<E: Env>(env: &E, rules: &AffinityRules, hold: &mut Hold) -> bool {
    let Some(settings) = env.settings() else { return false };
    // SAFETY: as for `scan`.
    let (bytes, progress) = unsafe {
        let bytes = affinity::Held::new(env, (&raw const hold.bytes).cast());
        (bytes, &*(&raw const hold.progress).cast::<Progress>())
    };
    let value = progress.value();
    if value.len == 0 {
        return false;
    }
    let part = segment::part(&bytes, value, rules.delimiter, rules.index);
    if part.len != 0 {
        hold.session = text::key(&bytes, part, settings.session_secret());
        if choice::has_two_secrets(settings) {
            hold.progress[OTHER] = text::key(&bytes, part, settings.other_secret());
        }
    }
    part.len != 0
}

/// Binds a session to the flow's backend.
#[inline(never)]
fn learn<E: Env>(env: &E, settings: &Settings, live: &Live, session: u64) {
    let flow = live.flow();
    let client = &flow.client;
    let service: Option<&Service> =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let Some(service) = service else { return };
    let key = BindingKey::new(flow.service, session);
    if stays(env, service, live, &key) {
        return;
    }
    let Some(backend) = nat::owner(env, live) else { return };
    let now = env.now();
    let client = Client { address: &client.source, proved: true, learnt: true };
    binding::bind(env, service, &key, (flow.backend, backend), client, now);
    env.count(Outcome::Learnt);
}

/// Whether a session is bound to the flow's backend, or to another one and stays there. Out of line for the sake of the
/// stack.
#[inline(never)]
fn stays<E: Env>(env: &E, service: &Service, live: &Live, key: &BindingKey) -> bool {
    let (flow, now) = (live.flow(), env.now());
    let Some(found) = binding::find_again(env, key, now) else { return false };
    if found.word.backend() == flow.backend && found.word.slot_generation() == flow.backend_generation {
        binding::touch(&found, now, service.lifetime);
        return true;
    }
    // Whoever makes a backend say so could move any session whose name he knows.
    if flow.splice & SpliceFlags::READ == 0 || binding::backend(env, found.word).is_none() {
        return false;
    }
    env.count(Outcome::Mismatch);
    true
}
