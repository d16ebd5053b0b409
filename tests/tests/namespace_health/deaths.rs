//! One backend dies, each time in another way, and is out in less than a second of the kernel's clock.

use super::farm::Farm;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use lb_common::abi::{Status, map};
use std::thread::sleep;
use std::time::{Duration, Instant};
use stickleback_tests::topology::Precedence;
use stickleback_tests::topology::process::eventually;

/// How long a backend that died may go on getting sessions with the default settings.
const IN_TIME: Duration = Duration::from_secs(1);
/// When nobody has found out, nobody will.
const NEVER: Duration = Duration::from_secs(20);

/// The default check.
const TCP: &str = "health = \"tcp\"";
/// A request, for what a connection does not show.
const HTTP: &str = "health = { kind = \"http\", path = \"/whoami\" }";
/// The backend that dies.
const VICTIM: usize = 1;

/// A backend's place in the kernel's table, by which the program on the interfaces chooses for every packet.
struct Place {
    table: Array<MapData, u64>,
    slot: u16,
}

impl Place {
    fn of(farm: &Farm, n: usize) -> Result<Self> {
        let path = farm.balancer.pins().join("maps").join(map::STATUS);
        let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let row = farm.backend(n)?;
        let slot = row["slot"].as_u64().with_context(|| format!("no slot in {row}"))?;
        Ok(Self { table: Array::try_from(aya::maps::Map::Array(data))?, slot: slot.try_into()? })
    }

    fn is_used(&self) -> Result<bool> {
        let word = self.table.get(&Status::word(self.slot), 0)?;
        Ok(Status::serves(word, self.slot) || Status::accepts(word, self.slot))
    }
}

/// Kills the victim: how long it takes until the kernel sends neither new nor bound sessions there any more.
///
/// Nobody sends anything meanwhile that could tell of the death. The clock starts before the death, and the time it takes to kill counts.
fn time_of_death(farm: &mut Farm, kill: impl FnOnce(&mut Farm) -> Result<()>) -> Result<Duration> {
    let place = Place::of(farm, VICTIM)?;
    ensure!(place.is_used()?, "it was out before");
    let begun = Instant::now();
    kill(farm)?;
    while place.is_used()? {
        ensure!(begun.elapsed() < NEVER, "nobody has found out:\n{}", farm.balancer.log());
        sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    println!("out after {took:?}");
    Ok(took)
}

/// Kills the victim and lets it live again: it is out in time, exactly its sessions move, each to where the order says, and none comes
/// back.
fn dies(
    lines: &str,
    kill: impl FnOnce(&mut Farm) -> Result<()>,
    heal: impl FnOnce(&mut Farm) -> Result<()>,
) -> Result<()> {
    let _precedence = Precedence::take()?;
    let mut farm = Farm::new(lines)?;
    farm.bind()?;
    let before = farm.sessions()?;
    let took = time_of_death(&mut farm, kill)?;
    ensure!(took < IN_TIME, "a dead backend was used for {took:?}");
    farm.wait_for(VICTIM, "down")?;
    // No packet has come since: the daemon has moved the sessions itself.
    let name = farm.site.backends[VICTIM].name.clone();
    let (moved, after) = eventually(Duration::from_secs(5), || {
        let after = farm.sessions()?;
        Ok((farm.holds(&before, &after, &name)?, after))
    })?;
    println!("{moved} sessions moved");
    let answers = farm.everybody()?;
    ensure!(!answers.values().any(|backend| *backend == name), "{name} is dead and answers");
    heal(&mut farm)?;
    farm.wait_for(VICTIM, "healthy")?;
    ensure!(farm.everybody()? == answers, "sessions went back by themselves");
    let last = farm.sessions()?;
    for (key, session) in &after {
        ensure!(last.get(key) == Some(session), "{key} was {session:?} and is {:?}", last.get(key));
    }
    Ok(())
}

fn restart(farm: &mut Farm) -> Result<()> {
    let server = farm.site.web(VICTIM)?;
    *farm.site.server(VICTIM) = server;
    Ok(())
}

fn signal(signal: i32) -> impl FnOnce(&mut Farm) -> Result<()> {
    move |farm| {
        farm.site.server(VICTIM).signal(signal);
        Ok(())
    }
}

#[test]
fn namespace_health_killed() -> Result<()> {
    let kill = |farm: &mut Farm| {
        farm.site.server(VICTIM).kill();
        Ok(())
    };
    dies(TCP, kill, restart)
}

#[test]
fn namespace_health_stopped() -> Result<()> {
    dies(HTTP, signal(libc::SIGSTOP), signal(libc::SIGCONT))
}

/// Whenever it dies: right after a probe or right before one, and in between.
#[test]
fn namespace_health_stopped_at_any_moment() -> Result<()> {
    let _precedence = Precedence::take()?;
    let mut farm = Farm::new(HTTP)?;
    let mut longest = Duration::ZERO;
    for step in 0..8 {
        // Eight steps make up an interval.
        sleep(Duration::from_millis(400 + 50 * step));
        let took = time_of_death(&mut farm, signal(libc::SIGSTOP))?;
        ensure!(took < IN_TIME, "a backend that stopped was used for {took:?}");
        longest = longest.max(took);
        farm.site.server(VICTIM).signal(libc::SIGCONT);
        farm.wait_for(VICTIM, "healthy")?;
    }
    println!("at most {longest:?}");
    Ok(())
}

/// What the others measure does show when it takes too long: here two answers are waited for, each for 600 ms.
#[test]
fn namespace_health_stopped_is_late_with_long_timeouts() -> Result<()> {
    let _precedence = Precedence::take()?;
    let patient =
        "health = { kind = \"http\", path = \"/whoami\", interval = \"700ms\", timeout = \"600ms\" }";
    let mut farm = Farm::new(patient)?;
    let took = time_of_death(&mut farm, signal(libc::SIGSTOP))?;
    ensure!(took >= Duration::from_millis(1_200), "out after {took:?}, before anybody could know");
    Ok(())
}

#[test]
fn namespace_health_unplugged() -> Result<()> {
    let unplug = |farm: &mut Farm| farm.site.backends[VICTIM].namespace.sh("ip link set eth0 down").map(drop);
    let plug = |farm: &mut Farm| {
        let gateway = format!("10.2.{}.1", VICTIM + 1);
        let line = format!("ip link set eth0 up; ip route add default via {gateway}");
        farm.site.backends[VICTIM].namespace.sh(&line).map(drop)
    };
    dies(TCP, unplug, plug)
}

#[test]
fn namespace_health_garbage() -> Result<()> {
    let garble = |farm: &mut Farm| {
        farm.site.server(VICTIM).kill();
        let script = farm.site.directory().join("garbage.py");
        std::fs::write(&script, include_str!("garbage.py"))?;
        let log = farm.site.directory().join("garbage.log");
        let script = script.display().to_string();
        let server = farm.site.backends[VICTIM].namespace.start(&["python3", &script, "8080"], &log)?;
        *farm.site.server(VICTIM) = server;
        Ok(())
    };
    let heal = |farm: &mut Farm| {
        farm.site.server(VICTIM).kill();
        restart(farm)
    };
    dies(HTTP, garble, heal)
}
