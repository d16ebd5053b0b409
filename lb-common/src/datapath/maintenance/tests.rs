use super::super::model::Model;
use super::*;
use crate::abi::BindingSlot;

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
