//! Service addresses that a routing daemon picks up from an interface, and their way into a router's table and out of it.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use stickleback_tests::topology::crossing::{NODES, agrees, unite};
use stickleback_tests::topology::process::{Process, eventually};
use stickleback_tests::topology::{Balancer, Crossing, Load, LoadPlan, Namespace, SOON, ServiceConfig};

const ANNOUNCE: &str = "announce = { interface = \"vips\", lifetime = \"3s\" }";

fn vip() -> SocketAddr {
    "10.99.0.1:80".parse().expect("an address")
}

fn other() -> SocketAddr {
    "10.99.0.3:80".parse().expect("an address")
}

fn services(crossing: &Crossing, node: usize) -> Vec<ServiceConfig> {
    let service = |name, vip| crossing.service(node, name, vip, "l2").with("affinity = \"source-ip\"");
    vec![service("web", vip()), service("other", other())]
}

/// BIRD in a namespace, with OSPF as its protocol.
fn bird(crossing: &Crossing, namespace: &Namespace, name: &str, text: &str) -> Result<Process> {
    let directory = crossing.directory();
    let file = |end: &str| -> PathBuf { directory.join(format!("bird-{name}.{end}")) };
    let common = "log stderr all;\nprotocol device { scan time 1; }\n";
    std::fs::write(file("conf"), format!("{common}{text}"))?;
    let (conf, socket, pid) = (file("conf"), file("ctl"), file("pid"));
    let words = |path: &PathBuf| path.display().to_string();
    let (conf, socket, pid) = (words(&conf), words(&socket), words(&pid));
    namespace
        .start(&["/usr/sbin/bird", "-f", "-c", &conf, "-s", &socket, "-P", &pid], &file("log"))
        .context("BIRD does not start: apt-get install bird2")
}

/// BIRD on the router and on both balancers' machines; each balancer's shows what is on `vips`.
fn birds(crossing: &Crossing) -> Result<Vec<Process>> {
    let mut birds = Vec::new();
    for (n, machine) in (1..).zip(&crossing.machines) {
        machine.sh("ip link add vips type dummy; ip link set vips up")?;
        let text = format!(
            "router id 10.3.{n}.2;
             protocol ospf v2 {{ ipv4 {{ import none; }}; area 0 {{
                 interface \"l0\" {{ type ptp; hello 1; dead count 3; }};
                 interface \"vips\" {{ stub yes; }};
             }}; }}\n"
        );
        birds.push(bird(crossing, machine, &format!("lb{n}"), &text)?);
    }
    let text = "router id 10.1.0.1;
        protocol kernel { merge paths yes; ipv4 { export where net ~ 10.99.0.0/16; }; }
        protocol ospf v2 { ecmp yes; tick 1; ipv4 { import all; }; area 0 {
            interface \"r1\", \"r2\" { type ptp; hello 1; dead count 3; };
        }; }\n";
    birds.push(bird(crossing, &crossing.router, "router", text)?);
    Ok(birds)
}

/// Waits until the router sends packets for an address to so many balancers.
fn paths(crossing: &Crossing, address: SocketAddr, wanted: usize) -> Result<()> {
    eventually(SOON, || {
        let shown = crossing.router.sh(&format!("ip route show {}", address.ip()))?;
        let found = shown.matches("via ").count();
        ensure!(found == wanted, "{found} paths to {}, not {wanted}: {shown}", address.ip());
        Ok(())
    })
}

#[test]
fn namespace_announce_by_bird_follows_readiness_and_death() -> Result<()> {
    let crossing = Crossing::new(2)?;
    let _birds = birds(&crossing)?;
    let text = |node| crossing.config(node, ANNOUNCE, &services(&crossing, node));
    let mut nodes: Vec<Balancer> =
        (0..NODES).map(|node| crossing.balance(node, &text(node))).collect::<Result<_>>()?;
    unite(&nodes[0], &nodes[1])?;
    paths(&crossing, vip(), NODES)?;

    let plan = LoadPlan { threads: 2, ..LoadPlan::new(vip(), crossing.clients(40)) };
    let load = Load::start(&crossing.client, &plan)?;
    load.reach(200)?;
    // A daemon that dies attracts nothing new soon after, though its programs go on.
    nodes[0].kill();
    paths(&crossing, vip(), 1)?;
    load.go_on(100)?;
    nodes[0].restart()?;
    agrees(&nodes[0])?;
    paths(&crossing, vip(), NODES)?;
    load.go_on(200)?;
    load.finish()?.flawless(500)?;

    // A node whose backends are all down does not call for what it cannot serve.
    let mut down = services(&crossing, 1);
    for backend in &mut down[0].backends {
        backend.lines.push_str("state = \"disabled\"\n");
    }
    nodes[1].reload(&crossing.config(1, ANNOUNCE, &down))?;
    paths(&crossing, vip(), 1)?;
    paths(&crossing, other(), NODES)?;
    nodes[1].reload(&text(1))?;
    paths(&crossing, vip(), NODES)?;

    // Who takes everything off takes its addresses back first.
    nodes[1].ctl(&["detach", "--yes"])?;
    paths(&crossing, other(), 1)
}
