//! Bad cables: every segment to and from everybody may be lost, doubled or overtaken.

use super::{COOKIE, Shop, is_long};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use stickleback_tests::topology::server::{self, in_url};
use stickleback_tests::topology::{Arms, BadCable, Faults, Testbed};

/// One client: some connections, each with several requests.
const CLIENT: &str = include_str!("client.sh");

/// What clients do.
struct Plan {
    /// Share of segments that each cable loses, doubles and swaps.
    rate: f64,
    v6: bool,
    sessions: u32,
    connections: u32,
    /// Size of what each connection fetches and stores.
    bytes: u64,
    patience: Duration,
}

/// Every byte arrives, no connection moves, and a session only where its backend was silent.
fn through_bad_cables(plan: &Plan) -> Result<()> {
    let shop = Shop::new(Arms::One, plan.v6, COOKIE)?;
    let (switch, ports) = shop.site.switch_ports().context("one arm has a switch")?;
    let mut cables = Vec::new();
    for (seed, port) in (0x5eed_u64..).zip(&ports) {
        let faults = Faults { lose: plan.rate, double: plan.rate / 2.0, swap: plan.rate / 2.0, seed };
        cables.push((Testbed::pass(&switch, port)?, BadCable::new(&switch, port, faults)?));
    }
    let (directory, sent) = (shop.site.directory(), shop.site.files().join("sent"));
    server::file(&sent, plan.bytes)?;
    let script = directory.join("client.sh");
    std::fs::write(&script, CLIENT)?;
    let line = format!(
        "seq {} | xargs -P 12 -n 1 sh {} http://{} {} {} {}",
        plan.sessions,
        script.display(),
        in_url(shop.vip.ip()),
        sent.display(),
        plan.connections,
        plan.patience.as_secs()
    );
    let begun = Instant::now();
    let said = shop.site.client.sh_within(&line, plan.patience)?;
    let took = begun.elapsed();

    // Whose connections each session had, one after the other.
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in said.lines() {
        let mut words = line.split(' ');
        let session = words.next().context("an empty line")?;
        let (answers, end) = line.rsplit_once(' ').context("a line of one word")?;
        ensure!(end == "whole", "{line}");
        // Three requests on one connection.
        let backends: Vec<&str> = answers.split(' ').skip(1).collect();
        ensure!(backends.len() == 3 && backends.iter().all(|it| *it == backends[0]), "it moved: {line}");
        owners.entry(session).or_default().push(backends[0]);
    }
    let lines = plan.sessions * plan.connections;
    ensure!(said.lines().count() == lines as usize, "not {lines} lines:\n{said}");
    let sent = std::fs::read(&sent)?;
    for (session, owners) in &owners {
        for (connection, owner) in (1..).zip(owners) {
            let received = std::fs::read(shop.site.received(owner, &format!("{session}-{connection}")))?;
            ensure!(received == sent, "{} bytes of session {session} came as others", sent.len());
        }
    }
    // A backend that two SYNs in a row did not get through to, or its answers back, is passed over like a dead one.
    let moves = owners.values().flat_map(|owners| owners.windows(2)).filter(|two| two[0] != two[1]).count();
    let silent = shop.outcome("backend-silent")?;
    ensure!(moves as u64 <= silent, "{moves} moves of sessions, and {silent} silent backends:\n{said}");
    let mut sum = [0; 4];
    for (_, cable) in &cables {
        for (sum, one) in sum.iter_mut().zip(cable.done()?) {
            *sum += one;
        }
    }
    let [seen, lost, doubled, swapped] = sum;
    println!(
        "{} % in {took:?}: {seen} segments, {lost} lost, {doubled} doubled, {swapped} swapped; {} sent again, {silent} silent, {moves} moved, {} not held, {} early",
        plan.rate * 100.0,
        shop.outcome("turned-round")?,
        shop.outcome("not-held")?,
        shop.outcome("early")?
    );
    ensure!(seen > 0 && (lost > 0) == (plan.rate > 0.0), "{seen} segments, {lost} lost");
    Ok(())
}

fn small(rate: f64, v6: bool) -> Result<()> {
    let plan =
        Plan { rate, v6, sessions: 24, connections: 2, bytes: 30_000, patience: Duration::from_secs(40) };
    through_bad_cables(&plan)
}

#[test]
fn namespace_cookie_loss_none() -> Result<()> {
    small(0.0, false)
}

#[test]
fn namespace_cookie_loss_1() -> Result<()> {
    small(0.01, true)
}

#[test]
fn namespace_cookie_loss_5() -> Result<()> {
    small(0.05, false)
}

/// One segment in five at every hop.
#[test]
fn namespace_cookie_loss_20() -> Result<()> {
    let patience = Duration::from_secs(240);
    through_bad_cables(&Plan { rate: 0.2, v6: true, sessions: 12, connections: 1, bytes: 4_000, patience })
}

/// More traffic at every rate.
#[test]
fn namespace_cookie_loss_long() -> Result<()> {
    if !is_long() {
        return Ok(());
    }
    for (rate, v6, bytes) in
        [(0.0, true, 1_000_000), (0.01, false, 300_000), (0.05, true, 100_000), (0.2, false, 8_000)]
    {
        let patience = Duration::from_secs(300);
        through_bad_cables(&Plan { rate, v6, sessions: 48, connections: 3, bytes, patience })
            .with_context(|| format!("{} %", rate * 100.0))?;
    }
    Ok(())
}
