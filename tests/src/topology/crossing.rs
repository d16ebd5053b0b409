//! Two or three balancers behind a router that spreads connections over them.
//!
//! ```text
//!                    r1 --- l0 lb1 l1 ---+
//! client --- r0 router                   |--- be1, be2, be3
//!                    r2 --- l0 lb2 l1 ---+
//!                    r9 -----------------+
//! ```
//! Balancers, backends and the router's own arm share the network 10.2.0.0/24, where the balancers talk to each other, too;
//! backends answer by way of the router. The client also is everyone in 10.4.0.0/16. Virtual addresses are in 10.99.0.0/24.

use super::balancer::Balancer;
use super::config::{self, BackendConfig, NodeConfig, ServiceConfig};
use super::process::{Process, eventually};
use super::{Namespace, SOON, Topology, cable, server};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// Everywhere.
const MTU: u16 = 1_500;
/// Balancers, as a rule.
pub const NODES: usize = 2;

/// Client, router, balancers and backends.
#[derive(Debug)]
pub struct Crossing {
    /// The clients.
    pub client: Namespace,
    /// The router.
    pub router: Namespace,
    /// The balancers' machines.
    pub machines: Vec<Namespace>,
    /// The backends with their names.
    pub backends: Vec<(String, Namespace)>,
    servers: Vec<Process>,
    topology: Topology,
}

impl Crossing {
    /// Makes namespaces and cables and starts a web server on each backend.
    pub fn new(backends: u8) -> Result<Self> {
        Self::of(NODES, backends)
    }

    /// The same with so many balancers.
    pub fn of(nodes: usize, backends: u8) -> Result<Self> {
        let mut topology = Topology::new()?;
        let (client, router) = (topology.namespace("client")?, topology.namespace("router")?);
        let switch = topology.namespace("switch")?;
        switch.sh("ip link add br0 type bridge; ip link set br0 up")?;
        let mut ports = 0;
        let mut plug = |end: &Namespace, name: &str, address: &str| {
            cable((&switch, &format!("p{ports}")), (end, name), MTU)?;
            switch.sh(&format!("ip link set p{ports} master br0"))?;
            ports += 1;
            end.sh(&format!("ip addr add {address}/24 dev {name}")).map(drop)
        };
        router.set("ipv4/conf/all/forwarding=1")?;
        router.set("ipv4/fib_multipath_hash_policy=1")?;
        cable((&router, "r0"), (&client, "eth0"), MTU)?;
        router.sh("ip addr add 10.1.0.1/24 dev r0; ip route add 10.4.0.0/16 via 10.1.0.2")?;
        client.sh("ip addr add 10.1.0.2/24 dev eth0; ip route add local 10.4.0.0/16 dev lo
             ip route add default via 10.1.0.1")?;
        plug(&router, "r9", "10.2.0.1")?;
        let mut machines = Vec::new();
        for n in 1..=nodes {
            let machine = topology.namespace(&format!("lb{n}"))?;
            machine.set("ipv4/conf/all/forwarding=1")?;
            // As Linux comes: it answers backends that look for an address of another node which it has taken over on `lo`.
            machine.set("ipv4/conf/all/arp_ignore=0")?;
            cable((&router, &format!("r{n}")), (&machine, "l0"), MTU)?;
            router.sh(&format!("ip addr add 10.3.{n}.1/24 dev r{n}"))?;
            machine.sh(&format!("ip addr add 10.3.{n}.2/24 dev l0; ip route add default via 10.3.{n}.1"))?;
            plug(&machine, "l1", &format!("10.2.0.1{n}"))?;
            // What it translates connections to, so that answers come back to it.
            machine.sh(&format!("ip addr add 10.2.0.2{n}/32 dev l1"))?;
            machines.push(machine);
        }
        let mut crossing =
            Self { client, router, machines, backends: Vec::new(), servers: Vec::new(), topology };
        let files = crossing.topology.directory().join("files");
        std::fs::create_dir_all(&files)?;
        for n in 1..=backends {
            let name = format!("be{n}");
            let backend = crossing.topology.namespace(&name)?;
            plug(&backend, "eth0", &backend_address(n).to_string())?;
            backend.sh("ip route add default via 10.2.0.1; ip route add local 10.99.0.0/24 dev lo")?;
            crossing.servers.push(server::web(&backend, &name, crossing.topology.directory(), &files)?);
            crossing.backends.push((name, backend));
        }
        Ok(crossing)
    }

    /// Sends connections to these balancers, counted from 0; others of them move as soon as they are idle.
    pub fn spread(&self, nodes: &[usize]) -> Result<()> {
        let hops = nodes.iter().map(|node| (node + 1).to_string()).collect::<Vec<_>>().join("/");
        let known = nodes.iter().map(|node| node + 1);
        let known = known.map(|n| format!("ip nexthop replace id {n} via 10.3.{n}.2 dev r{n}\n"));
        self.router.sh(&format!(
            "{}ip nexthop replace id 10 group {hops} type resilient buckets 64 idle_timer 1
             ip route replace 10.99.0.0/24 nhid 10",
            known.collect::<String>()
        ))?;
        Ok(())
    }

    /// Spreads connections over these balancers anew: they move at once, also in the middle of what they do.
    pub fn reshuffle(&self, nodes: &[usize]) -> Result<()> {
        let hops = nodes.iter().map(|node| (node + 1).to_string()).collect::<Vec<_>>().join("/");
        let known = nodes.iter().map(|node| node + 1);
        let known = known.map(|n| format!("ip nexthop replace id {n} via 10.3.{n}.2 dev r{n}\n"));
        self.router.sh(&format!(
            "{}ip nexthop replace id 11 group {hops}
             ip route replace 10.99.0.0/24 nhid 11",
            known.collect::<String>()
        ))?;
        Ok(())
    }

    /// The configuration of a node, counted from 0, with these services.
    pub fn config(&self, node: usize, cluster: &str, services: &[ServiceConfig]) -> String {
        let interfaces = vec!["l0".to_owned(), "l1".to_owned()];
        let name = format!("name = \"lb{}\"\n", node + 1);
        let text = config::text(&NodeConfig { interfaces, node: name, ..NodeConfig::default() }, services);
        format!("{text}\n[cluster]\nadvertise = [\"10.2.0.1{}:7117\"]\n{cluster}\n", node + 1)
    }

    /// A TCP service with all backends; `nat` with the node's own source address.
    pub fn service(&self, node: usize, name: &str, vip: SocketAddr, mode: &'static str) -> ServiceConfig {
        let backends = (1..).zip(&self.backends).map(|(n, (name, _))| BackendConfig {
            name: name.clone(),
            address: backend_address(n).into(),
            lines: if mode == "nat" { "port = 8080\n".to_owned() } else { String::new() },
        });
        let source = format!("source-nat = \"10.2.0.2{}\"\n", node + 1);
        ServiceConfig {
            name: name.to_owned(),
            address: vip.ip(),
            port: vip.port(),
            protocol: "tcp",
            mode,
            lines: if mode == "nat" { source } else { String::new() },
            backends: backends.collect(),
        }
    }

    /// Starts the `lbd` of a node.
    pub fn balance(&self, node: usize, text: &str) -> Result<Balancer> {
        let name = format!("lb{}", node + 1);
        let directory = self.topology.directory().join(&name);
        std::fs::create_dir_all(&directory)?;
        // Pins of several nodes lie side by side.
        std::fs::create_dir_all(self.topology.pins())?;
        Balancer::start(&self.machines[node], &directory, &self.topology.pins().join(name), text)
    }

    /// `count` client addresses, each a session of its own.
    pub fn clients(&self, count: u16) -> Vec<IpAddr> {
        self.clients_from(1, count)
    }

    /// The same, from number `first` on.
    pub fn clients_from(&self, first: u16, count: u16) -> Vec<IpAddr> {
        (first..first + count).map(|n| Ipv4Addr::from(0x0a04_0000 + u32::from(n)).into()).collect()
    }

    /// Cuts the ways between a node, counted from 0, and the other nodes, and no others.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.ways(node, "add")
    }

    /// Mends them.
    pub fn heal(&self, node: usize) -> Result<()> {
        self.ways(node, "del")
    }

    fn ways(&self, node: usize, change: &str) -> Result<()> {
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                self.machines[from].sh(&format!("ip route {change} blackhole 10.2.0.1{}/32", to + 1))?;
            }
        }
        Ok(())
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.topology.directory()
    }

    /// A node dies with everything on it: its daemon, its programs and tables, and its cable to the router.
    pub fn kill(&self, node: usize, balancer: &mut Balancer) -> Result<()> {
        balancer.kill();
        self.machines[node].sh("ip link set l0 down; ip link set l1 down")?;
        std::fs::remove_dir_all(balancer.pins()).context("removing the dead node's programs and tables")
    }

    /// A dead node's machine comes up again, empty but for its disk.
    pub fn revive(&self, node: usize, balancer: &mut Balancer) -> Result<()> {
        let n = node + 1;
        self.machines[node]
            .sh(&format!("ip link set l0 up; ip link set l1 up; ip route replace default via 10.3.{n}.1"))?;
        balancer.restart()
    }
}

/// Makes the second node a member of the first one's cluster, by the two commands.
pub fn unite(first: &Balancer, second: &Balancer) -> Result<()> {
    invite(&first.ctl(&["cluster", "init"])?, second)?;
    for balancer in [first, second] {
        agrees(balancer)?;
    }
    Ok(())
}

/// Lets one more node into the cluster that the first one has made.
pub fn join(first: &Balancer, next: &Balancer) -> Result<()> {
    invite(&first.ctl(&["cluster", "token"])?, next)?;
    agrees(next)
}

/// Runs the command that was printed for the next node.
fn invite(printed: &str, next: &Balancer) -> Result<()> {
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("lbctl "));
    let command = command.with_context(|| format!("no command in {printed}"))?;
    next.ctl(&command.split(' ').collect::<Vec<_>>()).map(drop)
}

/// Waits until a node is ready, sees the others, and each has what the others have.
pub fn agrees(balancer: &Balancer) -> Result<()> {
    let is_level = |peer: &Value| {
        peer["behind_events"] == 0
            && peer["ahead_events"] == 0
            && peer["connected"].is_object()
            && peer["vector"].as_array().is_some_and(|all| !all.is_empty())
    };
    eventually(SOON, || {
        let status = balancer.ask(&["cluster", "status"])?;
        let peers = status["peers"].as_array();
        let is_so = peers.is_some_and(|peers| !peers.is_empty() && peers.iter().all(is_level));
        ensure!(status["state"] == "ready" && is_so, "{status:#}");
        Ok(())
    })
}

/// How many bindings a node has in its tables.
pub fn bindings(balancer: &Balancer) -> Result<u64> {
    let status = balancer.ask(&["status"])?;
    let tables = status["tables"].as_array().context("no tables")?;
    let table = tables
        .iter()
        .find(|table| table["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("bindings")));
    table
        .and_then(|table| table["used"].as_u64())
        .with_context(|| format!("{:#}", Value::from(tables.clone())))
}

fn backend_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, 100 + n)
}
