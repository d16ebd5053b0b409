//! The program that reads a request: is it all here, and where does it say it belongs?

use super::collect::{self, Way};
use super::hold::{self, Held};
use crate::abi::{
    Affinity, AffinityRules, BindingKey, FlowState, HOLD_LEN, Hold, HoldFlags, MAX_PATH_RULES, Named,
    Outcome, Reading, Said, Service, program,
};
use crate::affinity::head::{Head, Progress};
use crate::affinity::ticket::{self, Check, Kind, Ticket};
use crate::affinity::{self, Bytes, Span, pair, path, payload, request, route, segment, text};
use crate::datapath::scratch::{after, again};
use crate::datapath::{Env, Verdict, binding, choice, count, flow, limits};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference, number, why) =
        unsafe { (&(*scratch).packet, (*scratch).flow, (*scratch).hold, (*scratch).again) };
    let now = env.now();
    let (Some(service), Some(live)) =
        (choice::service_of(env, settings, packet), flow::by_ref(env, reference, now))
    else {
        return count::end(env, Outcome::Raced);
    };
    let Some(rules) = env.affinity_rules(service.slot) else { return Verdict::Drop };
    let way = Way { settings, packet, rules, now };
    let Some(mut held) = hold::lock(env, number, reference) else {
        return count::end(env, Outcome::NotHeld);
    };
    if held.get().flags & HoldFlags::READ != 0 {
        // It has been read to its end before; where nobody connected, that did not come to pass.
        if live.word.state() == FlowState::Collecting {
            return collect::go_on(env, &live, held, again::FIRST, program::CONNECT);
        }
        held.unlock(env);
        return count::end(env, Outcome::Held);
    }
    if !scan(env, &way, service, &mut held) {
        let is_last = held.get().flags & HoldFlags::FIN != 0;
        let waits = number > settings.cpu_holds && !is_last;
        // Who waits already goes on.
        if waits && (held.get().owned != 0 || limits::may_wait(env, service, &packet.source, now)) {
            return collect::own(env, &way, &live, held);
        }
        // No more will come, or there is no room for it: what is there is all that there is to go by.
        cut_short(env, &way, service, &mut held, is_last);
    }
    let hold = held.get_mut();
    hold.flags |= HoldFlags::READ;
    hold.until = now.wrapping_add(settings.connect_timeout);
    if choice::has_two_secrets(settings) && other(env, &way, service, held.get()) {
        // SAFETY: this CPU's own scratch.
        unsafe { (*scratch).after = after::CONNECT };
        return collect::go_on(env, &live, held, why, program::PICK);
    }
    collect::go_on(env, &live, held, why, program::CONNECT)
}

/// Reads on in the held bytes. Whether it is known now where they belong; the hold says it then.
#[inline(always)]
fn scan<E: Env>(env: &E, way: &Way<'_>, service: &Service, held: &mut Held) -> bool {
    let hold = held.as_ptr();
    let len = held.get().len;
    // SAFETY: the hold's bytes go on for more than what can be reached.
    let bytes = unsafe { affinity::Held::new(env, (&raw const (*hold).bytes).cast()) };
    if service.affinity == Affinity::Payload as u8 {
        let needed = way.rules.offset as u32 + way.rules.length as u32;
        if len < needed && needed <= HOLD_LEN as u32 {
            return false;
        }
        let key = payload::key(&bytes, len, way.rules, way.settings.session_secret());
        let hold = held.get_mut();
        match key {
            Some(key) => {
                hold.session = key;
                hold.said = Said::Key as u32;
            }
            None => fall_back(env, way, service, hold, Outcome::PayloadShort),
        }
        return true;
    }
    // SAFETY: the hold keeps the scanner's words, and is locked by this CPU.
    let progress = unsafe { &mut *(&raw mut (*hold).progress).cast::<Progress>() };
    let head = request::scan(&bytes, len, progress, way.rules);
    let hold = held.get_mut();
    match head {
        Head::Incomplete => return false,
        Head::Complete => complete(env, way, service, &bytes, progress, hold),
        Head::NotHttp => fall_back(env, way, service, hold, Outcome::NotHttp),
        Head::TooLong => fall_back(env, way, service, hold, Outcome::HeadTooLong),
    }
    true
}

/// Decides by what is there: no more will come. That there was no hold for it has been counted.
#[inline(always)]
fn cut_short<E: Env>(env: &E, way: &Way<'_>, service: &Service, held: &mut Held, is_last: bool) {
    if is_last {
        let payload = service.affinity == Affinity::Payload as u8;
        env.count(if payload { Outcome::PayloadShort } else { Outcome::NotHttp });
    }
    follow_fallback(way, service, held.get_mut());
}

/// Nothing that can be used: the key is that of the client's address or of the connection.
#[inline(always)]
fn fall_back<E: Env>(env: &E, way: &Way<'_>, service: &Service, hold: &mut Hold, outcome: Outcome) {
    env.count(outcome);
    follow_fallback(way, service, hold);
}

#[inline(always)]
fn follow_fallback(way: &Way<'_>, service: &Service, hold: &mut Hold) {
    hold.said = Said::Nothing as u32;
    hold.session = fallback(way, service, way.settings.session_secret());
}

/// The session key of what cannot be read, under a secret.
#[inline(never)]
fn fallback(way: &Way<'_>, service: &Service, secret: &[u64; 2]) -> u64 {
    let packet = way.packet;
    if way.rules.fallback == Affinity::SourceIp as u8 {
        affinity::source(&packet.source, service.prefix_v4, service.prefix_v6, secret)
    } else {
        affinity::connection(&packet.flow_key(), secret)
    }
}

/// Leaves the session, its pool and its key under the other secret in the scratch, unless it is bound under its own; whether it did.
/// Each step is out of line for the sake of the stack.
#[inline(always)]
fn other<E: Env>(env: &E, way: &Way<'_>, service: &Service, hold: &Hold) -> bool {
    if !is_unbound(env, way, service, hold) {
        return false;
    }
    let key = if hold.said == Said::Key as u32 {
        other_key(env, service, way.rules, hold)
    } else {
        fallback(way, service, way.settings.other_secret())
    };
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe { (*scratch).other = key }
    }
    key != hold.session
}

/// Whether the session has no binding under its key; it and its pool are in the scratch then.
#[inline(never)]
fn is_unbound<E: Env>(env: &E, way: &Way<'_>, service: &Service, hold: &Hold) -> bool {
    let Some(scratch) = env.scratch() else { return false };
    let pool = match env.path_rule(way.rules.paths.wrapping_add(hold.path).wrapping_sub(1)) {
        Some(rule) if hold.path != 0 => rule.service.id,
        Some(_) | None => service.id,
    };
    // SAFETY: this CPU's own scratch.
    unsafe {
        (*scratch).session = hold.session;
        (*scratch).carried = pool;
    }
    binding::find_again(env, &BindingKey::new(pool, hold.session), way.now).is_none()
}

/// The key that the other secret makes of what the hold's key was made of.
#[inline(never)]
fn other_key<E: Env>(env: &E, service: &Service, rules: &AffinityRules, hold: &Hold) -> u64 {
    let Some(settings) = env.settings() else { return hold.session };
    let bytes = bytes(env, hold);
    if service.affinity == Affinity::Payload as u8 {
        return payload::key(&bytes, hold.len, rules, settings.other_secret()).unwrap_or(hold.session);
    }
    // SAFETY: the hold keeps the scanner's words.
    let progress = unsafe { &*(&raw const hold.progress).cast::<Progress>() };
    let part = segment::part(&bytes, progress.value(), rules.delimiter, rules.index);
    text::key(&bytes, part, settings.other_secret())
}

/// A whole head.
#[inline(always)]
fn complete<E: Env, B: Bytes>(
    env: &E,
    way: &Way<'_>,
    service: &Service,
    bytes: &B,
    progress: &Progress,
    hold: &mut Hold,
) {
    let rules = way.rules;
    let count = if rules.path_count < MAX_PATH_RULES { rules.path_count } else { MAX_PATH_RULES };
    if count != 0
        && let Some(place) =
            path::longest(bytes, progress.path(), count, |i| env.path_rule(rules.paths.wrapping_add(i)))
    {
        hold.path = place.wrapping_add(1);
    }
    if progress.several() {
        env.count(Outcome::CookieTwice);
    }
    let value = progress.value();
    if value.len == 0 {
        return fall_back(env, way, service, hold, Outcome::NoCookie);
    }
    let part = segment::part(bytes, value, rules.delimiter, rules.index);
    if part.len == 0 {
        return fall_back(env, way, service, hold, Outcome::NoCookie);
    }
    if rules.reading == Reading::Bind as u8 {
        hold.session = text::key(bytes, part, way.settings.session_secret());
        hold.said = Said::Key as u32;
        return;
    }
    hold.session = fallback(way, service, way.settings.session_secret());
    named(env, service, rules, hold, &part);
}

/// A segment that names servers. Each step is out of line for the sake of the stack.
#[inline(always)]
fn named<E: Env>(env: &E, service: &Service, rules: &AffinityRules, hold: &mut Hold, part: &Span) {
    let servers = servers(env, rules, hold);
    let (mut places, mut count) = ([0; 2], 0);
    if rules.reading == Reading::Pair as u8 {
        let sealed = sealed(env, service, hold, part, Kind::Pair);
        if sealed == FORGED {
            return;
        }
        let pair = pair_of(env, servers, hold);
        if pair != NONE {
            let (smaller, larger) = (pair as u32, (pair >> 32) as u32);
            places = if sealed == GENUINE_TURNED { [larger, smaller] } else { [smaller, larger] };
            count = 2;
        }
    } else {
        if rules.reading == Reading::SealedRoute as u8 {
            if sealed(env, service, hold, part, Kind::Route) == FORGED {
                return;
            }
        } else {
            mark(env, hold, part);
        }
        let place = route_of(env, servers, hold);
        if place != NONE {
            places[0] = place as u32;
            count = 1;
        }
    }
    let mut i = 0;
    while i < 2 {
        if i < count
            && let Some(server) = env.server(servers.first.wrapping_add(places[i as usize]))
        {
            hold.named[i as usize] = Named { slot: server.backend, generation: server.generation };
        }
        i += 1;
    }
    hold.named_count = count;
    if count == 0 {
        env.count(Outcome::SegmentUnknown);
    } else {
        hold.said = Said::Servers as u32;
    }
}

/// The servers that a segment may name.
#[derive(Clone, Copy)]
struct Servers {
    first: u32,
    count: u32,
}

/// Those of the pool that the request chose.
#[inline(always)]
fn servers<E: Env>(env: &E, rules: &AffinityRules, hold: &Hold) -> Servers {
    match env.path_rule(rules.paths.wrapping_add(hold.path).wrapping_sub(1)) {
        Some(rule) if hold.path != 0 => Servers { first: rule.servers, count: rule.server_count as u32 },
        Some(_) | None => Servers { first: rules.servers, count: rules.server_count },
    }
}

/// No server.
const NONE: u64 = u64::MAX;
/// Not a ticket, or one that the product did not make.
const FORGED: u32 = 0;
/// A ticket; of a pair, the smaller number first.
const GENUINE: u32 = 1;
/// A pair's ticket, the larger number first.
const GENUINE_TURNED: u32 = 2;
/// The word of a hold's progress that the scanner leaves alone: a route's mark, or a pair's sum.
const NUMBER: usize = 3;

/// The hold's bytes.
#[inline(always)]
fn bytes<'e, E: Env>(env: &'e E, hold: &Hold) -> affinity::Held<'e, E> {
    // SAFETY: the hold's bytes go on for more than what can be reached.
    unsafe { affinity::Held::new(env, (&raw const hold.bytes).cast()) }
}

/// Checks a ticket and notes its number.
#[inline(never)]
fn sealed<E: Env>(env: &E, service: &Service, hold: &mut Hold, part: &Span, kind: Kind) -> u32 {
    let Some(secrets) = env.secrets() else { return FORGED };
    let mut ticket = Ticket::default();
    match ticket::check(&bytes(env, hold), *part, kind, service.id, &secrets.segment, &mut ticket) {
        Check::Genuine => {}
        Check::Forged | Check::Absent => {
            env.count(Outcome::SegmentForged);
            return FORGED;
        }
    }
    hold.progress[NUMBER] = ticket.number;
    if ticket.larger_first() { GENUINE_TURNED } else { GENUINE }
}

/// Notes the mark of a route's text.
#[inline(never)]
fn mark<E: Env>(env: &E, hold: &mut Hold, part: &Span) {
    let Some(settings) = env.settings() else { return };
    hold.progress[NUMBER] = route::mark(&bytes(env, hold), *part, settings.session_secret());
}

/// Place of the server with the mark noted, or [`NONE`].
#[inline(never)]
fn route_of<E: Env>(env: &E, servers: Servers, hold: &Hold) -> u64 {
    let mark = |i: u32| env.server(servers.first.wrapping_add(i)).map(|server| server.mark);
    match route::find(&bytes(env, hold), hold.progress[NUMBER], servers.count, mark) {
        Some(place) => place as u64,
        None => NONE,
    }
}

/// Places of the two servers with the sum noted, that of the smaller number in the lower half, or [`NONE`].
#[inline(never)]
fn pair_of<E: Env>(env: &E, servers: Servers, hold: &Hold) -> u64 {
    let mark = |i: u32| env.server(servers.first.wrapping_add(i)).map(|server| server.mark);
    let pair = pair::find(&bytes(env, hold), hold.progress[NUMBER], servers.count, mark);
    if pair.matches == 1 { pair.smaller as u64 | (pair.larger as u64) << 32 } else { NONE }
}
