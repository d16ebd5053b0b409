//! Sessions by cookie with real clients, real servers and the real `lbd`.

mod failing;
mod flood;
mod hostile;
mod loss;
mod pairs;
mod sessions;
mod slow;
mod steps;
mod tags;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use lb_common::abi::{Hand, map};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use stickleback_tests::topology::server::in_url;
use stickleback_tests::topology::{Arms, Balancer, NodeConfig, Site};

/// The affinity of most services here.
const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;

/// A site with one service at port 80 whose sessions are told apart by a cookie.
struct Shop {
    balancer: Balancer,
    site: Site,
    vip: SocketAddr,
    v6: bool,
}

impl Shop {
    /// With three backends and these lines for the service.
    fn new(arms: Arms, v6: bool, lines: &str) -> Result<Self> {
        Self::on(Site::new(arms, 3)?, v6, lines)
    }

    /// On a site.
    fn on(site: Site, v6: bool, lines: &str) -> Result<Self> {
        let node = site.node();
        Self::with_node(site, &node, v6, lines)
    }

    /// The same with settings of the node.
    fn with_node(site: Site, node: &NodeConfig, v6: bool, lines: &str) -> Result<Self> {
        let vip = vip(v6);
        let balancer = site.balance_with(node, &[site.service("web", vip, "nat", v6).with(lines)])?;
        let shop = Self { balancer, site, vip, v6 };
        // Neighbours are resolved, and no test waits for that.
        for n in 0..12 {
            shop.backend(&format!("-H 'Cookie: SESS=first{n}'"), "whoami")?;
        }
        Ok(shop)
    }

    /// What curl gets from a path below the service.
    fn curl(&self, options: &str, path: &str) -> Result<String> {
        let host = in_url(self.vip.ip());
        let line = format!("curl -sS --fail --noproxy '*' --max-time 15 {options} http://{host}/{path}");
        self.site.client.sh_within(&line, Duration::from_secs(20))
    }

    /// The backend that answers.
    fn backend(&self, options: &str, path: &str) -> Result<String> {
        backend(&self.curl(options, path)?)
    }

    /// How often something was counted.
    fn outcome(&self, name: &str) -> Result<u64> {
        let status = self.balancer.ask(&["status"])?;
        let rows = status["outcomes"].as_array().with_context(|| format!("no outcomes in {status}"))?;
        Ok(rows.iter().find(|row| row["name"] == name).and_then(|row| row["count"].as_u64()).unwrap_or(0))
    }

    /// Entries of a table that are in use.
    fn used(&self, table: &str) -> Result<u64> {
        let status = self.balancer.ask(&["status"])?;
        let rows = status["tables"].as_array().with_context(|| format!("no tables in {status}"))?;
        let row = rows.iter().find(|row| row["name"] == table);
        row.and_then(|row| row["used"].as_u64()).with_context(|| format!("use of {table} in {status}"))
    }
}

/// The address of the service.
fn vip(v6: bool) -> SocketAddr {
    if v6 { "[fd99::1]:80".parse() } else { "10.99.0.1:80".parse() }.expect("an address")
}

/// The backend that an answer names.
fn backend(answer: &str) -> Result<String> {
    let whoami: Value = serde_json::from_str(answer).with_context(|| format!("the answer is {answer}"))?;
    let name = whoami["backend"].as_str().context("the answer names no backend")?;
    ensure!(name.starts_with("be"), "a backend called {name}");
    Ok(name.to_owned())
}

/// How far the data plane has gone round one of its rings, or how many it has numbered.
fn went(shop: &Shop, place: u32) -> Result<u64> {
    let path = shop.balancer.pins().join("maps").join(map::HANDS);
    let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Array::<_, Hand>::try_from(aya::maps::Map::Array(data))?.get(&place, 0)?.value)
}

/// Whether there is time for more.
fn is_long() -> bool {
    std::env::var_os("STICKLEBACK_LONG").is_some_and(|value| value == "1")
}
