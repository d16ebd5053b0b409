//! Operation under load: draining, weights, reloads, crashes, other table sizes. Nobody notices.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{
    Arms, BackendConfig, Balancer, Load, LoadPlan, NodeConfig, ServiceConfig, Site, config, load,
};

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, 80)
}

fn web(site: &Site) -> ServiceConfig {
    site.service("web", vip(false), "nat", false).with("affinity = \"source-ip\"")
}

/// Clients a backend, in one round of requests.
fn count(answers: &BTreeMap<IpAddr, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for backend in answers.values() {
        *counts.entry(backend.as_str()).or_default() += 1;
    }
    counts
}

/// Load of two kinds that must not notice anything: short connections and connections that stay.
struct Watch {
    short: Load,
    long: Load,
}

impl Watch {
    fn start(site: &Site) -> Result<Self> {
        let plan = |first| LoadPlan::new(vip(false), site.clients_from(false, first, 40));
        let watch = Self {
            short: Load::start(&site.client, &plan(1))?,
            long: Load::start(&site.client, &plan(1_001).kept_alive())?,
        };
        watch.go_on()?;
        Ok(watch)
    }

    /// Waits until every client has asked again, several times.
    fn go_on(&self) -> Result<()> {
        self.short.go_on(200)?;
        self.long.go_on(200)
    }

    fn finish(self) -> Result<()> {
        self.go_on()?;
        self.short.finish()?.flawless(400).context("short connections")?;
        self.long.finish()?.flawless(400).context("connections that stay")
    }
}

#[test]
fn namespace_draining_keeps_sessions() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    let watch = Watch::start(&site)?;
    let old = load::each(&site.client, vip(false), &site.clients_from(false, 2_001, 60))?;
    balancer.ctl(&["drain", "web", "be1"])?;
    watch.go_on()?;
    let still = load::each(&site.client, vip(false), &site.clients_from(false, 2_001, 60))?;
    ensure!(still == old, "draining moved sessions");
    let new = load::each(&site.client, vip(false), &site.clients_from(false, 3_001, 60))?;
    ensure!(!count(&new).contains_key("be1"), "be1 got new sessions while draining: {:?}", count(&new));
    balancer.ctl(&["undrain", "web", "be1"])?;
    let new = load::each(&site.client, vip(false), &site.clients_from(false, 4_001, 60))?;
    ensure!(count(&new).contains_key("be1"), "be1 gets no sessions after undrain: {:?}", count(&new));
    watch.finish()
}

#[test]
fn namespace_weights_share_new_sessions() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    let watch = Watch::start(&site)?;
    balancer.ctl(&["weight", "web", "be1", "3"])?;
    let shared = load::each(&site.client, vip(false), &site.clients_from(false, 2_001, 400))?;
    // 300 are due; 5 standard deviations to either side.
    let first = count(&shared).get("be1").copied().unwrap_or(0);
    ensure!((257..=343).contains(&first), "be1 with weight 3 of 4 got {first} of 400 sessions");
    balancer.ctl(&["weight", "web", "be1", "0"])?;
    let none = load::each(&site.client, vip(false), &site.clients_from(false, 5_001, 60))?;
    ensure!(count(&none).keys().eq(["be2"].iter()), "weight 0 got new sessions: {:?}", count(&none));
    let bound = load::each(&site.client, vip(false), &site.clients_from(false, 2_001, 400))?;
    ensure!(bound == shared, "weights moved bound sessions");
    watch.finish()
}

#[test]
fn namespace_reload_under_load() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let node = site.node();
    let mut service = web(&site);
    let third = service.backends.pop().context("three backends")?;
    let balancer = site.balance(&[service.clone()])?;
    site.serves(vip(false))?;
    let watch = Watch::start(&site)?;

    // A backend more, another weight, a second service, a backend less, a changed order.
    service.backends.push(third.clone());
    balancer.reload(&config::text(&node, &[service.clone()]))?;
    watch.go_on()?;
    let new = load::each(&site.client, vip(false), &site.clients_from(false, 2_001, 60))?;
    ensure!(count(&new).contains_key("be3"), "the new backend gets no sessions: {:?}", count(&new));
    service.backends[0].lines.push_str("weight = 5\n");
    balancer.reload(&config::text(&node, &[service.clone()]))?;
    watch.go_on()?;
    let v6 = site.service("web-v6", vip(true), "nat", true);
    service.backends.reverse();
    balancer.reload(&config::text(&node, &[v6, service.clone()]))?;
    site.serves(vip(true))?;
    watch.go_on()?;
    balancer.reload(&config::text(&node, &[service.clone()]))?;
    watch.go_on()?;

    // A file with an error changes nothing.
    balancer.write("[node]\ninterfaces = 7\n")?;
    ensure!(balancer.ctl(&["reload"]).is_err(), "a broken file was loaded");
    watch.go_on()?;
    watch.finish()
}

#[test]
fn namespace_removed_backend_gives_its_sessions_away() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let mut service = web(&site);
    let balancer = site.balance(&[service.clone()])?;
    site.serves(vip(false))?;
    let clients = site.clients(false, 90);
    let before = load::each(&site.client, vip(false), &clients)?;
    service.backends.retain(|backend| backend.name != "be2");
    balancer.reload(&config::text(&site.node(), &[service]))?;
    let after = load::each(&site.client, vip(false), &clients)?;
    for (client, backend) in &before {
        let now = &after[client];
        ensure!(now != "be2", "{client} still goes to the removed backend");
        ensure!(backend == "be2" || backend == now, "{client} moved from {backend} to {now}");
    }
    Ok(())
}

#[test]
fn namespace_kill_under_load_and_restart() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let mut balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    let watch = Watch::start(&site)?;
    for _ in 0..3 {
        balancer.kill();
        watch.go_on()?;
        balancer.restart()?;
        watch.go_on()?;
    }
    balancer.stop()?;
    watch.go_on()?;
    balancer.restart()?;
    let sessions = balancer.ask(&["sessions", "list", "--limit", "1000"])?;
    ensure!(sessions.to_string().contains("10.4."), "sessions are gone after the restart: {sessions}");
    watch.finish()
}

/// Other table sizes: bindings and flows are copied while traffic runs.
fn resize(balancer: &Balancer, node: &NodeConfig, service: &ServiceConfig, sizes: &str) -> Result<()> {
    let node = NodeConfig { node: format!("{}\n{sizes}\n", node.node), ..node.clone() };
    balancer.reload(&config::text(&node, std::slice::from_ref(service)))
}

#[test]
fn namespace_table_sizes_change_under_load() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let (node, service) = (site.node(), web(&site));
    let balancer = site.balance(std::slice::from_ref(&service))?;
    site.serves(vip(false))?;
    let crowd = site.clients_from(false, 2_001, 300);
    let before = load::each(&site.client, vip(false), &crowd)?;
    // What clients are bound to must not be what the hash says anyway.
    balancer.ctl(&["weight", "web", "be1", "50"])?;
    let watch = Watch::start(&site)?;
    for sizes in ["bindings = 65536\nflows = 32768", "bindings = 262144\nflows = 131072"] {
        resize(&balancer, &node, &service, sizes)?;
        watch.go_on()?;
    }
    let after = load::each(&site.client, vip(false), &crowd)?;
    ensure!(after == before, "sessions moved with the tables");
    watch.finish()
}

#[test]
fn namespace_sizes_changed_while_lbd_was_away() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let (node, service) = (site.node(), web(&site));
    let mut balancer = site.balance(std::slice::from_ref(&service))?;
    site.serves(vip(false))?;
    let watch = Watch::start(&site)?;
    balancer.kill();
    let node = NodeConfig { node: format!("{}\nbindings = 131072\nflows = 65536\n", node.node), ..node };
    balancer.write(&config::text(&node, std::slice::from_ref(&service)))?;
    balancer.restart()?;
    watch.finish()
}

#[test]
fn namespace_backends_mac_changes() -> Result<()> {
    let site = Site::new(Arms::Two, 1)?;
    let _balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    site.backends[0].namespace.sh(
        "ip link set eth0 down; ip link set eth0 address 02:aa:00:00:00:01; ip link set eth0 up
         ip route add default via 10.2.1.1 || true; ip -6 addr add fd02:1::2/64 dev eth0 nodad || true
         ping -c 1 -W 1 10.2.1.1",
    )?;
    site.serves(vip(false))
}

#[test]
fn namespace_detach_leaves_nothing() -> Result<()> {
    let site = Site::new(Arms::Two, 1)?;
    let balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    ensure!(site.lb.sh("ip link show dev l0")?.contains("xdp"), "no program on l0 while balancing");
    balancer.ctl(&["detach", "--yes"])?;
    let link = site.lb.sh("ip link show dev l0")?;
    ensure!(!link.contains("xdp"), "a program is still on l0: {link}");
    let pins = balancer.pins();
    let left = std::fs::read_dir(pins).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} pins are left in {}", pins.display());
    Ok(())
}

/// A backend that is configured but not there harms nobody else's sessions.
#[test]
fn namespace_unreachable_backend_is_skipped() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let mut service = web(&site);
    let absent = BackendConfig {
        name: "gone".to_owned(),
        address: "10.2.1.77".parse()?,
        lines: "state = \"disabled\"\n".to_owned(),
    };
    service.backends.push(absent);
    let _balancer = site.balance(&[service])?;
    site.serves(vip(false))?;
    let sending = Load::start(&site.client, &LoadPlan::new(vip(false), site.clients(false, 60)))?;
    sending.reach(300)?;
    sending.finish()?.flawless(300)
}

/// A veth whose other end has neither GRO nor a program loses what is redirected to it; `lbd` says so.
#[test]
fn namespace_interfaces_that_take_no_frames_are_named() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let mut balancer = site.balance(&[web(&site)])?;
    site.serves(vip(false))?;
    let warnings = |balancer: &Balancer| -> Result<String> {
        let status = balancer.ask(&["status"])?;
        Ok(status["warnings"]
            .as_array()
            .context("no list of warnings")?
            .iter()
            .map(ToString::to_string)
            .collect())
    };
    std::thread::sleep(Duration::from_secs(3));
    ensure!(warnings(&balancer)?.is_empty(), "warned of sound interfaces: {}", warnings(&balancer)?);
    site.backends[1].namespace.sh("ethtool -K eth0 gro off")?;
    balancer.kill();
    balancer.restart()?;
    eventually(Duration::from_secs(10), || {
        let said = warnings(&balancer)?;
        ensure!(said.contains("interface l2") && said.contains("gro on"), "not named: {said}");
        ensure!(!said.contains("interface l1") && !said.contains("interface l0"), "others are named: {said}");
        Ok(())
    })?;
    let table = balancer.ctl(&["status"])?;
    ensure!(table.contains("WARNING: interface l2"), "not in the table: {table}");
    ensure!(balancer.log().contains("interface l2"), "not in the log: {}", balancer.log());
    Ok(())
}
