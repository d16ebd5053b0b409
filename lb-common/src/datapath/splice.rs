//! Delayed binding: the backend is chosen by what the client says, once it has said it.
//!
//! ```text
//! greet    client's SYN: answered with a SYN cookie, nothing is kept
//! collect  client's segments until its request head is complete, and while it waits for its backend
//! connect  backend chosen, SYN to it
//! turn     backend's answer: turned round with what waits
//! learn, inspect   what is read of an established connection
//! ```
//! Afterwards packets are translated in place like those of any flow, with sequence numbers, selective acknowledgements
//! and windows. One packet in, at most one out: whoever has to say something waits for a packet to turn round.

mod collect;
mod connect;
mod fill;
mod greet;
mod hold;
mod inspect;
mod learn;
mod narrow;
mod options;
mod proxy;
mod read;
mod release;
mod segment;
mod told;
pub(crate) mod translate;
mod turn;

pub(crate) use collect::{run as collect, wait};
pub(crate) use connect::run as connect;
pub use fill::filled;
pub(crate) use greet::run as greet;
pub(crate) use inspect::run as inspect;
pub(crate) use learn::run as learn;
pub(crate) use narrow::run as narrow;
pub(crate) use read::run as read;
pub(crate) use segment::make_room;
pub(crate) use told::run as told;
pub(crate) use turn::run as turn;

use super::flow::{self, Live};
use super::scratch::{Packet, Scratch, part};
use super::{Env, Verdict, choice, count, frame, vitals};
use crate::abi::{AffinityRules, FlowRef, FlowState, FlowWord, Outcome, Settings, SpliceFlags, program};
use crate::packet::{Tcp, flag};
use crate::splice::{Proof, SynCookie};

/// What a segment's acknowledgement proves of its sender, if `cookie` is what our SYN-ACK's number was and `isn` its SYN's.
#[inline(never)]
pub(crate) fn judge<E: Env>(env: &E, packet: &Packet, cookie: u32, isn: u32, now: u64) -> Proof {
    let Some(secrets) = env.secrets() else { return Proof::Wrong };
    SynCookie(cookie).judge(secrets, now, tuple(packet), isn)
}

/// Addresses and ports as the cookie covers them.
#[inline(always)]
fn tuple(packet: &Packet) -> (&crate::abi::Addr, &crate::abi::Addr, u32) {
    let ports = packet.source_port.raw() as u32 | (packet.destination_port.raw() as u32) << 16;
    (&packet.source, &packet.destination, ports)
}

/// Hands a segment of a flow, or of none, to a program of delayed binding.
#[inline(always)]
pub(crate) fn go_on<E: Env>(env: &E, number: u32, flow: FlowRef) -> Verdict {
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).flow = flow;
            (*scratch).again = super::scratch::again::FIRST;
        }
    }
    env.tail(number)
}

/// Hands the SYN of a client to the program that answers it, where the entry program has not.
#[inline(always)]
pub(crate) fn meet<E: Env>(env: &E, settings: &Settings, packet: &Packet) -> Verdict {
    let (Some(scratch), Some(service)) = (env.scratch(), choice::service_of(env, settings, packet)) else {
        return count::end(env, Outcome::NotOurs);
    };
    // SAFETY: this CPU's own scratch.
    unsafe { (*scratch).service_slot = service.slot };
    env.tail(program::GREET)
}

/// Lets a request that was read go by another key of its session. Out of line for the sake of the stack.
#[inline(never)]
pub(crate) fn goes_by<E: Env>(env: &E, scratch: &Scratch, session: u64) {
    if let Some(mut held) = hold::lock(env, scratch.hold, scratch.flow) {
        let hold = held.get_mut();
        if hold.session == scratch.session {
            hold.session = session;
        }
        held.unlock(env);
    }
}

/// A segment of a flow that is not established, or of none; what is not whole is of no use there.
#[inline(always)]
pub(crate) fn unsettled<E: Env>(env: &E, packet: &Packet, number: u32, flow: FlowRef) -> Verdict {
    if packet.part != part::WHOLE {
        return count::end(env, Outcome::Fragment);
    }
    go_on(env, number, flow)
}

/// What becomes of a segment without a flow at home, if it is the first that follows its SYN: nothing but the proof of a
/// handshake is dropped, and no other program need see it; data begins a connection.
///
/// The index is not asked whether there is a flow elsewhere: nearly never is there one, and if so, its key is found taken when the new
/// flow is to be made.
#[inline(always)]
pub(crate) fn begins<E: Env>(env: &E, packet: &Packet, now: u64) -> Option<Verdict> {
    if packet.tcp_flags & (flag::SYN | flag::ACK | flag::RST) != flag::ACK || packet.part != part::WHOLE {
        return None;
    }
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let (cookie, isn) = (tcp.acknowledgement().wrapping_sub(1), tcp.sequence().wrapping_sub(1));
    let is_bare = packet.l4_len() == tcp.header_len();
    if is_bare && packet.tcp_flags != flag::ACK || judge(env, packet, cookie, isn, now) != Proof::First {
        return None;
    }
    if is_bare {
        return Some(count::end(env, Outcome::HandshakeDone));
    }
    Some(go_on(env, program::COLLECT, UNSOUGHT))
}

/// For `collect`, of a segment that begins a connection: whether the index has its flow has yet to be seen.
///
/// The reply's bit makes it a reference that no client's segment has.
const UNSOUGHT: FlowRef = FlowRef::new(0, 0, true);

/// What a client's segment on a flow means for which a SYN came, or which is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anew {
    /// It belongs to the flow.
    No,
    /// It may belong to a new connection, but a wrong one has just claimed as much.
    Wait,
    /// It belongs to a new connection; the flow is over.
    Yes,
}

/// After a wrong cookie no other one is looked at before the clock has passed a multiple of 2^29 ns, half a second.
const GUESS_SHIFT: u32 = 29;

/// Whether a client's segment belongs to a new connection with the flow's 5-tuple.
///
/// Anybody can send a SYN, and a cookie has few bits to guess. So only what follows that SYN is looked at, and a flow gets
/// two guesses a second, which takes weeks; whoever got the SYN-ACK needs one. Where a flow is over, beyond doubt, there is nothing to
/// guess for, and the SYN may have met another node: data needs none here. One in 8,192 late segments of an upload that its backend has cut
/// off passes for the first one of a connection; its client has been told of the end, and resets it.
#[inline(never)]
pub(crate) fn is_replaced<E: Env>(env: &E, packet: &Packet, live: &Live) -> Anew {
    if packet.tcp_flags & (flag::SYN | flag::ACK | flag::RST) != flag::ACK {
        return Anew::No;
    }
    let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN) else { return Anew::No };
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let (cookie, isn) = (tcp.acknowledgement().wrapping_sub(1), tcp.sequence().wrapping_sub(1));
    let flow = live.flow();
    let follows = live.word.has(FlowWord::REOPENED) && isn == flow.syn;
    let is_over = live.word.state() == FlowState::Closed
        && !live.word.has(FlowWord::DOUBTFUL)
        && packet.l4_len() > tcp.header_len();
    // The flow's own segments follow its own SYN. Its cookie tells less: one in 2,048 successors has the same.
    if !(follows || is_over) || isn.wrapping_add(1) == flow.start {
        return Anew::No;
    }
    let now = env.now();
    let tick = (now >> GUESS_SHIFT) as u16;
    if !is_over && flow.guessed == tick {
        return Anew::Wait;
    }
    if judge(env, packet, cookie, isn, now) != Proof::First {
        if !is_over {
            // SAFETY: from the environment. In a recycled record it costs a stranger half a second at most.
            unsafe { (&raw mut (*live.record).guessed).write_volatile(tick) };
        }
        return Anew::No;
    }
    end(env, live);
    Anew::Yes
}

/// Whether client and backend talk to each other.
#[inline(always)]
pub(crate) fn is_joined(word: FlowWord) -> bool {
    matches!(word.state(), FlowState::Established | FlowState::Closing | FlowState::Closed)
}

/// Closes a flow and gives its hold back.
#[inline(always)]
pub(crate) fn close<E: Env>(env: &E, live: &Live) {
    hold::abandon(env, live);
    live.change(env, live.word.with(FlowWord::RESET).with_state(FlowState::Closed));
}

/// Ends a flow, with its hold.
#[inline(always)]
pub(crate) fn end<E: Env>(env: &E, live: &Live) {
    hold::abandon(env, live);
    let word = flow::word_of(live.record);
    let gone = matches!(word.state(), FlowState::Free | FlowState::Claimed);
    // Whoever is at work in a record writes its keys.
    if word.nonce() == live.reference.nonce() && !gone && !word.has(FlowWord::BUSY) {
        flow::release(env, live.record, live.reference.index(), word);
    }
}

/// A segment with data on an established connection: whether it has to be read, see `learn` and `inspect`.
#[inline(always)]
pub(crate) fn readers<E: Env>(env: &E, packet: &Packet, live: &Live) -> Option<Verdict> {
    let (reply, asked) = (live.reference.is_reply(), live.word.has(FlowWord::ASKED));
    let flags = live.flow().splice;
    // Of each direction only the first data after data of the other matters.
    if reply != asked
        || flags & (SpliceFlags::LEARN | SpliceFlags::INSPECT) == 0
        || packet.part != part::WHOLE
    {
        return None;
    }
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    if packet.l4_len() <= unsafe { Tcp::new(p) }.header_len() {
        return None;
    }
    if reply && flags & SpliceFlags::LEARN != 0 {
        return Some(go_on(env, program::LEARN, live.reference));
    }
    let word = if reply { live.word.without(FlowWord::ASKED) } else { live.word.with(FlowWord::ASKED) };
    live.change(env, word);
    if reply || flags & SpliceFlags::INSPECT == 0 {
        return None;
    }
    Some(go_on(env, program::INSPECT, live.reference))
}

/// How the flow's service is read. Nothing, where the service is gone: its place may be another's by now. Out of line for the
/// sake of the stack.
#[inline(never)]
pub(crate) fn rules<'a, E: Env>(env: &'a E, settings: &Settings, live: &Live) -> Option<&'a AffinityRules> {
    let flow = live.flow();
    let client = &flow.client;
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol)?;
    if service.slot != flow.service_slot {
        return None;
    }
    env.affinity_rules(service.slot)
}

/// Whether another CPU has brought the flow to another state since it was read.
#[inline(always)]
pub(crate) fn has_moved(live: &Live) -> bool {
    let word = flow::word_of(live.record);
    word.nonce() == live.reference.nonce() && word.state() != live.word.state()
}

/// Changes a flow's state, whatever flags other CPUs set meanwhile; whether it was in `from`.
#[inline(always)]
pub(crate) fn step<E: Env>(env: &E, live: &Live, from: FlowState, to: FlowState, flags: u64) -> bool {
    let mut tries = 0;
    while tries < 4 {
        let word = flow::word_of(live.record);
        if word.nonce() != live.reference.nonce() || word.state() != from {
            return false;
        }
        let next = vitals::counted(word, FlowWord(word.0 | flags).with_state(to));
        // SAFETY: from the environment.
        if unsafe { env.exchange(&raw mut (*live.record).word, word.0, next.0) } {
            if word.has(FlowWord::COUNTED) && !next.has(FlowWord::COUNTED) {
                vitals::leaves(env, live.record);
            }
            return true;
        }
        tries += 1;
    }
    false
}

/// Keeps other CPUs from a flow without a hold while its backend is asked, or has answered. Whether nobody else was at it.
///
/// Flows with a hold need none of this: its lock does the same.
#[inline(always)]
pub(crate) fn seize<E: Env>(env: &E, live: &Live) -> bool {
    let mut tries = 0;
    while tries < 4 {
        let word = flow::word_of(live.record);
        let connecting = word.nonce() == live.reference.nonce() && word.state() == FlowState::Connecting;
        if !connecting || word.has(FlowWord::BUSY) {
            return false;
        }
        // SAFETY: from the environment.
        if unsafe { env.exchange(&raw mut (*live.record).word, word.0, word.with(FlowWord::BUSY).0) } {
            return true;
        }
        tries += 1;
    }
    false
}

/// Lets others at a flow if this CPU has seized it, whatever became of it meanwhile.
#[inline(always)]
pub(crate) fn leave<E: Env>(env: &E, live: &Live) {
    let mut tries = 0;
    while tries < 4 {
        let word = flow::word_of(live.record);
        if word.nonce() != live.reference.nonce() || !word.has(FlowWord::BUSY) {
            return;
        }
        // SAFETY: from the environment.
        if unsafe { env.exchange(&raw mut (*live.record).word, word.0, word.without(FlowWord::BUSY).0) } {
            return;
        }
        tries += 1;
    }
}
