//! A client's link that takes less than the backends' links: replies of `nat` services get through all the same.

use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stickleback_tests::topology::server::{file, in_url};
use stickleback_tests::topology::{Arms, Site, SiteBackend, load};

/// MTU of the clients' link.
const NARROW: u16 = 1_400;
/// Bytes to fetch: more than fits the first window.
const BYTES: u64 = 100 << 10;
/// Longest that they may take: a few round trips, and what a sender waits before it repeats.
const PATIENCE: Duration = Duration::from_secs(20);

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, 80)
}

/// Fetches a file over a narrow link, from a client that asks for larger segments than its link takes.
fn fetch(
    v6: bool,
    prepare: impl Fn(&SiteBackend) -> Result<()>,
    check: impl Fn(&Site, IpAddr) -> Result<()>,
) -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    site.lb.sh(&format!("ip link set l0 mtu {NARROW}"))?;
    site.client.sh(&format!(
        "ip link set eth0 mtu {NARROW}
         ip route change default via 10.1.0.1 advmss 1460
         ip route change default via fd01::1 advmss 1440"
    ))?;
    site.backends.iter().try_for_each(prepare)?;
    let service = site.service("web", vip(v6), "nat", v6).with("affinity = \"source-ip\"");
    let balancer = site.balance(&[service])?;
    site.serves(vip(v6))?;
    file(&site.files().join("data"), BYTES)?;
    let client = site.clients(v6, 1)[0];
    let url = format!("http://{}/files/data", in_url(vip(v6).ip()));
    let curl = format!("curl -sSf --noproxy '*' --max-time {} --interface {client}", PATIENCE.as_secs());
    for _ in 0..2 {
        let fetched = site.client.sh_within(&format!("{curl} '{url}' | wc -c"), PATIENCE + PATIENCE)?;
        ensure!(fetched.trim() == BYTES.to_string(), "{fetched} of {BYTES} bytes came");
    }
    let status = balancer.ask(&["status"])?.to_string();
    ensure!(status.contains("too-big-sent"), "nothing was too big: {status}");
    ensure!(!status.contains("no-room"), "something was lost: {status}");
    check(&site, client)
}

/// The backend that serves the client has learned how wide its link is.
fn learned(site: &Site, v6: bool, client: IpAddr) -> Result<()> {
    let chosen = load::once(&site.client, vip(v6), client)?;
    let backend = site.backends.iter().find(|b| b.name == chosen).context("unknown backend")?;
    let route = backend.namespace.sh(&format!("ip route get {client}"))?;
    ensure!(route.contains(&format!("mtu {NARROW}")), "{chosen} has not learned the MTU: {route}");
    Ok(())
}

#[test]
fn namespace_backend_learns_the_clients_mtu_v4() -> Result<()> {
    fetch(false, |_| Ok(()), |site, client| learned(site, false, client))
}

#[test]
fn namespace_backend_learns_the_clients_mtu_v6() -> Result<()> {
    fetch(true, |_| Ok(()), |site, client| learned(site, true, client))
}

/// Without path MTU discovery packets have no DF, and the backend fragments them itself once it has been told.
#[test]
fn namespace_backend_without_mtu_discovery_fragments() -> Result<()> {
    fetch(false, |backend| backend.namespace.set("ipv4/ip_no_pmtu_disc=1"), |_, _| Ok(()))
}
