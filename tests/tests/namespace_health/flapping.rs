//! A backend that comes and goes.

use super::farm::Farm;
use anyhow::{Result, ensure};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;

/// Its sessions leave once and stay away, others never move.
#[test]
fn namespace_health_flapping() -> Result<()> {
    let farm = Farm::new("health = \"tcp\"")?;
    farm.bind()?;
    let before = farm.sessions()?;
    let victim = &farm.site.backends[1];
    victim
        .namespace
        .sh("nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }'")?;
    for _ in 0..4 {
        victim.namespace.sh("nft add rule inet f in tcp dport 8080 reject with tcp reset")?;
        std::thread::sleep(Duration::from_millis(900));
        victim.namespace.sh("nft flush chain inet f in")?;
        std::thread::sleep(Duration::from_millis(300));
    }
    farm.wait_for(1, "healthy")?;
    let after = eventually(Duration::from_secs(5), || {
        let after = farm.sessions()?;
        farm.holds(&before, &after, &victim.name)?;
        Ok(after)
    })?;
    farm.everybody()?;
    ensure!(farm.sessions()?.keys().eq(after.keys()), "sessions were lost");
    // New sessions go there again.
    let log = farm.balancer.log();
    let (downs, ups) = (log.matches("backend is down").count(), log.matches("backend is up").count());
    println!("down {downs} times, up {ups} times");
    ensure!((1..=4).contains(&downs) && ups <= downs, "down {downs} times, up {ups} times");
    Ok(())
}
