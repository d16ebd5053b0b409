//! Backends and the daemon fail in the middle of load.

use super::{COOKIE, Shop};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use stickleback_tests::topology::{Arms, Load, LoadPlan, config};

/// What a request may take that fails over: far less than a client that has to find out by itself, and stalls of a busy
/// machine included. A quiet one takes 0.3 s where the backend is silent, and nothing where it refuses.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Lets a backend's kernel treat new connections to the web server this way; connections that are there go on.
pub(super) fn treat(shop: &Shop, backend: &str, how: &str) -> Result<()> {
    let backend = shop.site.backends.iter().find(|b| b.name == backend).context("no such backend")?;
    let rules = format!(
        "nft add table inet f
         nft add chain inet f in '{{ type filter hook input priority 0; }}'
         nft add rule inet f in tcp dport 8080 'tcp flags & (syn|ack) == syn' {how}"
    );
    backend.namespace.sh(&rules).map(drop)
}

/// A backend fails in the middle of load: everybody is answered, its sessions by the others, nobody else moves.
fn fails_over(how: &str, counted: &str) -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    let plan = LoadPlan::new(shop.vip, shop.site.clients(false, 24)).with_cookie("SESS");
    let load = Load::start(&shop.site.client, &plan)?;
    load.reach(150)?;
    treat(&shop, "be2", how)?;
    load.go_round()?;
    let report = load.finish()?;
    report.answered(300)?;
    ensure!(report.longest < AT_ONCE, "a request took {:?}", report.longest);
    ensure!(!report.sessions.values().any(|backend| backend == "be2"), "be2 still serves: {report:?}");
    ensure!((1..=24).contains(&report.moved), "{} sessions moved", report.moved);
    let times = shop.outcome(counted)?;
    ensure!(times > 0, "{counted} was not counted");
    println!(
        "{counted} {times} times, {} sessions moved, longest of {} requests {:?}",
        report.moved, report.requests, report.longest
    );
    // Those who moved stay where they went.
    let load = Load::start(&shop.site.client, &plan)?;
    load.reach(100)?;
    let after = load.finish()?;
    after.flawless(100)?;
    let moved =
        after.sessions.iter().filter(|(client, backend)| report.sessions[*client] != **backend).count();
    ensure!(moved == 0, "{moved} sessions moved again");
    Ok(())
}

#[test]
fn namespace_cookie_refused_under_load() -> Result<()> {
    fails_over("reject with tcp reset", "backend-refused")
}

#[test]
fn namespace_cookie_silent_under_load() -> Result<()> {
    fails_over("drop", "backend-silent")
}

/// The daemon is killed, comes back, and loads another configuration: nobody notices.
#[test]
fn namespace_cookie_survives_lbd() -> Result<()> {
    let mut shop = Shop::new(Arms::Two, false, COOKIE)?;
    let plan = LoadPlan::new(shop.vip, shop.site.clients(false, 30)).with_cookie("SESS");
    let others = LoadPlan::new(shop.vip, shop.site.clients_from(false, 1_000, 30)).with_cookie("SESS");
    let short = Load::start(&shop.site.client, &LoadPlan { threads: 2, ..plan })?;
    let kept = Load::start(&shop.site.client, &LoadPlan { threads: 2, ..others.kept_alive() })?;
    short.reach(100)?;
    kept.reach(60)?;
    shop.balancer.kill();
    short.go_on(100)?;
    // New sessions, too.
    let new = LoadPlan::new(shop.vip, shop.site.clients_from(false, 2_000, 20)).with_cookie("SESS");
    let new = Load::start(&shop.site.client, &new)?;
    let begun = Instant::now();
    new.reach(100)?;
    shop.balancer.restart()?;
    println!("lbd is back after {:?}", begun.elapsed());
    short.go_on(100)?;
    let service = shop.site.service("web", shop.vip, "nat", shop.v6).with(COOKIE).with("lifetime = \"1h\"");
    let second = std::net::SocketAddr::new("10.99.0.2".parse()?, 80);
    let second = shop.site.service("second", second, "nat", shop.v6).with(COOKIE);
    for _ in 0..2 {
        shop.balancer.reload(&config::text(&shop.site.node(), &[service.clone(), second.clone()]))?;
        println!("a service more after {:?}", begun.elapsed());
        short.go_on(60)?;
        shop.balancer.reload(&config::text(&shop.site.node(), std::slice::from_ref(&service)))?;
        println!("a service less after {:?}", begun.elapsed());
        short.go_on(60)?;
    }
    kept.go_on(60)?;
    short.finish()?.flawless(500).context("a connection for each request")?;
    kept.finish()?.flawless(120).context("connections that stay")?;
    new.finish()?.flawless(100).with_context(|| {
        let status = shop.balancer.ask(&["status"]).unwrap_or_default();
        format!("sessions that began without lbd; {}", status["outcomes"])
    })
}
