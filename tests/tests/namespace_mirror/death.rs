//! A node dies, and others go on.

use crate::transfer::{Transfer, finish};
use crate::{ALONE, CLIENT, OWN, OWN_V6, PLAIN, Row, Source, cluster, counts, heir_of, mirror, vip};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use stickleback_tests::topology::Crossing;
use stickleback_tests::topology::crossing::agrees;

/// Transfers of these services that are older than the age go on, byte by byte, when their node dies; others do not.
fn survive(crossing: &Crossing, interface: &str, rows: &[Row]) -> Result<()> {
    let alone: Row = ("10.99.0.99:80", Source::Own, ALONE);
    let all: Vec<Row> = rows.iter().copied().chain([alone]).collect();
    let others: Vec<usize> = (1..crossing.machines.len()).collect();
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(crossing, interface, &all)?;
    let mut mirrored = Transfer::both(crossing, rows)?;
    // Who only waits for bytes would not hear that there will be none.
    let mut other = Transfer::start(crossing, vip(&alone)?, true)?;
    let count = mirrored.len();
    for node in &nodes[1..] {
        counts(node, "held", count, &mut mirrored)?;
    }
    counts(&nodes[0], "mirrored", count, &mut mirrored)?;
    std::thread::sleep(Duration::from_secs(2));
    other.runs()?;

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&others)?;
    let heir = heir_of(crossing, 0, interface, &others)?;
    crossing.route_block(0, heir)?;
    // Where backends answer to their clients, whoever gets an answer must know its connection.
    let anywhere = 2 * rows.iter().filter(|(_, source, _)| matches!(source, Source::Client)).count();
    for n in &others {
        counts(&nodes[*n], "adopted", if *n == heir { count } else { anywhere }, &mut mirrored)?;
    }
    finish(crossing, mirrored)?;
    ensure!(other.finish(crossing).is_err(), "who is not mirrored does not survive");
    // What ended is not held for ever, but a third node that took it over, too, need not have seen its end.
    if anywhere > 0 && others.len() > 1 {
        return Ok(());
    }
    counts(&nodes[heir], "held", 0, &mut [])
}

#[test]
fn namespace_mirror_transfers_survive_their_node() -> Result<()> {
    survive(&Crossing::new(2)?, "lo", OWN)
}

/// Over IPv6, and where backends answer to their clients by way of an address that the heir takes over with the connections.
#[test]
fn namespace_mirror_transfers_survive_where_addresses_are_on_an_interface() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.answer_by_way_of(0)?;
    let routed = [("[fd99::3]:80", Source::Routed, PLAIN)];
    survive(&crossing, "l1", &[OWN_V6, &routed, CLIENT].concat())
}

/// Backends answer to their clients by way of the dead node's address: two know the connections, and the heir has the address.
#[test]
fn namespace_mirror_without_source_nat_goes_on_among_three() -> Result<()> {
    let crossing = Crossing::of(3, 2)?;
    crossing.answer_by_way_of(0)?;
    survive(&crossing, "l1", CLIENT)
}

/// Of three nodes the one that inherits a dead one's addresses goes on with what that had; what it had itself goes on, and what the
/// third one has.
fn one_heir(interface: &str, rows: &[Row]) -> Result<()> {
    let crossing = Crossing::of(3, 2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, interface, rows)?;
    let mut transfers = Vec::new();
    let each = 2 * rows.len();
    for (n, node) in nodes.iter().enumerate() {
        crossing.reshuffle(&[n])?;
        transfers.extend(Transfer::both(&crossing, rows)?);
        // Before they may go elsewhere they are this node's.
        counts(node, "mirrored", each, &mut transfers)?;
    }
    crossing.reshuffle(&[0, 1, 2])?;
    for node in &nodes {
        counts(node, "held", 2 * each, &mut transfers)?;
    }

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1, 2])?;
    let heir = heir_of(&crossing, 0, interface, &[1, 2])?;
    counts(&nodes[heir], "adopted", each, &mut transfers)?;
    finish(&crossing, transfers)?;
    ensure!(mirror(&nodes[3 - heir], "adopted")? == 0, "two nodes took connections over");
    Ok(())
}

#[test]
fn namespace_mirror_has_one_heir_among_three() -> Result<()> {
    one_heir("lo", OWN)
}

#[test]
fn namespace_mirror_has_one_heir_among_three_over_ipv6() -> Result<()> {
    one_heir("l1", OWN_V6)
}

/// What ends is forgotten by those who hold it, and while a node lives nobody else touches its connections.
#[test]
fn namespace_mirror_is_of_what_runs() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, "lo", OWN)?;
    let downloads = OWN.iter().map(|row| Transfer::start(&crossing, vip(row)?, false));
    let mut transfers = downloads.collect::<Result<Vec<_>>>()?;
    counts(&nodes[1], "held", 2, &mut transfers)?;
    // The daemon alone dies: packets go on, and the other node keeps its hands off.
    nodes[0].kill();
    std::thread::sleep(Duration::from_secs(12));
    ensure!(mirror(&nodes[1], "adopted")? == 0, "its node lives");
    nodes[0].restart()?;
    agrees(&nodes[0])?;
    counts(&nodes[1], "held", 2, &mut transfers)?;
    // A reset or FIN says it.
    for left in [1, 0] {
        transfers.pop().context("a transfer for each service")?.abort()?;
        counts(&nodes[1], "held", left, &mut transfers)?;
    }
    Ok(())
}
