use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn found(numbers: &[u64], sum: u64) -> Pair {
    find(&Slice(&[]), sum, numbers.len() as u32, |i| numbers.get(i as usize).copied())
}

/// All pairs with that sum, by trying all.
fn tried(numbers: &[u64], sum: u64) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for (i, a) in numbers.iter().enumerate() {
        for (j, b) in numbers.iter().enumerate().skip(i + 1) {
            if a.wrapping_add(*b) == sum {
                pairs.push((i as u32, j as u32));
            }
        }
    }
    pairs
}

fn agrees(numbers: &[u64], sum: u64) {
    let (pair, pairs) = (found(numbers, sum), tried(numbers, sum));
    assert_eq!(pair.matches as usize, pairs.len().min(2), "{numbers:?}, sum {sum}");
    if let [only] = pairs[..] {
        assert_eq!((pair.smaller, pair.larger), only, "{numbers:?}, sum {sum}");
    }
}

#[test]
fn sums_that_wrap_are_found() {
    let numbers = [3, u64::MAX / 2, u64::MAX - 10, u64::MAX - 1, u64::MAX];
    for a in numbers {
        for b in numbers {
            agrees(&numbers, a.wrapping_add(b));
        }
    }
    for sum in [0, 1, u64::MAX, u64::MAX - 1] {
        agrees(&numbers, sum);
        agrees(&[], sum);
        agrees(&[sum], sum);
    }
}

#[test]
fn many_servers_are_told_apart() {
    let mut state = 1_u64;
    let numbers: BTreeSet<u64> = (0..4_096)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        })
        .collect();
    let numbers: Vec<u64> = numbers.into_iter().collect();
    assert_eq!(numbers.len(), 4_096);
    for (a, b) in [(0, 4_095), (0, 1), (4_094, 4_095), (2_047, 2_048), (17, 3_000)] {
        let pair = found(&numbers, numbers[a].wrapping_add(numbers[b]));
        assert_eq!(pair, Pair { matches: 1, smaller: a as u32, larger: b as u32 });
        assert_eq!(pair.ordered(false), (a as u32, b as u32));
        assert_eq!(pair.ordered(true), (b as u32, a as u32));
        assert_eq!(found(&numbers, numbers[a].wrapping_add(numbers[b]).wrapping_add(1)).matches, 0);
    }
}

#[test]
fn an_ambiguous_sum_is_refused_and_not_guessed() {
    let numbers = [10, 20, 30, 40, 1_000];
    let issue = |a, b| issue(&numbers, [a, b], 1, 0, &[1, 2]);
    assert_eq!(issue(10, 40), Err(Refused::Ambiguous { primary: 10, secondary: 40 }));
    assert_eq!(found(&numbers, 50).matches, 2);
    assert_eq!(issue(10, 50), Err(Refused::Unknown(50)));
    assert_eq!(issue(10, 10), Err(Refused::Same(10)));
    assert!(issue(1_000, 10).is_ok());
    for refused in [Refused::Same(1), Refused::Unknown(1), Refused::Ambiguous { primary: 1, secondary: 2 }] {
        assert!(refused.to_string().starts_with("server number"));
    }
}

proptest! {
    #[test]
    fn pairs_are_found_as_by_trying_all(
        numbers in prop::collection::btree_set(prop_oneof![any::<u64>(), 0..50_u64, u64::MAX - 50..], 0..40),
        sum in prop_oneof![any::<u64>(), 0..100_u64, u64::MAX - 100..],
        a: prop::sample::Index,
        b: prop::sample::Index,
    ) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        agrees(&numbers, sum);
        if !numbers.is_empty() {
            agrees(&numbers, a.get(&numbers).wrapping_add(*b.get(&numbers)));
        }
    }

    #[test]
    fn numbers_in_no_order_do_no_harm(numbers: Vec<u64>, sum: u64, count: u32) {
        let pair = find(&Slice(&[]), sum, count, |i| numbers.get(i as usize).copied());
        prop_assert!(pair.matches == 0 || numbers.len() > pair.larger as usize);
    }
}
