//! Who takes over: the switch's other `lbd`.

use super::shop;
use anyhow::{Context as _, Result, ensure};
use std::time::Instant;
use stickleback_tests::topology::crossing::join_switch;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, SOON};

/// Ends after everything that happens meanwhile.
const RATE: &str = "250k";

/// Waits until an `lbd` has compared the switch with what it wants so often; answers how much differed the last time.
fn compared(switch: &Balancer, times: usize) -> Result<u64> {
    eventually(SOON, || {
        let log = switch.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("compared with the switch")).collect();
        ensure!(lines.len() >= times, "compared {} times", lines.len());
        let number =
            lines[lines.len() - 1].split("differences=").nth(1).context("a number of differences")?;
        Ok(number.split_whitespace().next().context("a number")?.parse()?)
    })
}

/// The master of two `lbd`s dies: the other one goes on with its connections, gives back who is silent and who has ended, and leaves
/// nothing.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_downloads_outlive_their_master() -> Result<()> {
    let mut shop = shop("tcp-established = \"15s\"")?;
    let second = shop.second()?;
    join_switch(&shop.nodes[0], &second)?;
    let mut download = shop.download(RATE, &[])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    let mut idle = shop.idle()?;
    shop.goes_on_with(2)?;
    ensure!(!second.log().contains("compared with the switch"), "the one that waits wrote");

    let mut first = std::mem::replace(&mut shop.switch, second);
    first.kill();
    let begun = Instant::now();
    let differences = compared(&shop.switch, 1)?;
    eprintln!("the second was master after {:?}, {differences} entries differed", begun.elapsed());
    shop.goes_on_with(2)?;
    shop.goes_by_the_switch(&mut download)?;
    shop.goes_on_with(1)?;
    download.runs()?;
    ensure!(idle.ended()?.is_none(), "the client ended it: {}", idle.log());
    download.finish(&shop.crossing)?;
    shop.goes_on_with(0)?;

    first.restart()?;
    let left = compared(&first, 2)?;
    ensure!(left == 0, "{left} entries differ from what a third one wants");
    Ok(())
}
