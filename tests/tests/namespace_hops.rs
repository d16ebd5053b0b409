//! How soon the tables in the kernel follow a neighbour and a route.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::abi::{Addr, Backend, Mac, map};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use stickleback_tests::topology::{Arms, Balancer, SOON, Site};

/// What is promised, from the change in the host's tables to that in the data plane's.
const PROMISED: Duration = Duration::from_millis(100);
/// Changes of a kind: other work on a busy machine may delay some of them, but not each.
const CHANGES: u8 = 8;

/// The backends' records in the kernel.
struct Records(Array<MapData, Backend>);

impl Records {
    fn open(balancer: &Balancer) -> Result<Self> {
        let path = balancer.pins().join("maps").join(map::BACKENDS);
        let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self(Array::try_from(Map::Array(data))?))
    }

    fn slot(&self, address: IpAddr) -> Result<u32> {
        let address = Addr::from(address);
        let is_it = |slot: &u32| self.0.get(slot, 0).is_ok_and(|backend| backend.address == address);
        (0..self.0.len()).find(is_it).context("the backend is not in the data plane")
    }

    /// How long it takes from now until the next hop of a slot has this MAC.
    fn follows(&self, slot: u32, mac: Mac) -> Result<Duration> {
        let start = Instant::now();
        loop {
            if self.0.get(&slot, 0)?.hop.destination == mac {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < SOON, "the data plane does not follow");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn judge(what: &str, mut times: Vec<Duration>) -> Result<()> {
    times.sort();
    println!("{what}: {times:?}");
    let median = times.get(times.len() / 2).context("no times")?;
    ensure!(*median < PROMISED, "{what}: the tables follow after {times:?}");
    Ok(())
}

#[test]
fn namespace_hops_are_followed_in_time() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let vip = SocketAddr::from(([10, 99, 0, 1], 80));
    let balancer = site.balance(&[site.service("web", vip, "nat", false)])?;
    site.serves(vip)?;
    let records = Records::open(&balancer)?;
    let backend = site.backends[0].v4;
    let slot = records.slot(backend.into())?;

    let mut neighbour = Vec::new();
    for n in 0..CHANGES {
        site.lb
            .sh(&format!("ip neigh replace {backend} dev l1 lladdr 02:bb:00:00:00:{n:02x} nud permanent"))?;
        neighbour.push(records.follows(slot, Mac([2, 0xbb, 0, 0, 0, n]))?);
    }
    judge("a neighbour's MAC", neighbour)?;

    let gateways = [1_u8, 2];
    for n in gateways {
        site.lb.sh(&format!(
            "ip neigh replace 10.2.1.{n}0 dev l1 lladdr 02:cc:00:00:00:{n:02x} nud permanent"
        ))?;
    }
    let mut route = Vec::new();
    for n in gateways.into_iter().cycle().take(CHANGES.into()) {
        site.lb.sh(&format!("ip route replace {backend}/32 via 10.2.1.{n}0"))?;
        route.push(records.follows(slot, Mac([2, 0xcc, 0, 0, 0, n]))?);
    }
    judge("a route's gateway", route)
}
