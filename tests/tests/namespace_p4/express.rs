//! Long connections of nodes behind the switch, which it goes on with by itself.

/// A test of each family.
macro_rules! families {
    ($($run:ident: $v4:ident $v6:ident;)*) => {
        $(#[test]
        #[ignore = "needs bmv2: `cargo xtask test --p4`"]
        fn $v4() -> Result<()> {
            $run(false)
        }

        #[test]
        #[ignore = "needs bmv2: `cargo xtask test --p4`"]
        fn $v6() -> Result<()> {
            $run(true)
        })*
    };
}

mod heirs;

use super::nodes::{Besides, Shop, as_backend, packets};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stickleback_tests::topology::crossing::{NODES, backend_address, gateway, join_switch, source};
use stickleback_tests::topology::process::{Process, eventually};
use stickleback_tests::topology::{BackendConfig, Balancer, Crossing, SOON, ServiceConfig, server};

/// Bytes of a download, and how many of them come in a second: of one that ends soon, and of one that lasts.
const LONG: u64 = 12 << 20;
const RATE: &str = "400k";
const SLOW: &str = "150k";
/// From the first byte of a response on, the node sees it for so long.
const HEAD: Duration = Duration::from_secs(2);

/// What the switch says of the service's connections that it goes on with.
#[derive(Clone, Copy, Debug)]
struct Offloaded {
    connections: u64,
    packets: u64,
}

/// A download that is on its way.
struct Download {
    process: Process,
    to: PathBuf,
    head: PathBuf,
}

/// A shop of IPv4 whose switch is a member and goes on with connections; backends answer by way of it.
fn shop(timeouts: &'static str) -> Result<Shop> {
    shop_of(false, timeouts)
}

/// The same of one family.
fn shop_of(v6: bool, timeouts: &'static str) -> Result<Shop> {
    let services = (0..NODES).map(|node| back(node, v6, as_backend(v6)(node)));
    shop_with(v6, Besides { timeouts, services: services.collect(), ..Besides::default() })
}

/// The service of what backends answer to.
fn back(node: usize, v6: bool, to: BackendConfig) -> ServiceConfig {
    ServiceConfig {
        name: format!("back{node}"),
        address: source(node, v6),
        port: 0,
        protocol: "tcp",
        mode: "l2",
        lines: "affinity = \"none\"\n".into(),
        backends: vec![to],
    }
}

/// The same with what it has besides.
fn shop_with(v6: bool, besides: Besides) -> Result<Shop> {
    let service = "mirror = true\nmirror-age = \"1s\"";
    let shop =
        Shop::new(v6, Besides { ports: &["r9"], service, plane: Some(plane), is_member: true, ..besides })?;
    // Downloads are to be on their way, not in the sockets of those who are in no hurry.
    shop.crossing.client.set("ipv4/tcp_rmem=4096 65536 65536")?;
    for (_, backend) in &shop.crossing.backends {
        backend.set("ipv4/tcp_wmem=4096 65536 65536")?;
        for node in 0..shop.crossing.machines.len() {
            backend.sh(&format!("ip route add {} via {}", source(node, v6), gateway(v6)))?;
        }
    }
    join_switch(&shop.nodes[0], &shop.switch)?;
    server::file(&long(&shop.crossing), LONG)?;
    eventually(SOON, || shop.backend(1).map(drop))?;
    Ok(shop)
}

/// Ways to the backends, and that the switch is to go on with connections.
fn plane(crossing: &Crossing, v6: bool, text: String) -> Result<String> {
    let mut ways = String::new();
    let length = if v6 { 128 } else { 32 };
    for (n, (_, backend)) in (1..).zip(&crossing.backends) {
        let link = backend.sh("ip -o link show dev eth0")?;
        let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let mac = mac.context("a backend's interface has a MAC")?;
        let to = backend_address(n, v6);
        ways += &format!("{{ to = \"{to}/{length}\", interface = \"r9\", mac = {mac:?} }}, ");
    }
    Ok(text.replacen("routes = [", &format!("offload = true\nroutes = [{ways}"), 1))
}

fn long(crossing: &Crossing) -> PathBuf {
    crossing.directory().join("files/long")
}

impl Shop {
    fn offloaded(&self) -> Result<Offloaded> {
        let services = self.switch.ask(&["services"])?;
        let shop = services.as_array().and_then(|all| all.iter().find(|row| row["name"] == "shop"));
        let row = &shop.context("no service")?["offloaded"];
        let number = |name: &str| row[name].as_u64().with_context(|| format!("no {name} in {row}"));
        Ok(Offloaded { connections: number("connections")?, packets: number("packets")? })
    }

    /// Waits until the switch goes on with so many connections.
    fn goes_on_with(&self, connections: u64) -> Result<()> {
        eventually(SOON, || {
            let now = self.offloaded()?;
            ensure!(now.connections == connections, "{now:?}, not {connections} connections");
            Ok(())
        })
    }

    /// Packets of the service that all nodes have forwarded.
    fn seen_by_nodes(&self) -> Result<u64> {
        self.nodes.iter().map(packets).sum()
    }

    /// Waits until packets go by the switch alone, and checks that for a while the nodes see next to none.
    fn goes_by_the_switch(&self, download: &mut Download) -> Result<()> {
        let begun = self.offloaded()?.packets;
        eventually(SOON, || {
            let now = self.offloaded()?;
            ensure!(now.packets > begun + 50, "{now:?}, after {begun} packets");
            Ok(())
        })?;
        let (before, seen) = (self.offloaded()?.packets, self.seen_by_nodes()?);
        std::thread::sleep(Duration::from_secs(5));
        let (after, still) = (self.offloaded()?.packets - before, self.seen_by_nodes()? - seen);
        ensure!(after > 200, "{after} packets went by the switch");
        // Signs of life, and what tells of segments that got lost.
        ensure!(still * 10 < after, "the nodes saw {still} packets while {after} went by the switch");
        download.runs()
    }

    fn download(&self, rate: &str, more: &[&str]) -> Result<Download> {
        self.download_to("came", rate, more)
    }

    fn download_to(&self, name: &str, rate: &str, more: &[&str]) -> Result<Download> {
        let directory = self.crossing.directory();
        let (to, head) = (directory.join(name), directory.join(format!("{name}.head")));
        let url = format!("{}/files/long", self.url());
        let paths = [&to, &head].map(|path| path.to_string_lossy().into_owned());
        let mut words =
            vec!["curl", "-sS", "--fail", "--noproxy", "*", "--limit-rate", rate, "-D", &paths[1]];
        words.extend(["-H", "Cookie: SESS=session1", "-o", &paths[0], &url]);
        words.extend(more);
        let process = self.crossing.client.start(&words, &directory.join(format!("{name}.log")))?;
        Ok(Download { process, to, head })
    }

    /// Of how many connections each node, counted from 0, has told the switch.
    fn told(&self) -> Result<BTreeMap<usize, u64>> {
        let status = self.switch.ask(&["cluster", "status"])?;
        let peers = status["peers"].as_array().context("no peers")?;
        let of = |peer: &serde_json::Value| -> Option<(usize, u64)> {
            let number: usize = peer["name"].as_str()?.strip_prefix("lb")?.parse().ok()?;
            let held = peer["held_connections"].as_u64().filter(|held| *held > 0)?;
            Some((number - 1, held))
        };
        Ok(peers.iter().filter_map(of).collect())
    }

    /// The node of a download dies: for as long as nobody knows that, it goes on; then nothing of it is left on the switch.
    fn loses_the_node_of(&mut self, download: &mut Download) -> Result<Balancer> {
        let node = *self.told()?.keys().next().context("no node has told of it")?;
        let dead = self.loses(node, download)?;
        self.goes_on_with(0)?;
        Ok(dead)
    }

    /// A node, counted from 0, dies, and its download goes on for as long as nobody knows that.
    fn loses(&mut self, node: usize, download: &mut Download) -> Result<Balancer> {
        let before = download.bytes();
        let mut dead = self.nodes.remove(node);
        self.crossing.kill(node, &mut dead)?;
        std::thread::sleep(HEAD);
        let came = download.bytes() - before;
        ensure!(came > 100_000, "{came} bytes came in two seconds without the node");
        download.runs()?;
        Ok(dead)
    }

    /// A connection that is silent after its first request.
    fn idle(&self) -> Result<Process> {
        let (host, port) = (self.vip.ip(), self.vip.port());
        let line = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET /whoami HTTP/1.1\\r\\nHost: shop\\r\\nCookie: SESS=session1\\r\\n\\r\\n' >&3; sleep 120"
        );
        self.crossing.client.start(&["bash", "-c", &line], &self.crossing.directory().join("idle.log"))
    }
}

impl Download {
    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.to).map_or(0, |file| file.len())
    }

    /// Fails when it has ended.
    fn runs(&mut self) -> Result<()> {
        ensure!(
            self.process.ended()?.is_none(),
            "it ended after {} bytes: {}",
            self.bytes(),
            self.process.log()
        );
        Ok(())
    }

    /// Whether every byte came as it was sent.
    fn finish(mut self, crossing: &Crossing) -> Result<()> {
        let status = self.process.wait(SOON * 3)?;
        ensure!(status.success(), "curl ended with {status}: {}", self.process.log());
        ensure!(
            std::fs::read(&self.to)? == std::fs::read(long(crossing))?,
            "other bytes came than were sent"
        );
        Ok(())
    }
}

/// How often a node has met an outcome.
fn outcome(node: &Balancer, name: &str) -> Result<u64> {
    let status = node.ask(&["status"])?;
    let all = status["outcomes"].as_array().context("no outcomes")?;
    Ok(all.iter().find(|row| row["name"] == name).and_then(|row| row["count"].as_u64()).unwrap_or(0))
}

/// A download goes by the switch while its node's counters stand still, and longer than that forgets connections that it hears nothing of. When
/// it is over, the next connection of the same ports is the node's from its first packet on.
fn downloads_go_by_the_switch(v6: bool) -> Result<()> {
    let shop = shop_of(v6, "tcp-established = \"15s\"")?;
    let mut download = shop.download(RATE, &["--local-port", "41000", "-H", "Connection: close"])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    let metrics = shop.switch.metrics()?;
    let shown = "stickleback_service_offloaded_connections{service=\"shop\"} 1";
    ensure!(metrics.contains(shown), "{metrics}");
    download.finish(&shop.crossing)?;
    let line = format!(
        "curl -sS --fail --noproxy '*' --max-time 5 --local-port 41000 -H 'Cookie: SESS=session1' {}/whoami",
        shop.url()
    );
    let again = shop.crossing.client.sh_within(&line, SOON)?;
    ensure!(again.contains("\"backend\""), "{again}");
    shop.goes_on_with(0)
}

/// While nobody can take an entry back, the next connection of the same ports is none that the switch goes on with.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_what_has_ended_leaves_nothing_to_the_next() -> Result<()> {
    let mut shop = shop("")?;
    let once = ["--local-port", "41000", "-H", "Connection: close"];
    let mut download = shop.download(RATE, &once)?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    shop.switch.kill();
    download.finish(&shop.crossing)?;
    let seen = shop.seen_by_nodes()?;
    shop.download(RATE, &once)?.finish(&shop.crossing)?;
    let seen = shop.seen_by_nodes()? - seen;
    // A client acknowledges every second segment, or more at a time.
    ensure!(seen > LONG / 1_460 / 20, "the nodes saw {seen} packets of {LONG} bytes");
    Ok(())
}

/// The next request on a connection is read by its node, and so is the head of the response, so that a new session's cookie is learnt.
fn later_requests_are_read_by_their_node(v6: bool) -> Result<()> {
    let shop = shop_of(v6, "")?;
    let learnt = || shop.nodes.iter().map(|node| outcome(node, "learnt")).sum::<Result<u64>>();
    let before = learnt()?;
    let next = format!("{}/set?session=fresh", shop.url());
    let mut download = shop.download(RATE, &["--next", "-sS", "--fail", "--noproxy", "*", &next])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    ensure!(learnt()? == before, "a cookie was learnt already");
    let head = std::fs::read_to_string(&download.head)?;
    download.finish(&shop.crossing)?;
    eventually(SOON, || {
        ensure!(learnt()? == before + 1, "{} cookies were learnt, not one", learnt()? - before);
        Ok(())
    })?;
    let named = head.lines().find_map(|line| line.strip_prefix("X-Backend: ")).context("no backend")?;
    let of_cookie = shop.backend_of("fresh")?;
    ensure!(
        of_cookie == named.trim(),
        "the connection was with {named}, its new session is with {of_cookie}"
    );
    Ok(())
}

/// The switch's `lbd` may go and come back: what it wrote goes on, and what it writes then holds.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_downloads_outlive_the_switchs_daemon() -> Result<()> {
    let mut shop = shop("")?;
    let mut download = shop.download(SLOW, &[])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    let (before, seen) = (download.bytes(), shop.seen_by_nodes()?);
    shop.switch.kill();
    std::thread::sleep(Duration::from_secs(5));
    let still = shop.seen_by_nodes()? - seen;
    let came = download.bytes() - before;
    ensure!(still * 20 * 1_448 < came, "the nodes saw {still} packets while {came} bytes came without it");
    shop.switch.restart()?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    download.finish(&shop.crossing)
}

/// Nobody inherits from a node that dies: its download goes on for a while.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_downloads_go_on_while_their_node_dies() -> Result<()> {
    let mut shop = shop("")?;
    let mut download = shop.download(SLOW, &[])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    shop.loses_the_node_of(&mut download).map(drop)
}

/// A connection that says nothing any more ends at its node, and the switch forgets it.
fn idle_connections_are_given_back(v6: bool) -> Result<()> {
    let shop = shop_of(v6, "tcp-established = \"15s\"")?;
    let mut idle = shop.idle()?;
    shop.goes_on_with(1)?;
    let begun = Instant::now();
    shop.goes_on_with(0)?;
    ensure!(idle.ended()?.is_none(), "the client ended it: {}", idle.log());
    eprintln!("given back {:?} after it was taken", begun.elapsed());
    ensure!(begun.elapsed() > Duration::from_secs(5), "given back at once");
    Ok(())
}

families! {
    downloads_go_by_the_switch: namespace_p4_downloads_go_by_the_switch_v4 namespace_p4_downloads_go_by_the_switch_v6;
    later_requests_are_read_by_their_node: namespace_p4_later_requests_are_read_v4 namespace_p4_later_requests_are_read_v6;
    idle_connections_are_given_back: namespace_p4_idle_connections_are_given_back_v4 namespace_p4_idle_connections_are_given_back_v6;
}
