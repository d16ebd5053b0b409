//! Clusters in virtual time over a bad network, from a seed; what must hold is looked at after every step.
//!
//! `STICKLEBACK_LONG=1` plays 10,000 seeds, `STICKLEBACK_SEED=N` plays one.

mod check;
mod dice;
mod journal;
mod machine;
mod script;
mod world;

use super::sabotage::Sabotage;
use std::collections::BTreeMap;
use world::{Faults, World};

/// Plays a seed; what happened, and what went wrong.
fn play(seed: u64, bug: Option<Sabotage>) -> (Faults, Result<(), String>) {
    let mut world = World::new(seed, bug);
    let result = world.play();
    (world.faults, result)
}

#[expect(clippy::disallowed_methods, reason = "the switches that all long tests share")]
fn seeds() -> core::ops::Range<u64> {
    if let Some(seed) = std::env::var("STICKLEBACK_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        return seed..seed + 1;
    }
    let long = std::env::var_os("STICKLEBACK_LONG").is_some_and(|value| value == "1");
    0..if long { 10_000 } else { 500 }
}

#[test]
fn clusters_agree_whatever_happens_to_them() {
    let mut sum = Faults::new();
    let mut failed = Vec::new();
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let (faults, result) = play(seed, None);
        for (fault, times) in faults {
            *sum.entry(fault).or_default() += times;
        }
        if let Err(problem) = result {
            failed.push((seed, problem));
        }
    }
    println!("{count} seeds: {sum:#?}");
    for (seed, problem) in &failed {
        println!("seed {seed}: {}", problem.lines().next().unwrap_or_default());
    }
    if let Some((seed, problem)) = failed.first() {
        let all: Vec<u64> = failed.iter().map(|(seed, _)| *seed).take(20).collect();
        panic!(
            "{} of {count} seeds failed: {all:?}; the first with\n{problem}\nagain with: STICKLEBACK_SEED={seed} \
             cargo test -p lb-core clusters_agree -- --nocapture",
            failed.len()
        );
    }
    if count > 1 {
        for fault in world::FAULTS {
            assert!(sum.get(fault).is_some_and(|&times| times > 0), "no seed had: {fault}");
        }
    }
}

#[test]
fn bugs_put_in_on_purpose_are_caught() {
    let mut caught = BTreeMap::new();
    for bug in Sabotage::ALL {
        let found = (0..400).find_map(|seed| play(seed, Some(bug)).1.err().map(|problem| (seed, problem)));
        let Some((seed, problem)) = found else { panic!("{bug:?} is not caught in 400 seeds") };
        let first_line = problem.lines().next().unwrap_or_default().to_owned();
        caught.insert(format!("{bug:?}"), format!("seed {seed}: {first_line}"));
    }
    println!("{caught:#?}");
}

#[test]
fn a_seed_plays_the_same_way_twice() {
    for seed in 0..5 {
        assert_eq!(play(seed, None), play(seed, None), "seed {seed}");
    }
}
