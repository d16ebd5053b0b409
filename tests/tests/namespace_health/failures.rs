//! One backend dies, each time in another way.

use super::farm::{FOUND_OUT, Farm};
use anyhow::{Result, ensure};
use std::time::{Duration, SystemTime};
use stickleback_tests::topology::process::eventually;

/// The default check.
const TCP: &str = "health = \"tcp\"";
/// A request, for what a connection does not show.
const HTTP: &str = "health = { kind = \"http\", path = \"/whoami\" }";
/// The backend that dies.
const VICTIM: usize = 1;

/// Kills the victim and lets it live again: it is found out in time, exactly its sessions move, each to where the order says, and
/// none comes back.
fn dies(
    lines: &str,
    kill: impl FnOnce(&mut Farm) -> Result<()>,
    heal: impl FnOnce(&mut Farm) -> Result<()>,
) -> Result<()> {
    let mut farm = Farm::new(lines)?;
    farm.bind()?;
    let before = farm.sessions()?;
    let since = SystemTime::now();
    kill(&mut farm)?;
    farm.wait_for(VICTIM, "down")?;
    let took = farm.found_out(VICTIM, since)?;
    // No packet has come since: the daemon has moved the sessions itself.
    let name = farm.site.backends[VICTIM].name.clone();
    let (moved, after) = eventually(Duration::from_secs(5), || {
        let after = farm.sessions()?;
        Ok((farm.holds(&before, &after, &name)?, after))
    })?;
    println!("found out after {took:?}; {moved} sessions moved");
    ensure!(took < FOUND_OUT, "a dead backend was found out after {took:?}");
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
    let signal = |signal: i32| {
        move |farm: &mut Farm| {
            farm.site.server(VICTIM).signal(signal);
            Ok(())
        }
    };
    dies(HTTP, signal(libc::SIGSTOP), signal(libc::SIGCONT))
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

/// A backend that comes and goes: its sessions leave once and stay away, others never move.
#[test]
fn namespace_health_flapping() -> Result<()> {
    let farm = Farm::new(TCP)?;
    farm.bind()?;
    let before = farm.sessions()?;
    let victim = &farm.site.backends[VICTIM];
    victim
        .namespace
        .sh("nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }'")?;
    for _ in 0..4 {
        victim.namespace.sh("nft add rule inet f in tcp dport 8080 reject with tcp reset")?;
        std::thread::sleep(Duration::from_millis(900));
        victim.namespace.sh("nft flush chain inet f in")?;
        std::thread::sleep(Duration::from_millis(300));
    }
    farm.wait_for(VICTIM, "healthy")?;
    let after = eventually(Duration::from_secs(5), || {
        let after = farm.sessions()?;
        farm.holds(&before, &after, &victim.name)?;
        Ok(after)
    })?;
    farm.everybody()?;
    ensure!(farm.sessions()?.keys().eq(after.keys()), "sessions were lost");
    // New sessions go there again.
    let log = farm.balancer.log();
    let (downs, ups) = (log.matches("backend is down").count(), log.matches("backend is up").count());
    println!("down {downs} times, up {ups} times");
    ensure!((1..=4).contains(&downs) && ups <= downs, "down {downs} times, up {ups} times");
    Ok(())
}
