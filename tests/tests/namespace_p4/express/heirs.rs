//! Who takes over: the switch's other `lbd`, and the node that inherits from a dead one.

use super::{back, shop, shop_with};
use crate::control::compared;
use crate::nodes::Besides;
use anyhow::{Result, ensure};
use std::net::IpAddr;
use std::time::Instant;
use stickleback_tests::topology::crossing::{NODES, join_switch, source};
use stickleback_tests::topology::{BackendConfig, Crossing};

/// Ends after everything that happens meanwhile.
const RATE: &str = "250k";

/// The master of two `lbd`s dies: the other one goes on with its connections, gives back who is silent and who has ended, and leaves
/// nothing.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_downloads_outlive_their_master() -> Result<()> {
    let mut shop = shop("tcp-established = \"15s\"")?;
    let second = shop.second()?;
    join_switch(&shop.nodes[0], &second)?;
    let mut download = shop.download(RATE, &[])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    let mut idle = shop.idle()?;
    shop.goes_on_with(2)?;
    ensure!(!second.log().contains("compared with the switch"), "the one that waits wrote");

    let mut first = std::mem::replace(&mut shop.switch, second);
    first.kill();
    let begun = Instant::now();
    let differences = compared(&shop.switch, 1)?;
    eprintln!("the second was master after {:?}, {differences} entries differed", begun.elapsed());
    shop.goes_on_with(2)?;
    shop.goes_by_the_switch(&mut download)?;
    shop.goes_on_with(1)?;
    download.runs()?;
    ensure!(idle.ended()?.is_none(), "the client ended it: {}", idle.log());
    download.finish(&shop.crossing)?;
    shop.goes_on_with(0)?;

    first.restart()?;
    let left = compared(&first, 2)?;
    ensure!(left == 0, "{left} entries differ from what a third one wants");
    Ok(())
}

/// Where the switch finds whoever has the source addresses of a node, counted from 0.
fn arm(node: usize, v6: bool) -> IpAddr {
    let n = node as u8 + 1;
    match v6 {
        true => [0xfd02, 0, 0, 0, 0, 0, 0, 0x30 + u16::from(n)].into(),
        false => [10, 2, 0, 30 + n].into(),
    }
}

/// Makes nodes inherit each other's source addresses, and where the switch finds those.
fn inheritance(crossing: &Crossing) -> Result<String> {
    let of = |node| [false, true].map(|v6| [source(node, v6), arm(node, v6)]).into_iter().flatten();
    for (node, machine) in crossing.machines.iter().enumerate() {
        let [v4, v6] = [false, true].map(|v6| arm(node, v6));
        machine.sh(&format!("ip addr add {v4}/32 dev l1; ip addr add {v6}/128 dev l1 nodad"))?;
    }
    Ok(crossing.inheritance("l1", |node| of(node).map(|address| address.to_string()).collect()))
}

/// The node of a download dies: it goes on without, waits for the node that inherits, and goes by the switch again.
fn heir(v6: bool) -> Result<()> {
    let to = |node: usize| BackendConfig {
        name: format!("arm{node}"),
        address: arm(node, v6),
        lines: String::new(),
    };
    let services = (0..NODES).map(|node| back(node, v6, to(node)));
    let besides = Besides { cluster: Some(inheritance), services: services.collect(), ..Besides::default() };
    let mut shop = shop_with(v6, besides)?;
    let mut download = shop.download(RATE, &[])?;
    shop.goes_on_with(1)?;
    shop.goes_by_the_switch(&mut download)?;
    let begun = Instant::now();
    let _dead = shop.loses_the_node_of(&mut download)?;
    shop.goes_on_with(1)?;
    eprintln!("its heir has told of it {:?} after its node died", begun.elapsed());
    shop.goes_by_the_switch(&mut download)?;
    download.finish(&shop.crossing)?;
    shop.goes_on_with(0)
}

families! {
    heir: namespace_p4_downloads_outlive_their_node_v4 namespace_p4_downloads_outlive_their_node_v6;
}
