//! The program that reads a request: is it all here, and where does it say it belongs?

use super::collect::{self, Way};
use super::hold::{self, Held};
use crate::abi::{
    Affinity, AffinityRules, Hold, HoldFlags, MAX_PATH_RULES, Named, Outcome, Reading, Said, Service, program,
};
use crate::affinity::head::{Head, Method, Progress};
use crate::affinity::ticket::{self, Check, Kind, Ticket};
use crate::affinity::{self, Bytes, Span, pair, path, payload, request, route, segment, text};
use crate::datapath::{Env, Verdict, choice, count, flow};

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
        // Another CPU has read it to its end in between.
        held.unlock(env);
        return count::end(env, Outcome::Held);
    }
    if !scan(env, &way, service, &mut held) {
        let is_last = held.get().flags & HoldFlags::FIN != 0;
        if number > settings.cpu_holds && !is_last {
            return collect::own(env, &way, &live, held);
        }
        // No more will come, or there is no room for it: what is there is all that there is to go by.
        cut_short(env, &way, service, &mut held);
    }
    let hold = held.get_mut();
    hold.flags |= HoldFlags::READ;
    hold.until = now.wrapping_add(settings.connect_timeout);
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
        if len < needed && len < way.rules.head_limit as u32 {
            return false;
        }
        let key = payload::key(&bytes, len, way.rules, &way.settings.session_secret);
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

/// Decides by what is there: no more will come.
#[inline(always)]
fn cut_short<E: Env>(env: &E, way: &Way<'_>, service: &Service, held: &mut Held) {
    let payload = service.affinity == Affinity::Payload as u8;
    let outcome = if payload { Outcome::PayloadShort } else { Outcome::NotHttp };
    fall_back(env, way, service, held.get_mut(), outcome);
}

/// Nothing that can be used: the key is that of the client's address or of the connection.
#[inline(always)]
fn fall_back<E: Env>(env: &E, way: &Way<'_>, service: &Service, hold: &mut Hold, outcome: Outcome) {
    env.count(outcome);
    hold.said = Said::Nothing as u32;
    hold.session = fallback(way, service);
}

/// The session key of what cannot be read.
#[inline(never)]
fn fallback(way: &Way<'_>, service: &Service) -> u64 {
    let (packet, secret) = (way.packet, &way.settings.session_secret);
    if way.rules.fallback == Affinity::SourceIp as u8 {
        affinity::source(&packet.source, service.prefix_v4, service.prefix_v6, secret)
    } else {
        affinity::connection(&packet.flow_key(), secret)
    }
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
    match progress.method() {
        Method::Get | Method::Head => hold.flags |= HoldFlags::SAFE,
        Method::Other => {}
    }
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
        hold.session = text::key(bytes, part, &way.settings.session_secret);
        hold.said = Said::Key as u32;
        return;
    }
    hold.session = fallback(way, service);
    named(env, service, rules, hold, &part);
}

/// A segment that names servers. Out of line for the sake of the stack.
#[inline(never)]
fn named<E: Env>(env: &E, service: &Service, rules: &AffinityRules, hold: &mut Hold, part: &Span) {
    // SAFETY: the hold's bytes go on for more than what can be reached.
    let bytes = &unsafe { affinity::Held::new(env, (&raw const hold.bytes).cast()) };
    let (Some(settings), part) = (env.settings(), *part) else { return };
    let server = |i: u32| env.server(rules.servers.wrapping_add(i));
    let mark = |i: u32| server(i).map(|server| server.mark);
    let mut places = [0; 2];
    let mut count = 0;
    if rules.reading == Reading::Route as u8 {
        let wanted = route::mark(bytes, part, &settings.session_secret);
        if let Some(place) = route::find(bytes, wanted, rules.server_count, mark) {
            places[0] = place;
            count = 1;
        }
    } else {
        let kind = if rules.reading == Reading::Pair as u8 { Kind::Pair } else { Kind::Route };
        let Some(secrets) = env.secrets() else { return };
        let mut ticket = Ticket::default();
        match ticket::check(bytes, part, kind, service.id, &secrets.segment, &mut ticket) {
            Check::Genuine => {}
            Check::Forged | Check::Absent => {
                env.count(Outcome::SegmentForged);
                return;
            }
        }
        if kind == Kind::Route {
            if let Some(place) = route::find(bytes, ticket.number, rules.server_count, mark) {
                places[0] = place;
                count = 1;
            }
        } else {
            let pair = pair::find(bytes, ticket.number, rules.server_count, mark);
            if pair.matches == 1 {
                let (primary, secondary) = pair.ordered(ticket.larger_first());
                places = [primary, secondary];
                count = 2;
            }
        }
    }
    let mut i = 0;
    while i < 2 {
        if i < count && let Some(server) = server(places[i]) {
            hold.named[i] = Named { slot: server.backend, generation: server.generation };
        }
        i += 1;
    }
    hold.named_count = count as u32;
    if count == 0 {
        env.count(Outcome::SegmentUnknown);
    } else {
        hold.said = Said::Servers as u32;
    }
}
