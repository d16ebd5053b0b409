use super::super::model::{Model, Step};
use super::*;
use crate::abi::{BindingSlot, Flow, FlowWord};

const KEY: BindingKey = BindingKey::new(7, 0xabcd);
const FAR: u64 = 300_000_000_000;

fn word(generation: u32) -> BindingWord {
    BindingWord::new(3, 1, generation)
}

fn put(model: &Model<'_>, word: BindingWord, lifetime: u64) -> RecordResult {
    put_binding(model, &KEY, table::seek(model, &KEY), word, model.now() + lifetime, model.now())
}

fn cell(model: &Model<'_>) -> *mut BindingSlot {
    table::slot(model, table::seek(model, &KEY)).unwrap()
}

fn stored(model: &Model<'_>) -> BindingWord {
    table::word_of(cell(model)).content()
}

#[test]
fn generations_are_compared_round_the_wrap() {
    const LAST: u32 = BindingWord::GENERATION_MASK;
    for (a, b) in [(1, 0), (0, LAST), (5, LAST - 5), (LAST, LAST - 1), (LAST / 2, 0), (LAST / 2 - 1, LAST)] {
        assert!(newer(a, b), "{a:#x} comes after {b:#x}");
        assert!(!newer(b, a), "{b:#x} comes before {a:#x}");
    }
    for n in [0, 1, LAST / 2, LAST] {
        assert!(!newer(n, n));
    }
    // Half the way round neither is newer, so nothing is replaced to and fro.
    assert!(!newer(LAST / 2 + 1, 0) && !newer(0, LAST / 2 + 1));
}

#[test]
fn only_a_newer_generation_replaces_what_lives() {
    let model = Model::new(0, 0);
    assert_eq!(put(&model, word(BindingWord::GENERATION_MASK), FAR), RecordResult::Applied);
    assert_eq!(put(&model, word(BindingWord::GENERATION_MASK - 1), FAR), RecordResult::Superseded);
    assert_eq!(put(&model, word(0), FAR), RecordResult::Applied);
    assert_eq!(stored(&model), word(0));
    model.now.set(model.now() + FAR);
    assert_eq!(put(&model, word(BindingWord::GENERATION_MASK), FAR), RecordResult::Applied, "it had expired");
}

#[test]
fn what_is_being_deleted_is_not_put_again() {
    let model = Model::new(0, 0);
    assert_eq!(put(&model, word(1), FAR), RecordResult::Applied);
    let cell = cell(&model);
    let live = table::word_of(cell);
    unsafe { (*cell).word = live.claimed().0 };
    for (generation, lifetime) in [(2, FAR), (1, FAR), (2, 0)] {
        assert_eq!(put(&model, word(generation), lifetime), RecordResult::Superseded);
        assert_eq!(table::word_of(cell), live.claimed(), "the deletion goes on, and nothing was promised");
    }
    unsafe { (*cell).word = live.claimed().freed().0 };
    assert_eq!(put(&model, word(2), FAR), RecordResult::Applied);
}

fn settled(model: &Model<'_>, word: BindingWord, lifetime: u64) -> RecordResult {
    let expires = model.now() + lifetime;
    settle(model, &KEY, table::seek(model, &KEY), word, expires, model.now())
}

fn cleared(model: &Model<'_>) -> RecordResult {
    clear(model, &KEY, table::seek(model, &KEY), model.now())
}

#[test]
fn what_the_cluster_says_holds_whatever_the_generation() {
    let model = Model::new(0, 0);
    assert_eq!(settled(&model, word(5), FAR), RecordResult::Applied);
    for generation in [5, 4, 0, BindingWord::GENERATION_MASK, 7] {
        let other = BindingWord::new(9, 2, generation).with(BindingWord::PINNED);
        assert_eq!(settled(&model, other, FAR), RecordResult::Applied);
        assert_eq!(stored(&model), other);
    }
    assert_eq!(cleared(&model), RecordResult::Applied);
    assert_eq!(table::seek(&model, &KEY), table::ABSENT);
    assert_eq!(cleared(&model), RecordResult::Absent);
}

#[test]
fn where_a_session_was_is_known_to_whoever_saw_it_move_and_comes_along() {
    let model = Model::new(0, 0);
    let home = |model: &Model<'_>| table::home_of(cell(model));
    let at = |backend, generation| BindingWord::new(backend, 1, generation);
    settled(&model, at(3, 1), FAR);
    assert_eq!(home(&model), 0, "it may have moved before");
    settled(&model, at(3, 2), FAR);
    assert_eq!(home(&model), 0);
    settled(&model, at(4, 3), FAR);
    settled(&model, at(5, 4), FAR);
    assert_eq!(home(&model), at(3, 0).place(), "the first of all");
    let word = at(6, 5);
    let copied = (model.now() + FAR, home(&model));
    let other = Model::new(0, 0);
    assert_eq!(copy(&other, &KEY, table::ABSENT, word, copied, other.now()), RecordResult::Applied);
    assert_eq!(home(&other), home(&model));
    settled(&model, at(7, 5).with(BindingWord::PINNED), FAR);
    assert_eq!(home(&model), 0, "an administrator wants it there");
    settled(&model, at(3, 6), FAR);
    assert_eq!(home(&model), at(7, 0).place());
    model.now.set(model.now() + 2 * FAR);
    settled(&model, at(3, 0), FAR);
    assert_eq!(home(&model), 0, "a new session");
    assert_eq!(cleared(&model), RecordResult::Applied);
}

#[test]
fn the_later_of_two_ends_holds() {
    let model = Model::new(0, 0);
    let end = model.now() + FAR;
    assert_eq!(settled(&model, word(1), FAR), RecordResult::Applied);
    assert_eq!(settled(&model, word(2), FAR / 2), RecordResult::Applied);
    assert_eq!(table::expiry_of(cell(&model)), end);
    assert_eq!(settled(&model, word(2), 2 * FAR), RecordResult::Applied);
    assert_eq!(table::expiry_of(cell(&model)), end + FAR);
}

#[test]
fn what_was_not_acknowledged_stays_until_it_is() {
    let model = Model::new(0, 0);
    let moved = word(3).with(BindingWord::UNSYNCED);
    assert_eq!(put(&model, moved, FAR), RecordResult::Applied);
    for generation in [2, 3, 4] {
        assert_eq!(settled(&model, word(generation), FAR), RecordResult::Superseded);
    }
    assert_eq!(cleared(&model), RecordResult::Superseded);
    assert_eq!(stored(&model), moved);
    assert_eq!(acknowledge(&model, &KEY, table::seek(&model, &KEY), moved), RecordResult::Applied);
    assert_eq!(settled(&model, word(2), FAR), RecordResult::Applied);
    assert_eq!(stored(&model), word(2));

    let model = Model::new(0, 0);
    assert_eq!(put(&model, moved, FAR), RecordResult::Applied);
    model.now.set(model.now() + FAR);
    assert_eq!(settled(&model, word(0), FAR), RecordResult::Applied, "it has ended");
    assert_eq!(stored(&model), word(0));
}

#[test]
fn a_move_in_the_same_moment_is_not_overwritten() {
    let model = Model::new(0, 0);
    assert_eq!(settled(&model, word(1), FAR), RecordResult::Applied);
    for round in 0..2 {
        let cell = cell(&model);
        let before = table::word_of(cell);
        let moved = before.with_content(word(2 + round).with(BindingWord::UNSYNCED));
        model.interfere(Step::Exchange(before.0), move |_| unsafe { (*cell).word = moved.0 });
        let done = if round == 0 { settled(&model, word(9), FAR) } else { cleared(&model) };
        assert_eq!(done, RecordResult::Busy);
        assert_eq!(stored(&model), moved.content());
        unsafe { (*cell).word = moved.without(BindingWord::UNSYNCED).0 };
    }
}

#[test]
fn what_comes_or_goes_is_tried_again() {
    let model = Model::new(0, 0);
    assert_eq!(settled(&model, word(1), FAR), RecordResult::Applied);
    let cell = cell(&model);
    let live = table::word_of(cell);
    unsafe { (*cell).word = live.claimed().0 };
    assert_eq!(settled(&model, word(2), FAR), RecordResult::Busy);
    assert_eq!(cleared(&model), RecordResult::Busy);
}

#[test]
fn half_a_request_leaves_a_trace() {
    let model = Model::new(1, 16);
    let (head, closing) = (model.settings.head_timeout, model.settings.tcp_closing);
    assert!(head > 0 && closing > 0);
    let index = model.settings.half_open;
    let record = model.flow(index).unwrap();
    let begun = model.now();
    for (state, end) in [(FlowState::Collecting, head + closing), (FlowState::Closing, closing)] {
        let flow = Flow { word: FlowWord::new(7, state).0, last_seen: begun, ..Flow::default() };
        unsafe { record.write(flow) };
        assert!(matches!(sweep_flow(&model, index, begun + end - 1), Swept::Live), "{state:?}");
        assert!(matches!(sweep_flow(&model, index, begun + end), Swept::Reclaimed), "{state:?}");
    }
}

#[test]
fn connections_that_nobody_saw_end_are_taken_from_those_of_their_backend_alone() {
    let mut model = Model::new(0, 0);
    model.backends = vec![crate::abi::Backend { generation: 4, ..Default::default() }; 3];
    let count = |model: &Model<'_>, slot| vitals::connections(model, slot);
    for slot in [1, 2] {
        let vitals = model.vitals(slot).unwrap();
        unsafe { (*vitals).connections = 10 };
    }
    let sweep = |slot: u32, generation: u32, ended: u32| {
        let words = [SweepTarget::Ended as u32, slot, ended, generation];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        model.set_frame(&bytes);
        assert_eq!(super::sweep(&model), Verdict::Pass);
        let taken = u32::from_ne_bytes(model.frame()[..4].try_into().unwrap());
        (taken, count(&model, 1), count(&model, 2))
    };
    assert_eq!(sweep(1, 4, 3), (3, 7, 10));
    assert_eq!(sweep(1, 3, 3), (0, 7, 10), "they were of the slot's former owner");
    assert_eq!(sweep(9, 4, 3), (0, 7, 10), "nobody owns the slot");
    assert_eq!(sweep(1, 4, 8), (8, 0, 10));
}
