//! Clients that write their heads byte by byte, over seconds.

use super::{COOKIE, Shop, went};
use anyhow::{Context, Result, ensure};
use lb_common::abi::hand;
use serde_json::Value;
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, NodeConfig, Site, config};

/// Many slow clients at once.
const SLOW: &str = include_str!("slow.py");

/// Runs that many slow clients, each of which takes so many milliseconds a byte, and rests for so many seconds halfway.
fn slow(shop: &Shop, clients: u32, pause: u32, rest: u32) -> Result<Vec<Value>> {
    let script = shop.site.directory().join("slow.py");
    std::fs::write(&script, SLOW)?;
    let line = format!(
        "python3 {} {} {} {clients} {pause} {rest}",
        script.display(),
        shop.vip.ip(),
        shop.vip.port()
    );
    let said = shop.site.client.sh_within(&line, Duration::from_secs(40))?;
    said.lines().map(|line| serde_json::from_str(line).with_context(|| said.clone())).collect()
}

fn serves_all(v6: bool) -> Result<()> {
    let shop = Shop::new(Arms::Two, v6, COOKIE)?;
    let answers = slow(&shop, 60, 40, 0)?;
    ensure!(answers.len() == 60, "{} answers", answers.len());
    for answer in &answers {
        let session = answer["session"].as_str().with_context(|| answer.to_string())?;
        let owner = shop.backend(&format!("-H 'Cookie: SESS={session}'"), "whoami")?;
        ensure!(answer["backend"] == owner.as_str(), "{session} belongs to {owner}: {answer}");
    }
    ensure!(shop.outcome("holds-full")? == 0, "holds were full");
    ensure!(went(&shop, hand::HOLDS_LIVE)? == 0, "holds were not given back");
    Ok(())
}

#[test]
fn namespace_cookie_slow_clients_v4() -> Result<()> {
    serves_all(false)
}

#[test]
fn namespace_cookie_slow_clients_v6() -> Result<()> {
    serves_all(true)
}

/// Tables change while heads are half here: what was acknowledged is gone, so clients are reset, and none waits in vain.
#[test]
fn namespace_cookie_slow_clients_are_told() -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    std::thread::scope(|scope| -> Result<()> {
        let many = scope.spawn(|| slow(&shop, 20, 10, 15));
        eventually(Duration::from_secs(4), || {
            let page = shop.balancer.ask(&["flows", "--state", "collecting"])?;
            let waiting = page["flows"].as_array().context("no flows")?.len();
            ensure!(waiting == 20, "{waiting} requests wait");
            Ok(())
        })?;
        let node = shop.site.node();
        let node = NodeConfig { node: format!("{}\nflows = 65536\n", node.node), ..node };
        let service = shop.site.service("web", shop.vip, "nat", false).with(COOKIE);
        shop.balancer.reload(&config::text(&node, &[service]))?;
        ensure!(!many.is_finished(), "the tables were replaced too late");
        for answer in many.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))? {
            ensure!(answer["error"] == "ConnectionResetError", "{answer}");
        }
        Ok(())
    })
}

/// More slow clients than requests can be held: they cannot keep others from their sessions, and lose what they held in time.
#[test]
fn namespace_cookie_slow_clients_are_bounded() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let mut node: NodeConfig = site.node();
    node.node.push_str("held = 8\n");
    node.timeouts = "request-head = \"3s\"\n".to_owned();
    let shop = Shop::with_node(site, &node, false, COOKIE)?;
    let owners: Vec<(String, String)> = (0..6)
        .map(|n| {
            let session = format!("quick{n}");
            let owner = shop.backend(&format!("-H 'Cookie: SESS={session}'"), "whoami")?;
            Ok((session, owner))
        })
        .collect::<Result<_>>()?;
    std::thread::scope(|scope| -> Result<()> {
        // They stop in the middle of their heads.
        let many = scope.spawn(|| slow(&shop, 40, 10, 5));
        eventually(Duration::from_secs(10), || {
            ensure!(shop.outcome("holds-full")? > 0, "holds are not full");
            Ok(())
        })?;
        for (session, owner) in &owners {
            let begun = Instant::now();
            let again = shop.backend(&format!("-H 'Cookie: SESS={session}'"), "whoami")?;
            ensure!(again == *owner, "{session} moved from {owner} to {again}");
            ensure!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
        }
        // Each is told, or served by the backend of the fallback, and none is left waiting.
        for answer in many.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))? {
            ensure!(answer["error"] != "TimeoutError", "{answer}");
        }
        Ok(())
    })?;
    eventually(Duration::from_secs(10), || {
        // Whoever comes next takes the holds whose time is over.
        for (session, owner) in &owners {
            ensure!(shop.backend(&format!("-H 'Cookie: SESS={session}'"), "whoami")? == *owner);
        }
        let before = shop.outcome("holds-full")?;
        let answers = slow(&shop, 4, 5, 0)?;
        ensure!(answers.iter().all(|answer| answer["error"].is_null()), "{answers:?}");
        ensure!(shop.outcome("holds-full")? == before, "holds are still full");
        Ok(())
    })
}
