//! XDP nodes behind the switch, which spreads over them the connections of a service that reads cookies.

use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use stickleback_tests::topology::config::text;
use stickleback_tests::topology::crossing::{NODES, bindings, join, node_address, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::server::in_url;
use stickleback_tests::topology::{
    BackendConfig, Balancer, Bmv2, Crossing, NodeConfig, SOON, ServiceConfig, Testbed,
};

const COOKIES: usize = 12;
/// Where a node tells its metrics, and by that, that it is there.
const METRICS: u16 = 9_464;
/// Below the ports at which the switch's `lbd`s are members.
const MEMBERS: u16 = 7_116;
const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 2].into() } else { [10, 99, 0, 2].into() };
    SocketAddr::new(address, 80)
}

/// The switch, the nodes of one cluster behind it, and backends.
pub(super) struct Shop {
    pub(super) nodes: Vec<Balancer>,
    pub(super) switch: Balancer,
    pub(super) vip: SocketAddr,
    besides: Besides,
    bmv2: Bmv2,
    _passed: Vec<Testbed>,
    pub(super) crossing: Crossing,
}

/// Makes a `[dataplane]` of another one, for IPv6 or IPv4.
type Plane = fn(&Crossing, bool, String) -> Result<String>;

/// What a shop has besides.
#[derive(Default)]
pub(super) struct Besides {
    /// Nodes beyond two.
    pub(super) more_nodes: usize,
    /// Ports of the switch.
    pub(super) ports: &'static [&'static str],
    /// Lines of the service on the nodes.
    pub(super) service: &'static str,
    /// Lines of `[node.timeouts]` there.
    pub(super) timeouts: &'static str,
    /// Makes the lines of `[cluster]` there.
    pub(super) cluster: Option<fn(&Crossing) -> Result<String>>,
    /// Makes the switch's `[dataplane]` of what it is without.
    pub(super) plane: Option<Plane>,
    /// Services of the switch.
    pub(super) services: Vec<ServiceConfig>,
    /// Whether the switch is a member of the nodes' cluster.
    pub(super) is_member: bool,
}

impl Besides {
    /// How many nodes there are.
    pub(super) const fn nodes(&self) -> usize {
        NODES + self.more_nodes
    }
}

impl Shop {
    /// All of one family.
    pub(super) fn new(v6: bool, besides: Besides) -> Result<Self> {
        let vip = vip(v6);
        let crossing = Crossing::of(besides.nodes(), 3)?;
        let ports: Vec<String> = (0..=besides.nodes()).map(|n| format!("r{n}")).collect();
        let ports: Vec<String> =
            ports.into_iter().chain(besides.ports.iter().map(ToString::to_string)).collect();
        let bmv2 = Bmv2::at(&crossing.router, ports.clone(), crossing.directory())?;
        // What a node's XDP sends comes through a cable whose other end has a program, too, or GRO, which would merge it.
        let passed = ports[1..=besides.nodes()].iter().map(|port| Testbed::pass(&crossing.router, port));
        let passed = passed.collect::<Result<Vec<_>>>()?;
        let cluster = besides.cluster.map_or_else(|| Ok(String::new()), |lines| lines(&crossing))?;
        let start = |node| {
            let service = crossing.service(node, "shop", vip, "nat").with(COOKIE).with(besides.service);
            let text = crossing.config(node, &cluster, &[service]);
            let metrics = SocketAddr::new(node_address(node, v6), METRICS);
            let metrics = format!("[admin]\nmetrics = \"{metrics}\"\n");
            let timeouts = format!("[node.timeouts]\n{}\n", besides.timeouts);
            crossing.balance(node, &format!("{text}{metrics}{timeouts}"))
        };
        let nodes = (0..besides.nodes()).map(start).collect::<Result<Vec<_>>>()?;
        unite(&nodes[0], &nodes[1])?;
        nodes[NODES..].iter().try_for_each(|next| join(&nodes[0], next))?;
        let switch = drive(&crossing, &bmv2, vip, &besides, 1)?;
        Ok(Self { nodes, switch, vip, besides, bmv2, _passed: passed, crossing })
    }

    /// Starts another `lbd` of the switch, which waits for the end of the first one.
    pub(super) fn second(&self) -> Result<Balancer> {
        drive(&self.crossing, &self.bmv2, self.vip, &self.besides, 2)
    }

    /// Where clients find it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", in_url(self.vip.ip()))
    }

    /// The backend that answers who brings this cookie, on a connection of its own.
    pub(super) fn backend(&self, cookie: usize) -> Result<String> {
        self.backend_of(&format!("session{cookie}"))
    }

    /// The same with the cookie as it is.
    pub(super) fn backend_of(&self, session: &str) -> Result<String> {
        let line = format!(
            "curl -sS --fail --noproxy '*' --max-time 10 -H 'Cookie: SESS={session}' {}/whoami",
            self.url()
        );
        let said = self.crossing.client.sh_within(&line, Duration::from_secs(15))?;
        let said: serde_json::Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        Ok(said["backend"].as_str().context("the answer names no backend")?.to_owned())
    }

    /// Who answers each of the cookies.
    fn all(&self) -> Result<BTreeMap<usize, String>> {
        (0..COOKIES).map(|cookie| Ok((cookie, self.backend(cookie)?))).collect()
    }
}

/// Starts the first or second `lbd` of the switch; while both run, the first one is master.
fn drive(
    crossing: &Crossing,
    bmv2: &Bmv2,
    vip: SocketAddr,
    besides: &Besides,
    number: u16,
) -> Result<Balancer> {
    let plane = bmv2.config(&crossing.client, 3 - u64::from(number))?;
    let plane = match besides.plane {
        None => plane,
        Some(change) => change(crossing, vip.is_ipv6(), plane)?,
    };
    let interfaces = bmv2.ports().to_vec();
    let node = NodeConfig { interfaces, node: plane, ..NodeConfig::default() };
    let pool = (0..besides.nodes()).map(as_backend(vip.is_ipv6()));
    let lines = format!(
        "affinity = \"none\"\nhealth = {{ kind = \"http\", way = \"direct\", port = {METRICS}, path = \"/metrics\", \
         interval = \"500ms\", timeout = \"2s\" }}\n"
    );
    let service = ServiceConfig {
        name: "shop".into(),
        address: vip.ip(),
        port: vip.port(),
        protocol: "tcp",
        mode: "l2",
        lines,
        backends: pool.collect(),
    };
    let services: Vec<_> = [service].into_iter().chain(besides.services.iter().cloned()).collect();
    let mut text = text(&node, &services);
    if besides.is_member {
        let port = MEMBERS + number;
        text += &format!(
            "\n[cluster]\nlisten = \"[::]:{port}\"\nadvertise = [\"10.2.0.1:{port}\"]\nname = \"tor{number}\"\n"
        );
    }
    let directory = crossing.directory().join(format!("switch{number}"));
    std::fs::create_dir_all(&directory)?;
    Balancer::start(&crossing.router, &directory, &directory.join("pins"), &text)
}

/// Nodes, counted from 0, as the switch has them among a service's backends.
pub(super) fn as_backend(v6: bool) -> impl Fn(usize) -> BackendConfig {
    move |node| BackendConfig {
        name: format!("lb{}", node + 1),
        address: node_address(node, v6),
        lines: String::new(),
    }
}

/// Packets of the service that a balancer has forwarded.
pub(super) fn packets(balancer: &Balancer) -> Result<u64> {
    let text = balancer.ask(&["services"])?.to_string();
    let packets = text.split("\"packets\":").nth(1).context("a count of packets")?;
    Ok(packets.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse()?)
}

/// Connections with one cookie come to both nodes, and from both to one backend; also when it is not the first of the session's order,
/// and when a node has died.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_cookies_through_two_nodes() -> Result<()> {
    let mut shop = Shop::new(false, Besides::default())?;
    eventually(SOON, || shop.all().map(drop))?;
    // Sessions that only the nodes' bindings know: they are made while one backend takes none.
    for node in &shop.nodes {
        node.ctl(&["drain", "shop", "be3"])?;
    }
    let before: BTreeMap<usize, String> =
        (100..100 + COOKIES).map(|cookie| Ok((cookie, shop.backend(cookie)?))).collect::<Result<_>>()?;
    ensure!(before.values().all(|backend| backend != "be3"), "a drained backend was used: {before:?}");
    ensure!(before.values().collect::<BTreeSet<_>>().len() == 2, "one backend has all: {before:?}");
    for node in &shop.nodes {
        node.ctl(&["undrain", "shop", "be3"])?;
        eventually(SOON, || {
            let held = bindings(node)?;
            ensure!(held >= COOKIES as u64, "{held} of {COOKIES} sessions are known");
            Ok(())
        })?;
    }
    let stay = |shop: &Shop, rounds: usize| -> Result<()> {
        for _ in 0..rounds {
            for (cookie, backend) in &before {
                let now = shop.backend(*cookie)?;
                ensure!(now == *backend, "session{cookie} was with {backend}, now it is with {now}");
            }
        }
        Ok(())
    };
    stay(&shop, 3)?;
    for (n, node) in shop.nodes.iter().enumerate() {
        let forwarded = packets(node)?;
        ensure!(forwarded > 50, "node {n} forwarded {forwarded} packets");
    }
    ensure!(packets(&shop.switch)? > 100, "the switch counted {} packets", packets(&shop.switch)?);

    shop.crossing.kill(0, &mut shop.nodes[0])?;
    let begun = Instant::now();
    eventually(SOON, || shop.all().map(drop))?;
    eprintln!("all served {:?} after a node died", begun.elapsed());
    stay(&shop, 1)
}
