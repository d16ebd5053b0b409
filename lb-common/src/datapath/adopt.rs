//! The program that takes over a flow of a node that died, as that one told it.
//!
//! The frame holds a [`Flow`], complete but for its place: nonce and time are this node's. It gets the flow's
//! [`RecordResult`] in its first byte.

use super::flow::{self, Live, Room};
use super::{Env, Insert, Verdict, frame, vitals};
use crate::abi::{Addr, Be16, Flow, FlowKey, FlowRef, FlowState, FlowWord, RecordResult};
use crate::packet::{get, put};
use core::mem::offset_of;

/// What a flow may bring along of its word.
const KEPT: u64 = FlowWord::FIN_CLIENT
    | FlowWord::FIN_SERVER
    | FlowWord::BOUND
    | FlowWord::DATAGRAM
    | FlowWord::SPLICED
    | FlowWord::COUNTED;
/// Words of a record behind those that change.
const WORDS: usize = (size_of::<Flow>() - offset_of!(Flow, client)) / 8;

/// Takes over a flow; its [`RecordResult`] is put in place of its first byte.
#[inline(always)]
pub fn adopt<E: Env>(env: &E) -> Verdict {
    let result = run(env);
    let Some(p) = frame::head(env, 1) else { return Verdict::Drop };
    // SAFETY: checked for one byte.
    unsafe { put(p, result as u8) };
    Verdict::Pass
}

#[inline(always)]
fn run<E: Env>(env: &E) -> RecordResult {
    let Some(p) = frame::head(env, size_of::<Flow>()) else { return RecordResult::Invalid };
    // SAFETY: checked for its size; plain integers.
    let (given, idle) = unsafe { (FlowWord(get(p)), get::<u64>(p.add(offset_of!(Flow, last_seen)))) };
    if !matches!(given.state(), FlowState::Established | FlowState::Closing) {
        return RecordResult::Invalid;
    }
    let at = offset_of!(Flow, client);
    // SAFETY: checked for its size; plain integers.
    let (address, port): ([u32; 4], u16) = unsafe {
        let address = p.add(at + offset_of!(FlowKey, source));
        let words = [get(address), get(address.add(4)), get(address.add(8)), get(address.add(12))];
        (words, get(p.add(at + offset_of!(FlowKey, source_port))))
    };
    let now = env.now();
    let room = if given.has(FlowWord::DATAGRAM) { Room::Datagrams } else { Room::Established };
    let Some(live) = flow::allocate(env, room, (&Addr(address), Be16(port)), now) else {
        return RecordResult::Full;
    };
    if !fill(env, &live, now.saturating_sub(idle)) {
        flow::vacate(&live);
        return RecordResult::Invalid;
    }
    publish(env, &live, given, now)
}

/// Copies the frame into a record that nobody can find yet.
#[inline(always)]
fn fill<E: Env>(env: &E, live: &Live, seen: u64) -> bool {
    let Some(p) = frame::head(env, size_of::<Flow>()) else { return false };
    let at = offset_of!(Flow, client);
    // SAFETY: claimed by this CPU; the word is left as it is.
    unsafe {
        (&raw mut (*live.record).last_seen).write_volatile(seen);
        let (from, to) = (p.add(at), live.record.cast::<u8>().add(at).cast::<u64>());
        let mut i = 0;
        while i < WORDS {
            // Volatile, or it becomes the kernel's memcpy, a loop over bytes.
            to.add(i).write_volatile(get(from.add(i * 8)));
            i += 1;
        }
    }
    true
}

/// Makes the flow findable from both sides, unless this node has one of the same addresses and ports.
#[inline(always)]
fn publish<E: Env>(env: &E, live: &Live, given: FlowWord, now: u64) -> RecordResult {
    let (index, nonce) = (live.reference.index(), live.reference.nonce());
    let reply = FlowRef::new(index, nonce, true);
    // SAFETY: from the environment; written by this CPU.
    let (client, server) = unsafe { (&(*live.record).client, &(*live.record).server) };
    // The reply's first: a client's packet that finds the flow may be answered at once.
    let taken = match flow::take_key(env, server, reply, now) {
        Insert::Done => {
            let taken = flow::take_key(env, client, live.reference, now);
            if taken != Insert::Done {
                flow::forget_key(env, server, reply);
            }
            taken
        }
        other => other,
    };
    if taken != Insert::Done {
        flow::vacate(live);
        return if taken == Insert::Full { RecordResult::Full } else { RecordResult::Superseded };
    }
    let word = FlowWord(given.0 & (KEPT | 0xff) | (nonce as u64) << 32);
    // Not before: at home it could be found although a key is another flow's.
    // SAFETY: from the environment; the record is this CPU's.
    unsafe { (&raw mut (*live.record).word).write_volatile(word.0) };
    if word.has(FlowWord::COUNTED) {
        vitals::joins(env, live.record);
    }
    RecordResult::Applied
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;
    use core::net::Ipv4Addr;

    fn flow(client: u8) -> Flow {
        let address = |net, last| Ipv4Addr::new(10, net, 0, last).into();
        let (from, vip, source, backend) =
            (address(1, client), address(99, 1), address(2, 21), address(2, 101));
        let word = FlowWord::new(77, FlowState::Established).with(FlowWord::SPLICED | FlowWord::ASKED);
        Flow {
            word: word.with(FlowWord::COUNTED).0,
            last_seen: 5_000_000_000,
            client: FlowKey::new(&from, &vip, Be16::new(4_000), Be16::new(80), 6),
            server: FlowKey::new(&backend, &source, Be16::new(8_080), Be16::new(30_000 + client as u16), 6),
            session: 9,
            answer: 500,
            isn: 100,
            syn: 0x0102_0304,
            ..Flow::default()
        }
    }

    fn adopted(model: &Model<'_>, flow: &Flow) -> u8 {
        // SAFETY: plain integers without padding.
        let bytes: [u8; size_of::<Flow>()] = unsafe { core::mem::transmute(*flow) };
        model.set_frame(&bytes);
        assert!(adopt(model) == Verdict::Pass);
        model.frame()[0]
    }

    #[test]
    fn an_adopted_flow_is_found_from_both_sides_and_is_as_it_was() {
        let model = Model::new(4, 8);
        let told = flow(1);
        assert_eq!(adopted(&model, &told), RecordResult::Applied as u8);
        for key in [&told.client, &told.server] {
            let live = flow::find(&model, key, model.now()).unwrap();
            assert_eq!(live.reference.is_reply(), *key == told.server);
            assert!(live.word.has(FlowWord::SPLICED | FlowWord::COUNTED) && !live.word.has(FlowWord::ASKED));
            let here = *live.flow();
            assert_eq!(here.last_seen, model.now().saturating_sub(5_000_000_000));
            assert_eq!(Flow { word: told.word, last_seen: told.last_seen, ..here }, told);
        }
    }

    #[test]
    fn what_lives_here_stays_and_a_full_table_takes_nothing() {
        let model = Model::new(4, 8);
        assert_eq!(adopted(&model, &flow(1)), RecordResult::Applied as u8);
        assert_eq!(adopted(&model, &flow(1)), RecordResult::Superseded as u8, "it is there already");
        let clash = Flow { server: flow(1).server, ..flow(2) };
        assert_eq!(adopted(&model, &clash), RecordResult::Superseded as u8, "its port is another flow's");
        let clash = Flow { client: flow(1).client, ..flow(2) };
        assert_eq!(adopted(&model, &clash), RecordResult::Superseded as u8, "its client has a flow");
        assert_eq!(model.indexed(), 2, "what was refused leaves nothing behind");
        for client in 2..9 {
            assert_eq!(adopted(&model, &flow(client)), RecordResult::Applied as u8);
        }
        assert_eq!(adopted(&model, &flow(9)), RecordResult::Full as u8);
        assert_eq!(model.indexed(), 16);
    }

    #[test]
    fn only_connections_that_run_are_taken() {
        let model = Model::new(4, 8);
        for state in [FlowState::Free, FlowState::Opening, FlowState::Connecting, FlowState::Closed] {
            let told = Flow { word: FlowWord::new(1, state).0, ..flow(1) };
            assert_eq!(adopted(&model, &told), RecordResult::Invalid as u8, "{state:?}");
        }
        assert_eq!(model.indexed(), 0);
    }
}
