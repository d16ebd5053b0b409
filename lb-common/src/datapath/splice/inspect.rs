//! The program that looks whose later requests on a connection are.
//!
//! The decision was made by the first one, and stays. A segment that holds another session's cookie is counted, and where
//! the service says so, the connection is reset. Only heads in one segment are looked at.

use super::collect::Arrived;
use super::hold::{self, Held};
use super::segment::{self, Segment};
use crate::abi::{
    AffinityRules, BindingKey, Flow, HOLD_SLACK, Hold, OnMismatch, Outcome, Settings, SpliceFlags,
};
use crate::affinity::head::Progress;
use crate::affinity::{self, request, segment as part_of, text};
use crate::datapath::flow::{self, Live};
use crate::datapath::{Env, Verdict, binding, choice, count, link, nat};
use crate::packet::{flag, opaque_offset};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&(*scratch).packet, (*scratch).flow) };
    let now = env.now();
    let Some(live) = flow::by_ref(env, reference, now) else { return count::end(env, Outcome::Raced) };
    if let Some(segment) = Arrived::read(env, packet)
        && let Some(rules) = super::rules(env, settings, &live)
        && let Some(mut held) = hold::own(env, settings, reference)
    {
        let strange = load(env, &segment, &mut held)
            && scan(env, rules, &mut held, live.flow())
            && is_strange(env, &live, held.get().session);
        held.free(env);
        if strange {
            env.count(Outcome::Mismatch);
            if rules.on_mismatch == OnMismatch::Reset as u8 {
                return reset(env, settings, &segment, &live);
            }
        }
    }
    nat::from_client(env, settings, packet, &live, now)
}

/// Makes the segment the client's reset: whether it is in place the backend judges, and it answers what the client sends
/// again.
#[inline(always)]
fn reset<E: Env>(env: &E, settings: &Settings, segment: &Arrived, live: &Live) -> Verdict {
    let Some(backend) = nat::owner(env, live) else { return count::end(env, Outcome::Raced) };
    let ifindex = backend.hop.ifindex;
    let reset = Segment { sequence: segment.sequence, acknowledgement: 0, window: 0, flags: flag::RST };
    if segment::to_backend(env, live, &reset, 0, 0).is_none() {
        return count::end(env, Outcome::NoHop);
    }
    live.advance(env, true, flag::RST);
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    let verdict = link::transmit(env, settings, ifindex);
    if verdict != Verdict::Drop {
        env.count(Outcome::TurnedRound);
    }
    verdict
}

#[inline(always)]
fn load<E: Env>(env: &E, segment: &Arrived, held: &mut Held) -> bool {
    let len = opaque_offset(segment.len as usize);
    if len == 0 || len > HOLD_SLACK {
        return false;
    }
    let hold = held.as_ptr();
    held.get_mut().len = len as u32;
    // SAFETY: the slack is a part of the bytes.
    unsafe { env.load(segment.at, (&raw mut (*hold).bytes).cast(), len as u32) }
}

/// Reads the segment's head; whether a session's key was read.
#[inline(always)]
fn scan<E: Env>(env: &E, rules: &AffinityRules, held: &mut Held, flow: &Flow) -> bool {
    let hold: *mut Hold = held.as_ptr();
    // SAFETY: the hold's bytes go on for more than what can be reached; it keeps the scanner's words, and is this CPU's.
    let (bytes, progress) = unsafe {
        let bytes = affinity::Held::new(env, (&raw const (*hold).bytes).cast());
        (bytes, &mut *(&raw mut (*hold).progress).cast::<Progress>())
    };
    request::scan(&bytes, held.get().len, progress, rules);
    let value = progress.value();
    let Some(settings) = env.settings() else { return false };
    if value.len == 0 {
        return false;
    }
    let part = part_of::part(&bytes, value, rules.delimiter, rules.index);
    if part.len == 0 {
        return false;
    }
    let session = key(&bytes, part, settings.session_secret());
    held.get_mut().session = session;
    if choice::has_two_secrets(settings) && session != flow.session {
        let other = key(&bytes, part, settings.other_secret());
        let bound = binding::carry(env, flow.service, session, other);
        // Where it is the flow's own, the flow is older than the secret.
        held.get_mut().session = if other == flow.session { other } else { bound };
    }
    true
}

#[inline(never)]
fn key<E: Env>(bytes: &affinity::Held<'_, E>, part: affinity::Span, secret: &[u64; 2]) -> u64 {
    text::key(bytes, part, secret)
}

/// Whether a session is another's than the flow's: bound to another backend, or unknown where the flow's own was read.
#[inline(always)]
fn is_strange<E: Env>(env: &E, live: &Live, session: u64) -> bool {
    let flow = live.flow();
    if session == flow.session {
        return false;
    }
    match binding::find_again(env, &BindingKey::new(flow.service, session), env.now()) {
        Some(found) => found.word.backend() != flow.backend,
        None => flow.splice & SpliceFlags::READ != 0,
    }
}
