//! How fast bindings and answers may be made, and how many requests may wait.

use super::Env;
use super::scratch::Packet;
use crate::abi::{Addr, DOORKEEPER_ENTRIES, Outcome, QUOTA_ENTRIES, Service, hand};

/// Nanoseconds as seconds, nearly: the rate windows are 2^30 ns long.
const SECOND_SHIFT: u32 = 30;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Answers about sessions that take longer (ns) are not waited for: less than a TCP waits before it sends again.
const PATIENCE: u64 = 1 << 27;
/// In the time since when questions are not answered: it has taken too long.
const SILENT: u64 = 1;

/// Cells for bindings, and as many behind them for holds.
const QUOTAS: u32 = QUOTA_ENTRIES / 2;

/// Whether a new binding is allowed, by the service's rate and the source prefix's quota; counts a refusal.
#[inline(never)]
pub(crate) fn may_bind<E: Env>(env: &E, service: &Service, prefix: u32, now: u64) -> bool {
    let Some(settings) = env.settings() else { return false };
    // The prefix first: one prefix over its quota must not use up the rate of all.
    if settings.prefix_quota != 0 && settings.prefix_window != 0 {
        let window = now / (settings.prefix_window as u64 * SECOND);
        let index = mix(prefix as u64 | (service.id as u64) << 32) as u32 % QUOTAS;
        if let Some(cell) = env.quota(index)
            && !take(env, cell, window as u32, settings.prefix_quota)
        {
            env.count(Outcome::BindingQuota);
            return false;
        }
    }
    if let Some(cell) = env.rate(service.slot)
        && !take(env, cell, (now >> SECOND_SHIFT) as u32, service.binding_rate)
    {
        env.count(Outcome::BindingRate);
        return false;
    }
    true
}

/// Whether the rest of a request head may be waited for; counts a refusal.
///
/// While more than half of the holds are taken, a source prefix may begin to wait a quarter of them as often in a window: as those
/// that have waited for so long give way, what one prefix takes never keeps others from a hold.
#[inline(never)]
pub(crate) fn may_wait<E: Env>(env: &E, service: &Service, client: &Addr, now: u64) -> bool {
    let (Some(settings), Some(live)) = (env.settings(), env.hand(hand::HOLDS_LIVE)) else { return false };
    let shared = settings.holds.saturating_sub(settings.cpu_holds);
    let index = QUOTAS + mix(prefix(client) as u64 | (service.id as u64) << 32) as u32 % QUOTAS;
    let Some(cell) = env.quota(index) else { return false };
    // Also counted while it does not matter, for then it may begin to.
    let within = take(env, cell, (now >> SECOND_SHIFT) as u32, shared / 4 + 1);
    // SAFETY: from the environment.
    if within || unsafe { live.read_volatile() } <= shared.div_ceil(2) as u64 {
        return true;
    }
    env.count(Outcome::HoldsFull);
    false
}

/// Whether the balancer may send an answer of its own.
#[inline(always)]
pub(crate) fn may_answer<E: Env>(env: &E) -> bool {
    let (Some(settings), Some(cell)) = (env.settings(), env.answer_rate()) else { return false };
    take(env, cell, (env.now() >> SECOND_SHIFT) as u32, settings.answer_rate)
}

/// Whether the other nodes may be asked about a packet.
#[inline(always)]
pub(crate) fn may_ask<E: Env>(env: &E, rate: u32) -> bool {
    let Some(cell) = env.hand(hand::ASKED) else { return false };
    take(env, cell, (env.now() >> SECOND_SHIFT) as u32, rate)
}

/// Whether the other nodes may be asked for a session's backend.
///
/// Whoever asks waits for his client to send again if the question is lost. When nobody has answered for a while it is one in
/// each such while that tries.
#[inline(always)]
pub(crate) fn may_inquire<E: Env>(env: &E, rate: u32, now: u64) -> bool {
    let Some(cell) = env.silence() else { return false };
    // SAFETY: from the environment.
    let since = unsafe { cell.read_volatile() };
    let waited = now.wrapping_sub(since & !SILENT);
    if since == 0 {
        // SAFETY: from the environment; another CPU's question is as good.
        unsafe { env.exchange(cell, since, now & !SILENT) };
    } else if waited <= PATIENCE {
        if since & SILENT != 0 {
            return false;
        }
    // SAFETY: from the environment.
    } else if !unsafe { env.exchange(cell, since, now | SILENT) } {
        return false;
    }
    may_ask(env, rate)
}

/// The other nodes answer.
#[inline(always)]
pub(crate) fn heard<E: Env>(env: &E) {
    if let Some(cell) = env.silence() {
        // SAFETY: from the environment.
        unsafe { cell.write_volatile(0) }
    }
}

/// The source prefix that a quota is kept for: IPv4 /24, IPv6 /48, as a hash.
#[inline(always)]
pub(crate) fn prefix(client: &Addr) -> u32 {
    let words = &client.0;
    if client.is_v4() {
        u32::from_be(words[3]) >> 8
    } else {
        (mix((words[0] as u64) << 32 | (u32::from_be(words[1]) >> 16) as u64) >> 32) as u32
    }
}

/// Whether a datagram's flow has been seen before; remembers it.
#[inline(always)]
pub(crate) fn seen_before<E: Env>(env: &E, packet: &Packet) -> bool {
    let pair = |a: u32, b: u32| (a as u64) << 32 | b as u64;
    let (s, d) = (&packet.source.0, &packet.destination.0);
    let mut hash = mix(pair(s[0], s[1]));
    hash = mix(hash ^ pair(s[2], s[3]));
    hash = mix(hash ^ pair(d[0], d[1]).wrapping_add(pair(d[2], d[3])));
    hash = mix(hash ^ pair(packet.source_port.raw() as u32, packet.destination_port.raw() as u32));
    let mark = hash | 1;
    let Some(cell) = env.doorkeeper(hash as u32 % DOORKEEPER_ENTRIES) else { return false };
    // SAFETY: from the environment; a lost update only delays a binding by a packet.
    unsafe {
        if cell.read_volatile() == mark {
            return true;
        }
        cell.write_volatile(mark);
    }
    false
}

/// Takes one of `limit` in this window.
#[inline(always)]
fn take<E: Env>(env: &E, cell: *mut u64, window: u32, limit: u32) -> bool {
    // SAFETY: from the environment.
    let word = unsafe { cell.read_volatile() };
    if (word >> 32) as u32 != window {
        // Whoever loses this exchange finds the window open and is let through uncounted: one packet a CPU at most.
        // SAFETY: from the environment.
        unsafe { env.exchange(cell, word, (window as u64) << 32 | 1) };
        return limit > 0;
    }
    if word as u32 >= limit {
        return false;
    }
    // SAFETY: from the environment.
    unsafe { env.add(cell, 1) };
    true
}

/// A cheap mixer; nothing secret hangs on it.
#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ (x >> 29)
}

const _: () = assert!(QUOTA_ENTRIES.is_power_of_two() && DOORKEEPER_ENTRIES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    #[test]
    fn a_prefix_over_its_quota_does_not_use_up_the_rate_of_all() {
        let mut model = Model::new(0, 0);
        model.settings.prefix_quota = 1;
        let service = Service { id: 1, binding_rate: 3, ..Service::default() };
        let now = model.now();
        assert!(may_bind(&model, &service, 1, now));
        for _ in 0..100 {
            assert!(!may_bind(&model, &service, 1, now));
        }
        assert!(may_bind(&model, &service, 2, now), "another prefix pays for the first one");
    }

    #[test]
    fn nodes_that_do_not_answer_are_asked_one_question_at_a_time() {
        let model = Model::new(0, 0);
        let now = model.now();
        let asks = |after: u64| may_inquire(&model, u32::MAX, now + after);
        assert!(asks(0) && asks(PATIENCE / 2) && asks(PATIENCE - 1), "they may yet answer");
        assert!(asks(PATIENCE + 2), "the one that tries");
        assert!((0..100).all(|n| !asks(PATIENCE + 2 + n)), "the others go on by themselves");
        assert!(asks(2 * PATIENCE + 10) && !asks(2 * PATIENCE + 11));
        heard(&model);
        assert!(asks(3 * PATIENCE) && asks(3 * PATIENCE + 1));
        // A single question that was lost long ago keeps nobody from asking.
        assert!(asks(100 * PATIENCE));
        heard(&model);
        assert!(asks(100 * PATIENCE + 1) && asks(100 * PATIENCE + 2));
        assert!(!may_inquire(&model, 0, now), "never more than the rate");
    }

    #[test]
    fn one_prefix_does_not_take_all_holds() {
        let mut model = Model::new(0, 0);
        model.settings.holds = model.settings.cpu_holds + 100;
        let service = Service { id: 1, ..Service::default() };
        let of = |n: u8| core::net::Ipv4Addr::new(192, 0, n, 1).into();
        let taken = |n| unsafe { model.hand(hand::HOLDS_LIVE).unwrap().write(n) };
        let now = model.now();
        taken(50);
        assert!((0..1_000).all(|_| may_wait(&model, &service, &of(2), now)), "half of them are free");
        taken(51);
        assert!(!may_wait(&model, &service, &of(2), now));
        assert!(may_wait(&model, &service, &of(3), now), "another prefix pays for the first one");
        assert!(may_wait(&model, &service, &of(2), now + (1 << SECOND_SHIFT)));
        let so_often = (0..1_000).filter(|_| may_wait(&model, &service, &of(4), now)).count();
        assert_eq!(so_often, 26);
    }
}
