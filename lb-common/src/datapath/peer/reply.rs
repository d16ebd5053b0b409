//! The program that takes what another node asks or answers about a session.

use super::visit;
use crate::abi::{BindingKey, Outcome, Question};
use crate::datapath::{Env, Verdict, binding, choice, count, frame, fresh, limits, splice};
use crate::packet::{Udp, get, put};

/// What a question says, but for the connection that waits; fields as in [`Question`].
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    kind: u8,
    left: u8,
    origin: u64,
    pub(crate) service: u32,
    pub(crate) session: u64,
    pub(crate) server: u64,
    pub(crate) length: u16,
}

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let Some(scratch) = env.scratch() else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let packet = unsafe { &(*scratch).packet };
    let at = packet.l4 as usize + Udp::LEN;
    let Some(asked) = read(env, at) else { return count::end(env, Outcome::Malformed) };
    if asked.kind == Question::ANSWERS {
        // That a node sent it has been looked at, and what was answered to others is none of this one's business.
        if env.peer(0).is_none_or(|peer| peer.own != asked.origin) {
            return count::end(env, Outcome::Malformed);
        }
        limits::heard(env);
        return splice::told(env, &asked, at);
    }
    let server = server(env, asked.service, asked.session);
    let next = env.peer(0).filter(|next| server == 0 && asked.left != 0 && next.id != asked.origin);
    let (peer, kind, left) = match next {
        Some(next) => (next, Question::ASKS, asked.left - 1),
        None => match visit::origin(env, asked.origin) {
            Some(origin) => (origin, Question::ANSWERS, 0),
            None => return count::end(env, Outcome::NoHop),
        },
    };
    let Some(p) = frame::at(env, at, Question::LEN) else { return count::end(env, Outcome::Malformed) };
    // SAFETY: checked for the whole of it.
    unsafe {
        put(p.add(1), kind);
        put(p.add(2), left);
        put(p.add(24), ((server >> 32) as u32).to_be());
        put(p.add(28), (server as u32).to_be());
    }
    let outcome = if server == 0 { Outcome::VisitPassed } else { Outcome::SessionAnswered };
    visit::carry_on(env, packet, peer, outcome)
}

/// Reads the one at an offset.
#[inline(always)]
fn read<E: Env>(env: &E, at: usize) -> Option<Asked> {
    let p = frame::at(env, at, Question::LEN)?;
    // SAFETY: checked for the whole of it.
    let word = |offset: usize| u32::from_be(unsafe { get::<u32>(p.add(offset)) });
    let pair = |offset: usize| (word(offset) as u64) << 32 | word(offset + 4) as u64;
    let first = word(0);
    Some(Asked {
        kind: (first >> 16) as u8,
        left: (first >> 8) as u8,
        service: word(4),
        origin: pair(8),
        session: pair(16),
        server: pair(24),
        length: (word(32) >> 16) as u16,
    })
}

/// Server number of the backend that a session is bound to here, or that it has just been sent to; 0 = not known.
#[inline(never)]
fn server<E: Env>(env: &E, service: u32, session: u64) -> u64 {
    let now = env.now();
    if let Some(found) = binding::find_again(env, &BindingKey::new(service, session), now) {
        return match env.backend(found.word.backend()) {
            Some(backend) if backend.generation == found.word.slot_generation() => backend.number,
            Some(_) | None => 0,
        };
    }
    match fresh::remembered(env, service, session, now) {
        choice::NONE => 0,
        slot => env.backend(slot as u16).map_or(0, |backend| backend.number),
    }
}
