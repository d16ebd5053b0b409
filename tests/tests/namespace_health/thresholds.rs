//! With too few healthy backends all are used, or nobody is: as configured.

use super::farm::Farm;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;
use stickleback_tests::topology::load;
use stickleback_tests::topology::process::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

/// Probes ask a port of their own, so that a backend can fail them and serve nevertheless.
fn health(minimum: u8) -> String {
    format!("health = {{ kind = \"tcp\", port = 8084, minimum-healthy = {minimum} }}")
}

/// Lets a backend fail its probes, or pass them again.
fn fails(farm: &Farm, n: usize, does: bool) -> Result<()> {
    let rules = if does {
        "nft add table inet f
         nft add chain inet f in '{ type filter hook input priority 0; }'
         nft add rule inet f in tcp dport 8084 reject with tcp reset"
    } else {
        "nft delete table inet f"
    };
    farm.site.backends[n].namespace.sh(rules)?;
    farm.wait_for(n, if does { "down" } else { "healthy" })
}

/// Waits until exactly these backends are used, by what the daemon says and by who answers sixty new clients.
fn used(farm: &Farm, wanted: &[&str], first: u16) -> Result<()> {
    eventually(PATIENCE, || {
        for n in 0..3 {
            let row = farm.backend(n)?;
            let name = row["name"].as_str().context("a name")?;
            ensure!((row["state"] == "up") == wanted.contains(&name), "{row}");
        }
        Ok(())
    })?;
    let answers = load::each(&farm.site.client, farm.vip, &farm.site.clients_from(false, first, 60))?;
    let found: BTreeSet<&str> = answers.values().map(String::as_str).collect();
    ensure!(found.iter().eq(wanted), "{found:?} answered, not {wanted:?}");
    Ok(())
}

#[test]
fn namespace_health_too_few_are_healthy() -> Result<()> {
    let farm = Farm::new(&health(60))?;
    used(&farm, &["be1", "be2", "be3"], 1_000)?;
    // Two of three are enough.
    fails(&farm, 1, true)?;
    used(&farm, &["be1", "be3"], 1_100)?;
    // One of three is not: all are used, as if nobody had asked.
    fails(&farm, 2, true)?;
    used(&farm, &["be1", "be2", "be3"], 1_200)?;
    ensure!(farm.backend(1)?["health"]["state"] == "down" && farm.backend(2)?["health"]["state"] == "down");
    fails(&farm, 2, false)?;
    used(&farm, &["be1", "be3"], 1_300)?;
    Ok(())
}

/// By default one that lives is enough, and nobody who lives means all; with 0 it means nobody.
#[test]
fn namespace_health_nobody_is_healthy() -> Result<()> {
    let farm = Farm::new("health = { kind = \"tcp\", port = 8084 }")?;
    fails(&farm, 0, true)?;
    fails(&farm, 1, true)?;
    used(&farm, &["be3"], 1_000)?;
    fails(&farm, 2, true)?;
    used(&farm, &["be1", "be2", "be3"], 1_100)?;
    farm.reload(&health(0))?;
    let client = farm.site.clients_from(false, 1_200, 1);
    eventually(PATIENCE, || {
        ensure!(farm.backend(0)?["state"] == "down", "{}", farm.backend(0)?);
        Ok(())
    })?;
    ensure!(load::each(&farm.site.client, farm.vip, &client).is_err(), "somebody dead answered");
    fails(&farm, 1, false)?;
    used(&farm, &["be2"], 1_300)
}
