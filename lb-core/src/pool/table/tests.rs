use super::{MAX_SLOTS, MIN_SLOTS, SLOTS_PER_SERVER, Selection, Share, TableError, size};
use crate::pool::identity::{mix, server_number};
use lb_common::abi::MAX_BACKENDS_PER_SERVICE;
use lb_common::select::{self, Table};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// Servers with numbers from a seed and weights by place.
fn servers(seed: u64, count: u64, weight: impl Fn(u64) -> u32) -> Vec<Share> {
    (0..count).map(|i| Share { number: mix(mix(seed) ^ i), weight: weight(i) }).collect()
}

fn one_to_hundred(i: u64) -> u32 {
    (mix(i) % 100) as u32 + 1
}

fn selection(servers: &[Share]) -> Selection {
    Selection::new(servers.iter().copied()).unwrap()
}

/// Part of all sessions that each server gets.
fn shares(selection: &Selection) -> BTreeMap<u64, f64> {
    let mut shares: BTreeMap<u64, f64> = selection.members().iter().map(|m| (m.number, 0.0)).collect();
    for &place in selection.slots() {
        *shares.get_mut(&selection.members()[usize::from(place)].number).unwrap() +=
            1.0 / selection.slots().len() as f64;
    }
    shares
}

/// Largest relative distance of a share from its weight.
fn worst_share(servers: &[Share]) -> f64 {
    let total: f64 = servers.iter().map(|server| f64::from(server.weight)).sum();
    let shares = shares(&selection(servers));
    servers
        .iter()
        .map(|server| (shares[&server.number] * total / f64::from(server.weight) - 1.0).abs())
        .fold(0.0, f64::max)
}

/// Part of all sessions that moves from one pool to the other beyond what the shares ask for.
fn excess(old: &[Share], new: &[Share]) -> f64 {
    let (old, new) = (selection(old), selection(new));
    let slots = old.slots().len().max(new.slots().len());
    let owner = |selection: &Selection, slot: usize| {
        selection.members()[usize::from(selection.slots()[slot & (selection.slots().len() - 1)])].number
    };
    let moved = (0..slots).filter(|&slot| owner(&old, slot) != owner(&new, slot)).count();
    let (before, after) = (shares(&old), shares(&new));
    let ideal: f64 =
        after.iter().map(|(number, share)| (share - before.get(number).unwrap_or(&0.0)).max(0.0)).sum();
    moved as f64 / slots as f64 - ideal
}

#[test]
fn shares_are_within_one_percent_at_a_hundred_equal_servers() {
    let worst = worst_share(&servers(1, 100, |_| 7));
    assert!(worst < 0.01, "{worst}");
}

#[test]
fn shares_are_within_two_percent_of_weights_from_1_to_100() {
    let worst = worst_share(&servers(2, 100, |i| i as u32 + 1));
    assert!(worst < 0.02, "{worst}");
    let worst = worst_share(&servers(3, 2, |i| [1, 100][i as usize]));
    assert!(worst < 0.02, "{worst}");
}

#[test]
fn sessions_with_keys_in_a_row_are_balanced_too() {
    for pool in [servers(4, 100, |_| 1), servers(5, 100, |i| i as u32 + 1)] {
        let total: u32 = pool.iter().map(|server| server.weight).sum();
        let selection = selection(&pool);
        let mut sessions = vec![0_u32; pool.len()];
        // The clients 10.0.0.0/10, one by one.
        let clients = 1_u32 << 22;
        for client in 0..clients {
            let session = u64::from(0x0a00_0000 + client);
            sessions[usize::from(select::choose(&selection, session, |_| true).unwrap())] += 1;
        }
        for (member, sessions) in selection.members().iter().zip(sessions) {
            let ideal = f64::from(clients) * f64::from(member.weight) / f64::from(total);
            let distance = (f64::from(sessions) / ideal - 1.0).abs();
            let bound = if total == 100 { 0.01 } else { 0.02 };
            assert!(distance < bound, "weight {}: {distance}", member.weight);
        }
    }
}

#[test]
fn one_server_more_or_less_moves_at_most_two_percent_beyond_the_ideal() {
    for seed in 0..3 {
        // 163, 327: the size doubles; 683: the units begin to split.
        for count in [1, 2, 3, 10, 81, 100, 163, 327, 683, 1000] {
            let new = servers(seed, count + 1, |_| 1);
            let added = excess(&new[1..], &new);
            let removed = excess(&new, &new[1..]);
            assert!(added <= 0.02 && removed <= 0.02, "{count} equal servers: {added} {removed}");
        }
        for count in [2, 10, 100, 163] {
            let new = servers(seed, count + 1, one_to_hundred);
            let added = excess(&new[1..], &new);
            let removed = excess(&new, &new[1..]);
            assert!(added <= 0.02 && removed <= 0.02, "{count} weighted servers: {added} {removed}");
        }
    }
    let new = servers(9, 1001, one_to_hundred);
    assert!(excess(&new[1..], &new) <= 0.02);
}

/// A kind of pool: its name, and a server's weight from a number of its own.
type Family = (&'static str, fn(u64) -> u32);

/// Weights as people give them.
const FAMILIES: [Family; 8] = [
    ("equal", |_| 1),
    ("1 to 100", |r| (r % 100) as u32 + 1),
    ("1 to 1000", |r| (r % 1_000) as u32 + 1),
    ("1 to 3", |r| (r % 3) as u32 + 1),
    ("1 or 100", |r| if r % 2 == 0 { 1 } else { 100 }),
    ("powers of two", |r| 1 << (r % 8)),
    ("few heavy ones", |r| if r % 20 == 0 { 100 } else { 1 }),
    ("few light ones", |r| if r % 20 == 0 { 1 } else { 100 }),
];

/// Worst excess over pools of these sizes when a server is added, with the size and the family.
fn sweep(counts: impl Iterator<Item = u64>) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for count in counts {
        for (name, weight) in FAMILIES {
            let new: Vec<Share> = (0..=count)
                .map(|i| mix(mix(count) ^ i))
                .map(|number| Share { number, weight: weight(mix(number)) })
                .collect();
            let excess = excess(&new[1..], &new);
            if excess > worst.0 {
                worst = (excess, format!("{count} servers, {name}"));
            }
        }
    }
    worst
}

#[test]
fn one_server_more_moves_at_most_two_percent_whatever_the_weights() {
    // 163 to 164, 327 to 328 and 655 to 656: the size doubles; 682 to 683: the units begin to split.
    let doublings = [163, 327, 341, 409, 655, 682, 683];
    let (excess, worst) = sweep((1..=700).step_by(61).chain(doublings));
    assert!(excess <= 0.02, "{worst}: {excess}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the switch that all long tests share")]
fn one_server_more_moves_at_most_two_percent_in_pools_of_any_size() {
    if std::env::var_os("STICKLEBACK_LONG").is_none() {
        return;
    }
    let (excess, worst) = sweep((1..=1_100).step_by(7));
    assert!(excess <= 0.02, "{worst}: {excess}");
}

#[test]
fn a_canary_with_a_small_weight_moves_little_although_the_table_grows_manifold() {
    let new = servers(3, 21, |i| if i == 0 { 1 } else { 100 });
    assert!(size(new.iter().map(|s| s.weight)) >= 8 * size(new[1..].iter().map(|s| s.weight)));
    let excess = excess(&new[1..], &new);
    assert!(excess <= 0.02, "{excess}");
}

#[test]
fn a_changed_weight_moves_little() {
    let old = servers(6, 50, |_| 100);
    let new = servers(6, 50, |i| if i == 17 { 50 } else { 100 });
    assert!(excess(&old, &new) <= 0.02);
}

#[test]
fn a_dead_server_moves_its_own_sessions_only_and_they_spread() {
    let pool = servers(7, 10, |_| 1);
    let selection = selection(&pool);
    for dead in 0..10_u16 {
        let mut heirs = vec![0_u32; pool.len()];
        for i in 0..20_000 {
            let session = mix(i);
            let before = select::choose(&selection, session, |_| true).unwrap();
            let after = select::choose(&selection, session, |place| place != dead).unwrap();
            if before == dead {
                heirs[usize::from(after)] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        let total: u32 = heirs.iter().sum();
        assert_eq!(heirs[usize::from(dead)], 0);
        for (place, &sessions) in heirs.iter().enumerate().filter(|&(place, _)| place != usize::from(dead)) {
            let part = f64::from(sessions) / f64::from(total) * 9.0;
            assert!((0.6..1.4).contains(&part), "server {place} inherits {part} of a ninth from {dead}");
        }
    }
}

#[test]
fn sessions_of_a_dead_server_follow_weights() {
    let pool = servers(8, 10, |i| if i == 0 { 5 } else { 1 });
    let heavy = pool[0].number;
    let selection = selection(&pool);
    let dead = (0..10).find(|&place| selection.members()[usize::from(place)].number != heavy).unwrap();
    let (mut total, mut inherited) = (0_u32, 0_u32);
    for session in (0..100_000).map(mix) {
        if select::choose(&selection, session, |_| true) == Some(dead) {
            total += 1;
            let heir = select::choose(&selection, session, |place| place != dead).unwrap();
            inherited += u32::from(selection.members()[usize::from(heir)].number == heavy);
        }
    }
    let part = f64::from(inherited) / f64::from(total) * 13.0 / 5.0;
    assert!((0.8..1.2).contains(&part), "{part}");
}

#[test]
fn sizes_are_powers_of_two_with_room_for_all() {
    assert_eq!(size([]), 0);
    assert_eq!(size([1]), MIN_SLOTS);
    assert_eq!(size([1; 100]), MIN_SLOTS);
    assert_eq!(size([1; 164]), 32_768);
    assert_eq!(size([1, 100, 0]), MIN_SLOTS);
    assert_eq!(size([0, 0]), MIN_SLOTS);
    assert_eq!(size((1..=100).collect::<Vec<_>>()), 262_144);
    assert_eq!(size([1, 1_000_000]), MAX_SLOTS);
    for count in [1, 81, 82, 500, 4_096] {
        let size = size(vec![3; count]);
        assert!(size.is_power_of_two() && size >= SLOTS_PER_SERVER * count as u32);
        assert_eq!(selection(&servers(1, count as u64, |_| 3)).slots().len(), size as usize);
    }
}

#[test]
fn every_weight_above_zero_is_worth_a_slot_of_the_largest_table() {
    let pool = servers(1, 4_096, |i| if i % 2 == 0 { 1 } else { 1_000 });
    let shares = shares(&selection(&pool));
    assert!(shares.values().all(|&share| share > 0.0));
}

#[test]
fn weight_zero_owns_nothing_but_is_a_member_and_stands_last() {
    let pool = [
        Share { number: server_number("a"), weight: 1 },
        Share { number: server_number("b"), weight: 0 },
        Share { number: server_number("c"), weight: 2 },
    ];
    let selection = selection(&pool);
    let idle = selection.members().iter().position(|member| member.weight == 0).unwrap() as u16;
    assert!(selection.slots().iter().all(|&place| place != idle));
    for session in (0..1000).map(mix) {
        assert_eq!(selection.order(session).len(), 3);
        assert_eq!(select::choose(&selection, session, |place| place == idle), Some(idle));
    }
}

#[test]
fn only_ratios_of_weights_matter_and_all_zero_is_equal() {
    let slots = |weight: u32| selection(&servers(1, 5, |_| weight)).slots().to_vec();
    assert_eq!(slots(1), slots(100));
    assert_eq!(slots(1), slots(0));
}

#[test]
fn an_empty_pool_has_an_empty_order() {
    let selection = selection(&[]);
    assert!(selection.slots().is_empty() && selection.order(1).is_empty());
    assert_eq!((selection.mask(), selection.member_count()), (0, 0));
    assert_eq!(select::choose(&selection, 1, |_| true), None);
}

#[test]
fn twins_and_crowds_are_refused() {
    let twin = Share { number: 9, weight: 1 };
    assert_eq!(
        Selection::new([twin, Share { number: 8, weight: 1 }, Share { weight: 2, ..twin }]),
        Err(TableError::SameNumber { number: 9 })
    );
    let crowd = servers(1, u64::from(MAX_BACKENDS_PER_SERVICE) + 1, |_| 1);
    assert_eq!(Selection::new(crowd), Err(TableError::TooManyServers { configured: 4_097 }));
}

#[test]
fn small_given_numbers_are_as_good_as_large_ones() {
    let pool: Vec<Share> = (1..=100).map(|number| Share { number, weight: 1 }).collect();
    assert!(worst_share(&pool) < 0.01);
    assert!(excess(&pool[1..], &pool) <= 0.02);
}

fn pool() -> impl Strategy<Value = Vec<Share>> {
    proptest::collection::btree_map(any::<u64>(), 0_u32..=50, 0..40)
        .prop_map(|pool| pool.into_iter().map(|(number, weight)| Share { number, weight }).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_list_does_not_matter(pool in pool(), turn in any::<prop::sample::Index>()) {
        let mut turned = pool.clone();
        if !turned.is_empty() {
            let middle = turn.index(turned.len());
            turned.rotate_left(middle);
            turned[..].reverse();
        }
        prop_assert_eq!(selection(&pool), selection(&turned));
    }

    #[test]
    fn the_order_covers_all_members_once(pool in pool(), session in any::<u64>()) {
        let order = selection(&pool).order(session);
        prop_assert_eq!(order.len(), pool.len());
        prop_assert_eq!(order.iter().collect::<HashSet<_>>().len(), pool.len());
    }

    #[test]
    fn quotas_are_within_one_slot_of_the_weights(pool in pool()) {
        let total: u32 = pool.iter().map(|server| server.weight).sum();
        prop_assume!(total > 0);
        let selection = selection(&pool);
        let mut owned = vec![0_u32; pool.len()];
        selection.slots().iter().for_each(|&place| owned[usize::from(place)] += 1);
        for (member, owned) in selection.members().iter().zip(owned) {
            let ideal = selection.slots().len() as f64 * f64::from(member.weight) / f64::from(total);
            prop_assert!((f64::from(owned) - ideal).abs() < 1.0, "{} {}", owned, ideal);
        }
    }
}
