//! Every forwarding mode, family and wiring, with real web servers and real clients.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use stickleback_tests::bench::template::decap;
use stickleback_tests::topology::{Arms, Load, LoadPlan, Site, Testbed, load};

/// Clients of a test; with three backends, each of them serves some.
const CLIENTS: u16 = 48;

/// Which addresses are IPv6.
#[derive(Clone, Copy)]
struct Families {
    vip: bool,
    backends: bool,
}

const V4: Families = Families { vip: false, backends: false };
const V6: Families = Families { vip: true, backends: true };
/// IPv6 clients, IPv4 backends.
const V6_IN_V4: Families = Families { vip: true, backends: false };
/// IPv4 clients, IPv6 backends.
const V4_IN_V6: Families = Families { vip: false, backends: true };

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, 80)
}

/// Requests of many clients reach all backends, each client always the same one, and no packet is wrong.
fn forwards(arms: Arms, mode: &'static str, families: Families) -> Result<()> {
    let site = Site::with_mtu(arms, 3, 1_600)?;
    let tunnel = matches!(mode, "ipip" | "gue");
    let mut decapsulators = Vec::new();
    if tunnel {
        for backend in &site.backends {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let vip = vip(families.vip);
    let service = site.service("web", vip, mode, families.backends).with("affinity = \"source-ip\"");
    let balancer = site.balance(&[service])?;
    site.serves(vip)?;

    let clients = site.clients(families.vip, CLIENTS);
    let first = load::each(&site.client, vip, &clients)?;
    let again = load::each(&site.client, vip, &clients)?;
    ensure!(first == again, "sessions moved: {first:?}, then {again:?}");
    let used: BTreeSet<&String> = first.values().collect();
    ensure!(used.len() == 3, "only {used:?} served");

    let sending = Load::start(&site.client, &LoadPlan::new(vip, clients).kept_alive())?;
    sending.reach(2_000)?;
    let report = sending.finish()?;
    report.flawless(2_000)?;
    ensure!(report.sessions == first, "connections that stay went elsewhere");

    if tunnel {
        let mut sum = [0; decap::COUNT as usize];
        for decapsulator in &decapsulators {
            for (sum, count) in sum.iter_mut().zip(decapsulator.decapsulated()?) {
                *sum += count;
            }
        }
        let kind = if mode == "ipip" { decap::IPIP } else { decap::GUE };
        ensure!(sum[decap::BAD as usize] == 0, "{} outer headers were wrong", sum[decap::BAD as usize]);
        ensure!(sum[kind as usize] > 2_000, "only {} packets came through the tunnel", sum[kind as usize]);
    }
    let bound = balancer.ask(&["sessions", "list", "--limit", "1000"])?;
    ensure!(bound.to_string().contains("be1"), "no session of be1 is listed: {bound}");
    Ok(())
}

#[test]
fn namespace_nat_v4_two_arms() -> Result<()> {
    forwards(Arms::Two, "nat", V4)
}

#[test]
fn namespace_nat_v6_two_arms() -> Result<()> {
    forwards(Arms::Two, "nat", V6)
}

#[test]
fn namespace_nat_v4_one_arm() -> Result<()> {
    forwards(Arms::One, "nat", V4)
}

#[test]
fn namespace_nat_v6_one_arm() -> Result<()> {
    forwards(Arms::One, "nat", V6)
}

#[test]
fn namespace_l2_v4_two_arms() -> Result<()> {
    forwards(Arms::Two, "l2", V4)
}

#[test]
fn namespace_l2_v6_two_arms() -> Result<()> {
    forwards(Arms::Two, "l2", V6)
}

#[test]
fn namespace_l2_v4_one_arm() -> Result<()> {
    forwards(Arms::One, "l2", V4)
}

#[test]
fn namespace_l2_v6_one_arm() -> Result<()> {
    forwards(Arms::One, "l2", V6)
}

#[test]
fn namespace_ipip_4in4_two_arms() -> Result<()> {
    forwards(Arms::Two, "ipip", V4)
}

#[test]
fn namespace_ipip_6in6_two_arms() -> Result<()> {
    forwards(Arms::Two, "ipip", V6)
}

#[test]
fn namespace_ipip_6in4_two_arms() -> Result<()> {
    forwards(Arms::Two, "ipip", V6_IN_V4)
}

#[test]
fn namespace_ipip_4in6_two_arms() -> Result<()> {
    forwards(Arms::Two, "ipip", V4_IN_V6)
}

#[test]
fn namespace_ipip_4in4_one_arm() -> Result<()> {
    forwards(Arms::One, "ipip", V4)
}

#[test]
fn namespace_gue_v4_two_arms() -> Result<()> {
    forwards(Arms::Two, "gue", V4)
}

#[test]
fn namespace_gue_v6_two_arms() -> Result<()> {
    forwards(Arms::Two, "gue", V6)
}

#[test]
fn namespace_gue_6in4_one_arm() -> Result<()> {
    forwards(Arms::One, "gue", V6_IN_V4)
}

/// Backends that do not route back through the balancer answer the source-NAT address.
#[test]
fn namespace_nat_with_source_nat() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let services: Vec<_> = [(false, "10.98.0.1"), (true, "fd98::1")]
        .into_iter()
        .map(|(v6, source)| {
            let name = if v6 { "web-v6" } else { "web-v4" };
            site.service(name, vip(v6), "nat", v6)
                .with(&format!("affinity = \"source-ip\"\nsource-nat = \"{source}\""))
        })
        .collect();
    for (n, backend) in (1..).zip(&site.backends) {
        backend.namespace.sh(&format!(
            "ip -4 route del default; ip -6 route del default
             ip route add 10.98.0.1 via 10.2.{n}.1; ip route add fd98::1 via fd02:{n}::1"
        ))?;
    }
    let _balancer = site.balance(&services)?;
    for (v6, source) in [(false, "10.98.0.1"), (true, "fd98::1")] {
        site.serves(vip(v6))?;
        let url = format!("http://{}/whoami", vip(v6));
        let seen = site.client.sh(&format!("curl -sf --noproxy '*' --max-time 5 '{url}'"))?;
        let seen: serde_json::Value = serde_json::from_str(&seen).context(url)?;
        ensure!(seen["client"] == source, "the backend sees {}, not {source}", seen["client"]);
        let clients = site.clients(v6, 16);
        let sending = Load::start(&site.client, &LoadPlan::new(vip(v6), clients))?;
        sending.reach(500)?;
        sending.finish()?.flawless(500)?;
    }
    Ok(())
}

/// Without affinity each connection goes where its own hash says, and stays there.
#[test]
fn namespace_without_affinity_connections_spread() -> Result<()> {
    let site = Site::new(Arms::Two, 3)?;
    let service = site.service("web", vip(false), "nat", false).with("affinity = \"none\"");
    let _balancer = site.balance(&[service])?;
    site.serves(vip(false))?;
    let one = site.clients(false, 1);
    let sending = Load::start(&site.client, &LoadPlan::new(vip(false), one.clone()))?;
    sending.reach(300)?;
    let report = sending.finish()?;
    report.answered(300)?;
    ensure!(report.backends.len() == 3, "one client's connections went to {:?}", report.backends);
    let kept = Load::start(&site.client, &LoadPlan::new(vip(false), one).kept_alive())?;
    kept.reach(300)?;
    kept.finish()?.flawless(300)
}

/// Two services on one address, and one on any port, share backends without confusing each other.
#[test]
fn namespace_services_share_backends() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let other = SocketAddr::new(vip(false).ip(), 81);
    let lines = "affinity = \"source-ip\"";
    let mut second = site.service("second", other, "nat", false).with(lines);
    for backend in &mut second.backends {
        backend.lines = "port = 8080\n".to_owned();
    }
    let services = [site.service("first", vip(false), "nat", false).with(lines), second];
    let _balancer = site.balance(&services)?;
    site.serves(vip(false))?;
    site.serves(other)?;
    // Half of the clients meet the same backend twice, where their ports collide.
    for (client, port) in site.clients(false, 40).into_iter().zip(30_000..) {
        load::together(&site.client, &[vip(false), other], SocketAddr::new(client, port))?;
    }
    Ok(())
}
