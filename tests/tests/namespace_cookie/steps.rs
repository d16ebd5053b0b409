//! Each single packet of a connection's first steps is lost once, on each of its ways.

use super::{COOKIE, Shop, is_long};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use stickleback_tests::topology::{Arms, Testbed};

/// Two requests on one connection, the first one in two pieces, then the end.
const TALK: &str = include_str!("steps.py");
/// Packets of each way that are lost, one at a time.
const STEPS: u32 = 7;
/// A lost SYN is sent again after a second, and a lost first answer after some 200 ms; machines are busy.
const LONGEST: Duration = Duration::from_secs(5);

fn lost_once(v6: bool) -> Result<()> {
    let shop = Shop::new(Arms::One, v6, COOKIE)?;
    let owner = shop.backend("-H 'Cookie: SESS=steps'", "whoami")?;
    let script = shop.site.directory().join("steps.py");
    std::fs::write(&script, TALK)?;
    let line = format!("python3 {} {} {} steps", script.display(), shop.vip.ip(), shop.vip.port());
    let (switch, ports) = shop.site.switch_ports().context("one arm has a switch")?;
    let place = shop.site.backends.iter().position(|backend| backend.name == owner).context("an owner")?;
    // To whom, or from whom: p0 is the balancer's port, p1 the client's, then the backends'.
    let ways = [
        ("from the client", &switch, ports[1].as_str()),
        ("to the client", &shop.site.client, "eth0"),
        ("to the backend", &shop.site.backends[place].namespace, "eth0"),
        ("from the backend", &switch, ports[place + 2].as_str()),
    ];
    for (way, namespace, interface) in ways {
        let mut cable = Testbed::lose(namespace, interface, 0, 1)?;
        // One frame after the other, as they were sent.
        namespace.sh(&format!("ethtool -K {interface} gro off >/dev/null"))?;
        let mut lost = 0;
        for step in 0..STEPS {
            cable.lose_only(step)?;
            let begun = Instant::now();
            let said = shop.site.client.sh(&line).with_context(|| format!("packet {step} {way} was lost"))?;
            let took = begun.elapsed();
            lost += cable.lost()?;
            let answers: Vec<&str> = said.split_whitespace().collect();
            ensure!(answers == [owner.as_str(); 2], "packet {step} {way} was lost: not {owner}: {said}");
            ensure!(took < LONGEST, "packet {step} {way} was lost: {took:?}");
            println!("{way}, packet {step}: {took:?}");
        }
        ensure!(lost >= 5, "{way} only {lost} packets were lost");
    }
    ensure!(shop.outcome("reset-sent")? == 0, "somebody was reset");
    Ok(())
}

#[test]
fn namespace_cookie_each_packet_lost_v4() -> Result<()> {
    lost_once(false)
}

#[test]
fn namespace_cookie_each_packet_lost_v6() -> Result<()> {
    if is_long() { lost_once(true) } else { Ok(()) }
}
