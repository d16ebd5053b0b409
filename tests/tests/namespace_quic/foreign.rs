//! A client that is not quinn: aioquic.

use super::server::{Ids, NAME};
use super::{FOUR, PORT, Stage, vip};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// The interpreter that `cargo xtask setup` gives the peers that tests need.
fn python() -> Result<std::path::PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    ensure!(python.exists(), "{} is missing: run `cargo xtask setup` first", python.display());
    Ok(python)
}

fn moves(mode: &'static str, ids: Ids) -> Result<()> {
    let stage = Stage::new(mode, ids)?;
    let script = stage.site.directory().join("aioquic_client.py");
    std::fs::write(&script, include_str!("aioquic_client.py"))?;
    for v6 in [false, true] {
        let places = stage.site.clients(v6, 2);
        let (python, script, server) = (python()?, script.display(), vip(v6).ip());
        let command =
            format!("{} {script} {server} {PORT} {NAME} {} {}", python.display(), places[0], places[1]);
        let said = stage.site.client.sh_within(&command, Duration::from_secs(60))?;
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split(' ').collect()).collect();
        ensure!(lines.len() == 9, "{said}");
        let first = lines.first().context("no line")?;
        for (line, size) in lines.iter().zip(["1", "60000", "10"].into_iter().cycle()) {
            let [_, _, server, connection, _, received] = line[..] else { anyhow::bail!("{line:?}") };
            ensure!((server, connection, received) == (first[2], first[3], size), "{said}");
        }
        // By its last question in each place the server must know where the client is.
        for line in lines.iter().skip(2).step_by(3) {
            let seen: std::net::SocketAddr = line[4].parse()?;
            ensure!(
                (seen.ip().to_string(), seen.port().to_string()) == (line[0].into(), line[1].into()),
                "{said}"
            );
        }
    }
    Ok(())
}

#[test]
fn namespace_quic_aioquic_moves_nat() -> Result<()> {
    moves("nat", FOUR)
}

#[test]
fn namespace_quic_aioquic_moves_l2() -> Result<()> {
    moves("l2", FOUR)
}
