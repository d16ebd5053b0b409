use super::super::model::{Model, Step};
use super::*;

const SERVICE: u32 = 7;
/// The keys of one session.
const OWN: u64 = 0xabcd;
const OTHER: u64 = 0xef01;
const ANOTHER: u64 = 0x2345;
const FAR: u64 = 300_000_000_000;

const fn key(session: u64) -> BindingKey {
    BindingKey::new(SERVICE, session)
}

fn put(model: &Model<'_>, session: u64, word: BindingWord, lifetime: u64) {
    let now = model.now();
    assert_eq!(insert(model, &key(session), word, now + lifetime, now), Insert::Done);
}

fn found(model: &Model<'_>, session: u64) -> Option<Found> {
    find_again(model, &key(session), model.now())
}

fn backend_of(model: &Model<'_>, session: u64) -> Option<u16> {
    found(model, session).map(|found| found.word.backend())
}

#[test]
fn a_copy_is_the_same_binding_and_the_one_that_it_was_made_of_stays() {
    let word = BindingWord::new(5, 1, 9).with(BindingWord::PINNED);
    for was_bound in [false, true] {
        let model = Model::new(0, 0);
        if was_bound {
            put(&model, OWN, BindingWord::new(3, 1, 2), 1);
            set_home(&model, &key(OWN), 77);
            model.now.set(model.now() + 1);
        }
        put(&model, OTHER, word, FAR);
        set_home(&model, &key(OTHER), 42);
        let end = model.now() + FAR;
        model.now.set(model.now() + FAR / 2);
        assert_eq!(carry(&model, SERVICE, OWN, OTHER), OWN);
        for session in [OWN, OTHER] {
            let found = found(&model, session).unwrap();
            assert_eq!(found.word.content().without(BindingWord::UNSYNCED), word);
            assert_eq!(found.word.has(BindingWord::UNSYNCED), session == OWN, "lbd is told of the copy");
            assert_eq!((found.expires, home(&found)), (end, 42));
        }
    }
}

#[test]
fn nothing_is_copied_that_is_over_and_nothing_is_changed_that_lives() {
    let model = Model::new(0, 0);
    assert_eq!(carry(&model, SERVICE, OWN, OTHER), OWN);
    put(&model, OTHER, BindingWord::new(5, 1, 0), 1);
    model.now.set(model.now() + 1);
    assert_eq!(carry(&model, SERVICE, OWN, OTHER), OWN);
    assert_eq!(table::seek(&model, &key(OWN)), table::ABSENT);
    put(&model, OWN, BindingWord::new(3, 1, 0), FAR);
    put(&model, ANOTHER, BindingWord::new(6, 1, 0), FAR);
    assert_eq!(carry(&model, SERVICE, OWN, ANOTHER), OWN);
    assert_eq!(backend_of(&model, OWN), Some(3));
}

#[test]
fn where_there_is_no_room_the_other_key_is_the_one_to_go_by() {
    const ROOM: u32 = 8;
    let model = Model::with_bindings(ROOM);
    put(&model, OTHER, BindingWord::new(5, 1, 0), FAR);
    (1..u64::from(ROOM)).for_each(|session| put(&model, session, BindingWord::new(3, 1, 0), FAR));
    assert_eq!(carry(&model, SERVICE, OWN, OTHER), OTHER);
    assert_eq!(carry(&model, SERVICE, OWN, ANOTHER), OWN, "it is bound under neither");
    assert_eq!(table::seek(&model, &key(OWN)), table::ABSENT);
}

#[test]
fn of_two_cpus_that_copy_one_binding_both_go_by_what_it_says() {
    let free = BindingWord::default();
    for before in [free, free.claimed(), free.claimed().pending()] {
        let model = Model::new(0, 0);
        put(&model, OTHER, BindingWord::new(5, 1, 0), FAR);
        model.interfere(Step::Exchange(before.0), |model| {
            let session = carry(model, SERVICE, OWN, OTHER);
            assert_eq!(backend_of(model, session), Some(5));
        });
        let session = carry(&model, SERVICE, OWN, OTHER);
        assert!(model.has_interfered());
        assert_eq!(backend_of(&model, session), Some(5), "before {before:?}");
        assert_eq!(backend_of(&model, OWN), Some(5), "before {before:?}: one of them made it");
    }
}
