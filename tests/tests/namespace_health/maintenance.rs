//! An administrator takes a backend out.

use super::farm::Farm;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;

/// Draining keeps sessions until the deadline, then they are moved where the order says, all at once.
#[test]
fn namespace_health_drain_waits_until_the_deadline() -> Result<()> {
    let farm = Farm::new("health = \"tcp\"")?;
    farm.bind()?;
    let before = farm.sessions()?;
    let begun = Instant::now();
    let row = farm.balancer.ask(&["drain", "web", "be2", "--wait", "--deadline", "2"])?;
    ensure!(begun.elapsed() >= Duration::from_secs(2), "it did not wait: {:?}", begun.elapsed());
    ensure!(row["admin"] == "disabled" && row["state"] == "down", "{row}");
    let moved = eventually(Duration::from_secs(5), || farm.holds(&before, &farm.sessions()?, "be2"))?;
    println!("{moved} sessions moved");
    // Nothing is left: the wait ends at once.
    farm.balancer.ctl(&["undrain", "web", "be2"])?;
    let answers = farm.everybody()?;
    ensure!(!answers.values().any(|backend| backend == "be2"), "sessions went back by themselves");
    Ok(())
}
