//! What the program `fill` does, for executors that run no stack behind XDP.

use super::executor::{Ran, Verdict};
use lb_common::abi::{Filling, HOLD_FRONT, Hold, HoldWord, Outcome};

/// What `fill` counts for a packet.
pub(super) fn outcome(ran: &Ran) -> Outcome {
    if ran.verdict == Verdict::Drop { Outcome::NoRoom } else { Outcome::TurnedRound }
}

/// Puts held bytes behind a frame that was left to `fill`, and gives the hold back when these were its last.
pub(super) fn fill(mut frame: Vec<u8>, filling: &Filling, hold: &mut Hold) -> Ran {
    let lost = |frame| Ran { verdict: Verdict::Drop, frame };
    let word = HoldWord(hold.word);
    if filling.magic != Filling::MAGIC || word.nonce() != filling.nonce || !word.has(HoldWord::TAKEN) {
        return lost(frame);
    }
    let all = [hold.head.as_slice(), hold.bytes.as_slice()].concat();
    let from = HOLD_FRONT - hold.front as usize + usize::from(filling.from);
    let Some(bytes) = all.get(from..from + usize::from(filling.len)) else { return lost(frame) };
    frame.extend(bytes);
    if filling.last != 0 {
        hold.word = 0;
    }
    Ran { verdict: Verdict::Redirect(Some(filling.ifindex)), frame }
}
