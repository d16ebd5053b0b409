//! The program that chooses the backend of a request and sends it a SYN; also the next one, where a backend refuses or is silent.

use super::collect;
use super::hold::{self, Held};
use super::segment::{self, Segment, SynOptions};
use crate::abi::{
    Affinity, AffinityRules, Backend, BindingKey, Flow, FlowKey, FlowRef, FlowState, Hold, HoldFlags,
    MAX_TRIED, Outcome, Said, Service, ServiceFlags, Settings, SpliceFlags, Status, program,
};
use crate::datapath::binding::Chosen;
use crate::datapath::choice::Tried;
use crate::datapath::count::Way;
use crate::datapath::flow::{self, Live};
use crate::datapath::scratch::{Packet, again, part};
use crate::datapath::vitals::Sign;
use crate::datapath::{Env, Verdict, answer, binding, choice, count, fresh, limits, link, nat, peer, vitals};
use crate::packet::{flag, unknown_zero};
use crate::splice::{Attempt, SynCookie};

/// No backend.
const NONE: u32 = u32::MAX;
/// A backend that has yet to be picked by load.
const BY_LOAD: u32 = u32::MAX - 1;
/// All were tried, and one of them may not have heard of it: the client's next retransmission begins anew.
const LATER: u32 = u32::MAX - 2;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference, number, why) =
        unsafe { (&(*scratch).packet, (*scratch).flow, (*scratch).hold, (*scratch).again) };
    let now = env.now();
    let Some(live) = flow::by_ref(env, reference, now) else { return count::end(env, Outcome::Raced) };
    let client = &live.flow().client;
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let Some(service) = service else { return count::end(env, Outcome::Raced) };
    let Some(mut held) = hold::lock(env, number, reference) else { return count::end(env, Outcome::Raced) };
    let Some(rules) = env.affinity_rules(service.slot) else {
        held.unlock(env);
        return count::end(env, Outcome::NoBackend);
    };
    // Another CPU may have gone on to the next backend since this one's refusal was read.
    if why == again::REFUSED && live.flow().server.source.0[3] != packet.source.0[3] {
        held.unlock(env);
        return count::end(env, Outcome::Raced);
    }
    // A CPU's own hold keeps no other CPU from the flow.
    let alone = number <= settings.cpu_holds;
    let pool = pool(env, service, rules, held.get());
    // The verifier need not follow why.
    if is_unknown(env, pool, &live, held.get(), why) as usize | unknown_zero(number as u8) != 0 {
        let hold = held.get_mut();
        hold.flags |= HoldFlags::ASKED;
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).session = hold.session;
            (*scratch).pool = pool.id;
        }
        held.unlock(env);
        return env.tail(program::INQUIRE);
    }
    let begun = match why {
        again::FIRST | again::TOLD => {
            super::step(env, &live, FlowState::Collecting, FlowState::Connecting, 0)
        }
        _ if alone => super::seize(env, &live),
        _ => super::step(env, &live, FlowState::Connecting, FlowState::Connecting, 0),
    };
    if !begun {
        held.unlock(env);
        return count::end(env, Outcome::Raced);
    }
    let chosen = choose(env, pool, &live, &mut held, why, now);
    if chosen == BY_LOAD {
        let hold = held.get();
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).session = hold.session;
            (*scratch).path = if hold.path > rules.path_count { 1 } else { hold.path.wrapping_add(1) };
        }
        held.unlock(env);
        return env.tail(program::PICK);
    }
    if chosen == LATER {
        // SAFETY: from the environment, and the hold is locked.
        unsafe { (*live.record).answer = Attempt::REFUSED.0 };
        held.unlock(env);
        super::leave(env, &live);
        return count::end(env, Outcome::Swallowed);
    }
    if chosen == NONE {
        held.free(env);
        let is_here = why != again::REFUSED && packet.part == part::WHOLE;
        let told = if is_here { Verdict::Tail } else { refused(env, settings, &live) };
        super::leave(env, &live);
        // It stays known for a while: a client that the reset does not reach sends again, and is told again.
        collect::end_unanswered(env, &live, FlowState::Connecting);
        return if told == Verdict::Tail { answer::no_backend(env, packet) } else { told };
    }
    let slot = chosen as u16;
    let attempt = Attempt(live.flow().answer);
    let is_new = attempt == Attempt::NONE || slot != live.flow().backend;
    let sent = match env.backend(slot) {
        Some(backend) => {
            if is_new {
                note(&live, pool, rules, held.get());
            }
            if is_new && !assign(env, settings, service, &live, slot) {
                // SAFETY: from the environment, and the hold is locked.
                unsafe { (*live.record).answer = Attempt::REFUSED.0 };
                Err(Outcome::PortsExhausted)
            } else {
                let attempt = if is_new { Attempt::new(now) } else { attempt.repeated(now) };
                // SAFETY: from the environment, and the hold is locked.
                unsafe { (*live.record).answer = attempt.0 };
                send(env, service, &live, held.get(), backend)
            }
        }
        None => Err(Outcome::NoBackend),
    };
    held.unlock(env);
    super::leave(env, &live);
    finish(env, settings, packet, &live, why, sent)
}

/// Sends the SYN that was written, and counts it.
#[inline(always)]
fn finish<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    live: &Live,
    why: u32,
    sent: Result<u32, Outcome>,
) -> Verdict {
    let ifindex = match sent {
        Ok(ifindex) => ifindex,
        Err(outcome) => return count::end(env, outcome),
    };
    if !live.is_same() {
        return count::end(env, Outcome::Raced);
    }
    // To the nanosecond: how long the answer takes counts from here.
    live.sent(env.now());
    let verdict = link::transmit(env, settings, ifindex);
    if why == again::REFUSED {
        if verdict != Verdict::Drop {
            env.count(Outcome::TurnedRound);
        }
        return verdict;
    }
    let flow = live.flow();
    let places = (flow.service_slot, flow.backend);
    let opens = matches!(why, again::FIRST | again::PICKED | again::TOLD);
    count::forwarded(env, verdict, places, packet.length, opens, Way::Forward);
    verdict
}

/// The pool that a request belongs to: its path rule's, else the service's own.
#[inline(always)]
pub(super) fn pool<'a, E: Env>(
    env: &'a E,
    service: &'a Service,
    rules: &AffinityRules,
    hold: &Hold,
) -> &'a Service {
    let path = hold.path;
    if path == 0 || path > rules.path_count {
        return service;
    }
    match env.path_rule(rules.paths.wrapping_add(path).wrapping_sub(1)) {
        Some(rule) => &rule.service,
        None => service,
    }
}

/// Whether the request names a session that has no binding here, and the other nodes are to be asked for it. Out of line for the
/// sake of the stack.
#[inline(never)]
fn is_unknown<E: Env>(env: &E, pool: &Service, live: &Live, hold: &Hold, why: u32) -> bool {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return false };
    // SAFETY: this CPU's own scratch.
    let packet = unsafe { &(*scratch).packet };
    peer::may_know(settings, packet)
        && why == again::FIRST
        && hold.said == Said::Key as u32
        && hold.flags & HoldFlags::ASKED == 0
        && pool.member_count > 1
        // Not this CPU's own hold, which keeps the request no longer than the program runs.
        && live.flow().hold != 0
        && live.word.state() == FlowState::Collecting
        && binding::find_again(env, &BindingKey::new(pool.id, hold.session), env.now()).is_none()
}

/// The backend that is due, [`NONE`], [`BY_LOAD`] or [`LATER`].
#[inline(always)]
fn choose<E: Env>(env: &E, pool: &Service, live: &Live, held: &mut Held, why: u32, now: u64) -> u32 {
    let current = live.flow().backend;
    let attempt = Attempt(live.flow().answer);
    if attempt == Attempt::NONE {
        return if why == again::PICKED { picked(env) } else { first(env, pool, held.get(), now) };
    }
    if why != again::REFUSED && is_there(env, live) {
        if !is_silent(env, attempt, current, now) {
            return current as u32;
        }
        let next = next(env, pool, held, current);
        if next == NONE {
            // All were asked once; the next time they are asked again, for packets may have been lost.
            held.get_mut().tried_count = 0;
            return current as u32;
        }
        if attempt != Attempt::REFUSED {
            held.get_mut().flags |= HoldFlags::SILENT;
            env.count(Outcome::BackendSilent);
            vitals::note(env, current, Sign::Silent);
        }
        return next;
    }
    if why == again::REFUSED {
        env.count(Outcome::BackendRefused);
        vitals::note(env, current, Sign::Refused);
    } else {
        env.count(Outcome::BackendSilent);
    }
    let next = next(env, pool, held, current);
    let hold = held.get_mut();
    if next == NONE && why == again::REFUSED && hold.flags & HoldFlags::SILENT != 0 {
        hold.flags &= !HoldFlags::SILENT;
        hold.tried_count = 0;
        return LATER;
    }
    next
}

/// The backend that was picked by load.
#[inline(never)]
fn picked<E: Env>(env: &E) -> u32 {
    // SAFETY: this CPU's own scratch.
    env.scratch().map_or(NONE, |scratch| unsafe { (*scratch).wanted }.wrapping_sub(1))
}

/// Whether the backend that was sent the SYN still is that backend, and serves.
#[inline(always)]
fn is_there<E: Env>(env: &E, live: &Live) -> bool {
    let slot = live.flow().backend;
    nat::owner(env, live).is_some()
        && env.status(Status::word(slot)).is_some_and(|word| Status::serves(word, slot))
}

/// Whether the backend's silence can no longer be a lost packet.
#[inline(always)]
fn is_silent<E: Env>(env: &E, attempt: Attempt, slot: u16, now: u64) -> bool {
    attempt.is_silent(now, vitals::last_answer(env, slot))
}

/// The backend that a request belongs to: one that it names, its session's, or the first of the session's order;
/// [`BY_LOAD`] where that is for another program to say.
#[inline(always)]
fn first<E: Env>(env: &E, pool: &Service, hold: &Hold, now: u64) -> u32 {
    let named = named(env, hold, |_| true);
    if named != NONE {
        return named;
    }
    let found = binding::find(env, &BindingKey::new(pool.id, hold.session), now);
    if found.is_none() && fresh::hangs_on_load(pool) {
        return BY_LOAD;
    }
    let bound = found.and_then(|found| binding::backend(env, found.word));
    slot_of(bound.or_else(|| choice::choose(env, pool, hold.session)))
}

/// The first of the backends that the request names, or another node, which serves and fits, or [`NONE`].
#[inline(always)]
fn named<E: Env>(env: &E, hold: &Hold, fits: impl Fn(u16) -> bool) -> u32 {
    if hold.said != Said::Servers as u32 && hold.flags & HoldFlags::TOLD == 0 {
        return NONE;
    }
    let mut i = 0;
    while i < hold.named.len() {
        let named = &hold.named[i];
        if (i as u32) < hold.named_count && fits(named.slot) {
            if env.backend(named.slot).is_some_and(|backend| backend.generation == named.generation)
                && env.status(Status::word(named.slot)).is_some_and(|word| Status::serves(word, named.slot))
            {
                return named.slot as u32;
            }
            env.count(Outcome::ServerDown);
        }
        i += 1;
    }
    NONE
}

/// The other backend that the request names, or the next of the session's order; the present one is remembered as
/// tried.
#[inline(always)]
fn next<E: Env>(env: &E, pool: &Service, held: &mut Held, current: u16) -> u32 {
    let hold = held.get_mut();
    let count = hold.tried_count;
    if count >= MAX_TRIED as u32 {
        return NONE;
    }
    let mut tried = Tried::one(current);
    let mut i = 0;
    while i < MAX_TRIED {
        if (i as u32) < count {
            tried = tried.with(i as u32, hold.tried[i]);
        }
        i += 1;
    }
    let tried = tried.with(count, current);
    let mut found = named(env, hold, |slot| !tried.has(slot));
    if found == NONE {
        found = slot_of(choice::next(env, pool, hold.session, tried));
    }
    if found != NONE {
        // SAFETY: masked, and the length is a power of two.
        unsafe { *hold.tried.get_unchecked_mut(count as usize & (MAX_TRIED - 1)) = current };
        hold.tried_count = count + 1;
    }
    found
}

#[inline(always)]
fn slot_of(chosen: Option<Chosen<'_>>) -> u32 {
    match chosen {
        Some((slot, _)) => slot as u32,
        None => NONE,
    }
}

/// Notes in the flow what its request said.
#[inline(always)]
fn note(live: &Live, pool: &Service, rules: &AffinityRules, hold: &Hold) {
    let read = hold.said == Said::Key as u32;
    let follows = hold.said == Said::Nothing as u32 && rules.fallback == Affinity::SourceIp as u8;
    // SAFETY: from the environment, and the hold is locked.
    let record = unsafe { &mut *live.record };
    record.service = pool.id;
    record.session = hold.session;
    record.window = hold.window;
    let flags = record.splice & !(SpliceFlags::READ | SpliceFlags::BIND);
    record.splice = flags
        | if read { SpliceFlags::READ } else { 0 }
        | if read || follows { SpliceFlags::BIND } else { 0 };
}

/// Makes a backend the flow's: its side of the flow, with a source port that tells its answers from those to others.
#[inline(never)]
fn assign<E: Env>(env: &E, settings: &Settings, service: &Service, live: &Live, slot: u16) -> bool {
    let Some(backend) = env.backend(slot) else { return false };
    let reference = live.reference;
    let reply = FlowRef::new(reference.index(), reference.nonce(), true);
    vitals::goes_to(env, live.record, slot, backend.generation);
    // SAFETY: from the environment, and the hold is locked.
    let record: &mut Flow = unsafe { &mut *live.record };
    if Attempt(record.answer) != Attempt::NONE {
        flow::forget_key(env, &record.server, reply);
    }
    let client = &record.client;
    let snat = service.flags & ServiceFlags::SNAT != 0;
    let toward = if snat { &service.source } else { &client.source };
    let port = if backend.port.raw() == 0 { client.destination_port } else { backend.port };
    record.server = FlowKey::new(&backend.address, toward, port, client.source_port, client.protocol);
    nat::take_own_port(env, service, live.record, reply)
        || nat::take_port(env, settings, service, live.record, reply)
}

/// Writes the SYN; answers where it goes.
#[inline(always)]
fn send<E: Env>(
    env: &E,
    service: &Service,
    live: &Live,
    hold: &Hold,
    backend: &Backend,
) -> Result<u32, Outcome> {
    if !link::is_resolved(&backend.hop) {
        return Err(Outcome::NoHop);
    }
    let flow = live.flow();
    let offer = SynCookie(flow.isn).offer();
    let mss = offer.mss(flow.client.source.is_v4());
    let options = SynOptions {
        mss: if service.mss != 0 && service.mss < mss { service.mss } else { mss },
        scale: offer.scale(),
        sack: offer.sack(),
    };
    let sequence = flow.start.wrapping_sub(hold.front).wrapping_sub(1);
    match segment::syn(env, live, sequence, bytes(hold.window, offer.scale()), &options) {
        Some(_) => Ok(backend.hop.ifindex),
        None => Err(Outcome::NoRoom),
    }
}

/// The window that a scaled field means, as the field of a SYN, which is never scaled.
#[inline(always)]
const fn bytes(window: u16, scale: u8) -> u16 {
    let bytes = (window as u32) << (if scale > 14 { 0 } else { scale });
    if bytes > 0xffff { 0xffff } else { bytes as u16 }
}

/// Resets the client of a flow that no backend takes.
#[inline(always)]
fn refused<E: Env>(env: &E, settings: &Settings, live: &Live) -> Verdict {
    if !limits::may_answer(env) {
        return count::end(env, Outcome::AnswerLimited);
    }
    let flow = live.flow();
    let ifindex = flow.ifindex;
    let reset =
        Segment { sequence: flow.isn.wrapping_add(1), acknowledgement: 0, window: 0, flags: flag::RST };
    if segment::to_client(env, live, &reset).is_none() {
        return count::end(env, Outcome::NoRoom);
    }
    let verdict = link::transmit(env, settings, ifindex);
    if verdict != Verdict::Drop {
        env.count(Outcome::ResetSent);
    }
    verdict
}

#[cfg(test)]
mod tests;
