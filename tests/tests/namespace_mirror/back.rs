//! A node that was dead comes back.

use crate::transfer::{Transfer, finish};
use crate::{CLIENT, OWN, OWN_V6, Row, block, cluster, counts, has_of, heir_of, mirror, vip};
use anyhow::{Result, ensure};
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Crossing, SOON};

/// Waits until these nodes have nothing of a block any more, and no backend thinks that it is elsewhere than with its new owner.
fn goes_over(crossing: &Crossing, of: usize, to: usize, from: &[usize]) -> Result<()> {
    eventually(SOON, || {
        for node in from {
            let held = has_of(crossing, *node, "l1", of)?;
            ensure!(held.is_empty(), "{node} still has {held:?}");
        }
        crossing.told(&block(of), to)
    })
}

/// Of so many nodes one that comes back gets what was its own, and its addresses: what the heir has carried meanwhile goes on.
fn give_back(count: usize) -> Result<()> {
    let rows = [OWN, &OWN_V6[..1], CLIENT].concat();
    let crossing = Crossing::of(count, 2)?;
    let others: Vec<usize> = (1..count).collect();
    crossing.answer_by_way_of(0)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, "l1", &rows)?;
    let mut transfers = Transfer::both(&crossing, &rows)?;
    let first = transfers.len();
    for node in &nodes[1..] {
        counts(node, "held", first, &mut transfers)?;
    }

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&others)?;
    let heir = heir_of(&crossing, 0, "l1", &others)?;
    counts(&nodes[heir], "adopted", first, &mut transfers)?;
    // Backends answer by way of the address that the heir has now: these connections come home, too.
    crossing.reshuffle(&[heir])?;
    let later = Transfer::both(&crossing, CLIENT)?;
    let home = first + later.len();
    transfers.extend(later);
    if count > 2 {
        counts(&nodes[heir], "mirrored", home, &mut transfers)?;
    } else {
        // There is nobody to whom the heir tells that they are of the age.
        std::thread::sleep(Duration::from_secs(3));
    }
    let adopted = |nodes: &[_]| nodes.iter().map(|node| mirror(node, "adopted")).collect::<Result<Vec<_>>>();
    let before = adopted(&nodes[1..])?;

    crossing.revive(0, &mut nodes[0])?;
    counts(&nodes[0], "adopted", home, &mut transfers)?;
    goes_over(&crossing, 0, 0, &others)?;
    crossing.reshuffle(&[0])?;
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    finish(&crossing, transfers)?;
    ensure!(adopted(&nodes[1..])? == before, "another node took what went back");
    Ok(())
}

#[test]
fn namespace_mirror_gives_back() -> Result<()> {
    give_back(2)
}

#[test]
fn namespace_mirror_gives_back_among_three() -> Result<()> {
    give_back(3)
}

/// One node of three is dead for good when its heir dies, too, and comes back: with its own addresses that gets those of the dead one
/// again, and goes on with the connections of both.
#[test]
fn namespace_mirror_gives_back_while_a_third_node_is_dead() -> Result<()> {
    const DEAD: usize = 2;
    let rows: Vec<Row> = [OWN, &OWN_V6[..1], CLIENT].concat();
    let own: Vec<Row> = [OWN, &OWN_V6[..1]].concat();
    let crossing = Crossing::of(3, 2)?;
    crossing.reshuffle(&[DEAD])?;
    let mut nodes = cluster(&crossing, "l1", &rows)?;
    let mut transfers = Transfer::both(&crossing, &own)?;
    let first = transfers.len();
    for node in &nodes[..DEAD] {
        counts(node, "held", first, &mut transfers)?;
    }
    crossing.kill(DEAD, &mut nodes[DEAD])?;
    crossing.reshuffle(&[0, 1])?;
    let heir = heir_of(&crossing, DEAD, "l1", &[0, 1])?;
    let last = 1 - heir;
    counts(&nodes[heir], "adopted", first, &mut transfers)?;

    crossing.answer_by_way_of(heir)?;
    crossing.reshuffle(&[heir])?;
    transfers.extend(Transfer::both(&crossing, &rows)?);
    let all = transfers.len();
    // What the dead node has told itself is held, too.
    counts(&nodes[last], "held", first + all, &mut transfers)?;
    crossing.kill(heir, &mut nodes[heir])?;
    crossing.reshuffle(&[last])?;
    counts(&nodes[last], "adopted", all, &mut transfers)?;
    for of in [heir, DEAD] {
        ensure!(heir_of(&crossing, of, "l1", &[last])? == last);
    }

    crossing.revive(heir, &mut nodes[heir])?;
    counts(&nodes[heir], "adopted", all, &mut transfers)?;
    ensure!(heir_of(&crossing, DEAD, "l1", &[heir])? == heir);
    goes_over(&crossing, heir, heir, &[last])?;
    goes_over(&crossing, DEAD, heir, &[last])?;
    crossing.reshuffle(&[heir])?;
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    finish(&crossing, transfers)
}

/// A standby that restarts holds copies of what the active node has had all the time, and takes nothing of it into its tables.
#[test]
fn namespace_mirror_standby_that_restarts_has_copies_alone() -> Result<()> {
    const ACTIVE: usize = 1;
    let crossing = Crossing::new(2)?;
    crossing.answer_by_way_of(ACTIVE)?;
    crossing.reshuffle(&[ACTIVE])?;
    let mut nodes = cluster(&crossing, "l1", &[&OWN[..1], CLIENT].concat())?;
    // What is there when the active node first finds all nodes connected, it might have from any of them.
    let mut transfers = vec![Transfer::start(&crossing, vip(&OWN[0])?, false)?];
    counts(&nodes[ACTIVE], "mirrored", 1, &mut transfers)?;
    transfers.extend(Transfer::both(&crossing, CLIENT)?);
    let count = transfers.len();
    counts(&nodes[0], "held", count, &mut transfers)?;
    // What begins less than ten seconds before it is missed might have gone to it.
    std::thread::sleep(Duration::from_secs(10));
    crossing.kill(0, &mut nodes[0])?;
    ensure!(heir_of(&crossing, 0, "l1", &[ACTIVE])? == ACTIVE);

    crossing.revive(0, &mut nodes[0])?;
    counts(&nodes[0], "held", count, &mut transfers)?;
    goes_over(&crossing, 0, 0, &[ACTIVE])?;
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    finish(&crossing, transfers)?;
    ensure!(mirror(&nodes[0], "adopted")? == 0, "the standby took what had not been its own");
    Ok(())
}
