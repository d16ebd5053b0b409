use super::super::hold;
use super::*;
use crate::abi::FlowRef;
use crate::datapath::model::{Dice, Model, ones_sum};

/// A hold with a PROXY header and bytes, and both one behind the other.
fn filled(model: &Model<'_>, dice: &mut Dice, nonce: u32) -> (Held, Vec<u8>) {
    let now = model.now.get();
    let mut held = hold::claim(model, FlowRef::new(1, nonce, false), now + 10, now).unwrap();
    let front = [0, 28, 52][dice.below(3)];
    let len = dice.below(HOLD_LEN + 1);
    let bytes = dice.bytes(front + len);
    let hold = held.get_mut();
    hold.front = front as u32;
    hold.len = len as u32;
    hold.head[HOLD_FRONT - front..].copy_from_slice(&bytes[..front]);
    hold.bytes[..len].copy_from_slice(&bytes[front..]);
    let sum = sum(model, held.as_ptr(), HOLD_FRONT as u32, len as u32);
    held.get_mut().sum = sum;
    (held, bytes)
}

/// Chunks, one behind the other, are the header and the stream; their sums are those of their bytes.
#[test]
fn chunks_are_the_stream() {
    let mut dice = Dice(3);
    let model = Model::new(1, 1);
    for nonce in 1..300 {
        let (mut held, bytes) = filled(&model, &mut dice, nonce);
        let mut sent = 0;
        while !super::sent(&held) {
            let room = 1 + dice.below(1_460) as u32;
            let chunk = next(&model, &held, room);
            let (from, end) = (chunk.from as usize, (chunk.from + chunk.len) as usize);
            assert_eq!(from, sent);
            assert!(chunk.len > 0 && chunk.len <= room);
            assert_eq!((chunk.sum as u16).to_be() % 0xffff, ones_sum(&bytes[from..end]) % 0xffff);
            sent = end;
            held.get_mut().sent = chunk.from + chunk.len;
        }
        assert_eq!(sent, bytes.len());
        held.free(&model);
    }
}

#[test]
fn bytes_are_kept_until_the_backend_has_those_that_the_client_cannot_send_again() {
    let mut dice = Dice(4);
    let model = Model::new(1, 1);
    let (mut held, bytes) = filled(&model, &mut dice, 7);
    let (front, end) = (held.get().front, bytes.len() as u32);
    let flow = Flow { start: 1_000, ..Flow::default() };
    held.get_mut().owned = 100.min(held.get().len);
    held.get_mut().sent = end;
    let owned = held.get().owned;
    let base = 1_000_u32.wrapping_sub(front);
    assert!(kept(&held) && !done(&held));
    acknowledge(&mut held, base.wrapping_add(front + owned - 1), &flow);
    assert!(kept(&held));
    // What came once stays.
    acknowledge(&mut held, base, &flow);
    assert_eq!(held.get().acknowledged, front + owned - 1);
    acknowledge(&mut held, base.wrapping_add(front + owned), &flow);
    assert!(!kept(&held) && done(&held));
    // A FIN, and bytes that followed without being held, are acknowledged together with what was sent.
    acknowledge(&mut held, base.wrapping_add(end + 101), &flow);
    assert_eq!(held.get().acknowledged, end);
    held.free(&model);
}

/// A backend behind a narrow router gets what is sent for the second time again in packets that pass.
#[test]
fn what_is_lost_twice_is_sent_in_small_packets() {
    let mut dice = Dice(5);
    let model = Model::new(1, 1);
    let (mut held, _) = filled(&model, &mut dice, 7);
    held.get_mut().mss = 1_460;
    held.get_mut().sent = held.get().front + held.get().len;
    repeated(&mut held, true);
    assert_eq!(room(&held, 1_500, true), 1_460);
    let flow = Flow { start: held.get().front, ..Flow::default() };
    acknowledge(&mut held, 10, &flow);
    repeated(&mut held, true);
    assert_eq!(room(&held, 1_500, true), 1_460, "other bytes by now");
    repeated(&mut held, true);
    assert_eq!(room(&held, 1_500, true), 536);
    held.free(&model);
}

#[test]
fn slow_heads_give_way_where_there_is_no_other_hold() {
    let model = Model::new(1, 1);
    let shared = model.settings.holds - model.settings.cpu_holds;
    let (second, timeout) = (1_u64 << 30, model.settings.head_timeout);
    assert!(timeout > 2 * second);
    let flow = |nonce| FlowRef::new(nonce, nonce, false);
    let claim = |nonce, now| hold::claim(&model, flow(nonce), now + timeout, now);
    for nonce in 1..=shared {
        let mut held = claim(nonce, 1).unwrap();
        // All but one are complete.
        held.get_mut().flags = if nonce == 2 { 0 } else { HoldFlags::READ };
        held.unlock(&model);
    }
    assert!(claim(100, second).is_none(), "nobody is slow yet");
    let taken = claim(101, second + 2).unwrap();
    assert!(hold::is_lost(&model, taken.number, flow(2)));
    taken.unlock(&model);
    assert!(claim(102, second + 3).is_none(), "the others are waited for");
}

#[test]
fn holds_are_one_flow_s_until_their_time_is_over() {
    let model = Model::new(1, 1);
    let shared = model.settings.holds - model.settings.cpu_holds;
    let flow = |nonce| FlowRef::new(nonce, nonce, false);
    let claim = |nonce, now| hold::claim(&model, flow(nonce), now + 100, now);
    let numbers: Vec<u32> = (1..=shared)
        .map(|nonce| {
            let mut held = claim(nonce, 1).unwrap();
            held.get_mut().flags = HoldFlags::READ;
            let number = held.number;
            held.unlock(&model);
            number
        })
        .collect();
    assert!(claim(50, 100).is_none(), "all are taken");
    assert!(hold::lock(&model, numbers[0], flow(2)).is_none(), "it is another's");
    let locked = hold::lock(&model, numbers[0], flow(1)).unwrap();
    assert!(hold::lock(&model, numbers[0], flow(1)).is_none(), "it is locked");
    assert!(claim(51, 101).is_some_and(|held| held.number != numbers[0]), "a locked one is not taken");
    locked.unlock(&model);
    assert!(!hold::is_lost(&model, numbers[0], flow(1)));
    hold::lock(&model, numbers[0], flow(1)).unwrap().free(&model);
    assert!(hold::is_lost(&model, numbers[0], flow(1)));
    assert!(claim(52, 50).is_some_and(|held| held.number == numbers[0]));
}
