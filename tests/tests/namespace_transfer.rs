//! Large transfers both ways, small MTUs, losses: nothing missing, nothing twice, nothing stuck.

use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use stickleback_tests::topology::process::run;
use stickleback_tests::topology::server::{file, in_url};
use stickleback_tests::topology::{Arms, Site, Testbed, cable, load};

/// Size of the large file.
const LARGE: u64 = 100 << 20;
/// Size of files that show that a path works at all.
const SMALL: u64 = 4 << 20;
/// Longest that a transfer may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, 80)
}

fn checksum(path: &Path) -> Result<String> {
    let sum = run(Command::new("sha256sum").arg(path), PATIENCE)?;
    ensure!(sum.status.success(), "sha256sum {}: {}", path.display(), sum.stderr);
    Ok(sum.stdout.split(' ').next().context("sha256sum printed nothing")?.to_owned())
}

/// Fetches a file from the VIP and stores one there; both must arrive as they were sent.
fn both_ways(
    site: &Site,
    client: &stickleback_tests::topology::Namespace,
    v6: bool,
    bytes: u64,
) -> Result<()> {
    let original = site.files().join("data");
    file(&original, bytes)?;
    let expected = checksum(&original)?;
    let at = in_url(vip(v6).ip());
    let limit = PATIENCE.as_secs();
    let curl = format!("curl -sSf --noproxy '*' --max-time {limit}");

    let fetched = client.sh_within(&format!("{curl} 'http://{at}/files/data' | sha256sum"), PATIENCE)?;
    ensure!(fetched.starts_with(&expected), "the download has the checksum {fetched}, not {expected}");

    let source = original.display();
    client.sh_within(&format!("{curl} -T '{source}' 'http://{at}/put/data'"), PATIENCE)?;
    let stored: Vec<_> =
        site.backends.iter().map(|b| site.received(&b.name, "data")).filter(|path| path.is_file()).collect();
    ensure!(stored.len() == 1, "the upload is stored {} times", stored.len());
    let arrived = checksum(&stored[0])?;
    ensure!(arrived == expected, "the upload has the checksum {arrived}, not {expected}");
    std::fs::remove_file(&stored[0])?;
    Ok(())
}

fn large(mode: &'static str, v6: bool) -> Result<()> {
    let site = Site::with_mtu(Arms::Two, 2, 1_600)?;
    let mut decapsulators = Vec::new();
    if matches!(mode, "ipip" | "gue") {
        for backend in &site.backends {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let service = site.service("web", vip(v6), mode, v6).with("affinity = \"source-ip\"");
    let _balancer = site.balance(&[service])?;
    site.serves(vip(v6))?;
    both_ways(&site, &site.client, v6, LARGE)
}

#[test]
fn namespace_100_mb_nat_v4() -> Result<()> {
    large("nat", false)
}

#[test]
fn namespace_100_mb_nat_v6() -> Result<()> {
    large("nat", true)
}

#[test]
fn namespace_100_mb_l2_v4() -> Result<()> {
    large("l2", false)
}

#[test]
fn namespace_100_mb_l2_v6() -> Result<()> {
    large("l2", true)
}

#[test]
fn namespace_100_mb_ipip_v4() -> Result<()> {
    large("ipip", false)
}

#[test]
fn namespace_100_mb_ipip_v6() -> Result<()> {
    large("ipip", true)
}

#[test]
fn namespace_100_mb_gue_v4() -> Result<()> {
    large("gue", false)
}

#[test]
fn namespace_100_mb_gue_v6() -> Result<()> {
    large("gue", true)
}

/// iperf3 opens a control and a data connection: both must reach the same server.
#[test]
fn namespace_iperf_runs_both_ways() -> Result<()> {
    let mut site = Site::new(Arms::Two, 2)?;
    site.iperf()?;
    let address = SocketAddr::new(vip(false).ip(), 5_201);
    let service = site.service("iperf", address, "nat", false).with("affinity = \"source-ip\"");
    let _balancer = site.balance(&[service])?;
    for direction in ["", "--reverse"] {
        let command = format!("iperf3 -c {} -t 2 -J {direction}", address.ip());
        let result = site.client.sh_within(&command, Duration::from_secs(30))?;
        let result: serde_json::Value = serde_json::from_str(&result)?;
        let rate =
            result["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 gave no rate")?;
        ensure!(rate > 50e6, "iperf3 {direction} got only {rate:.0} bits a second");
    }
    Ok(())
}

/// Packets that do not fit with the tunnel header are answered with the size that does.
fn path_mtu(v6: bool, expected: &str) -> Result<()> {
    let site = Site::with_mtu(Arms::Two, 1, 1_500)?;
    let _decapsulator = Testbed::decapsulate(&site.backends[0].namespace, "eth0")?;
    let service = site.service("web", vip(v6), "ipip", v6);
    let balancer = site.balance(&[service])?;
    site.serves(vip(v6))?;
    both_ways(&site, &site.client, v6, SMALL)?;
    let route = site.client.sh(&format!("ip route get {}", vip(v6).ip()))?;
    ensure!(route.contains(expected), "the client has not learned `{expected}`: {route}");
    let status = balancer.ask(&["status"])?;
    ensure!(status.to_string().contains("too-big-sent"), "no too-big answer was counted: {status}");
    Ok(())
}

#[test]
fn namespace_client_learns_tunnel_mtu_v4() -> Result<()> {
    path_mtu(false, "mtu 1480")
}

#[test]
fn namespace_client_learns_tunnel_mtu_v6() -> Result<()> {
    path_mtu(true, "mtu 1460")
}

/// With its MSS clamped, a connection never sends a packet that does not fit.
#[test]
fn namespace_clamped_mss_needs_no_answers() -> Result<()> {
    let site = Site::with_mtu(Arms::Two, 1, 1_500)?;
    let _decapsulator = Testbed::decapsulate(&site.backends[0].namespace, "eth0")?;
    // What the backend announces does not pass through here; it has to be told by other means.
    site.backends[0].namespace.sh("ip route change default via 10.2.1.1 advmss 1400")?;
    let service = site.service("web", vip(false), "ipip", false).with("mss = 1400");
    let balancer = site.balance(&[service])?;
    site.serves(vip(false))?;
    both_ways(&site, &site.client, false, SMALL)?;
    let status = balancer.ask(&["status"])?;
    ensure!(!status.to_string().contains("too-big-sent"), "too-big answers were needed: {status}");
    Ok(())
}

/// A router between client and balancer with a smaller MTU: its error reaches the backend that sent too much.
fn errors_reach_the_backend(mode: &'static str, v6: bool) -> Result<()> {
    let mut site = Site::with_mtu(Arms::Two, 2, 1_600)?;
    let (far, middle) = (site.namespace("far")?, site.namespace("middle")?);
    cable((&far, "eth0"), (&middle, "far"), 1_500)?;
    cable((&middle, "near"), (&site.client, "far"), 1_300)?;
    for router in [&middle, &site.client] {
        router.set("ipv4/conf/all/forwarding=1")?;
        router.set("ipv6/conf/all/forwarding=1")?;
    }
    far.sh("ip addr add 10.3.0.2/24 dev eth0; ip addr add fd03::2/64 dev eth0 nodad
            ip route add default via 10.3.0.1; ip route add default via fd03::1")?;
    middle.sh("ip addr add 10.3.0.1/24 dev far; ip addr add fd03::1/64 dev far nodad
               ip addr add 10.3.1.2/24 dev near; ip addr add fd03:1::2/64 dev near nodad
               ip route add default via 10.3.1.1; ip route add default via fd03:1::1")?;
    site.client.sh("ip addr add 10.3.1.1/24 dev far; ip addr add fd03:1::1/64 dev far nodad
                    ip route add 10.3.0.0/24 via 10.3.1.2; ip route add fd03::/64 via fd03:1::2")?;
    site.lb.sh("ip route add 10.3.0.0/16 via 10.1.0.2; ip route add fd03::/32 via fd01::2")?;
    let mut decapsulators = Vec::new();
    if mode == "ipip" {
        for backend in &site.backends {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let service = site.service("web", vip(v6), mode, v6).with("affinity = \"source-ip\"");
    let _balancer = site.balance(&[service])?;
    site.serves(vip(v6))?;
    let address: IpAddr = if v6 { "fd03::2".parse()? } else { "10.3.0.2".parse()? };
    let chosen = load::once(&far, vip(v6), address)?;
    both_ways(&site, &far, v6, SMALL)?;
    let backend = site.backends.iter().find(|b| b.name == chosen).context("unknown backend")?;
    let route = backend.namespace.sh(&format!("ip route get {address}"))?;
    ensure!(route.contains("mtu 1300"), "the backend has not learned the MTU: {route}");
    Ok(())
}

#[test]
fn namespace_fragmentation_needed_reaches_nat_backend() -> Result<()> {
    errors_reach_the_backend("nat", false)
}

#[test]
fn namespace_packet_too_big_reaches_nat_backend() -> Result<()> {
    errors_reach_the_backend("nat", true)
}

#[test]
fn namespace_fragmentation_needed_reaches_ipip_backend() -> Result<()> {
    errors_reach_the_backend("ipip", false)
}

#[test]
fn namespace_packet_too_big_reaches_ipip_backend() -> Result<()> {
    errors_reach_the_backend("ipip", true)
}

/// TCP's own repair works through translation.
#[test]
fn namespace_transfer_survives_losses() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let service = site.service("web", vip(false), "nat", false);
    let _balancer = site.balance(&[service])?;
    site.serves(vip(false))?;
    let _at_client = Testbed::lose(&site.client, "eth0", 1, 50)?;
    let mut at_backends = Vec::new();
    for backend in &site.backends {
        at_backends.push(Testbed::lose(&backend.namespace, "eth0", 1, 50)?);
    }
    both_ways(&site, &site.client, false, SMALL)
}
