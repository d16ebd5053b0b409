use super::super::super::model::{Dice, Model, Step};
use super::*;
use std::collections::HashMap;

const FAR: u64 = 300_000_000_000;
const KEY: BindingKey = BindingKey::new(7, 0xabcd);

fn word(backend: u16) -> BindingWord {
    BindingWord::new(backend, 1, 0)
}

fn put_one(model: &Model<'_>, key: &BindingKey, backend: u16) -> Insert {
    put(model, key, word(backend), model.now() + FAR, model.now())
}

fn backend_of(model: &Model<'_>, key: &BindingKey) -> Option<u16> {
    find(model, key).map(|slot| word_of(slot).backend())
}

/// Every slot that says it holds a binding.
fn listed(model: &Model<'_>) -> Vec<(u32, BindingKey)> {
    let slots = 0..model.settings.binding_buckets * BINDING_SLOTS;
    let in_use = slots.filter(|&n| word_of(slot(model, n).unwrap()).slot_state() == SlotState::Live);
    in_use.map(|n| (n, key_of(slot(model, n).unwrap()))).collect()
}

fn live_count(model: &Model<'_>) -> u64 {
    unsafe { *model.hand(hand::BINDINGS_LIVE).unwrap() }
}

/// What the buckets say about who passed them is what the bindings in the table would have them say.
fn check_passed(model: &Model<'_>) {
    let mut passed: HashMap<u32, u16> = HashMap::new();
    for (number, key) in listed(model) {
        let path = path(&model.settings, &key);
        let way = (0..BINDING_PROBES).map(|n| path.bucket(n));
        way.take_while(|bucket| *bucket != number / BINDING_SLOTS)
            .for_each(|bucket| *passed.entry(bucket).or_insert(0) += 1);
    }
    for bucket in 0..model.settings.binding_buckets {
        let first = slot_of(model.binding_bucket(bucket).unwrap(), 0);
        assert_eq!(unsafe { (*first).passed }, passed.get(&bucket).copied().unwrap_or(0), "bucket {bucket}");
    }
}

#[test]
fn the_table_is_a_map() {
    let mut dice = Dice(11);
    for round in 0..200 {
        let mut model = Model::new(0, 0);
        model.settings.seed = dice.roll();
        let mut expected: HashMap<BindingKey, (u16, u64)> = HashMap::new();
        let mut far = 0;
        for step in 0..400 {
            // Few keys, so that most of them are met again, in two services.
            let key = BindingKey::new(1 + dice.below(2) as u32, dice.below(40 + round) as u64);
            let now = model.now();
            match dice.below(8) {
                0..4 => {
                    let (backend, lifetime) = (step as u16, FAR + dice.below(4) as u64 * FAR);
                    let in_table = seek(&model, &key) != ABSENT;
                    assert_eq!(in_table, expected.contains_key(&key));
                    if !in_table {
                        match put(&model, &key, word(backend), now + lifetime, now) {
                            Insert::Done => {
                                expected.insert(key, (backend, now + lifetime));
                                // One that was over may have given way.
                                expected.retain(|key, (_, expires)| {
                                    let stays = seek(&model, key) != ABSENT;
                                    assert!(stays || *expires + GRACE <= now);
                                    stays
                                });
                            }
                            Insert::Taken => panic!("nobody else makes bindings"),
                            Insert::Full => assert!(expected.len() > 40),
                        }
                    }
                }
                4 => {
                    let number = seek(&model, &key);
                    if number != ABSENT {
                        let word = word_of(slot(&model, number).unwrap());
                        assert!(remove(&model, &key, number, word));
                        assert!(!remove(&model, &key, number, word), "once");
                    }
                    expected.remove(&key);
                }
                5 => {
                    let number = dice.below((model.settings.binding_buckets * BINDING_SLOTS) as usize) as u32;
                    let key = key_of(slot(&model, number).unwrap());
                    if reclaim(&model, number, now) {
                        let (_, expires) = expected.remove(&key).expect("only what is there is reclaimed");
                        assert!(expires + GRACE <= now);
                    }
                }
                6 => model.now.set(now + dice.below(3) as u64 * FAR / 8),
                _ => assert_eq!(backend_of(&model, &key), expected.get(&key).map(|(backend, _)| *backend)),
            }
            far = far.max(listed(&model).len());
        }
        for (key, (backend, _)) in &expected {
            assert_eq!(backend_of(&model, key), Some(*backend));
        }
        assert_eq!(listed(&model).len(), expected.len());
        assert_eq!(live_count(&model), expected.len() as u64);
        assert!(far <= model.settings.binding_capacity as usize);
        check_passed(&model);
    }
}

#[test]
fn as_many_bindings_as_were_configured_go_in() {
    let mut dice = Dice(3);
    for (capacity, may_miss) in [(64, 1), (1_024, 1), (1 << 16, 0)] {
        let mut model = Model::with_bindings(capacity);
        model.settings.seed = dice.roll();
        // Clients of one network, and others.
        let sessions: Vec<u64> = (0..capacity)
            .map(|n| if n % 2 == 0 { 0x0a00_0000 + u64::from(n) } else { dice.roll() })
            .collect();
        let put = |session| put_one(&model, &BindingKey::new(9, session), 5) == Insert::Done;
        let misses = sessions.iter().filter(|session| !put(**session)).count();
        assert!(misses <= may_miss, "{misses} of {capacity} found no room");
        let beyond = (0..1_000).filter(|n| put(1 << 40 | n)).count();
        assert!(beyond <= misses, "no more than configured");
        check_passed(&model);
    }
}

#[test]
fn of_two_cpus_that_make_one_binding_one_goes_on() {
    // The other CPU makes the binding at every step of this one.
    let probe = Model::new(0, 0);
    let free = BindingWord::default();
    let steps = [free, free.claimed(), free.claimed().pending()];
    for before in steps {
        let model = Model::new(0, 0);
        model.interfere(Step::Exchange(before.0), move |model| {
            let others = put_one(model, &KEY, 2);
            assert!(matches!(others, Insert::Done | Insert::Taken));
        });
        let own = put_one(&model, &KEY, 1);
        assert!(model.has_interfered());
        let keys = listed(&model);
        assert_eq!(keys.len(), 1, "before {before:?}: {keys:?}");
        assert_eq!(backend_of(&model, &KEY), Some(if own == Insert::Done { 1 } else { 2 }));
        assert_eq!(live_count(&model), 1);
        check_passed(&model);
    }
    assert_eq!(put_one(&probe, &KEY, 1), Insert::Done);
}

#[test]
fn a_binding_on_its_way_frees_a_higher_slot_and_leaves_a_lower_one_alone() {
    // The first bucket is full when the other CPU looks, and has a free slot when this one does, and the other way round.
    for is_lower in [true, false] {
        let model = Model::new(0, 0);
        let way = path(&model.settings, &KEY);
        let (first, second) = (way.bucket(0), way.bucket(1));
        let is_first_lower = first < second;
        let own_first = is_first_lower == is_lower;
        let block = |block: bool| {
            for i in 0..BINDING_SLOTS {
                let cell = slot(&model, first * BINDING_SLOTS + i).unwrap();
                unsafe { (*cell).word = if block { BindingWord::DEAD } else { 0 } };
            }
        };
        block(!own_first);
        let claimed = BindingWord::default().claimed();
        model.interfere(Step::Exchange(claimed.0), move |model| {
            // The other one has come as far as this one: its fields are written, and its word is next.
            let cell = |n: u32| slot(model, n).unwrap();
            let others = if own_first { second } else { first } * BINDING_SLOTS;
            let other = cell(others);
            unsafe {
                (*other).session = KEY.session;
                (*other).service = KEY.service;
                (*other).word = claimed.pending().0;
                if own_first {
                    model.add((&raw mut (*cell(first * BINDING_SLOTS)).service).cast(), PASSED);
                }
            }
        });
        let own = put_one(&model, &KEY, 1);
        let other = if own_first { second } else { first } * BINDING_SLOTS;
        let others = word_of(slot(&model, other).unwrap()).slot_state();
        if is_lower {
            assert_eq!((own, others), (Insert::Done, SlotState::Free));
        } else {
            assert_eq!((own, others), (Insert::Taken, SlotState::Pending));
        }
    }
}

#[test]
fn a_session_that_is_revived_while_its_slot_is_claimed_stays() {
    let model = Model::new(0, 0);
    assert_eq!(put_one(&model, &KEY, 1), Insert::Done);
    let number = seek(&model, &KEY);
    let cell = slot(&model, number).unwrap();
    model.now.set(model.now() + FAR + GRACE);
    let later = model.now() + FAR;
    model.interfere(Step::Exchange(word_of(cell).0), move |_| unsafe { (*cell).expires = later });
    assert!(!reclaim(&model, number, model.now()));
    assert!(model.has_interfered());
    assert_eq!(backend_of(&model, &KEY), Some(1));
    model.now.set(later + GRACE - 1);
    assert!(!reclaim(&model, number, model.now()), "not before the grace is over");
    model.now.set(later + GRACE);
    assert!(reclaim(&model, number, model.now()));
    assert_eq!((backend_of(&model, &KEY), live_count(&model)), (None, 0));
}

#[test]
fn a_slot_that_has_another_binding_is_not_taken_for_the_old_one() {
    let model = Model::new(0, 0);
    assert_eq!(put_one(&model, &KEY, 1), Insert::Done);
    let number = seek(&model, &KEY);
    let old = word_of(slot(&model, number).unwrap());
    assert!(remove(&model, &KEY, number, old));
    // The same slot, key and content.
    assert_eq!(put_one(&model, &KEY, 1), Insert::Done);
    assert_eq!(seek(&model, &KEY), number);
    assert!(!remove(&model, &KEY, number, old), "what was meant for the binding before does nothing");
    assert_eq!(backend_of(&model, &KEY), Some(1));
}
