//! What the balancer's own connections say of backends, where probes ask somewhere else and find all well.

use super::{SOON, Shop};
use anyhow::{Result, ensure};
use std::time::Duration;
use stickleback_tests::topology::load;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Load, LoadPlan};

/// Probes ask a port that goes on to answer; once down, a backend stays down for the test.
const ELSEWHERE: &str =
    "health = { kind = \"tcp\", port = 8084, fall = 1, rise = 1000, timeout = \"10s\", max-ejected = 50 }";

/// The same, but whoever is down is back after five seconds of probes that pass.
const AND_BACK: &str = "health = { kind = \"tcp\", port = 8084, fall = 1, rise = 20, interval = \"250ms\", \
     slow-interval = \"250ms\", fast-interval = \"250ms\", timeout = \"10s\", max-ejected = 50 }";

/// Lets a backend's kernel treat SYNs for the web server this way.
fn treat(shop: &Shop, n: usize, how: &str) -> Result<()> {
    let rules = format!(
        "nft add table inet f
         nft add chain inet f in '{{ type filter hook input priority 0; }}'
         nft add rule inet f in tcp dport 8080 'tcp flags & (syn|ack) == syn' {how}"
    );
    shop.site.backends[n].namespace.sh(&rules).map(drop)
}

fn refuse(shop: &Shop, n: usize) -> Result<()> {
    treat(shop, n, "reject with tcp reset")
}

/// The service of these tests, whose sessions are told by cookies: the balancer makes its own connections for them.
fn cookies(health: &str) -> String {
    format!("affinity = {{ kind = \"http-cookie\", cookie = \"SESS\" }}\n{health}")
}

/// Two of three refuse: both are found out, and one is thrown out, as half of the pool allows. Nobody is refused.
#[test]
fn namespace_load_own_connections_refused() -> Result<()> {
    let shop = Shop::new(&cookies(ELSEWHERE), "")?;
    let plan = LoadPlan::new(shop.vip, shop.site.clients(false, 24)).with_cookie("SESS");
    let load = Load::start(&shop.site.client, &plan)?;
    load.reach(100)?;
    refuse(&shop, 0)?;
    refuse(&shop, 1)?;
    let judged = || -> Result<()> {
        let (mut found_out, mut thrown_out) = (0, 0);
        for name in ["be1", "be2", "be3"] {
            let row = shop.backend(name)?;
            // Probes go on to find it well, which is not enough here.
            let state = row["health"]["state"].as_str().unwrap_or_default();
            found_out += usize::from(["down", "rising"].contains(&state));
            thrown_out += usize::from(row["state"] == "down");
        }
        ensure!(found_out == 2, "{found_out} are found out");
        ensure!(thrown_out == 1, "{thrown_out} backends are thrown out, not one");
        Ok(())
    };
    eventually(SOON, judged)?;
    load.go_on(100)?;
    let report = load.finish()?;
    report.answered(200)?;
    judged()?;
    ensure!(shop.backend("be3")?["state"] == "up");
    ensure!(report.sessions.values().all(|name| name == "be3"), "who refuses serves: {report:?}");
    Ok(())
}

/// Two of three are silent, and nothing but the balancer's own SYNs can tell: their probes pass. One is out at a time, as half of
/// the pool allows; everybody is answered; who answers again comes back.
#[test]
fn namespace_load_own_connections_silent() -> Result<()> {
    let shop = Shop::new(&cookies(AND_BACK), "")?;
    let plan = LoadPlan::new(shop.vip, shop.site.clients(false, 24)).with_cookie("SESS");
    let load = Load::start(&shop.site.client, &plan)?;
    load.reach(100)?;
    for silent in [0, 1] {
        treat(&shop, silent, "drop")?;
    }
    let mut both = false;
    let looks = || -> Result<(usize, usize)> {
        let (mut found_out, mut thrown_out) = (0, 0);
        for name in ["be1", "be2", "be3"] {
            let row = shop.backend(name)?;
            let state = row["health"]["state"].as_str().unwrap_or_default();
            found_out += usize::from(["down", "rising"].contains(&state));
            thrown_out += usize::from(row["state"] == "down");
        }
        ensure!(found_out <= 2 && shop.backend("be3")?["state"] == "up", "who answers is thrown out");
        Ok((found_out, thrown_out))
    };
    eventually(SOON, || {
        let (found_out, thrown_out) = looks()?;
        // Rows are read one after the other, so that the two may change places meanwhile.
        both |= found_out == 2 && thrown_out == 1;
        ensure!(both, "{found_out} are found out, {thrown_out} thrown out, not 2 and 1");
        Ok(())
    })?;
    for name in ["be1", "be2"] {
        ensure!(shop.backend(name)?["load"]["silent"].as_u64() > Some(0), "{}", shop.backend(name)?);
    }
    load.go_on(100)?;
    for answers in [0, 1] {
        shop.site.backends[answers].namespace.sh("nft delete table inet f")?;
    }
    eventually(SOON, || {
        let (found_out, thrown_out) = looks()?;
        ensure!((found_out, thrown_out) == (0, 0), "{found_out} are found out, {thrown_out} thrown out");
        Ok(())
    })?;
    load.go_on(100)?;
    let report = load.finish()?;
    report.answered(300)?;
    println!("longest of {} requests {:?}, {:?}", report.requests, report.longest, report.backends);
    // New sessions find all three again.
    let plan = LoadPlan::new(shop.vip, shop.site.clients_from(false, 1_000, 60)).with_cookie("SESS");
    let load = Load::start(&shop.site.client, &plan)?;
    load.go_round()?;
    let report = load.finish()?;
    ensure!(report.backends.len() == 3, "{report:?}");
    Ok(())
}

/// Clients can have their connections refused: that changes nothing of a backend's state.
#[test]
fn namespace_load_clients_connections_refused() -> Result<()> {
    let shop = Shop::new(ELSEWHERE, "")?;
    refuse(&shop, 1)?;
    for round in 0..3 {
        // Some of them go to who refuses.
        let clients = shop.site.clients_from(false, 100 + 50 * round, 50);
        let refused =
            clients.iter().filter(|client| load::each(&shop.site.client, shop.vip, &[**client]).is_err());
        ensure!(refused.count() > 0, "nobody was refused");
        std::thread::sleep(Duration::from_millis(300));
    }
    let row = shop.backend("be2")?;
    ensure!(row["state"] == "up" && row["health"]["state"] == "healthy", "clients took a backend out: {row}");
    ensure!(row["load"]["refused"] == 0 && row["load"]["connections"] == 0, "{row}");
    Ok(())
}
