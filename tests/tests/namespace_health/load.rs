//! A backend dies in the middle of load.

use super::farm::Farm;
use anyhow::{Result, ensure};
use std::time::{Duration, SystemTime};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Load, LoadPlan};

/// How long a dead backend may go on getting sessions on a machine that is busy with load, and perhaps with others; `deaths` says what it may
/// where nobody is in the way.
const FOUND_OUT: Duration = Duration::from_secs(3);

/// Sessions by cookie: only requests that were cut in TCP are lost, and every session of the dead backend is where the order says.
#[test]
fn namespace_health_killed_under_load_with_cookies() -> Result<()> {
    let mut farm = Farm::new("affinity = { kind = \"http-cookie\", cookie = \"SESS\" }\nhealth = \"tcp\"")?;
    let plan = LoadPlan::new(farm.vip, farm.site.clients(false, 48)).with_cookie("SESS");
    let threads = plan.threads as u64;
    let load = Load::start(&farm.site.client, &plan)?;
    load.reach(300)?;
    let before = farm.sessions()?;
    let since = SystemTime::now();
    farm.site.server(1).kill();
    farm.wait_for(1, "down")?;
    let took = farm.found_out(1, since)?;
    load.go_on(300)?;
    let report = load.finish()?;
    println!(
        "found out after {took:?}; of {} requests {} were lost: {:?}",
        report.requests, report.failed, report.failures
    );
    ensure!(took < FOUND_OUT, "found out after {took:?}");
    // No more than were open at that moment.
    ensure!(report.failed <= threads, "{} requests were lost: {report:?}", report.failed);
    ensure!(report.longest < Duration::from_secs(5), "a request took {:?}", report.longest);
    ensure!(!report.sessions.values().any(|backend| backend == "be2"), "be2 serves though it is dead");
    let moved = eventually(Duration::from_secs(5), || {
        let after = farm.sessions()?;
        farm.holds(&before, &after, "be2")
    })?;
    println!("{moved} sessions moved");
    Ok(())
}
