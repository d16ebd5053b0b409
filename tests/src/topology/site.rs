//! A whole site: clients, a balancer that is also their router, and backends with real web servers.
//!
//! ```text
//! two arms:  client eth0 --- l0 lb l1 --- eth0 be1   (and be2, be3 on l2, l3)
//! one arm:   client, lb (l0), be1, be2, be3 on one switch
//! ```
//! Addresses are the same either way: the client 10.1.0.2 and fd01::2, backend n 10.2.n.2 and fd02:n::2.
//! The client also is everyone in 10.4.0.0/16 and fd04::/32: as many sessions as a test needs.
//! Virtual addresses 10.99.0.0/24 and fd99::/64 belong to no subnet; backends have them on their loopback.

use super::balancer::Balancer;
use super::config::{self, BackendConfig, NodeConfig, ServiceConfig};
use super::process::{Process, eventually};
use super::{Namespace, SOON, Topology, cable, load, server};
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// MTU on the clients' side. Cables to backends may have room for tunnel headers; packets from there must not.
const CLIENT_MTU: u16 = 1_500;

/// How the balancer is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arms {
    /// One interface for everything.
    One,
    /// One to the clients, others to the backends.
    Two,
}

/// A backend's namespace and addresses.
#[derive(Debug)]
pub struct SiteBackend {
    /// `be1` and so on.
    pub name: String,
    /// Where it runs.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// Clients, balancer and backends.
#[derive(Debug)]
pub struct Site {
    /// The clients.
    pub client: Namespace,
    /// The balancer.
    pub lb: Namespace,
    /// The backends.
    pub backends: Vec<SiteBackend>,
    /// The servers; dropped before their namespaces.
    servers: Vec<Process>,
    arms: Arms,
    /// Between all others, with one arm.
    switch: Option<Namespace>,
    topology: Topology,
}

impl Site {
    /// Makes namespaces and cables and starts a web server on each backend.
    pub fn new(arms: Arms, backends: u8) -> Result<Self> {
        Self::with_mtu(arms, backends, CLIENT_MTU)
    }

    /// The same; `mtu` is that of the cables to the backends (of all cables, with one arm).
    pub fn with_mtu(arms: Arms, backends: u8, mtu: u16) -> Result<Self> {
        let mut topology = Topology::new()?;
        let (client, lb) = (topology.namespace("client")?, topology.namespace("lb")?);
        lb.set("ipv4/conf/all/forwarding=1")?;
        lb.set("ipv6/conf/all/forwarding=1")?;
        let mut site =
            Self { client, lb, backends: Vec::new(), servers: Vec::new(), arms, switch: None, topology };
        for n in 1..=backends {
            let name = format!("be{n}");
            let namespace = site.topology.namespace(&name)?;
            let (v4, v6) = (Ipv4Addr::new(10, 2, n, 2), Ipv6Addr::new(0xfd02, n.into(), 0, 0, 0, 0, 0, 2));
            site.backends.push(SiteBackend { name, namespace, v4, v6 });
        }
        match arms {
            Arms::Two => {
                cable((&site.lb, "l0"), (&site.client, "eth0"), CLIENT_MTU)?;
                for (n, backend) in (1..).zip(&site.backends) {
                    cable((&site.lb, &format!("l{n}")), (&backend.namespace, "eth0"), mtu)?;
                }
            }
            Arms::One => site.connect(mtu)?,
        }
        site.address()?;
        std::fs::create_dir_all(site.files())?;
        for n in 0..site.backends.len() {
            let server = site.web(n)?;
            site.servers.push(server);
        }
        Ok(site)
    }

    /// Starts (again) the web server of backend `n`, counted from 0.
    pub fn web(&self, n: usize) -> Result<Process> {
        let backend = &self.backends[n];
        server::web(&backend.namespace, &backend.name, self.directory(), &self.files())
    }

    /// The web server of backend `n`, counted from 0.
    pub fn server(&mut self, n: usize) -> &mut Process {
        &mut self.servers[n]
    }

    /// Starts UDP servers on this port of all backends, on their own and on these virtual addresses.
    pub fn echo(&mut self, port: u16, vips: &[IpAddr]) -> Result<()> {
        for backend in &self.backends {
            let own = [IpAddr::from(backend.v4), IpAddr::from(backend.v6)];
            let at: Vec<SocketAddr> =
                own.iter().chain(vips).map(|&address| SocketAddr::new(address, port)).collect();
            let server = server::echo(&backend.namespace, &backend.name, self.topology.directory(), &at)?;
            self.servers.push(server);
        }
        Ok(())
    }

    /// Starts iperf3 servers on all backends.
    pub fn iperf(&mut self) -> Result<()> {
        for backend in &self.backends {
            let server = server::iperf(&backend.namespace, &backend.name, self.topology.directory())?;
            self.servers.push(server);
        }
        Ok(())
    }

    /// Starts `lbd` with these services.
    pub fn balance(&self, services: &[ServiceConfig]) -> Result<Balancer> {
        self.balance_with(&self.node(), services)
    }

    /// The same with settings for the node.
    pub fn balance_with(&self, node: &NodeConfig, services: &[ServiceConfig]) -> Result<Balancer> {
        self.balance_under(&[], node, services)
    }

    /// The same through another command, which is given the program and its arguments.
    pub fn balance_under(
        &self,
        command: &[String],
        node: &NodeConfig,
        services: &[ServiceConfig],
    ) -> Result<Balancer> {
        let text = config::text(node, services);
        Balancer::start_under(command, &self.lb, self.directory(), &self.topology.pins(), &text)
    }

    /// The node's part of the configuration, with all interfaces of the balancer.
    pub fn node(&self) -> NodeConfig {
        let interfaces = match self.arms {
            Arms::One => vec!["l0".to_owned()],
            Arms::Two => (0..=self.backends.len()).map(|n| format!("l{n}")).collect(),
        };
        let node = "tunnel-source-v4 = \"10.1.0.1\"\ntunnel-source-v6 = \"fd01::1\"\n".to_owned();
        NodeConfig { interfaces, node, ..NodeConfig::default() }
    }

    /// A TCP service with all backends; their family is that of `backends_v6`.
    pub fn service(
        &self,
        name: &str,
        vip: SocketAddr,
        mode: &'static str,
        backends_v6: bool,
    ) -> ServiceConfig {
        let backends = self.backends.iter().map(|backend| BackendConfig {
            name: backend.name.clone(),
            address: if backends_v6 { backend.v6.into() } else { backend.v4.into() },
            lines: if mode == "nat" && vip.port() == 80 { "port = 8080\n".to_owned() } else { String::new() },
        });
        ServiceConfig {
            name: name.to_owned(),
            address: vip.ip(),
            port: vip.port(),
            protocol: "tcp",
            mode,
            lines: String::new(),
            backends: backends.collect(),
        }
    }

    /// `count` client addresses of one family; each is a session of its own.
    pub fn clients(&self, v6: bool, count: u16) -> Vec<IpAddr> {
        self.clients_from(v6, 1, count)
    }

    /// The same, from number `first` on.
    pub fn clients_from(&self, v6: bool, first: u16, count: u16) -> Vec<IpAddr> {
        (first..first + count).map(|n| if v6 { client_v6(n) } else { client_v4(n) }).collect()
    }

    /// A further namespace.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace> {
        self.topology.namespace(name)
    }

    /// Waits until requests to a VIP from several clients are answered.
    pub fn serves(&self, vip: SocketAddr) -> Result<()> {
        let clients = self.clients(vip.is_ipv6(), 8);
        eventually(SOON, || load::each(&self.client, vip, &clients).map(drop))
            .with_context(|| format!("{vip} is not served"))
    }

    /// The switch between all others and the interfaces it has, with one arm: `p0` to the balancer, `p1` to the
    /// clients, then one to each backend.
    pub fn switch_ports(&self) -> Option<(Namespace, Vec<String>)> {
        let switch = self.switch.clone()?;
        Some((switch, (0..self.backends.len() + 2).map(|n| format!("p{n}")).collect()))
    }

    /// Where files that backends serve below `/files/` lie.
    pub fn files(&self) -> PathBuf {
        self.directory().join("files")
    }

    /// Where a backend's `PUT /put/NAME` ends up.
    pub fn received(&self, backend: &str, name: &str) -> PathBuf {
        self.directory().join(backend).join("put").join(name)
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.topology.directory()
    }

    fn connect(&mut self, mtu: u16) -> Result<()> {
        let switch = self.topology.namespace("switch")?;
        switch.sh("ip link add br0 type bridge; ip link set br0 up")?;
        let ends = self.backends.iter().map(|backend| (&backend.namespace, "eth0"));
        let ends = [(&self.lb, "l0"), (&self.client, "eth0")].into_iter().chain(ends);
        for (n, end) in ends.enumerate() {
            cable((&switch, &format!("p{n}")), end, mtu)?;
            switch.sh(&format!("ip link set p{n} master br0"))?;
        }
        self.switch = Some(switch);
        Ok(())
    }

    fn address(&self) -> Result<()> {
        self.lb.sh("ip addr add 10.1.0.1/16 dev l0; ip addr add fd01::1/64 dev l0 nodad
             ip route add 10.4.0.0/16 via 10.1.0.2; ip route add fd04::/32 via fd01::2")?;
        self.client.sh("ip addr add 10.1.0.2/16 dev eth0; ip addr add fd01::2/64 dev eth0 nodad
             ip route add local 10.4.0.0/16 dev lo; ip route add local fd04::/32 dev lo
             ip route add default via 10.1.0.1; ip route add default via fd01::1")?;
        for (n, backend) in (1_u8..).zip(&self.backends) {
            let interface = if self.arms == Arms::One { "l0".to_owned() } else { format!("l{n}") };
            self.lb.sh(&format!(
                "ip addr add 10.2.{n}.1/24 dev {interface}; ip addr add fd02:{n}::1/64 dev {interface} nodad"
            ))?;
            backend.namespace.sh(&format!(
                "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad
                 ip route add default via 10.2.{n}.1 mtu {CLIENT_MTU}
                 ip route add default via fd02:{n}::1 mtu {CLIENT_MTU}
                 ip route add local 10.99.0.0/24 dev lo; ip route add local fd99::/64 dev lo",
                backend.v4, backend.v6
            ))?;
        }
        Ok(())
    }
}

fn client_v4(n: u16) -> IpAddr {
    Ipv4Addr::from(0x0a04_0000 + u32::from(n)).into()
}

/// Each in a /64 of its own.
fn client_v6(n: u16) -> IpAddr {
    Ipv6Addr::new(0xfd04, 0, 0, n, 0, 0, 0, 1).into()
}
