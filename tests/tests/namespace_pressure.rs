//! Full tables and floods.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use lb_common::abi::{BindingBucket, BindingKey, BindingSlot, map};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, Balancer, Load, LoadPlan, NodeConfig, SOON, Site, load};

/// Bindings in the small tables of these tests.
const CAPACITY: u16 = 1_024;
/// The service's id.
const ID: u32 = 4_711;

fn vip() -> SocketAddr {
    SocketAddr::from(([10, 99, 0, 1], 80))
}

/// How many of these clients have a binding.
fn bound(balancer: &Balancer, clients: &[IpAddr]) -> Result<usize> {
    let path = balancer.pins().join("maps").join(map::BINDINGS);
    let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    let buckets = Array::<_, BindingBucket>::try_from(aya::maps::Map::Array(data))?;
    let mut bound = HashSet::new();
    for bucket in buckets.iter() {
        bound.extend(bucket?.0.iter().filter_map(BindingSlot::binding).map(|(key, _)| key));
    }
    let keys = clients.iter().filter_map(|client| match client {
        IpAddr::V4(client) => Some(BindingKey::new(ID, u64::from(u32::from(*client)))),
        IpAddr::V6(_) => None,
    });
    Ok(keys.filter(|key| bound.contains(key)).count())
}

/// With `lbd` away and ten times as many clients as bindings fit, everybody is served, and new clients are bound.
#[test]
fn namespace_churn_beyond_the_table_without_lbd() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let base = site.node();
    let node = NodeConfig { node: format!("{}\nbindings = {CAPACITY}\n", base.node), ..base };
    let service = site
        .service("web", vip(), "nat", false)
        .with(&format!("id = {ID}\naffinity = \"source-ip\"\nlifetime = \"1s\""));
    let mut balancer = site.balance_with(&node, &[service])?;
    site.serves(vip())?;
    balancer.stop()?;
    for round in 0..10 {
        let clients = site.clients_from(false, 2_000 + round * CAPACITY, CAPACITY);
        load::each(&site.client, vip(), &clients).with_context(|| format!("round {round}"))?;
    }
    // A second until they expire, and one until they may be reclaimed.
    sleep(Duration::from_millis(2_500));
    let newest = site.clients_from(false, 20_000, 200);
    let first = load::each(&site.client, vip(), &newest)?;
    let count = bound(&balancer, &newest)?;
    ensure!(count >= 195, "of 200 new clients only {count} are bound");
    ensure!(load::each(&site.client, vip(), &newest)? == first, "new sessions moved");
    Ok(())
}

/// A full table of living bindings: traffic goes where the hash says, and is counted.
#[test]
fn namespace_full_table_still_serves() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let base = site.node();
    let node = NodeConfig { node: format!("{}\nbindings = {CAPACITY}\n", base.node), ..base };
    let service =
        site.service("web", vip(), "nat", false).with(&format!("id = {ID}\naffinity = \"source-ip\""));
    let balancer = site.balance_with(&node, &[service])?;
    site.serves(vip())?;
    let clients = site.clients_from(false, 2_000, CAPACITY + 300);
    let start = Instant::now();
    let first = load::each(&site.client, vip(), &clients)?;
    ensure!(load::each(&site.client, vip(), &clients)? == first, "sessions moved");
    let status = balancer.ask(&["status"])?;
    ensure!(status.to_string().contains("bindings-full"), "a full table was not counted: {status}");

    // Told once a second at most, however many were refused.
    let told = || balancer.log().matches("the table of bindings is full").count();
    eventually(SOON, || {
        ensure!(told() > 0, "a full table was not logged: {}", balancer.log());
        Ok(())
    })?;
    let (told, seconds) = (told(), start.elapsed().as_secs());
    ensure!(told as u64 <= seconds + 1, "logged {told} times in {seconds} s");
    Ok(())
}

/// Forged SYNs evict each other, not connections.
#[test]
fn namespace_syn_flood_spares_connections() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let base = site.node();
    let node = NodeConfig { node: format!("{}\nflows = 4096\n", base.node), ..base };
    let service = site.service("web", vip(), "nat", false).with("affinity = \"source-ip\"");
    let balancer = site.balance_with(&node, &[service])?;
    site.serves(vip())?;
    let plan = LoadPlan::new(vip(), site.clients(false, 60)).kept_alive();
    let sending = Load::start(&site.client, &plan)?;
    sending.reach(200)?;

    let script = site.directory().join("flood.py");
    std::fs::write(&script, include_str!("flood.py"))?;
    let command = format!("python3 {} {} {} 50000", script.display(), vip().ip(), vip().port());
    let flooded = site.client.sh_within(&command, Duration::from_secs(60))?;
    ensure!(flooded.trim() == "50000", "the flood sent {flooded}");
    sending.go_on(400)?;
    sending.finish()?.flawless(600)?;

    let status = balancer.ask(&["status"])?.to_string();
    ensure!(status.contains("half-open-evicted"), "no half-open flow was evicted: {status}");
    ensure!(!status.contains("bindings-full"), "forged clients filled the table: {status}");
    let sessions = balancer.ask(&["sessions", "list", "--limit", "100000"])?.to_string();
    ensure!(!sessions.contains("198.18."), "a forged client was bound: {sessions}");
    // Connections can be opened during and after it.
    let new = Load::start(&site.client, &LoadPlan::new(vip(), site.clients_from(false, 1_000, 40)))?;
    new.reach(200)?;
    new.finish()?.flawless(200)
}
