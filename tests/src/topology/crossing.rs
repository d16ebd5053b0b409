//! Two or three balancers behind a router that spreads connections over them.
//!
//! ```text
//!                    r1 --- l0 lb1 l1 ---+
//! client --- r0 router                   |--- be1, be2, be3
//!                    r2 --- l0 lb2 l1 ---+
//!                    r9 -----------------+
//! ```
//! Balancers, backends and the router's own arm share the networks 10.2.0.0/24 and fd02::/64, where the balancers talk to each
//! other, too; backends answer by way of the router. The client also is everyone in 10.4.0.0/16. Virtual addresses are in
//! 10.99.0.0/24 and fd99::/64, and the router sends what is for fd05::1 to the first node, and so on.

use super::balancer::Balancer;
use super::config::{self, BackendConfig, NodeConfig, ServiceConfig};
use super::process::{Process, eventually};
use super::{Namespace, SOON, Topology, cable, server};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Everywhere.
const MTU: u16 = 1_500;
/// Balancers, as a rule.
pub const NODES: usize = 2;
/// Below the numbers of backends.
const BACKENDS: u8 = 100;

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
        let mut plug = |end: &Namespace, name: &str, host: usize| {
            cable((&switch, &format!("p{ports}")), (end, name), MTU)?;
            switch.sh(&format!("ip link set p{ports} master br0"))?;
            ports += 1;
            end.sh(&format!(
                "ip addr add 10.2.0.{host}/24 dev {name}; ip addr add fd02::{host}/64 dev {name} nodad"
            ))
            .map(drop)
        };
        for family in ["ipv4", "ipv6"] {
            router.set(&format!("{family}/conf/all/forwarding=1"))?;
            router.set(&format!("{family}/fib_multipath_hash_policy=1"))?;
        }
        cable((&router, "r0"), (&client, "eth0"), MTU)?;
        router.sh("ip addr add 10.1.0.1/24 dev r0; ip route add 10.4.0.0/16 via 10.1.0.2
             ip addr add fd01::1/64 dev r0 nodad")?;
        client.sh("ip addr add 10.1.0.2/24 dev eth0; ip route add local 10.4.0.0/16 dev lo
             ip addr add fd01::2/64 dev eth0 nodad
             ip route add default via 10.1.0.1; ip route add default via fd01::1")?;
        plug(&router, "r9", 1)?;
        let mut machines = Vec::new();
        for n in 1..=nodes {
            let machine = topology.namespace(&format!("lb{n}"))?;
            machine.set("ipv4/conf/all/forwarding=1")?;
            machine.set("ipv6/conf/all/forwarding=1")?;
            // Its cables may be pulled.
            machine.set("ipv6/conf/all/keep_addr_on_down=1")?;
            // As Linux comes: it answers backends that look for an address of another node which it has taken over on `lo`.
            machine.set("ipv4/conf/all/arp_ignore=0")?;
            cable((&router, &format!("r{n}")), (&machine, "l0"), MTU)?;
            router.sh(&format!(
                "ip addr add 10.3.{n}.1/24 dev r{n}; ip addr add fd03:{n}::1/64 dev r{n} nodad"
            ))?;
            machine
                .sh(&format!("ip addr add 10.3.{n}.2/24 dev l0; ip addr add fd03:{n}::2/64 dev l0 nodad"))?;
            machine.sh(&defaults(n))?;
            plug(&machine, "l1", 10 + n)?;
            // What it translates connections to, so that answers come back to it: in the backends' networks, and routed.
            machine.sh(&format!(
                "ip addr add 10.2.0.2{n}/32 dev l1; ip addr add fd02::2{n}/128 dev l1 nodad
                 ip addr add fd05::{n}/128 dev lo nodad"
            ))?;
            machines.push(machine);
        }
        let mut crossing =
            Self { client, router, machines, backends: Vec::new(), servers: Vec::new(), topology };
        let files = crossing.topology.directory().join("files");
        std::fs::create_dir_all(&files)?;
        for node in 0..nodes {
            crossing.route_block(node, node)?;
        }
        for n in 1..=backends {
            let name = format!("be{n}");
            let backend = crossing.topology.namespace(&name)?;
            plug(&backend, "eth0", usize::from(BACKENDS + n))?;
            backend.sh("ip route add default via 10.2.0.1; ip route add local 10.99.0.0/24 dev lo
                 ip route add default via fd02::1; ip route add local fd99::/64 dev lo
                 ip route add fd05::/64 via fd02::1")?;
            crossing.servers.push(server::web(&backend, &name, crossing.topology.directory(), &files)?);
            crossing.backends.push((name, backend));
        }
        Ok(crossing)
    }

    /// Sends connections to these balancers, counted from 0. Those of others come to them at once, also in the middle of what they do;
    /// of their own ones only idle ones move, to balancers that are new among them.
    pub fn spread(&self, nodes: &[usize]) -> Result<()> {
        self.lead_to(nodes, 10, "type resilient buckets 64 idle_timer 1")
    }

    /// Spreads connections over these balancers anew: they move at once, also in the middle of what they do.
    pub fn reshuffle(&self, nodes: &[usize]) -> Result<()> {
        self.lead_to(nodes, 11, "")
    }

    /// Makes the router send what is for virtual addresses to a group of nodes; that of IPv6 has a number 100 higher.
    fn lead_to(&self, nodes: &[usize], group: usize, kind: &str) -> Result<()> {
        let nodes: Vec<usize> = nodes.iter().map(|node| node + 1).collect();
        let hops = nodes.iter().map(|n| {
            format!(
                "ip nexthop replace id {n} via 10.3.{n}.2 dev r{n}
                 ip nexthop replace id {} via fd03:{n}::2 dev r{n}\n",
                100 + n
            )
        });
        let groups = [(0, "10.99.0.0/24"), (100, "fd99::/64")].map(|(first, to)| {
            let members: Vec<String> = nodes.iter().map(|n| (first + n).to_string()).collect();
            let (id, members) = (first + group, members.join("/"));
            format!("ip nexthop replace id {id} group {members} {kind}\nip route replace {to} nhid {id}\n")
        });
        self.router.sh(&hops.chain(groups).collect::<String>()).map(drop)
    }

    /// Makes the router send what is for a node's address in fd05::/64 to a node, both counted from 0.
    pub fn route_block(&self, of: usize, to: usize) -> Result<()> {
        let (of, to) = (of + 1, to + 1);
        self.router.sh(&format!("ip route replace fd05::{of}/128 via fd03:{to}::2 dev r{to}")).map(drop)
    }

    /// Backends answer by way of whoever has a node's source addresses, and not of the router.
    pub fn answer_by_way_of(&self, node: usize) -> Result<()> {
        let n = node + 1;
        let routes =
            format!("ip route replace default via 10.2.0.2{n}; ip route replace default via fd02::2{n}");
        self.backends.iter().try_for_each(|(_, backend)| backend.sh(&routes).map(drop))
    }

    /// Checks that no backend thinks that these addresses are at another machine than this node's, counted from 0.
    pub fn told(&self, addresses: &[String], node: usize) -> Result<()> {
        let after = |text: &str, word: &str| -> Option<String> {
            let (_, rest) = text.split_once(word)?;
            rest.split_whitespace().next().map(str::to_owned)
        };
        let link = self.machines[node].sh("ip -o link show l1")?;
        let mac = after(&link, "link/ether").context("no MAC")?;
        for (name, backend) in &self.backends {
            for address in addresses {
                let known = after(&backend.sh(&format!("ip neigh show {address}"))?, "lladdr");
                ensure!(
                    known.as_ref().is_none_or(|known| *known == mac),
                    "{name} thinks that {address} is at {known:?}, not {mac}"
                );
            }
        }
        Ok(())
    }

    /// The configuration of a node, counted from 0, with these services.
    pub fn config(&self, node: usize, cluster: &str, services: &[ServiceConfig]) -> String {
        let interfaces = vec!["l0".to_owned(), "l1".to_owned()];
        let name = format!("name = \"lb{}\"\n", node + 1);
        let text = config::text(&NodeConfig { interfaces, node: name, ..NodeConfig::default() }, services);
        format!("{text}\n[cluster]\nadvertise = [\"10.2.0.1{}:7117\"]\n{cluster}\n", node + 1)
    }

    /// Lines of `[cluster]` that make nodes inherit these addresses of each node, counted from 0, and announce them on an interface.
    pub fn inheritance(&self, interface: &str, addresses: impl Fn(usize) -> Vec<String>) -> String {
        let block =
            |node: usize| format!("{{ node = \"lb{}\", addresses = {:?} }}", node + 1, addresses(node));
        let blocks: Vec<String> = (0..self.machines.len()).map(block).collect();
        format!(
            "announce = {{ interface = \"{interface}\", lifetime = \"3s\" }}\nblock = [{}]\n",
            blocks.join(", ")
        )
    }

    /// A TCP service with all backends, of its family; `nat` with the node's own source address.
    pub fn service(&self, node: usize, name: &str, vip: SocketAddr, mode: &'static str) -> ServiceConfig {
        let backends = (1..).zip(&self.backends).map(|(n, (name, _))| BackendConfig {
            name: name.clone(),
            address: backend_address(n, vip.is_ipv6()),
            lines: if mode == "nat" { "port = 8080\n".to_owned() } else { String::new() },
        });
        let source = format!("source-nat = \"{}\"\n", source(node, vip.is_ipv6()));
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
        self.machines[node].sh(&format!("ip link set l0 up; ip link set l1 up; {}", defaults(node + 1)))?;
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

/// Lets an `lbd` of a switch into the cluster that the first node has made, and waits until all nodes are connected.
pub fn join_switch(first: &Balancer, switch: &Balancer) -> Result<()> {
    invite(&first.ctl(&["cluster", "token", "--role", "switch"])?, switch)?;
    eventually(SOON, || {
        let status = switch.ask(&["cluster", "status"])?;
        let is_there = |peer: &Value| peer["connected"].is_object() || peer["role"] == "switch";
        let is_so = status["peers"].as_array().is_some_and(|peers| peers.iter().all(is_there));
        ensure!(is_so, "{status:#}");
        Ok(())
    })
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

/// Waits until a node's data plane knows so many others.
pub fn can_ask(balancer: &Balancer, others: usize) -> Result<()> {
    eventually(SOON, || {
        let status = balancer.ask(&["cluster", "status"])?;
        let peers = status["peers"].as_array().context("no peers")?;
        let asked = peers.iter().filter(|peer| peer["asked"] == true).count();
        ensure!(asked == others, "{asked} nodes can be asked, not {others}: {status:#}");
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

/// Where the router finds a node, counted from 0.
pub fn node_address(node: usize, is_v6: bool) -> IpAddr {
    let n = node as u8 + 1;
    match is_v6 {
        true => Ipv6Addr::new(0xfd03, n.into(), 0, 0, 0, 0, 0, 2).into(),
        false => Ipv4Addr::new(10, 3, n, 2).into(),
    }
}

/// What a node, counted from 0, translates connections to.
pub fn source(node: usize, is_v6: bool) -> IpAddr {
    let n = node as u8 + 1;
    match is_v6 {
        true => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x20 + u16::from(n)).into(),
        false => Ipv4Addr::new(10, 2, 0, 20 + n).into(),
    }
}

/// The router's own address in the backends' networks.
pub fn gateway(is_v6: bool) -> IpAddr {
    match is_v6 {
        true => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1).into(),
        false => Ipv4Addr::new(10, 2, 0, 1).into(),
    }
}

/// Where backend `n`, counted from 1, is.
pub fn backend_address(n: u8, is_v6: bool) -> IpAddr {
    match is_v6 {
        // Read by people, both end in the same number.
        true => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(n)).into(),
        false => Ipv4Addr::new(10, 2, 0, BACKENDS + n).into(),
    }
}

/// Commands that let machine `n`, counted from 1, send to the router.
fn defaults(n: usize) -> String {
    format!("ip route replace default via 10.3.{n}.1; ip route replace default via fd03:{n}::1")
}
