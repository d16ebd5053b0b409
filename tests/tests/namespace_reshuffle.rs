//! Three balancers as one, and a router that sends connections to others of them in the middle of what they do.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use stickleback_tests::topology::crossing::{agrees, can_ask, join, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, Load, LoadPlan, SOON, ServiceConfig};

const NODES: usize = 3;
const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;
/// Bytes of a long download or upload, and how many a second.
const LONG: (usize, &str) = (4_000_000, "400K");

fn plain() -> SocketAddr {
    "10.99.0.1:80".parse().expect("an address")
}

fn cookies() -> SocketAddr {
    "10.99.0.2:8080".parse().expect("an address")
}

fn services(crossing: &Crossing, node: usize) -> Vec<ServiceConfig> {
    let plain = crossing.service(node, "plain", plain(), "nat").with("affinity = \"source-ip\"");
    vec![plain, crossing.service(node, "shop", cookies(), "nat").with(COOKIE)]
}

/// Addresses that connections to backends are made from, by node.
fn block(node: usize) -> String {
    format!("10.2.0.2{}", node + 1)
}

/// Nodes in a cluster that ask each other.
fn cluster(crossing: &Crossing) -> Result<Vec<Balancer>> {
    let of = |node| format!("{{ node = \"lb{}\", addresses = [\"{}\"] }}", node + 1, block(node));
    let blocks: Vec<String> = (0..NODES).map(of).collect();
    let text =
        format!("announce = {{ interface = \"lo\", lifetime = \"3s\" }}\nblock = [{}]\n", blocks.join(", "));
    let start = |node| crossing.balance(node, &crossing.config(node, &text, &services(crossing, node)));
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    join(&nodes[0], &nodes[2])?;
    for node in &nodes {
        can_ask(node, NODES - 1)?;
    }
    Ok(nodes)
}

/// How often something was counted.
fn outcome(node: &Balancer, name: &str) -> Result<u64> {
    let status = node.ask(&["status"])?;
    let rows = status["outcomes"].as_array().context("no outcomes")?;
    let row = rows.iter().find(|row| row["name"] == name || row["outcome"] == name);
    Ok(row.and_then(|row| row["packets"].as_u64().or(row["count"].as_u64())).unwrap_or(0))
}

/// A download and an upload through a service that take ten seconds each.
fn transfers(crossing: &Crossing, vip: SocketAddr) -> Result<Vec<std::process::Child>> {
    let file = crossing.directory().join("files/long");
    std::fs::write(&file, vec![b'x'; LONG.0])?;
    let curl = |arguments: &[&str]| -> Result<std::process::Child> {
        let mut command = crossing.client.command("curl")?;
        command.args(["-sS", "--fail", "-m", "120", "--limit-rate", LONG.1]).args(arguments);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let path = file.display().to_string();
    Ok(vec![
        curl(&["-o", "/dev/null", "-w", "%{size_download}", &format!("http://{vip}/files/long")])?,
        curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{size_upload}",
            "-T",
            &path,
            &format!("http://{vip}/put/{}", vip.port()),
        ])?,
    ])
}

/// Next hops leave and come back while clients talk: connections move from node to node, and none of them breaks.
#[test]
fn namespace_reshuffle_breaks_no_connection() -> Result<()> {
    let crossing = Crossing::of(NODES, 3)?;
    crossing.reshuffle(&[0, 1, 2])?;
    let mut nodes = cluster(&crossing)?;
    let clients = crossing.clients(40);
    let pause = Duration::from_millis(5);
    let plans = [
        LoadPlan { threads: 2, pause, ..LoadPlan::new(plain(), clients.clone()).kept_alive() },
        LoadPlan { threads: 2, pause, ..LoadPlan::new(cookies(), clients).with_cookie("SESS").kept_alive() },
    ];
    let running = plans.iter().map(|plan| Load::start(&crossing.client, plan)).collect::<Result<Vec<_>>>()?;
    running.iter().try_for_each(|load| load.reach(120))?;
    let mut transfers: Vec<_> = [plain(), cookies()]
        .into_iter()
        .map(|vip| transfers(&crossing, vip))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    for left in [[0, 1], [1, 2], [0, 2], [0, 1]] {
        crossing.reshuffle(&left)?;
        running.iter().try_for_each(|load| load.go_on(100))?;
        crossing.reshuffle(&[0, 1, 2])?;
        running.iter().try_for_each(|load| load.go_on(100))?;
    }
    // A daemon that is away leaves its flows, and others ask for them all the same.
    nodes[1].kill();
    for left in [&[0, 2][..], &[0, 1, 2], &[1]] {
        crossing.reshuffle(left)?;
        running.iter().try_for_each(|load| load.go_on(100))?;
    }
    nodes[1].restart()?;
    agrees(&nodes[1])?;
    can_ask(&nodes[1], NODES - 1)?;
    crossing.reshuffle(&[0, 1, 2])?;
    running.iter().try_for_each(|load| load.go_on(100))?;
    for load in running {
        load.finish()?.flawless(500)?;
    }
    for transfer in transfers.drain(..) {
        let output = transfer.wait_with_output()?;
        let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success() && told.trim() == LONG.0.to_string(),
            "{told} bytes, {}: {said}",
            output.status
        );
    }
    let mut sums = [0; 2];
    for node in &nodes {
        for (sum, name) in sums.iter_mut().zip(["asked", "visit-known"]) {
            *sum += outcome(node, name)?;
        }
    }
    ensure!(sums.iter().all(|sum| *sum > 100), "packets moved, and were not asked about: {sums:?}");
    Ok(())
}

/// A machine dies: what it alone knew ends with a reset and nothing else ends, one of the others has its addresses until it
/// is back.
#[test]
fn namespace_reshuffle_after_a_death() -> Result<()> {
    let crossing = Crossing::of(NODES, 3)?;
    crossing.reshuffle(&[0, 1, 2])?;
    let mut nodes = cluster(&crossing)?;
    let clients = crossing.clients(30);
    let pause = Duration::from_millis(5);
    let plan = LoadPlan {
        threads: 3,
        pause,
        ..LoadPlan::new(cookies(), clients.clone()).with_cookie("SESS").kept_alive()
    };
    let load = Load::start(&crossing.client, &plan)?;
    load.reach(150)?;
    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1, 2])?;
    for node in &nodes[1..] {
        can_ask(node, 1)?;
    }
    let heirs = || -> Result<Vec<usize>> {
        let has = |node: &usize| {
            let shown = crossing.machines[*node].sh("ip -o addr show dev lo")?;
            Ok(shown.contains(&format!("{}/32", block(0))).then_some(*node))
        };
        [1, 2].iter().map(has).filter_map(Result::transpose).collect()
    };
    eventually(SOON, || {
        let found = heirs()?;
        ensure!(found.len() == 1, "nodes {found:?} have the addresses of the dead one");
        crossing.told(&[block(0)], found[0])
    })?;
    load.go_on(300)?;
    crossing.revive(0, &mut nodes[0])?;
    agrees(&nodes[0])?;
    eventually(SOON, || {
        let found = heirs()?;
        ensure!(found.is_empty(), "nodes {found:?} still have the addresses of the one that is back");
        crossing.told(&[block(0)], 0)
    })?;
    for node in &nodes {
        can_ask(node, NODES - 1)?;
    }
    crossing.reshuffle(&[0, 1, 2])?;
    load.go_on(200)?;
    let report = load.finish()?;
    // Connections that the dead node had: each client has one.
    let most = clients.len() as u64;
    ensure!(report.moved == 0, "{} sessions moved", report.moved);
    ensure!(
        report.failed < most,
        "{} of {} failed, also such as other nodes had: {}",
        report.failed,
        report.requests,
        report.failures.join("; ")
    );
    Ok(())
}
