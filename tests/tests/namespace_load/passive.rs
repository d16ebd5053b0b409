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

fn refuse(shop: &Shop, n: usize) -> Result<()> {
    let rules = "nft add table inet f
        nft add chain inet f in '{ type filter hook input priority 0; }'
        nft add rule inet f in tcp dport 8080 'tcp flags & (syn|ack) == syn' reject with tcp reset";
    shop.site.backends[n].namespace.sh(rules).map(drop)
}

/// Two of three refuse: both are found out, and one is thrown out, as half of the pool allows. Nobody is refused.
#[test]
fn namespace_load_own_connections_refused() -> Result<()> {
    let shop =
        Shop::new(&format!("affinity = {{ kind = \"http-cookie\", cookie = \"SESS\" }}\n{ELSEWHERE}"), "")?;
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
