//! Prints the figures of `docs/decisions/0001-order-function.md`: what a change moves, and how long a table takes.
//!
//! `cargo run --release -p lb-core --example figures`

use lb_core::pool::identity::mix;
use lb_core::pool::table::{Selection, Share};
use std::time::{Duration, Instant};

/// Servers in a pool before one is added; 163, 327, 655: the size doubles, 682: units begin to split.
const COUNTS: [u64; 17] = [1, 2, 3, 5, 10, 20, 50, 81, 100, 163, 250, 327, 341, 409, 655, 1000, 4000];

fn main() {
    println!("one server added: sessions moved beyond the ideal share, mean and worst, in % of all");
    println!(
        "{:>7} | {:>18} {:>6} {:>6} | {:>18} {:>6} {:>6}",
        "servers", "slots", "equal", "", "slots", "1..100", ""
    );
    for count in COUNTS {
        let pools = if count < 500 { 40 } else { 5 };
        print!("{count:>7}");
        for weighted in [false, true] {
            let (mut sum, mut worst, mut slots) = (0.0, 0.0_f64, [0; 2]);
            for seed in 0..pools {
                let new = pool(seed, count + 1, weighted);
                let (old, new) = (selection(&new[1..]), selection(&new));
                let excess = excess(&old, &new) * 100.0;
                slots = [old.slots().len(), new.slots().len()];
                sum += excess;
                worst = worst.max(excess);
            }
            let slots = format!("{} > {}", slots[0], slots[1]);
            print!(" | {slots:>18} {:>6.2} {worst:>6.2}", sum / pools as f64);
        }
        println!();
    }
    println!("time to fill a table, best of five");
    for count in [1, 3, 10, 100, 1000, 4096] {
        for weighted in [false, true] {
            let pool = pool(1, count, weighted);
            let weights = if weighted { "1..100" } else { "equal" };
            println!(
                "{count:>7} servers, {weights:>6}: {:>9.3?}, {} slots",
                time(&pool),
                selection(&pool).slots().len()
            );
        }
    }
}

fn pool(seed: u64, count: u64, weighted: bool) -> Vec<Share> {
    (0..count)
        .map(|i| mix(mix(seed) ^ i))
        .map(|number| Share { number, weight: if weighted { (mix(number) % 100) as u32 + 1 } else { 1 } })
        .collect()
}

fn selection(pool: &[Share]) -> Selection {
    Selection::new(pool.iter().copied()).expect("pools of different numbers and at most 4096 servers")
}

fn owner(selection: &Selection, slot: usize) -> u64 {
    let slots = selection.slots();
    selection.members()[usize::from(slots[slot & (slots.len() - 1)])].number
}

/// Moved part less what the new server gets.
fn excess(old: &Selection, new: &Selection) -> f64 {
    let weight = |selection: &Selection| selection.members().iter().map(|m| f64::from(m.weight)).sum::<f64>();
    let slots = old.slots().len().max(new.slots().len());
    let moved = (0..slots).filter(|&slot| owner(old, slot) != owner(new, slot)).count();
    moved as f64 / slots as f64 - (1.0 - weight(old) / weight(new))
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn time(pool: &[Share]) -> Duration {
    let once = || {
        let start = Instant::now();
        std::hint::black_box(selection(pool));
        start.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}
