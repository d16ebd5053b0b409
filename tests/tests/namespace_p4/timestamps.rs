//! Connections that stay with their backends though nobody knows of them any more: the number rides in TCP timestamps.

use super::control::compared;
use super::{CLIENTS, chosen, mac, node, script, site, vip};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use stickleback_tests::topology::config::text;
use stickleback_tests::topology::process::{Process, eventually};
use stickleback_tests::topology::server::{file, in_url};
use stickleback_tests::topology::{Balancer, Bmv2, SOON, ServiceConfig, Site, load};

const HEALTH: &str = "affinity = \"source-ip\"\nhealth = { kind = \"tcp\", interval = \"200ms\", timeout = \"1s\", fall = 2, rise = 1 }\n";
const TIMESTAMPS: &str = "consistency = \"timestamps\"\n";
/// Of the file that is fetched, and of it in a second.
const BYTES: u64 = 8 << 20;
const RATE: u64 = 512 << 10;

/// One clock for all clients.
fn clocks(site: &Site) -> Result<()> {
    site.backends.iter().try_for_each(|backend| backend.namespace.set("ipv4/tcp_timestamps=2"))
}

/// Fetches a file slowly, from a backend that is not the first of its session's order; meanwhile switch and `lbd` lose everything, and
/// start again with the first one, too. Whether the file arrives.
fn outlives_everything(v6: bool, lines: &str) -> Result<bool> {
    let (site, mut switch) = site(1_500)?;
    clocks(&site)?;
    let vip = vip(v6);
    let all = site.service("web", vip, "nat", v6).with(&format!("{HEALTH}{lines}"));
    let mut less = all.clone();
    less.backends.retain(|backend| backend.name != "be3");
    let own: Vec<IpAddr> = site.clients(v6, CLIENTS);
    let owners = chosen(&site, &own)?;
    let client = owners.iter().find(|(_, backend)| *backend == "be3").context("be3 is somebody's first")?.0;

    let mut balancer = site.balance_with(&node(&site, &switch, 1)?, &[less])?;
    site.serves(vip)?;
    let transfer = Transfer::start(&site, vip, *client)?;

    balancer.kill();
    switch.restart()?;
    let before = transfer.bytes();
    ensure!(before < BYTES / 2, "too fast: {before} bytes are there already");
    let _heir = second(&site, &switch, &[all])?;
    let server = transfer.server()?;
    ensure!(server != "be3", "be3 had it from the beginning");
    transfer.arrives()
}

/// Starts another `lbd`.
fn second(site: &Site, switch: &Bmv2, services: &[ServiceConfig]) -> Result<Balancer> {
    let second = site.directory().join("second");
    let config = text(&node(site, switch, 1)?, services);
    Balancer::start(&site.lb, &second, &second.join("pins"), &config)
}

/// A file that is fetched slowly.
struct Transfer {
    process: Process,
    original: PathBuf,
    head: PathBuf,
    body: PathBuf,
}

impl Transfer {
    /// Starts it, and waits until it is on its way.
    fn start(site: &Site, vip: SocketAddr, client: IpAddr) -> Result<Self> {
        std::fs::create_dir_all(site.files())?;
        let original = site.files().join("data");
        file(&original, BYTES)?;
        let (head, body) = (site.directory().join("head"), site.directory().join("body"));
        let (from, rate) = (client.to_string(), RATE.to_string());
        let url = format!("http://{}/files/data", in_url(vip.ip()));
        let [to_head, to_body] = [&head, &body].map(|path| path.to_string_lossy().into_owned());
        let mut words = vec!["curl", "-sSf", "--noproxy", "*", "--max-time", "120"];
        words.extend(["--interface", &from, "--limit-rate", &rate, "-D", &to_head, "-o", &to_body, &url]);
        let process = site.client.start(&words, &site.directory().join("curl.log"))?;
        let transfer = Self { process, original, head, body };
        eventually(SOON, || {
            ensure!(transfer.bytes() > RATE, "it has {} bytes: {}", transfer.bytes(), transfer.process.log());
            Ok(())
        })?;
        Ok(transfer)
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.body).map_or(0, |body| body.len())
    }

    /// Who serves it.
    fn server(&self) -> Result<String> {
        let head = std::fs::read_to_string(&self.head)?;
        let named = head.lines().find_map(|line| line.strip_prefix("X-Backend: "));
        Ok(named.context("no backend is named")?.trim().to_owned())
    }

    /// Waits for its end; whether all of it has come.
    fn arrives(mut self) -> Result<bool> {
        let status = self.process.wait(Duration::from_secs(120))?;
        if !status.success() {
            eprintln!("{}", self.process.log());
        }
        Ok(status.success() && std::fs::read(&self.body)? == std::fs::read(&self.original)?)
    }
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_timestamps_keep_a_transfer_v4() -> Result<()> {
    ensure!(outlives_everything(false, TIMESTAMPS)?, "the transfer broke");
    Ok(())
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_timestamps_keep_a_transfer_v6() -> Result<()> {
    ensure!(outlives_everything(true, TIMESTAMPS)?, "the transfer broke");
    Ok(())
}

/// The tables alone do not: else the others would show nothing.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_tables_alone_lose_a_transfer() -> Result<()> {
    ensure!(!outlives_everything(false, "")?, "the transfer went on");
    Ok(())
}

/// The master of two `lbd`s dies: the other one finds nothing to change, and goes on with the same numbers. So a transfer stays where it is
/// even when its session is led elsewhere, and new connections go where they should.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_timestamps_outlive_their_master() -> Result<()> {
    let (site, switch) = site(1_500)?;
    clocks(&site)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with(&format!("{HEALTH}{TIMESTAMPS}"));
    let mut first = site.balance_with(&node(&site, &switch, 2)?, std::slice::from_ref(&service))?;
    let second = second(&site, &switch, &[service])?;
    // Each time other clients: who came too early stays with whom he got.
    let mut early = 1_000;
    eventually(SOON, || {
        early += CLIENTS;
        let clients = site.clients_from(false, early, CLIENTS);
        ensure!(load::each(&site.client, vip, &clients)? == chosen(&site, &clients)?, "not all serve");
        Ok(())
    })?;
    let clients = site.clients(false, CLIENTS);
    let before = load::each(&site.client, vip, &clients)?;
    let mut transfer = Transfer::start(&site, vip, clients[0])?;

    first.kill();
    ensure!(compared(&second, 1)? == 0, "the heir changes something: {}", second.log());
    ensure!(before == load::each(&site.client, vip, &clients)?, "sessions moved to the second");
    let server = transfer.server()?;
    let other = site.backends.iter().map(|backend| &backend.name).find(|name| **name != server);
    let other = other.context("another backend")?;
    second.ctl(&["sessions", "pin", "web", &clients[0].to_string(), other])?;
    eventually(SOON, || {
        let now = load::once(&site.client, vip, clients[0])?;
        ensure!(now == *other, "led to {now}, not {other}");
        Ok(())
    })?;
    ensure!(
        transfer.process.ended()?.is_none(),
        "too fast: all {} bytes are there already",
        transfer.bytes()
    );
    let new = site.clients_from(false, 30_000, CLIENTS);
    ensure!(load::each(&site.client, vip, &new)? == chosen(&site, &new)?, "new sessions are led elsewhere");
    ensure!(transfer.arrives()?, "the transfer broke");
    Ok(())
}

/// A backend with the clock that Linux has by default gets no traffic, and it is said what to do; then it gets some.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_timestamps_of_the_default_are_refused() -> Result<()> {
    let (site, switch) = site(1_500)?;
    clocks(&site)?;
    site.backends[0].namespace.set("ipv4/tcp_timestamps=1")?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with(&format!("{HEALTH}{TIMESTAMPS}"));
    let balancer = site.balance_with(&node(&site, &switch, 1)?, &[service])?;
    site.serves(vip)?;
    let used = |n: u16| -> Result<BTreeSet<String>> {
        let served = load::each(&site.client, vip, &site.clients_from(false, n, CLIENTS))?;
        Ok(served.into_values().collect())
    };
    eventually(SOON, || {
        let used = used(1)?;
        ensure!(used.len() == 2 && !used.contains("be1"), "{used:?} serve");
        let told = balancer.ctl(&["backends"])?;
        ensure!(told.contains("tcp_timestamps=2"), "nobody says what to do: {told}");
        Ok(())
    })?;
    site.backends[0].namespace.set("ipv4/tcp_timestamps=2")?;
    // Each time other clients: who came too early stays with whom he got.
    let mut early = 1_000;
    eventually(SOON, || {
        early += CLIENTS;
        let used = used(early)?;
        ensure!(used.len() == 3, "only {used:?} serve");
        Ok(())
    })?;
    // A client without timestamps is served as well, and so is one whose SYN is answered by a cookie.
    site.client.set("ipv4/tcp_timestamps=0")?;
    ensure!(used(20_000)?.len() == 3, "clients without timestamps are not served");
    site.client.set("ipv4/tcp_timestamps=1")?;
    site.backends.iter().try_for_each(|backend| backend.namespace.set("ipv4/tcp_syncookies=2"))?;
    ensure!(used(21_000)?.len() == 3, "clients with SYN cookies are not served");
    Ok(())
}

/// Timestamps may stand anywhere among the options: what is changed in them has its bytes the other way round in the checksum then.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_timestamps_at_odd_places() -> Result<()> {
    let (site, switch) = site(1_500)?;
    clocks(&site)?;
    let vip = vip(false);
    let service = site.service("web", vip, "nat", false).with(&format!("{HEALTH}{TIMESTAMPS}"));
    let _balancer = site.balance_with(&node(&site, &switch, 1)?, &[service])?;
    site.serves(vip)?;
    let script = script(&site, "odd.py", include_str!("odd.py"))?;
    let told = site.client.sh_within(
        &format!("python3 {} eth0 {} {}", script.display(), mac(&site)?, vip.ip()),
        Duration::from_secs(30),
    )?;
    let (number, line) = told.trim().split_once(' ').context("a number and a line")?;
    ensure!(number != "0", "the server's timestamps have no number");
    ensure!(line.ends_with("200 OK"), "answered by {line}");
    Ok(())
}
