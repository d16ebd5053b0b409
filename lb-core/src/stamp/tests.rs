use super::*;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MINUTE: u32 = 60_000;
const HOUR: u32 = 60 * MINUTE;

fn nz(number: u8) -> NonZero<u8> {
    NonZero::new(number).expect("not 0")
}

proptest! {
    /// A backend with any clock, on any day: what comes back is what was sent, and names it.
    #[test]
    fn an_echo_names_its_backend_and_is_given_back_as_it_was(
        number in 1_u8..,
        // Where the wall clock stands, how far the backend's is ahead of it, and by how much that was mistaken.
        wall: u32,
        ahead: u32,
        mistake in 0..2 * SLACK,
        // The switch's clock is behind, and the echo is old.
        late in 0..5 * MINUTE,
        age in 0..2 * HOUR + HOUR / 2,
    ) {
        let mark = Mark::new(nz(number), ahead);
        let clock = ahead.wrapping_add(mistake).wrapping_sub(SLACK);
        prop_assume!(mark.fits(clock));
        let value = wall.wrapping_add(clock);
        let sent = value.wrapping_add(mark.stamp());
        let now = wall.wrapping_add(age).wrapping_sub(late);
        prop_assert_eq!(super::number(sent, now), number);
        prop_assert_eq!(sent.wrapping_sub(mark.stamp()), value);
        prop_assert_eq!(Mark::read(mark.number(), mark.stamp()), mark);
    }

    /// The client's PAWS: what it sees never falls while the backend's clock runs, whatever wraps.
    #[test]
    fn marked_timestamps_run_as_the_backends_clock_does(number in 1_u8.., ahead: u32, value: u32, passed in 0..1_u32 << 31) {
        let mark = Mark::new(nz(number), ahead);
        let (first, then) = (value.wrapping_add(mark.stamp()), value.wrapping_add(passed).wrapping_add(mark.stamp()));
        prop_assert_eq!(then.wrapping_sub(first), passed);
    }

    /// Whatever comes and goes: numbers are unique in a service, and who stays keeps its mark while its clock is near.
    #[test]
    fn marks_stay_with_those_who_have_them(
        turns in prop::collection::vec(prop::collection::btree_map((0_u32..3, 0_u64..200), any::<Option<u32>>(), 0..60), 1..8),
    ) {
        let mut marks = Marks::default();
        for turn in turns {
            let before = marks.clone();
            let claims: Vec<Claim> = turn.iter().map(|(&owner, &ahead)| Claim { owner, ahead }).collect();
            marks.settle(&claims);
            let mut numbers = BTreeSet::new();
            for Claim { owner, ahead } in claims {
                let (was, is) = (before.of(owner), marks.of(owner));
                prop_assert_eq!(is.is_some(), was.is_some() || ahead.is_some());
                let Some(is) = is else { continue };
                prop_assert!(numbers.insert((owner.0, is.number())), "two have {:?}", is.number());
                prop_assert!(ahead.is_none_or(|ahead| is.fits(ahead)));
                if let Some(was) = was {
                    prop_assert_eq!(was.number(), is.number());
                    prop_assert!(was == is || ahead.is_some_and(|ahead| !was.fits(ahead)));
                }
            }
        }
    }
}

#[test]
fn an_echo_that_is_too_old_names_nobody_while_there_are_few() {
    let mut marks = Marks::default();
    let claims: Vec<Claim> = (0..127).map(|server| Claim { owner: (1, server), ahead: Some(0) }).collect();
    marks.settle(&claims);
    let numbers: BTreeSet<u8> =
        claims.iter().filter_map(|claim| marks.of(claim.owner)).map(|mark| mark.number().get()).collect();
    assert_eq!(numbers.len(), 127);
    for &number in &numbers {
        let sent = Mark::new(nz(number), 0).stamp();
        assert_eq!(super::number(sent, 3 * HOUR), number);
        assert!(!numbers.contains(&super::number(sent, 4 * HOUR)), "{number}");
    }
}

#[test]
fn as_many_as_there_are_numbers_have_marks() {
    let mut marks = Marks::default();
    let claims: Vec<Claim> = (0..300).map(|server| Claim { owner: (1, server), ahead: Some(9) }).collect();
    marks.settle(&claims);
    let given = claims.iter().filter(|claim| marks.of(claim.owner).is_some()).count();
    assert_eq!(given, MOST);
}

#[test]
fn two_who_see_the_same_for_the_first_time_say_the_same() {
    let claims: Vec<Claim> =
        (0..9).map(|server| Claim { owner: (5, server), ahead: Some(7_000_000) }).collect();
    let (mut one, mut other) = (Marks::default(), Marks::default());
    one.settle(&claims);
    other.settle(&claims.iter().map(|claim| Claim { ahead: Some(7_003_000), ..*claim }).collect::<Vec<_>>());
    assert_eq!(one, other);
}

#[test]
fn what_a_switch_works_with_is_kept() {
    let claims: Vec<Claim> = (0..3).map(|server| Claim { owner: (5, server), ahead: Some(0) }).collect();
    let mut own = Marks::default();
    own.settle(&claims);
    // Before us somebody gave the first our number of the second, and took its clock for a little less.
    let second = own.of((5, 1)).expect("it has one");
    let found = Mark::new(second.number(), 0_u32.wrapping_sub(STEP));
    own.adopt([((5, 0), found)]);
    own.settle(&claims);
    assert_eq!(own.of((5, 0)), Some(found));
    let moved = own.of((5, 1)).expect("it has another one");
    assert_ne!(moved.number(), second.number());
    // Without a clock of our own, too, and not when that is another one.
    own.adopt([((5, 2), found)]);
    own.settle(&[Claim { owner: (5, 2), ahead: None }]);
    assert_eq!(own.of((5, 2)), Some(found));
    own.settle(&[Claim { owner: (5, 2), ahead: Some(HOUR) }]);
    assert_eq!(own.of((5, 2)), Some(Mark::new(found.number(), HOUR)));
}

#[test]
fn a_clock_is_known_when_it_runs_in_milliseconds() {
    let second = Duration::from_secs(1);
    let mut clock = Clock::new(u32::MAX - 100, second);
    assert_eq!(clock.ahead(), Some(u32::MAX - 100));
    assert_eq!(clock.see(50, second * 2), Reading::Steady, "it wrapped");
    // Its host started again.
    assert_eq!(clock.see(0x8000_0000, second * 9), Reading::Moved);
    assert_eq!(clock.ahead(), None);
    assert_eq!(clock.see(0x8000_0009, second * 10), Reading::Steady);
    assert_eq!(clock.ahead(), Some(0x8000_0009));
    // Hundredths, and microseconds.
    for rate in [-990, 999_000] {
        let mut ahead = 0_i32;
        let mut clock = Clock::new(0, Duration::ZERO);
        for turn in 1..9 {
            ahead = ahead.wrapping_add(rate);
            assert_eq!(clock.see(ahead.cast_unsigned(), second * turn), Reading::Moved, "{rate}");
        }
    }
    assert!(agree(0, u32::MAX) && !agree(0, 2_000));
}
