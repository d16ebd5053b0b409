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

/// What nobody had told before.
fn joined(merged: Merged) -> Option<(Body, Tick)> {
    match merged {
        Merged::Joined(body, until) => Some((body, until)),
        Merged::Expired | Merged::Inserted | Merged::Extended | Merged::Kept | Merged::Replaced => None,
    }
}

/// What is kept under a key, with the ends.
#[derive(Default)]
struct Kept {
    binding: Option<(Body, u64)>,
    tombstone: Option<(Body, u64)>,
}

impl Kept {
    fn end(&mut self, now: Time) {
        for kept in [&mut self.binding, &mut self.tombstone] {
            *kept = kept.filter(|(_, until)| *until > now.0);
        }
    }

    /// Takes a record; whether that changes anything.
    fn tell(&mut self, body: Body, until: u64) -> bool {
        let is_over = |(held, _): &mut (Body, u64)| body.is_tombstone() && held.generation <= body.generation;
        let deleted = self.binding.take_if(is_over).map_or(0, |(_, ends)| ends);
        let is_deleted = self.tombstone.is_some_and(|(held, _)| held.generation >= body.generation);
        let place = if body.is_tombstone() || is_deleted { &mut self.tombstone } else { &mut self.binding };
        let until = until.max(deleted);
        let Some((held, ends)) = place else {
            *place = Some((body, until));
            return true;
        };
        let is_higher = body.cmp_rank(held) == Ordering::Greater;
        let is_later = Tick::of(Time(until)) > Tick::of(Time(*ends)).after(SKEW);
        if is_higher {
            (*held, *ends) = (body, until.max(*ends));
        } else if is_later {
            *ends = until;
        }
        is_higher || is_later
    }
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(
        told in prop::collection::vec(told(), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let now = Time(1_000);
        let ticks = told.iter().map(|(body, until)| (*body, Tick::of(Time(*until))));
        let repeated = order.iter().map(|index| told[index.index(told.len())]);
        let repeated = repeated.map(|(body, until)| (body, Tick::of(Time(until))));
        let orders: [Vec<(Body, Tick)>; 2] =
            [ticks.clone().collect(), repeated.chain(ticks.clone().rev()).collect()];
        let mut stores = [Store::new(7, now), Store::new(8, now)];
        let mut news = Vec::new();
        for (store, order) in stores.iter_mut().zip(orders) {
            order.iter().for_each(|(body, until)| news.extend(joined(store.merge(body, *until, now, false))));
        }
        // What came of it in one store and nobody had told, both are told.
        while let Some((body, until)) = news.pop() {
            for store in &mut stores {
                news.extend(joined(store.merge(&body, until, now, false)));
            }
        }
        let [held, other] = stores.each_ref().map(|store| {
            let records = (0..store.places()).filter_map(|place| store.at(place, now));
            records.map(|(body, until)| ((body.key, body.is_tombstone()), (body, until))).collect::<BTreeMap<_, _>>()
        });
        prop_assert_eq!(&held, &other);
        for (body, until) in ticks {
            let [binding, deletion] = [false, true].map(|is_tombstone| held.get(&(body.key, is_tombstone)));
            let is_kept = |(held, ends): &&(Body, Tick)| held.cmp_rank(&body) != Ordering::Less && *ends >= until;
            let binding = binding.filter(|_| !body.is_tombstone());
            prop_assert!(
                binding.filter(is_kept).is_some() || deletion.filter(is_kept).is_some(),
                "{:?} until {:?} in {:?}", body, until, held
            );
        }
        for ((key, _), (body, until)) in held.iter().filter(|((_, is_tombstone), _)| !is_tombstone) {
            let deletion = held.get(&(*key, true));
            prop_assert!(deletion.is_none_or(|(deletion, _)| deletion.generation < body.generation));
            let mut bindings = told.iter().filter(|(body, _)| body.key == *key && !body.is_tombstone());
            prop_assert!(bindings.any(|(_, end)| Tick::of(Time(*end)) == *until), "no tombstone lends its end");
        }
    }

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec((told(), 0_u64..90_000), 1..80)) {
        let mut now = Time(0);
        let mut store = Store::new(3, now);
        let mut map = BTreeMap::<Key, Kept>::new();
        for ((body, lifetime), pause) in steps {
            now = Time(now.0 + pause);
            store.advance(now, &mut Vec::new());
            map.values_mut().for_each(|kept| kept.end(now));
            let until = Tick::of(Time(now.0 + lifetime)).time().0;
            let merged = store.merge(&body, Tick::of(Time(until)), now, false);
            let is_news = map.entry(body.key).or_default().tell(body, until);
            prop_assert_eq!(merged == Merged::Kept, !is_news);
            for (key, Kept { binding, tombstone }) in &map {
                let found = store.find(*key, now);
                prop_assert_eq!(found.map(|found| found.server), binding.map(|(body, _)| body.server));
                let ticks = |(body, until)| (body, Tick::of(Time(until)));
                let lives = |(_, until): &(Body, Tick)| until.left(now) > 0;
                prop_assert_eq!(store.record(*key).filter(lives), binding.map(ticks));
                prop_assert_eq!(store.deletion(*key).filter(lives), tombstone.map(ticks));
            }
            let mut by_server: Vec<Key> =
                (1..5).flat_map(|server| store.bindings_of(1, server, now)).map(|binding| binding.key).collect();
            by_server.sort_unstable();
            let bound = map.iter().filter(|(_, kept)| kept.binding.is_some()).map(|(key, _)| *key);
            prop_assert_eq!(by_server, bound.collect::<Vec<_>>());
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
fn what_no_vector_covers_stays_so_when_a_failover_is_written_into_it() {
    let now = Time(0);
    let member = |number| ViewMember { number, weight: 1, failover: 0, is_live: number == 2 };
    let view = View::new(1, vec![member(1), member(2)]);
    let mark = Mark { service: 1, server: 1, epoch: 1, digest: view.digest() };
    let mut store = Store::new(1, now);
    let body = Body { key: Key { service: 1, session: 5 }, server: 1, ..Body::default() };
    store.merge_fetched(&body, Tick::of(Time(3_600_000)), now, true);
    store.mark(mark, Tick::of(Time(60_000)), now);
    assert!(store.add_view(view));
    let later = Time(120_000);
    store.advance(later, &mut Vec::new());
    assert_eq!(store.marks().count(), 0, "it has ended");
    let servers: Vec<u64> = store.take_uncovered(later).iter().map(|(body, _)| body.server).collect();
    assert_eq!(servers, [2]);
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
