//! New sessions by load, limits of connections, slow start, and what the balancer's own connections say of backends, with real servers.
//!
//! Needs root.

mod passive;
mod ramp;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use stickleback_tests::topology::process::{Process, eventually};
use stickleback_tests::topology::{Arms, Balancer, Load, LoadPlan, LoadReport, Site, load};

/// Longest wait for something that takes a moment.
const SOON: Duration = Duration::from_secs(20);

/// Three backends behind one service.
struct Shop {
    balancer: Balancer,
    site: Site,
    vip: SocketAddr,
}

impl Shop {
    /// With these lines for the service and for each backend.
    fn new(lines: &str, backend_lines: &str) -> Result<Self> {
        let site = Site::new(Arms::Two, 3)?;
        let vip = SocketAddr::new("10.99.0.1".parse()?, 80);
        let mut service = site.service("web", vip, "nat", false).with(lines);
        for backend in &mut service.backends {
            backend.lines.push_str(backend_lines);
        }
        let balancer = site.balance(&[service])?;
        let shop = Self { balancer, site, vip };
        shop.site.serves(vip)?;
        Ok(shop)
    }

    /// The row of a backend.
    fn backend(&self, name: &str) -> Result<Value> {
        let rows = self.balancer.ask(&["backends"])?;
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        row.cloned().with_context(|| format!("no backend {name} in {rows}"))
    }

    /// Waits until a backend has so many connections.
    fn has_connections(&self, name: &str, count: u64) -> Result<()> {
        eventually(SOON, || {
            let load = self.backend(name)?["load"].clone();
            ensure!(load["connections"] == count, "{name} has {load}, not {count} connections");
            Ok(())
        })
    }

    /// Opens a connection from each of `count` clients, counted from `first`, and keeps them; how many were refused.
    fn hold(&self, first: u16, count: u16) -> Result<(Process, usize)> {
        let clients = self.site.clients_from(false, first, count);
        load::hold(&self.site.client, self.site.directory(), self.vip, &clients)
    }

    /// Short connections until `count` were answered.
    fn load(&self, first: u16, count: u64) -> Result<LoadReport> {
        let plan = LoadPlan::new(self.vip, self.site.clients_from(false, first, 200));
        let load = Load::start(&self.site.client, &plan)?;
        load.reach(count)?;
        let report = load.finish()?;
        report.answered(count)?;
        Ok(report)
    }

    /// Hundredths of a report's requests that a backend answered.
    fn percent(report: &LoadReport, name: &str) -> u64 {
        report.backends.get(name).copied().unwrap_or_default() * 100 / report.requests.max(1)
    }
}

/// A backend that does not get done gets less until it does.
fn a_busy_backend_gets_fewer(method: &str, most: u64) -> Result<()> {
    let shop = Shop::new(&format!("affinity = \"none\"\nmethod = \"{method}\""), "")?;
    for other in ["be1", "be3"] {
        shop.balancer.ctl(&["drain", "web", other])?;
    }
    let (mut held, refused) = shop.hold(1_000, 40)?;
    ensure!(refused == 0, "{refused} connections were refused");
    shop.has_connections("be2", 40)?;
    for other in ["be1", "be3"] {
        shop.balancer.ctl(&["undrain", "web", other])?;
    }
    let busy = shop.load(1, 400)?;
    println!("{method}: with 40 connections open be2 answered {:?}", busy.backends);
    ensure!(Shop::percent(&busy, "be2") <= most, "be2 has 40 connections and answered {:?}", busy.backends);
    ensure!(busy.backends.len() >= 2 && Shop::percent(&busy, "be1") > 15 && Shop::percent(&busy, "be3") > 15);
    held.kill();
    shop.has_connections("be2", 0)?;
    let idle = shop.load(1, 400)?;
    println!("{method}: without them {:?}", idle.backends);
    ensure!(Shop::percent(&idle, "be2") > 15, "be2 has nothing to do and answered {:?}", idle.backends);
    for name in ["be1", "be2", "be3"] {
        shop.has_connections(name, 0)?;
    }
    Ok(())
}

#[test]
fn namespace_load_least_connections() -> Result<()> {
    a_busy_backend_gets_fewer("least-connections", 0)
}

#[test]
fn namespace_load_two_choices() -> Result<()> {
    // Whose first two are never only be2.
    a_busy_backend_gets_fewer("two-choices", 0)
}

#[test]
fn namespace_load_least_time() -> Result<()> {
    // The others' times may be a few of the clock's ticks on a busy machine, and then 40 connections are not too many.
    a_busy_backend_gets_fewer("least-time", 20)
}

/// Backends take as many connections as they may have; the rest goes to the next, and nobody takes the last ones.
#[test]
fn namespace_load_limits() -> Result<()> {
    let shop = Shop::new("affinity = \"none\"", "max-connections = 4\n")?;
    for name in ["be1", "be2", "be3"] {
        shop.has_connections(name, 0)?;
    }
    let (mut held, refused) = shop.hold(1_000, 15)?;
    ensure!(refused == 3, "{refused} of 15 connections were refused, not 3");
    let mut passed = 0;
    for name in ["be1", "be2", "be3"] {
        shop.has_connections(name, 4)?;
        passed += shop.backend(name)?["load"]["overflowed"].as_u64().context("a number")?;
    }
    let status = shop.balancer.ask(&["status"])?;
    let count = |outcome: &str| {
        let rows = status["outcomes"].as_array().into_iter().flatten();
        rows.filter(|row| row["name"] == outcome).filter_map(|row| row["count"].as_u64()).sum::<u64>()
    };
    ensure!(count("limits-reached") == 3, "{status}");
    ensure!(passed == count("limit-passed"), "{passed} new sessions passed a backend: {status}");
    println!("{passed} of 12 connections passed a full backend");
    held.kill();
    for name in ["be1", "be2", "be3"] {
        shop.has_connections(name, 0)?;
    }
    shop.load(1, 100)?;
    Ok(())
}
