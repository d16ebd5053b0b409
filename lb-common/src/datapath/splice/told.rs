//! What another node says of the session of a request that waits: the request goes on, to that backend or to one of this
//! node's own choice.

use super::collect;
use super::{connect, hold};
use crate::abi::{
    Addr, Be16, BindingKey, FlowKey, FlowRef, FlowState, Hold, HoldFlags, Named, Outcome, Question, Service,
    Settings, program,
};
use crate::datapath::flow::{self, Live};
use crate::datapath::peer::Asked;
use crate::datapath::scratch::{Packet, again, part};
use crate::datapath::{Env, Verdict, binding, choice, count, frame};
use crate::packet::{get, protocol};

/// Steps that find a member among as many as there may be.
const STEPS: u32 = crate::abi::MAX_BACKENDS_PER_SERVICE.ilog2() + 1;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E, asked: &Asked, at: usize) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    let now = env.now();
    let reference = FlowRef(waiting(env, at));
    let Some(live) = flow::by_ref(env, reference, now).filter(|_| reference.0 != 0) else {
        return count::end(env, Outcome::Raced);
    };
    // Where there is no hold the client has sent again, and got what it wanted.
    let waits = live.word.state() == FlowState::Collecting && !reference.is_reply();
    let number = live.flow().hold;
    let Some(mut held) = (if waits { hold::lock(env, number, reference) } else { None }) else {
        return count::end(env, Outcome::Raced);
    };
    const DUE: u32 = HoldFlags::READ | HoldFlags::ASKED;
    let hold = held.get_mut();
    if hold.flags & (DUE | HoldFlags::TOLD) != DUE || hold.session != asked.session {
        held.unlock(env);
        return count::end(env, Outcome::Raced);
    }
    let found = if asked.server == 0 { choice::NONE } else { named(env, settings, &live, hold, asked) };
    if let Some(backend) = env.backend(found as u16).filter(|_| found != choice::NONE) {
        hold.named[0] = Named { slot: found as u16, generation: backend.generation };
        hold.named_count = 1;
        hold.flags |= HoldFlags::TOLD;
        env.count(Outcome::SessionTold);
    }
    // SAFETY: this CPU's own scratch.
    stand_in(unsafe { &mut (*scratch).packet }, &live, asked.length);
    collect::go_on(env, &live, held, again::TOLD, program::CONNECT)
}

/// The flow that waits, by its client's 5-tuple; 0 = none. Out of line for the sake of the stack.
#[inline(never)]
fn waiting<E: Env>(env: &E, at: usize) -> u64 {
    let Some(p) = frame::at(env, at, Question::LEN) else { return 0 };
    // SAFETY: checked for the whole of it; addresses and ports lie there as in a packet.
    let (source, destination) = unsafe { (get::<Addr>(p.add(40)), get::<Addr>(p.add(56))) };
    // SAFETY: as above.
    let (from, to) = unsafe { (Be16(get(p.add(36))), Be16(get(p.add(38)))) };
    let key = FlowKey::new(&source, &destination, from, to, protocol::TCP);
    flow::find(env, &key, env.now()).map_or(0, |live| live.reference.0)
}

/// Slot of the server that was told, or [`choice::NONE`]: where it is not the pool's, or this node knows the session by now. Out of
/// line for the sake of the stack.
#[inline(never)]
fn named<E: Env>(env: &E, settings: &Settings, live: &Live, hold: &Hold, asked: &Asked) -> u32 {
    let client = &live.flow().client;
    let service =
        choice::service_again(env, settings, &client.destination, client.destination_port, client.protocol);
    let Some(service) = service else { return choice::NONE };
    let Some(rules) = env.affinity_rules(service.slot) else { return choice::NONE };
    let pool = connect::pool(env, service, rules, hold);
    let key = BindingKey::new(pool.id, hold.session);
    if pool.id != asked.service || binding::find_again(env, &key, env.now()).is_some() {
        return choice::NONE;
    }
    member(env, pool, asked.server)
}

/// Slot of the member with that number, or [`choice::NONE`]: members stand in the order of their numbers.
#[inline(always)]
fn member<E: Env>(env: &E, pool: &Service, number: u64) -> u32 {
    let (members, mut low, mut high) = (pool.members, 0, pool.member_count);
    let mut found = choice::NONE;
    let result = &mut found;
    env.repeat(STEPS, move |_| {
        if low >= high {
            return true;
        }
        let middle = low.wrapping_add(high) / 2;
        let Some(slot) = env.arena(members.wrapping_add(middle)) else { return true };
        let Some(backend) = env.backend(slot) else { return true };
        if backend.number == number {
            *result = slot as u32;
            return true;
        }
        if backend.number < number {
            low = middle.wrapping_add(1);
        } else {
            high = middle;
        }
        false
    });
    found
}

/// Makes the scratch say what it said of the request's packet, as far as anybody asks: nothing of that packet is in the frame.
#[inline(always)]
fn stand_in(packet: &mut Packet, live: &Live, length: u16) {
    let client = &live.flow().client;
    packet.clear();
    packet.source = client.source.by_words();
    packet.destination = client.destination.by_words();
    packet.source_port = client.source_port;
    packet.destination_port = client.destination_port;
    packet.protocol = client.protocol;
    packet.length = length;
    packet.part = part::NONE;
}
