//! The flow table: one record a flow, found by either direction's 5-tuple.
//!
//! A record is claimed by a compare-exchange of its word, filled in, and only then can be found. Whoever
//! holds one looks at the nonce again before the packet leaves.

mod home;

pub(crate) use home::find as find_at_home;

use super::{Env, Insert, vitals};
use crate::abi::{
    Addr, Be16, Flow, FlowKey, FlowRef, FlowState, FlowWord, HOME_LEN, Outcome, Settings, flow_home, hand,
};
use crate::packet::flag;

/// `last_seen` is written when it moves by more than this (ns).
const TOUCH: u64 = 1 << 28;
/// Half-open records looked at for one to use; nearly every one gives way.
const HALF_OPEN_PROBES: u32 = 16;
/// Established records looked at: only free and expired ones give way, and a connection is refused when none does.
/// With 95 % of the table in use that happens to one connection in 700,000.
const ESTABLISHED_PROBES: u32 = 256;

/// A flow that lives, as it was when it was read.
#[derive(Clone, Copy)]
pub(crate) struct Live {
    pub(crate) record: *mut Flow,
    pub(crate) reference: FlowRef,
    pub(crate) word: FlowWord,
}

/// Which records to allocate from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The half-open ring; its oldest record gives way.
    HalfOpen,
    /// Flows that proved themselves; only expired records give way.
    Established,
    /// Every second one of those. Datagrams prove less, so they can take no more than half of the records, and a
    /// connection that is looking for one meets the other half at every step.
    Datagrams,
}

/// Finds the flow of a 5-tuple, if it lives.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, key: &FlowKey, now: u64) -> Option<Live> {
    let reference = reference(env, key)?;
    let live = by_ref(env, reference, now);
    if live.is_some() {
        return live;
    }
    // The flow may have been moved to its established record since the entry was read.
    let again = self::reference(env, key)?;
    if again == reference { None } else { by_ref(env, again, now) }
}

/// What the entry of a 5-tuple says.
#[inline(always)]
pub(crate) fn reference<E: Env>(env: &E, key: &FlowKey) -> Option<FlowRef> {
    // SAFETY: from the environment.
    env.flow_ref(key).map(|cell| FlowRef(unsafe { cell.read_volatile() }))
}

/// The flow of a reference, if it is still that flow and lives.
#[inline(always)]
pub(crate) fn by_ref<E: Env>(env: &E, reference: FlowRef, now: u64) -> Option<Live> {
    let record = env.flow(reference.index())?;
    let word = word_of(record);
    if word.nonce() != reference.nonce() {
        return None;
    }
    // SAFETY: from the environment.
    let seen = unsafe { (&raw const (*record).last_seen).read_volatile() };
    let lifetime = lifetime(env.settings()?, word);
    if seen.wrapping_add(lifetime) <= now { None } else { Some(Live { record, reference, word }) }
}

impl Live {
    /// The record; another CPU may be recycling it, see [`Self::is_same`].
    #[inline(always)]
    pub(crate) fn flow(&self) -> &Flow {
        // SAFETY: from the environment, valid while the program runs.
        unsafe { &*self.record }
    }

    /// Whether the record is still this flow's.
    #[inline(always)]
    pub(crate) fn is_same(&self) -> bool {
        word_of(self.record).nonce() == self.reference.nonce()
    }

    /// Changes the state; whether nobody else did meanwhile.
    #[inline(always)]
    pub(crate) fn change<E: Env>(&self, env: &E, word: FlowWord) -> bool {
        let word = vitals::counted(self.word, word);
        if word == self.word {
            return true;
        }
        // SAFETY: from the environment.
        let done = unsafe { env.exchange(&raw mut (*self.record).word, self.word.0, word.0) };
        if done {
            vitals::recount(env, self.record, self.word, word);
        }
        done
    }

    /// Notes a TCP segment in the state, also when the other direction changed it at the same moment.
    #[inline(always)]
    pub(crate) fn advance<E: Env>(&self, env: &E, from_client: bool, flags: u8) {
        if self.change(env, after_segment(self.word, from_client, flags)) {
            return;
        }
        let word = word_of(self.record);
        let gone = matches!(word.state(), FlowState::Free | FlowState::Claimed);
        if !gone && word.nonce() == self.reference.nonce() {
            Self { word, ..*self }.change(env, after_segment(word, from_client, flags));
        }
    }

    /// Notes that a segment of the balancer's own went out, at this very moment.
    #[inline(always)]
    pub(crate) fn sent(&self, now: u64) {
        // SAFETY: from the environment. In a recycled record this only makes a stranger look fresh.
        unsafe { (&raw mut (*self.record).last_seen).write_volatile(now) }
    }

    /// Notes that a packet came; whether it was worth noting.
    #[inline(always)]
    pub(crate) fn touch(&self, now: u64) -> bool {
        // SAFETY: from the environment. In a recycled record this only makes a stranger look fresh.
        unsafe {
            let cell = &raw mut (*self.record).last_seen;
            if now.wrapping_sub(cell.read_volatile()) <= TOUCH {
                return false;
            }
            cell.write_volatile(now);
        }
        true
    }
}

/// The state after a TCP segment.
#[inline(always)]
pub(crate) fn after_segment(word: FlowWord, from_client: bool, flags: u8) -> FlowWord {
    if matches!(word.state(), FlowState::Collecting | FlowState::Connecting | FlowState::Releasing) {
        // Those who hold its bytes say when it ends.
        return word;
    }
    if flags & flag::RST != 0 {
        let doubtful = from_client
            && (word.has(FlowWord::DOUBTFUL)
                || matches!(word.state(), FlowState::Established | FlowState::Closing));
        let word = if doubtful { word.with(FlowWord::DOUBTFUL) } else { word.without(FlowWord::DOUBTFUL) };
        return word.with(FlowWord::RESET).with_state(FlowState::Closed);
    }
    let goes_on = from_client && flags & (flag::SYN | flag::ACK) == flag::ACK;
    let word = if goes_on && word.has(FlowWord::DOUBTFUL) { without_reset(word) } else { word };
    if flags & flag::FIN != 0 {
        let word = word.with(if from_client { FlowWord::FIN_CLIENT } else { FlowWord::FIN_SERVER });
        let both = word.has(FlowWord::FIN_CLIENT) && word.has(FlowWord::FIN_SERVER);
        return match word.state() {
            FlowState::Closed => word,
            FlowState::Free
            | FlowState::Claimed
            | FlowState::Opening
            | FlowState::Answered
            | FlowState::Established
            | FlowState::Closing
            | FlowState::Collecting
            | FlowState::Connecting
            | FlowState::Releasing => {
                word.with_state(if both { FlowState::Closed } else { FlowState::Closing })
            }
        };
    }
    let is_answer = flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
    if !from_client && is_answer && word.state() == FlowState::Opening {
        return word.with_state(FlowState::Answered);
    }
    word
}

/// What a flow was before a reset that its client did not send: whoever resets a connection sends nothing more on it.
///
/// Should the client have sent it all the same, a packet of its having been overtaken, the backend answers with
/// a reset of its own.
#[inline(always)]
fn without_reset(word: FlowWord) -> FlowWord {
    let word = word.without(FlowWord::DOUBTFUL | FlowWord::RESET);
    let (client, server) = (word.has(FlowWord::FIN_CLIENT), word.has(FlowWord::FIN_SERVER));
    word.with_state(match (client, server) {
        (false, false) => FlowState::Established,
        (true, false) | (false, true) => FlowState::Closing,
        (true, true) => FlowState::Closed,
    })
}

/// How long a flow in this state lives without traffic.
#[inline(always)]
pub(crate) fn lifetime(settings: &Settings, word: FlowWord) -> u64 {
    let datagram = word.has(FlowWord::DATAGRAM);
    match word.state() {
        FlowState::Free | FlowState::Claimed => 0,
        FlowState::Opening | FlowState::Answered => {
            if datagram {
                settings.udp_new
            } else {
                settings.tcp_half_open
            }
        }
        FlowState::Established => {
            if datagram {
                settings.udp_established
            } else {
                settings.tcp_established
            }
        }
        FlowState::Collecting => settings.head_timeout,
        FlowState::Connecting | FlowState::Releasing => settings.connect_timeout,
        FlowState::Closing => settings.tcp_closing,
        FlowState::Closed => settings.tcp_reset,
    }
}

/// How long the record of a flow that is over stays, unless another flow needs it.
///
/// Who has been told that half a request arrived cannot send it again: going on after its time, it has to be reset, and
/// only the record tells it from one whose first segment is late.
#[inline(always)]
pub(crate) fn trace(settings: &Settings, word: FlowWord) -> u64 {
    if word.state() == FlowState::Collecting { settings.tcp_closing } else { 0 }
}

/// Claims a record for a flow of that client, at home if one is free there; what was in it is forgotten.
#[inline(always)]
pub(crate) fn allocate<E: Env>(env: &E, room: Room, (client, port): (&Addr, Be16), now: u64) -> Option<Live> {
    let settings = env.settings()?;
    let (base, len, step, hand, probes) = match room {
        Room::HalfOpen => (0, settings.half_open, 1, hand::HALF_OPEN, HALF_OPEN_PROBES),
        Room::Established => (settings.half_open, settings.flows, 1, hand::FLOW, ESTABLISHED_PROBES),
        Room::Datagrams => {
            (settings.half_open, settings.flows.div_ceil(2), 2, hand::FLOW, ESTABLISHED_PROBES)
        }
    };
    if len == 0 {
        return None;
    }
    let (first, tries) = match room {
        Room::HalfOpen => (0, 0),
        // Too few for a home.
        Room::Established | Room::Datagrams if settings.flows < HOME_LEN => (0, 0),
        Room::Established => (flow_home(settings, client, port), HOME_LEN),
        Room::Datagrams => {
            let home = flow_home(settings, client, port);
            (home.wrapping_add(home.wrapping_sub(base) & 1), HOME_LEN / 2)
        }
    };
    let hand = env.hand(hand)?;
    let nonce = nonce(env)?;
    let mut claimed = None;
    let place = &mut claimed;
    // By value: what is taken by reference stands on the stack twice.
    env.repeat(probes + tries, move |i| {
        let index = if i < tries {
            first.wrapping_add(i * step)
        } else {
            // SAFETY: from the environment.
            base + unsafe { env.add(hand, 1) } as u32 % len * step
        };
        let Some(record) = env.flow(index) else { return true };
        if claim(env, settings, record, index, nonce, room, now) {
            let word = FlowWord::new(nonce, FlowState::Claimed);
            *place = Some(Live { record, reference: FlowRef::new(index, nonce, false), word });
            return true;
        }
        false
    });
    claimed
}

/// Takes a record that is free, expired or, among half-open ones, merely older.
#[inline(always)]
fn claim<E: Env>(
    env: &E,
    settings: &Settings,
    record: *mut Flow,
    index: u32,
    nonce: u32,
    room: Room,
    now: u64,
) -> bool {
    let word = word_of(record);
    let free = match word.state() {
        FlowState::Claimed => return false,
        FlowState::Free => true,
        FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Closing
        | FlowState::Closed
        | FlowState::Collecting
        | FlowState::Connecting
        | FlowState::Releasing => false,
    };
    // SAFETY: from the environment.
    let seen = unsafe { (&raw const (*record).last_seen).read_volatile() };
    let expired = seen.wrapping_add(lifetime(settings, word)) <= now;
    if !free && !expired && room != Room::HalfOpen {
        return false;
    }
    let new = FlowWord::new(nonce, FlowState::Claimed);
    // SAFETY: from the environment.
    if !unsafe { env.exchange(&raw mut (*record).word, word.0, new.0) } {
        return false;
    }
    if !free {
        if word.has(FlowWord::COUNTED) {
            vitals::leaves(env, record);
        }
        if !expired {
            env.count(Outcome::HalfOpenEvicted);
        }
        forget(env, record, index, word.nonce());
    }
    true
}

/// Frees a record whose flow is over. Whether this CPU did it.
#[inline(always)]
pub(crate) fn release<E: Env>(env: &E, record: *mut Flow, index: u32, word: FlowWord) -> bool {
    let claimed = word.with_state(FlowState::Claimed);
    // SAFETY: from the environment.
    unsafe {
        if !env.exchange(&raw mut (*record).word, word.0, claimed.0) {
            return false;
        }
        if word.has(FlowWord::COUNTED) {
            vitals::leaves(env, record);
        }
        forget(env, record, index, word.nonce());
        env.exchange(&raw mut (*record).word, claimed.0, FlowWord::new(word.nonce(), FlowState::Free).0)
    }
}

/// Gives a claimed record back that nobody can find.
#[inline(always)]
pub(crate) fn vacate(live: &Live) {
    let free = FlowWord::new(live.reference.nonce(), FlowState::Free);
    // SAFETY: from the environment; the record is this CPU's.
    unsafe { (&raw mut (*live.record).word).write_volatile(free.0) };
}

/// Deletes the index entries that still mean this record under that nonce.
#[inline(always)]
pub(crate) fn forget<E: Env>(env: &E, record: *mut Flow, index: u32, nonce: u32) {
    // SAFETY: from the environment; the caller has claimed the record, so the keys stand still.
    let (client, server) = unsafe { (&(*record).client, &(*record).server) };
    forget_key(env, client, FlowRef::new(index, nonce, false));
    forget_key(env, server, FlowRef::new(index, nonce, true));
}

/// Deletes an index entry that still is `reference`.
///
/// The entry is emptied first, so that a CPU that points it elsewhere at that moment either comes before, and the
/// entry stays, or sees that it came too late.
#[inline(always)]
pub(crate) fn forget_key<E: Env>(env: &E, key: &FlowKey, reference: FlowRef) {
    if let Some(cell) = env.flow_ref(key)
        // SAFETY: from the environment.
        && unsafe { env.exchange(cell, reference.0, FlowRef::default().0) }
    {
        env.delete_flow_ref(key);
    }
}

/// Makes a key lead to `reference`, unless it leads to a flow that lives, or that another CPU makes or ends just now.
///
/// The entry of a flow that is over is taken in place: of several CPUs that try, one succeeds.
#[inline(always)]
pub(crate) fn take_key<E: Env>(env: &E, key: &FlowKey, reference: FlowRef, now: u64) -> Insert {
    let inserted = env.insert_flow_ref(key, reference);
    if inserted != Insert::Taken {
        return inserted;
    }
    let Some(cell) = env.flow_ref(key) else { return Insert::Taken };
    // SAFETY: from the environment.
    let old = FlowRef(unsafe { cell.read_volatile() });
    // SAFETY: from the environment.
    if !is_over(env, old, now) || !unsafe { env.exchange(cell, old.0, reference.0) } {
        return Insert::Taken;
    }
    // Deleted between look-up and exchange, the entry is in nobody's way and of no use to anybody.
    match env.flow_ref(key) {
        // SAFETY: from the environment.
        Some(cell) if unsafe { cell.read_volatile() } == reference.0 => Insert::Done,
        _ => Insert::Taken,
    }
}

/// Whether the flow of a reference is over, and nobody is about to touch its index entries.
#[inline(always)]
fn is_over<E: Env>(env: &E, reference: FlowRef, now: u64) -> bool {
    if reference == FlowRef::default() {
        return false;
    }
    let (Some(record), Some(settings)) = (env.flow(reference.index()), env.settings()) else { return false };
    let word = word_of(record);
    if word.nonce() != reference.nonce() {
        return true;
    }
    if word.state() == FlowState::Claimed {
        return false;
    }
    // SAFETY: from the environment.
    let seen = unsafe { (&raw const (*record).last_seen).read_volatile() };
    seen.wrapping_add(lifetime(settings, word)) <= now
}

/// The word of a record.
#[inline(always)]
pub(crate) fn word_of(record: *mut Flow) -> FlowWord {
    // SAFETY: from the environment.
    FlowWord(unsafe { (&raw const (*record).word).read_volatile() })
}

/// A nonce that differs from those of recent flows; never 0.
#[inline(always)]
fn nonce<E: Env>(env: &E) -> Option<u32> {
    let hand = env.hand(hand::NONCE)?;
    // SAFETY: from the environment.
    let n = (unsafe { env.add(hand, 1) } as u32).wrapping_add(1);
    Some(if n == 0 { 1 } else { n })
}

#[cfg(test)]
mod tests;
