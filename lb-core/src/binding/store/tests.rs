//! The store beside a plain map, and reconciliation in any order.

use super::super::body::{Body, Flags, Key};
use super::super::failover::{Mark, View, ViewMember};
use super::super::time::{Tick, Time};
use super::{Merged, SKEW, Store};
use core::cmp::Ordering;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn body() -> impl Strategy<Value = Body> {
    (0_u64..6, 1_u64..5, 0_u32..3, prop::sample::select(vec![0_u8, 0, 0, 1, 2])).prop_map(
        |(session, server, generation, flags)| {
            let key = Key { service: 1, session };
            Body { key, server, generation, flags: Flags(flags), failover: 0 }.sane()
        },
    )
}

/// Whole minutes, so that what counts as equal is equal.
fn told() -> impl Strategy<Value = (Body, u64)> {
    (body(), 1_u64..20).prop_map(|(body, minutes)| (body, minutes * 60_000))
}

/// Half a second is no whole number of ticks: what ends 16 of them later ends at the same time, 17 later does not.
#[test]
fn ends_are_the_same_up_to_the_tick_after_the_skew() {
    let now = Time(0);
    let body = Body {
        key: Key { service: 1, session: 0 },
        server: 1,
        generation: 0,
        flags: Flags::default(),
        failover: 0,
    };
    let mut store = Store::new(5, now);
    assert_eq!(store.merge(&body, Tick(1_000), now, false), Merged::Inserted);
    assert_eq!(store.merge(&body, Tick(1_016), now, false), Merged::Kept);
    assert_eq!(store.merge(&body, Tick(1_017), now, false), Merged::Extended);
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(
        told in prop::collection::vec(told(), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let now = Time(1_000);
        let mut expected = BTreeMap::<Key, (Body, u64)>::new();
        for (body, until) in &told {
            let held = expected.entry(body.key).or_insert((*body, *until));
            if body.cmp_rank(&held.0) == Ordering::Greater {
                held.0 = *body;
            }
            held.1 = held.1.max(*until);
        }
        let mut store = Store::new(7, now);
        let repeated = order.iter().map(|index| told[index.index(told.len())]);
        for (body, until) in repeated.chain(told.iter().rev().copied()) {
            store.merge(&body, Tick::of(Time(until)), now, false);
        }
        let held: BTreeMap<Key, (Body, u64)> =
            store.walk(0, store.places(), now).map(|(body, told)| (body.key, (body, told.time().0))).collect();
        prop_assert_eq!(held, expected);
    }

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec((told(), 0_u64..90_000), 1..80)) {
        let mut now = Time(0);
        let mut store = Store::new(3, now);
        let mut map = BTreeMap::<Key, (Body, u64)>::new();
        for ((body, lifetime), pause) in steps {
            now = Time(now.0 + pause);
            store.advance(now, &mut Vec::new());
            map.retain(|_, (_, until)| *until > now.0);
            let until = Tick::of(Time(now.0 + lifetime)).time().0;
            let merged = store.merge(&body, Tick::of(Time(until)), now, false);
            let expected = match map.get(&body.key).copied() {
                None => Some((body, until)),
                Some((held, ends)) => match body.cmp_rank(&held) {
                    Ordering::Greater => Some((body, until.max(ends))),
                    Ordering::Equal | Ordering::Less => {
                        let is_later = Tick::of(Time(until)) > Tick::of(Time(ends)).after(SKEW);
                        is_later.then_some((held, until))
                    }
                },
            };
            prop_assert_eq!(merged == Merged::Kept, expected.is_none());
            map.extend(expected.map(|held| (body.key, held)));
            for (key, (body, until)) in &map {
                let found = store.find(*key, now);
                let lives = !body.is_tombstone();
                prop_assert_eq!(found.map(|binding| binding.server), lives.then_some(body.server));
                prop_assert_eq!(store.record(*key), Some((*body, Tick::of(Time(*until)))));
            }
            let mut by_server: Vec<Key> =
                (1..5).flat_map(|server| store.bindings_of(1, server, now)).map(|binding| binding.key).collect();
            by_server.sort_unstable();
            let living = map.values().filter(|(body, _)| !body.is_tombstone());
            prop_assert_eq!(by_server, living.map(|(body, _)| body.key).collect::<Vec<_>>());
        }
        store.advance(Time(now.0 + 30 * 60_000), &mut Vec::new());
        prop_assert_eq!(store.len(), 0);
        prop_assert_eq!(store.members().count(), 0, "servers that nothing names are forgotten");
    }

    #[test]
    fn marks_and_records_may_come_in_any_order(
        steps in prop::collection::vec((1_u64..5, 1_u32..4, prop::collection::vec(any::<bool>(), 4)), 1..5),
        order in any::<prop::sample::Index>(),
    ) {
        let now = Time(0);
        let end = Tick::of(Time(3_600_000));
        let marks: Vec<(Mark, View)> = steps
            .into_iter()
            .map(|(server, epoch, live)| {
                let member = |(i, is_live): (usize, bool)| {
                    let number = i as u64 + 1;
                    ViewMember { number, weight: 1, failover: 0, is_live: is_live && number != server }
                };
                let view = View::new(1, live.into_iter().enumerate().map(member).collect());
                (Mark { service: 1, server, epoch, digest: view.digest() }, view)
            })
            .collect();
        let bodies: Vec<Body> = (0..20)
            .map(|session| {
                let key = Key { service: 1, session };
                Body { key, server: session % 4 + 1, generation: 0, flags: Flags::default(), failover: 0 }
            })
            .collect();
        let at = order.index(marks.len());
        let mut stores = [Store::new(1, now), Store::new(2, now)];
        // Bindings first and views with their marks; or marks in another order, bindings, and views last.
        let [first, second] = &mut stores;
        bodies.iter().for_each(|body| { first.merge(body, end, now, false); });
        for (mark, view) in &marks {
            first.mark(*mark, end, now);
            first.add_view(view.clone());
        }
        for (mark, _) in marks[at..].iter().chain(&marks[..at]).rev() {
            second.mark(*mark, end, now);
        }
        bodies.iter().for_each(|body| { second.merge(body, end, now, false); });
        for (_, view) in marks[at..].iter().chain(&marks[..at]) {
            second.add_view(view.clone());
        }
        for body in &bodies {
            let [a, b] = stores.each_ref().map(|store| store.find(body.key, now));
            prop_assert_eq!(a, b);
            let server = a.expect("it lives").server;
            for store in &stores {
                prop_assert!(store.bindings_of(1, server, now).any(|binding| binding.key == body.key));
            }
        }
    }
}

#[test]
fn a_failover_whose_view_nobody_has_hides_no_later_one() {
    let now = Time(0);
    let end = Tick::of(Time(3_600_000));
    let failover = |epoch, live: u64| {
        let member = |number| ViewMember {
            number,
            weight: 1,
            failover: u32::from(number == 1) * epoch,
            is_live: number == live,
        };
        let view = View::new(1, (1..5).map(member).collect());
        (Mark { service: 1, server: 1, epoch, digest: view.digest() }, view)
    };
    let mut store = Store::new(1, now);
    let key = Key { service: 1, session: 5 };
    store.merge(&Body { key, server: 1, ..Body::default() }, end, now, false);
    let server = |store: &Store| store.find(key, now).map(|binding| binding.server);
    let ((first, lost), (second, view)) = (failover(1, 2), failover(2, 3));
    store.mark(first, end, now);
    assert_eq!(server(&store), Some(1), "it waits for the view");
    store.mark(second, end, now);
    assert!(store.add_view(view));
    assert_eq!(server(&store), Some(1), "somebody may have it");
    store.lose_view(first.digest);
    assert_eq!(server(&store), Some(3));
    // Somebody had it after all: all come to the same.
    assert!(store.add_view(lost));
    assert_eq!(server(&store), Some(2));
    assert!(store.bindings_of(1, 2, now).any(|binding| binding.key == key));
}

#[test]
fn a_long_sleep_ends_what_ended_meanwhile_and_nothing_else() {
    let mut store = Store::new(1, Time(0));
    for session in 0..100 {
        let key = Key { service: 1, session };
        let body = Body { key, server: 1, ..Body::default() };
        store.merge(&body, Tick::of(Time((session + 1) * 3_600_000)), Time(0), false);
    }
    let now = Time(0).after(Duration::from_secs(3600 * 50 + 60));
    store.advance(now, &mut Vec::new());
    assert_eq!(store.bindings(now).count(), 50);
    assert_eq!(store.len(), 50);
}
