//! Delayed binding between simulated clients and backends over a bad network, on the host, in virtual time.
//!
//! Every byte arrives, in order, at one backend; no connection is reset, moves or stands still; no acknowledgement,
//! block or window is wrong; nothing stays held. `STICKLEBACK_LONG=1` plays more seeds; `STICKLEBACK_SEED=N` plays one,
//! and `STICKLEBACK_TRACE=1` prints its frames.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use stickleback_tests::model::{Weather, play};

/// Plays seeds; fails with what went wrong first.
fn play_all(lost: u64, normal: u64, spliced: bool) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let weather = Weather::losing(lost);
    let seeds = match (number("STICKLEBACK_SEED"), number("STICKLEBACK_LONG")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(1)) => 0..normal * 50,
        (None, _) => 0..normal,
    };
    let count = seeds.end - seeds.start;
    // Each seed is a world of its own, so all CPUs play.
    let next = AtomicU64::new(seeds.start);
    let play_some = || {
        let (mut failed, mut frames, mut connections) = (Vec::new(), 0, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (failed, frames, connections);
            }
            match play(seed, weather, spliced) {
                Ok(report) => {
                    frames += report.frames;
                    connections += report.connections;
                }
                Err(error) => failed.push((seed, format!("{error:#}"))),
            }
        }
    };
    let (mut failed, mut frames, mut connections) = (Vec::new(), 0, 0);
    let cpus = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let players: Vec<_> = (0..cpus).map(|_| scope.spawn(play_some)).collect();
        for player in players {
            let (seeds, more_frames, more_connections) = player.join().expect("no player panics");
            failed.extend(seeds);
            frames += more_frames;
            connections += more_connections;
        }
    });
    failed.sort_unstable();
    println!("{count} runs, {connections} connections, {frames} frames");
    if let Some((_, first)) = failed.first() {
        let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).take(20).collect();
        bail!(
            "{} of {count} seeds failed (again with STICKLEBACK_SEED=N): {seeds:?}, the first with\n{first}",
            failed.len()
        );
    }
    Ok(())
}

#[test]
fn nothing_is_lost_on_a_good_network() -> Result<()> {
    play_all(0, 1_000, true)
}

#[test]
fn one_percent_lost() -> Result<()> {
    play_all(10, 800, true)
}

#[test]
fn five_percent_lost() -> Result<()> {
    play_all(50, 600, true)
}

#[test]
fn twenty_percent_lost() -> Result<()> {
    play_all(200, 300, true)
}

#[test]
fn the_endpoints_are_fair() -> Result<()> {
    for lost in [0, 10, 50, 200] {
        play_all(lost, 100, false)?;
    }
    Ok(())
}
