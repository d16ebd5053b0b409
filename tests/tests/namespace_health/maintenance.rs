//! An administrator takes a backend out.

use super::farm::Farm;
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Process, load};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Draining keeps sessions until the deadline, then they are moved where the order says, all at once.
#[test]
fn namespace_health_drain_waits_until_the_deadline() -> Result<()> {
    let farm = Farm::new("health = \"tcp\"")?;
    farm.bind()?;
    let before = farm.sessions()?;
    let begun = Instant::now();
    let row = farm.balancer.ask(&["drain", "web", "be2", "--wait", "--deadline", "2"])?;
    ensure!(begun.elapsed() >= Duration::from_secs(2), "it did not wait: {:?}", begun.elapsed());
    ensure!(row["admin"] == "disabled" && row["state"] == "down", "{row}");
    let moved = eventually(Duration::from_secs(5), || farm.holds(&before, &farm.sessions()?, "be2"))?;
    println!("{moved} sessions moved");
    // Nothing is left: the wait ends at once.
    farm.balancer.ctl(&["undrain", "web", "be2"])?;
    let answers = farm.everybody()?;
    ensure!(!answers.values().any(|backend| backend == "be2"), "sessions went back by themselves");
    Ok(())
}

/// One line of what `lbctl drain --wait` shows.
#[derive(Debug)]
struct Shown {
    sessions: usize,
    connections: usize,
    /// Pieces of the bar that are full.
    bar: usize,
    /// What stands behind the numbers.
    rest: String,
}

/// Everything that stood on the terminal so far, line by line.
fn shown(terminal: &Process) -> Vec<Shown> {
    let text = terminal.log();
    let read = |line: &str| {
        let (front, rest) = line.split_once(" connections left, ")?;
        let (bar, numbers) = front.split_once("] ")?;
        let (sessions, connections) = numbers.split_once(" sessions and ")?;
        let (sessions, connections) = (sessions.parse().ok()?, connections.parse().ok()?);
        let bar = bar.split_once('[')?.1.matches('=').count();
        // What the terminal is told besides.
        let rest = rest.split('\x1b').next().unwrap_or_default().trim_end().to_owned();
        Some(Shown { sessions, connections, bar, rest })
    };
    text.split(['\r', '\n']).filter_map(read).collect()
}

/// Whoever waits sees how many sessions and connections are left, how far it is, and about how long it takes; then the rest is cut off.
#[test]
fn namespace_health_drain_shows_what_is_left() -> Result<()> {
    /// Sessions that are moved a second.
    const RATE: usize = 20;
    let farm = Farm::with_limits("health = \"tcp\"", &format!("drain-rate = {RATE}"))?;
    let answers = farm.everybody()?;
    let theirs = answers.iter().filter(|(_, backend)| *backend == "be2");
    let theirs: Vec<IpAddr> = theirs.map(|(client, _)| client.parse()).collect::<Result<_, _>>()?;
    ensure!(theirs.len() > RATE, "be2 has {} of {} sessions", theirs.len(), answers.len());
    let hold = |clients| load::hold(&farm.site.client, farm.site.directory(), farm.vip, clients);
    let ((mut first, _), (_second, _)) = (hold(&theirs[..6])?, hold(&theirs[6..12])?);

    let drain = ["drain", "web", "be2", "--wait", "--deadline", "8"];
    let mut terminal =
        farm.balancer.start_ctl_on_a_terminal(&drain, &farm.site.directory().join("terminal.log"))?;
    let begun = Instant::now();
    let seen = |sessions: usize, connections: usize| {
        eventually(PATIENCE, || {
            let all = shown(&terminal);
            let line =
                all.into_iter().find(|line| (line.sessions, line.connections) == (sessions, connections));
            line.with_context(|| format!("nobody saw {sessions} and {connections} left: {}", terminal.log()))
        })
    };
    let start = seen(theirs.len(), 12)?;
    ensure!(start.bar == 0 && start.rest == "no end in sight yet", "{start:?}");
    first.kill();
    let later = seen(theirs.len(), 6)?;
    // Six of all in a few seconds.
    ensure!(later.bar > 0 && later.rest.starts_with("about "), "{later:?}");

    let status = terminal.wait(PATIENCE)?;
    let (took, all) = (begun.elapsed(), shown(&terminal));
    ensure!(status.success(), "{status}: {}", terminal.log());
    let moving = format!("; the deadline has come, at most {RATE} sessions a second are moved");
    let moving: Vec<&Shown> = all.iter().filter(|line| line.rest.ends_with(&moving)).collect();
    let left: Vec<usize> = moving.iter().map(|line| line.sessions).collect();
    ensure!(left.is_sorted_by(|before, after| before >= after) && left.last() == Some(&0), "{left:?}");
    ensure!(left.iter().any(|left| (1..theirs.len()).contains(left)), "nobody saw them go: {left:?}");
    let estimate = format!("about {}s;", left[0] / RATE);
    ensure!(moving[0].rest.starts_with(&estimate), "{estimate} was due, not {:?}", moving[0]);
    let least =
        Duration::from_secs(8) + Duration::from_secs_f64((theirs.len() - RATE / 10) as f64 / RATE as f64);
    ensure!(took + Duration::from_millis(200) >= least, "{} left within {took:?}", theirs.len());
    ensure!(moving.last().is_some_and(|line| line.bar > later.bar), "the bar does not grow: {all:?}");
    let end = "the deadline has come: what is left is cut off";
    ensure!(terminal.log().contains(end), "not the end: {}", terminal.log());
    ensure!(farm.backend(1)?["admin"] == "disabled");
    Ok(())
}

/// Without a deadline it takes until the last session has ended.
#[test]
fn namespace_health_drain_waits_for_the_last_session() -> Result<()> {
    let farm = Farm::new("lifetime = \"10s\"\nhealth = \"tcp\"")?;
    farm.bind()?;
    let log = farm.site.directory().join("terminal.log");
    let mut terminal = farm.balancer.start_ctl_on_a_terminal(&["drain", "web", "be2", "--wait"], &log)?;
    let status = terminal.wait(PATIENCE)?;
    ensure!(status.success() && terminal.log().contains("nothing is left"), "{status}: {}", terminal.log());
    ensure!(shown(&terminal).first().is_some_and(|line| line.sessions > 0), "{}", terminal.log());
    ensure!(!farm.sessions()?.values().any(|(backend, _)| backend == "be2"), "sessions are left");
    ensure!(farm.backend(1)?["admin"] == "draining", "{}", farm.backend(1)?);
    Ok(())
}

/// For maintenance all sessions leave at once, each to where the order says.
#[test]
fn namespace_health_maintenance_moves_everybody_at_once() -> Result<()> {
    let farm = Farm::new("health = \"tcp\"")?;
    farm.bind()?;
    let before = farm.sessions()?;
    farm.balancer.ctl(&["maintenance", "web", "be2"])?;
    let moved = eventually(Duration::from_secs(5), || farm.holds(&before, &farm.sessions()?, "be2"))?;
    println!("{moved} sessions moved");
    let answers = farm.everybody()?;
    ensure!(!answers.values().any(|backend| backend == "be2"), "be2 serves during maintenance");
    farm.balancer.ctl(&["undrain", "web", "be2"])?;
    ensure!(farm.everybody()? == answers, "sessions went back by themselves");
    Ok(())
}
