//! Clients and backends on VLANs of their own.

use super::{COOKIE, Shop, vip};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::server::{self, in_url};
use stickleback_tests::topology::{Arms, Load, LoadPlan, Site, Vlan};

/// The clients' VLAN.
const CLIENTS: u16 = 100;
/// The backends'.
const BACKENDS: u16 = 200;

fn tagged(v6: bool) -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let mut service = site.service("web", vip(v6), "nat", v6).with(COOKIE);
    for backend in &mut service.backends {
        backend.lines.push_str(&format!("vlan = {BACKENDS}\n"));
    }
    let balancer = site.balance(&[service])?;
    // Behind what the balancer has attached.
    let mut cables = vec![Vlan::new(&site.client, "eth0", CLIENTS)?, Vlan::new(&site.lb, "l0", CLIENTS)?];
    for (n, backend) in (1..).zip(&site.backends) {
        cables.push(Vlan::new(&backend.namespace, "eth0", BACKENDS)?);
        cables.push(Vlan::new(&site.lb, &format!("l{n}"), BACKENDS)?);
    }
    let shop = Shop { balancer, site, vip: vip(v6), v6 };
    let clients = shop.site.clients(v6, 40);
    eventually(Duration::from_secs(20), || shop.backend("-H 'Cookie: SESS=first'", "whoami"))?;

    let plan = LoadPlan::new(shop.vip, clients).with_cookie("SESS");
    let short = Load::start(&shop.site.client, &plan)?;
    short.reach(120)?;
    let short = short.finish()?;
    short.flawless(120)?;
    ensure!(short.backends.len() == 3, "only {:?} served", short.backends);
    let kept = Load::start(&shop.site.client, &plan.kept_alive())?;
    kept.reach(120)?;
    let kept = kept.finish()?;
    kept.flawless(120)?;
    ensure!(kept.sessions == short.sessions, "sessions moved");

    // Both ways, larger than what is held.
    let file = shop.site.files().join("large");
    server::file(&file, 5_000_000)?;
    let owner = shop.backend("-H 'Cookie: SESS=large'", "whoami")?;
    let curl = format!(
        "curl -sS --fail --noproxy '*' --max-time 30 -H 'Cookie: SESS=large' http://{}",
        in_url(shop.vip.ip())
    );
    let said = shop.site.client.sh(&format!(
        "{curl}/files/large | cmp - {0}
         {curl}/put/up -T {0}",
        file.display()
    ))?;
    ensure!(said.is_empty(), "{said}");
    let received = std::fs::read(shop.site.received(&owner, "up")).context("what was sent")?;
    ensure!(received == std::fs::read(&file)?, "the file changed on its way");
    // All this had tags, also what the balancer made itself.
    let arrived = cables[0].taken_off()?;
    ensure!(arrived > 2_000, "only {arrived} frames with a tag arrived at the client");
    Ok(())
}

#[test]
fn namespace_cookie_tagged_v4() -> Result<()> {
    tagged(false)
}

#[test]
fn namespace_cookie_tagged_v6() -> Result<()> {
    tagged(true)
}
