//! Sessions that had to move go back, when that is wanted.

use super::farm::Farm;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use stickleback_tests::topology::load;
use stickleback_tests::topology::process::eventually;

/// Fifteen seconds of silence, a look every ten, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Backend and number of moves of each client's session.
fn places(farm: &Farm) -> Result<BTreeMap<IpAddr, (String, u64)>> {
    let page = farm.balancer.ask(&["sessions", "list", "--limit", "100000"])?;
    let rows = page["sessions"].as_array().context("no sessions")?.iter().map(|row| {
        let text = |key: &str| row[key].as_str().with_context(|| format!("no {key} in {row}"));
        let moves = row["generation"].as_u64().context("a number")?;
        Ok((text("client")?.parse()?, (text("backend")?.to_owned(), moves)))
    });
    rows.collect()
}

/// With `when-idle` who is idle goes back, who is not stays until he is told, and nobody else moves at all.
#[test]
fn namespace_health_idle_sessions_go_back() -> Result<()> {
    let health = "health = { kind = \"tcp\", failback = \"when-idle\", idle = \"15s\" }";
    let mut farm = Farm::new(&format!("lifetime = \"90s\"\n{health}"))?;
    farm.bind()?;
    let before = places(&farm)?;
    farm.site.server(1).kill();
    farm.wait_for(1, "down")?;
    let away = eventually(PATIENCE, || {
        let now = places(&farm)?;
        ensure!(now.values().all(|(backend, _)| backend != "be2"), "{now:?}");
        Ok(now)
    })?;
    let theirs: Vec<IpAddr> =
        before.iter().filter(|(_, place)| place.0 == "be2").map(|(client, _)| *client).collect();
    load::each(&farm.site.client, farm.vip, &theirs)?;
    let server = farm.site.web(1)?;
    *farm.site.server(1) = server;
    farm.wait_for(1, "healthy")?;

    let (busy, idle) = theirs.split_at(theirs.len() / 2);
    ensure!(busy.len() > 8, "only {} sessions were be2's", theirs.len());
    let home = ("be2".to_owned(), 2);
    let now = eventually(PATIENCE, || {
        load::each(&farm.site.client, farm.vip, busy)?;
        let now = places(&farm)?;
        let left = idle.iter().filter(|client| now.get(*client) != Some(&home)).count();
        ensure!(left == 0, "{left} of {} idle sessions have not gone back", idle.len());
        Ok(now)
    })?;
    for (client, place) in &away {
        let expected = if idle.contains(client) { &home } else { place };
        ensure!(
            now.get(client) == Some(expected),
            "{client} is with {:?}, not {expected:?}",
            now.get(client)
        );
    }
    let answers = load::each(&farm.site.client, farm.vip, idle)?;
    ensure!(answers.values().all(|backend| backend == "be2"), "{answers:?}");

    farm.balancer.ctl(&["failback", "web"])?;
    eventually(PATIENCE, || {
        let now = places(&farm)?;
        let left = theirs.iter().filter(|client| now.get(*client) != Some(&home)).count();
        ensure!(left == 0, "{left} of {} sessions have not gone back", theirs.len());
        Ok(())
    })?;
    let answers = load::each(&farm.site.client, farm.vip, busy)?;
    ensure!(answers.values().all(|backend| backend == "be2"), "{answers:?}");
    Ok(())
}
