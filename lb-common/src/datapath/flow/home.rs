//! Flows at home: records whose place the client's address and port say, so that most packets need no index.
//!
//! The index stays what says whose a 5-tuple is. Who finds a flow at home has compared the very keys that the index has for
//! it, in a state in which they stand still.

use super::{Live, by_ref, word_of};
use crate::abi::{Be16, Flow, FlowKey, FlowRef, FlowState, FlowWord, HOME_LEN, flow_home};
use crate::datapath::Env;
use crate::datapath::scratch::Packet;

/// Words of a key.
const WORDS: usize = size_of::<FlowKey>() / 8;

/// Finds the flow of a packet from its client, or of a `reply` to it, where it should stand, if it lives.
#[inline(always)]
pub(crate) fn find<E: Env>(env: &E, packet: &Packet, reply: bool, now: u64) -> Option<Live> {
    let settings = env.settings()?;
    let first = if reply {
        flow_home(settings, &packet.destination, packet.destination_port)
    } else {
        flow_home(settings, &packet.source, packet.source_port)
    };
    let wanted = words(packet);
    let mut i = 0;
    while i < HOME_LEN {
        let index = first.wrapping_add(i);
        let record = env.flow(index)?;
        // Before the key: whoever takes the record for another flow changes the word first.
        let word = word_of(record);
        if has(record, reply, &wanted) && stands_still(word, reply) {
            let live = by_ref(env, FlowRef::new(index, word.nonce(), reply), now);
            if live.is_some() {
                return live;
            }
        }
        i += 1;
    }
    None
}

/// A packet's 5-tuple as the words of a key, without a copy of it on the stack.
#[inline(always)]
fn words(packet: &Packet) -> [u64; WORDS] {
    let pair = |a: u32, b: u32| a as u64 | (b as u64) << 32;
    let (s, d) = (&packet.source.0, &packet.destination.0);
    let port = |port: Be16| port.raw() as u32;
    let ports = port(packet.source_port) | port(packet.destination_port) << 16;
    [
        pair(s[0], s[1]),
        pair(s[2], s[3]),
        pair(d[0], d[1]),
        pair(d[2], d[3]),
        pair(ports, packet.protocol as u32),
    ]
}

/// Whether the record's key of that direction is the wanted one.
#[inline(always)]
fn has(record: *mut Flow, reply: bool, wanted: &[u64; WORDS]) -> bool {
    // SAFETY: from the environment.
    let key = unsafe { if reply { &raw const (*record).server } else { &raw const (*record).client } };
    let key: *const u64 = key.cast();
    let mut differs = 0;
    let mut i = 0;
    while i < WORDS {
        // SAFETY: inside the key, which stands at a multiple of eight bytes.
        differs |= unsafe { key.add(i).read_volatile() } ^ wanted[i];
        i += 1;
    }
    differs == 0
}

/// Whether the flow owns the index entry of its key of that direction for as long as it stays in that state.
///
/// A spliced flow gets another server key with each backend that is tried, and tries ports in the record.
#[inline(always)]
fn stands_still(word: FlowWord, reply: bool) -> bool {
    match word.state() {
        FlowState::Established | FlowState::Closing | FlowState::Closed | FlowState::Releasing => true,
        FlowState::Collecting | FlowState::Connecting => !reply,
        FlowState::Free | FlowState::Claimed | FlowState::Opening | FlowState::Answered => false,
    }
}

const _: () = assert!(size_of::<FlowKey>() == 8 * WORDS);

#[cfg(test)]
mod tests;
