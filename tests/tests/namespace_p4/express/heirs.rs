//! Who takes over: the switch's other `lbd`, and the node that inherits from a dead one.

use super::{Download, SLOW, back, shop, shop_with};
use crate::control::compared;
use crate::nodes::{Besides, Shop, packets};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};
use stickleback_tests::topology::crossing::{join_switch, source};
use stickleback_tests::topology::{BackendConfig, Crossing, SOON};

/// Ends after everything that happens meanwhile.
const RATE: &str = "250k";
/// Ports of clients of which some come to each of three nodes.
const PORTS: Range<u16> = 41_000..41_040;
/// In which a download may not stand still.
const WINDOW: Duration = Duration::from_secs(2);

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

/// A shop of so many nodes, which inherit each other's source addresses.
fn shop_of_heirs(v6: bool, more_nodes: usize) -> Result<Shop> {
    let to = |node: usize| BackendConfig {
        name: format!("arm{node}"),
        address: arm(node, v6),
        lines: String::new(),
    };
    let besides = Besides { cluster: Some(inheritance), more_nodes, ..Besides::default() };
    let services = (0..besides.nodes()).map(|node| back(node, v6, to(node))).collect();
    shop_with(v6, Besides { services, ..besides })
}

/// The node of a download dies: it goes on without, waits for the node that inherits, and goes by the switch again.
fn heir(v6: bool) -> Result<()> {
    let mut shop = shop_of_heirs(v6, 0)?;
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

/// A port of a client for each node, by which the switch leads connections there.
fn ports(shop: &Shop) -> Result<BTreeMap<usize, u16>> {
    // Else who closed a connection first could not use its port again.
    shop.crossing.client.set("ipv4/tcp_max_tw_buckets=0")?;
    let count = || shop.nodes.iter().map(packets).collect::<Result<Vec<_>>>();
    let mut ports = BTreeMap::new();
    for port in PORTS {
        let before = count()?;
        let line = format!(
            "curl -sS --fail --noproxy '*' --max-time 10 --local-port {port} -H 'Connection: close' \
             -H 'Cookie: SESS=session1' {}/whoami",
            shop.url()
        );
        shop.crossing.client.sh_within(&line, SOON)?;
        let grew: Vec<bool> = count()?.iter().zip(before).map(|(after, before)| *after > before).collect();
        let node = grew.iter().position(|grew| *grew).context("no node has seen the request")?;
        ports.entry(node).or_insert(port);
        if ports.len() == shop.nodes.len() {
            return Ok(ports);
        }
    }
    bail!("connections of {PORTS:?} come to {:?} only", ports.keys());
}

/// One of three nodes dies: its download goes on with the node that inherits, and those of the other two stay where they are, and do not wait.
#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_downloads_of_other_nodes_are_not_disturbed() -> Result<()> {
    let mut shop = shop_of_heirs(false, 1)?;
    let begin = |(node, port): (usize, u16)| {
        shop.download_to(&format!("came{node}"), SLOW, &["--local-port", &port.to_string()])
    };
    let mut downloads = ports(&shop)?.into_iter().map(begin).collect::<Result<Vec<_>>>()?;
    shop.goes_on_with(3)?;
    ensure!(shop.told()? == BTreeMap::from([(0, 1), (1, 1), (2, 1)]), "{:?}", shop.told()?);
    shop.goes_by_the_switch(&mut downloads[0])?;

    let mut others = downloads.split_off(1);
    let dies = &mut downloads[0];
    let _dead = shop.loses(0, dies)?;
    let (mut heirs, begun) = (BTreeMap::new(), Instant::now());
    while heirs.values().sum::<u64>() < 3 {
        ensure!(begun.elapsed() < SOON, "after {:?} nodes have told of {heirs:?}", begun.elapsed());
        let before: Vec<u64> = others.iter().map(Download::bytes).collect();
        std::thread::sleep(WINDOW);
        for (other, before) in others.iter_mut().zip(before) {
            other.runs()?;
            let came = other.bytes() - before;
            ensure!(came > 50_000, "{came} bytes came in {WINDOW:?} of a connection of a node that lives");
        }
        heirs = shop.told()?;
        heirs.remove(&0);
        let has = |node: usize| heirs.get(&node).is_some_and(|told| *told > 0);
        ensure!(has(1) && has(2), "a connection left its node, which lives: {heirs:?}");
    }
    eprintln!("nodes have told of {heirs:?} {:?} after one died", begun.elapsed());
    shop.goes_on_with(3)?;
    shop.goes_by_the_switch(dies)?;
    for download in downloads.into_iter().chain(others) {
        download.finish(&shop.crossing)?;
    }
    shop.goes_on_with(0)
}

families! {
    heir: namespace_p4_downloads_outlive_their_node_v4 namespace_p4_downloads_outlive_their_node_v6;
}
