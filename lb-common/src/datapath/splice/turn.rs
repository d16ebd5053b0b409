//! The program that turns a backend's segment round: acknowledgement, held bytes, or a SYN to the next backend.

use super::hold::{self, Held};
use super::options::{self, SynSays};
use super::release::{self, Chunk, LEAST_V4, LEAST_V6};
use super::segment::{self, Segment};
use super::translate;
use crate::abi::{BindingKey, Flow, FlowState, FlowWord, Outcome, Settings, SpliceFlags, program};
use crate::datapath::binding::Client;
use crate::datapath::flow::{self, Live};
use crate::datapath::scratch::{Packet, again, to_service};
use crate::datapath::{Env, Verdict, answer, binding, choice, count, frame, link, nat, vitals};
use crate::packet::{Tcp, flag};
use crate::splice::{Attempt, SynCookie, window_to_backend};

/// A backend's segment.
#[derive(Clone, Copy)]
struct Said {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    /// Whether it carries no data.
    is_bare: bool,
}

impl Said {
    #[inline(always)]
    fn read<E: Env>(env: &E, packet: &Packet) -> Option<Self> {
        let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
        // SAFETY: checked for the fixed header.
        let tcp = unsafe { Tcp::new(p) };
        Some(Self {
            sequence: tcp.sequence(),
            acknowledgement: tcp.acknowledgement(),
            flags: tcp.flags(),
            is_bare: packet.l4_len() == tcp.header_len(),
        })
    }
    /// Whether these of SYN, ACK, FIN and RST are set and no others.
    #[inline(always)]
    const fn is(&self, flags: u8) -> bool {
        self.flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST) == flags
    }
}

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, reference) = unsafe { (&(*scratch).packet, (*scratch).flow) };
    let now = env.now();
    let (Some(live), Some(said)) = (flow::by_ref(env, reference, now), Said::read(env, packet)) else {
        return count::end(env, Outcome::Raced);
    };
    match live.word.state() {
        FlowState::Connecting => connecting(env, settings, packet, &live, &said),
        FlowState::Releasing => releasing(env, packet, &live, &said),
        FlowState::Established if said.is(flag::SYN | flag::ACK) => {
            bare(env, settings, &live, said.acknowledgement, said.sequence.wrapping_add(1))
        }
        FlowState::Established | FlowState::Closing | FlowState::Collecting => {
            count::end(env, Outcome::Swallowed)
        }
        FlowState::Free
        | FlowState::Opening
        | FlowState::Answered
        | FlowState::Closed
        | FlowState::Claimed => count::end(env, Outcome::Raced),
    }
}

/// The answer to a SYN, or what is none (RFC 9293 section 3.10.7.3).
#[inline(always)]
fn connecting<E: Env>(env: &E, settings: &Settings, packet: &Packet, live: &Live, said: &Said) -> Verdict {
    let number = live.flow().hold;
    let held = if number != 0 { hold::lock(env, number, live.reference) } else { None };
    if held.is_none() && (number != 0 || !super::seize(env, live)) {
        return count::end(env, Outcome::Swallowed);
    }
    // Where the stream begins for the backend.
    let front = match &held {
        Some(held) => held.get().front,
        None => 0,
    };
    let start = live.flow().start.wrapping_sub(front);
    let fits = said.flags & flag::ACK != 0 && said.acknowledgement == start;
    // Another CPU may have gone on to the next backend since the flow was found.
    let server = &live.flow().server;
    let fits = fits && server.source_port == packet.source_port && server.source.0[3] == packet.source.0[3];
    let is_answer = said.is(flag::SYN | flag::ACK) && fits;
    if is_answer && flow::word_of(live.record).state() == FlowState::Connecting {
        let now = env.now();
        vitals::answered(env, live.flow().backend, now);
        vitals::accepted(env, live.flow().backend, now.wrapping_sub(live.flow().last_seen), now);
        return accepted(env, settings, packet, live, said, held);
    }
    let refuses = said.flags & flag::RST != 0 && fits;
    match held {
        Some(held) => held.unlock(env),
        None => {
            if refuses {
                // SAFETY: from the environment, and seized.
                unsafe { (*live.record).answer = Attempt::REFUSED.0 };
            }
            super::leave(env, live);
        }
    }
    if said.flags & flag::RST != 0 {
        if !refuses {
            return count::end(env, Outcome::Swallowed);
        }
        vitals::answered(env, live.flow().backend, env.now());
        return refused(env, number);
    }
    if said.flags & flag::ACK != 0 {
        // A connection of old, or an answer to nothing that was asked.
        return answer::reset(env, packet, Outcome::Swallowed);
    }
    count::end(env, Outcome::Swallowed)
}

/// The backend takes no connection: the next one is asked at once, if the request is at hand.
#[inline(always)]
fn refused<E: Env>(env: &E, number: u32) -> Verdict {
    if number == 0 {
        return count::end(env, Outcome::Swallowed);
    }
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe {
            (*scratch).hold = number;
            (*scratch).again = again::REFUSED;
        }
    }
    env.tail(program::CONNECT)
}

/// The backend takes the connection: it gets what is held.
#[inline(always)]
fn accepted<E: Env>(
    env: &E,
    settings: &Settings,
    packet: &Packet,
    live: &Live,
    said: &Said,
    held: Option<Held>,
) -> Verdict {
    let says = options::read(env, packet);
    learn(live, said.sequence, says);
    let bound = bind(env, settings, live);
    // What comes next from the backend is its response.
    let flags = FlowWord::ASKED | if bound { FlowWord::BOUND } else { 0 };
    let Some(mut held) = held else {
        super::step(env, live, FlowState::Connecting, FlowState::Established, flags);
        super::leave(env, live);
        return bare(env, settings, live, said.acknowledgement, said.sequence.wrapping_add(1));
    };
    let v4 = live.flow().client.source.is_v4();
    let mss = match (says.mss(), v4) {
        (0, true) => LEAST_V4,
        (0, false) => LEAST_V6,
        (mss, _) => mss,
    };
    let hold = held.get_mut();
    hold.mss = mss;
    hold.acknowledged = 0;
    hold.sent = 0;
    let end = hold.front.wrapping_add(hold.len);
    let chunk = release::next(env, &held, release::room(&held, mtu(env, live), v4));
    let last = chunk.from.wrapping_add(chunk.len) >= end && !release::kept(&held);
    // What follows the last chunk goes straight to the backend, so that one is written first.
    let next = if last { FlowState::Connecting } else { FlowState::Releasing };
    super::step(env, live, FlowState::Connecting, next, flags);
    send(env, live, held, &chunk, last)
}

/// Notes what the backend's SYN-ACK says.
#[inline(always)]
fn learn(live: &Live, sequence: u32, says: SynSays) {
    let offer = SynCookie(live.flow().isn).offer();
    // SAFETY: from the environment; whoever else answers for the flow waits for the hold, or gets the same answer.
    let record = unsafe { &mut *live.record };
    record.answer = sequence;
    record.server_scale = if offer.scales() { says.scale() } else { Flow::NO_SCALE };
    if offer.sack() && says.sack() {
        record.splice |= SpliceFlags::SACK;
    }
}

/// Binds the session to its backend, where a session was read. Whether it has a binding.
#[inline(never)]
fn bind<E: Env>(env: &E, settings: &Settings, live: &Live) -> bool {
    let flow = live.flow();
    if flow.splice & SpliceFlags::BIND == 0 {
        return false;
    }
    let client = &flow.client;
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let (Some(service), Some(backend)) = (service, nat::owner(env, live)) else { return false };
    let now = env.now();
    let key = BindingKey::new(flow.service, flow.session);
    match binding::find_again(env, &key, now) {
        Some(found)
            if found.word.backend() == flow.backend
                && found.word.slot_generation() == flow.backend_generation =>
        {
            binding::touch(&found, now, service.lifetime);
        }
        _ => {
            let client = Client { address: &client.source, proved: true, learnt: false };
            binding::bind(env, service, &key, (flow.backend, backend), client, now);
        }
    }
    true
}

/// A backend's segment while held bytes are on their way to it.
#[inline(always)]
fn releasing<E: Env>(env: &E, packet: &Packet, live: &Live, said: &Said) -> Verdict {
    if said.flags & flag::RST != 0 {
        // The client judges it; what is held only goes with one that has the next number.
        if said.sequence == live.flow().answer.wrapping_add(1) {
            hold::abandon(env, live);
            super::step(env, live, FlowState::Releasing, FlowState::Closed, FlowWord::RESET);
        }
        return translated(env);
    }
    let number = live.flow().hold;
    let Some(mut held) = hold::lock(env, number, live.reference) else {
        // Another CPU has sent the rest.
        if super::has_moved(live) {
            return translated(env);
        }
        if !hold::is_lost(env, number, live.reference) {
            return count::end(env, Outcome::Swallowed);
        }
        // Bytes that only the hold had are gone, and the connection with them: the client is told with its next segment.
        super::step(env, live, FlowState::Releasing, FlowState::Closed, FlowWord::RESET);
        return answer::reset(env, packet, Outcome::Swallowed);
    };
    if said.flags & flag::ACK != 0 {
        release::acknowledge(&mut held, said.acknowledgement, live.flow());
    }
    let (room, v4) = (mtu(env, live), live.flow().client.source.is_v4());
    let room = release::room(&held, room, v4);
    if said.flags & flag::SYN != 0 {
        // The acknowledgement of its SYN-ACK was lost, and what it carried.
        let chunk = release::again(env, &held, room);
        return send(env, live, held, &chunk, false);
    }
    if said.is_bare && said.is(flag::ACK) && !release::sent(&held) {
        let chunk = release::next(env, &held, room);
        return send(env, live, held, &chunk, false);
    }
    if said.flags & flag::FIN != 0 {
        super::step(env, live, FlowState::Releasing, FlowState::Releasing, FlowWord::FIN_SERVER);
    }
    if release::done(&held) {
        settle(env, live);
        held.free(env);
    } else {
        held.unlock(env);
    }
    // Its first data begins a response.
    let asked = live.word.has(FlowWord::ASKED);
    if !said.is_bare && asked && live.flow().splice & SpliceFlags::LEARN != 0 {
        return super::go_on(env, program::LEARN, live.reference);
    }
    translated(env)
}

/// Leaves the segment to the program that translates.
#[inline(always)]
fn translated<E: Env>(env: &E) -> Verdict {
    if let Some(scratch) = env.scratch() {
        // SAFETY: this CPU's own scratch.
        unsafe { (*scratch).to_service = to_service::SETTLED };
    }
    env.tail(program::NAT)
}

/// Nothing is held any more.
#[inline(always)]
fn settle<E: Env>(env: &E, live: &Live) {
    let word = flow::word_of(live.record);
    let next = match (word.has(FlowWord::FIN_CLIENT), word.has(FlowWord::FIN_SERVER)) {
        (false, false) => FlowState::Established,
        (true, false) | (false, true) => FlowState::Closing,
        (true, true) => FlowState::Closed,
    };
    super::step(env, live, FlowState::Releasing, next, 0);
    // Behind the step: who sees no hold sees the state that needs none.
    // SAFETY: from the environment, and the hold is locked.
    unsafe { (*live.record).hold = 0 };
}

/// Client and backend talk to each other from here on: what was held is written, all of it.
#[inline(always)]
fn join<E: Env>(env: &E, live: &Live, chunk: &Chunk) {
    let (next, flags) =
        if chunk.fin { (FlowState::Closing, FlowWord::FIN_CLIENT) } else { (FlowState::Established, 0) };
    super::step(env, live, FlowState::Connecting, next, flags);
    // Behind the step: who sees no hold sees the state that needs none.
    // SAFETY: from the environment, and the hold is locked.
    unsafe { (*live.record).hold = 0 };
}

/// Sends held bytes.
#[inline(never)]
fn send<E: Env>(env: &E, live: &Live, mut held: Held, chunk: &Chunk, last: bool) -> Verdict {
    let Some(settings) = env.settings() else { return Verdict::Drop };
    let flow = live.flow();
    if chunk.fin && !last {
        super::step(env, live, FlowState::Releasing, FlowState::Releasing, FlowWord::FIN_CLIENT);
    }
    let segment = Segment {
        sequence: release::sequence(&held, chunk, flow),
        // Only what the client itself has: what it lost on the way the backend has to send again.
        acknowledgement: held.get().answered.wrapping_add(translate::offset(flow)),
        window: window_to_backend(held.get().window, flow.client_scale, flow.server_scale),
        flags: chunk.flags(),
    };
    let ifindex = env.backend(flow.backend).map_or(0, |backend| backend.hop.ifindex);
    let Some(at) = segment::to_backend(env, live, &segment, chunk.len, chunk.sum) else {
        held.unlock(env);
        return count::end(env, Outcome::NoHop);
    };
    let verdict = release::put(env, settings, &mut held, chunk, (at, ifindex), last);
    if last {
        join(env, live, chunk);
    }
    release::leave(env, held, last, verdict)
}

/// Sends an acknowledgement without data.
#[inline(always)]
fn bare<E: Env>(env: &E, settings: &Settings, live: &Live, sequence: u32, acknowledgement: u32) -> Verdict {
    let flow = live.flow();
    let segment = Segment {
        sequence,
        acknowledgement,
        window: window_to_backend(flow.window, flow.client_scale, flow.server_scale),
        flags: flag::ACK,
    };
    let ifindex = env.backend(flow.backend).map_or(0, |backend| backend.hop.ifindex);
    if segment::to_backend(env, live, &segment, 0, 0).is_none() {
        return count::end(env, Outcome::NoHop);
    }
    let verdict = link::transmit(env, settings, ifindex);
    if verdict != Verdict::Drop {
        env.count(Outcome::TurnedRound);
    }
    verdict
}

/// Largest IP packet on the way to the flow's backend.
#[inline(always)]
fn mtu<E: Env>(env: &E, live: &Live) -> u16 {
    env.backend(live.flow().backend).map_or(0, |backend| backend.hop.mtu)
}
