//! The `lbd` binary as a service manager meets it: exit statuses, signals, the socket. No network but the kernel's maps.

use anyhow::{Context, Result, ensure};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use stickleback_tests::topology::balancer::binary;
use stickleback_tests::topology::process::{Finished, Process, eventually, run};
use stickleback_tests::topology::{SOON, Topology};

const CONFIG: &str = "[node]\nbindings = 4096\nflows = 4096\n
[[service]]\nname = \"web\"\naddress = \"192.0.2.80\"\nport = 80\nmode = \"l2\"
[[service.backend]]\nname = \"be1\"\naddress = \"192.0.2.1\"\n";

/// Files and pins of one daemon.
struct Home {
    topology: Topology,
}

impl Home {
    fn new() -> Result<Self> {
        Ok(Self { topology: Topology::new()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.topology.directory().join(name)
    }

    fn write(&self, config: &str) -> Result<()> {
        std::fs::write(self.path("lb.toml"), config).context("writing the configuration")
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary("lbd")?);
        command.arg("--config").arg(self.path("lb.toml")).arg("--pin-root").arg(self.topology.pins());
        command.arg("--socket").arg(self.path("lbd.sock")).arg("--state-dir").arg(self.path("state"));
        Ok(command)
    }

    /// Runs a daemon that is to end by itself.
    fn refused(&self, arguments: &[&str]) -> Result<Finished> {
        run(self.command()?.args(arguments), SOON)
    }

    fn start(&self) -> Result<Process> {
        let mut process = Process::start(&mut self.command()?, &self.path("log"))?;
        eventually(SOON, || {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "lbd ended with {ended:?}: {}", process.log());
            self.ask().map(drop)
        })?;
        Ok(process)
    }

    fn ask(&self) -> Result<serde_json::Value> {
        let mut lbctl = Command::new(binary("lbctl")?);
        let asked =
            run(lbctl.arg("--socket").arg(self.path("lbd.sock")).args(["-o", "json", "status"]), SOON)?;
        ensure!(asked.status.success(), "lbctl: {}", asked.stderr);
        serde_json::from_str(&asked.stdout).context("lbctl prints JSON")
    }
}

#[test]
fn what_is_wrong_ends_it_with_a_status_and_leaves_no_trace() -> Result<()> {
    let home = Home::new()?;
    let missing = home.refused(&[])?;
    ensure!(missing.status.code() == Some(1) && missing.stderr.contains("lb.toml"), "{missing:?}");
    home.write("[node]\nbinding = 4096\n")?;
    let wrong = home.refused(&[])?;
    ensure!(wrong.status.code() == Some(1), "{wrong:?}");
    ensure!(wrong.stderr.contains("lb.toml") && wrong.stderr.contains("bindings"), "{wrong:?}");
    home.write(CONFIG)?;
    let interface = home.refused(&["--iface", "nosuch0"])?;
    ensure!(interface.status.code() == Some(1) && interface.stderr.contains("nosuch0"), "{interface:?}");
    let usage = home.refused(&["--mode", "fast"])?;
    ensure!(usage.status.code() == Some(2), "{usage:?}");
    ensure!(!home.topology.pins().exists(), "maps of a daemon that never ran are pinned");
    Ok(())
}

#[test]
fn signals_and_socket_are_as_service_managers_expect() -> Result<()> {
    let home = Home::new()?;
    home.write(CONFIG)?;
    let mut process = home.start()?;
    let socket = std::fs::metadata(home.path("lbd.sock"))?;
    ensure!(socket.file_type().is_socket(), "the admin socket is no socket");
    ensure!(socket.permissions().mode() & 0o777 == 0o660, "mode {:o}", socket.permissions().mode());

    let second = home.refused(&[])?;
    ensure!(second.status.code() == Some(1), "a second daemon runs beside the first: {second:?}");

    home.write(&CONFIG.replace("be1", "be2").replace("192.0.2.1\"", "192.0.2.2\""))?;
    process.signal(libc::SIGHUP);
    let reloads = |applied: u64, refused: u64| {
        eventually(SOON, || {
            let status = home.ask()?;
            let done = (status["reconciler"]["applied"].as_u64(), status["reconciler"]["failed"].as_u64());
            ensure!(done == (Some(applied), Some(refused)), "loads: {done:?}");
            Ok(())
        })
    };
    reloads(2, 0)?;
    home.write("[node")?;
    process.signal(libc::SIGHUP);
    reloads(2, 1)?;
    ensure!(home.ask()?["backends"] == 1, "a bad file changed what runs");

    let status = process.stop(SOON)?;
    ensure!(status.success(), "after SIGTERM: {status}; {}", process.log());
    ensure!(!home.path("lbd.sock").exists(), "the socket is left behind");
    ensure!(home.topology.pins().exists(), "the data plane did not go on");
    // What it left is taken over, broken file or not: that one is refused.
    ensure!(home.refused(&[])?.status.code() == Some(1), "a bad file was taken");
    home.write(CONFIG)?;
    let mut again = home.start()?;
    again.signal(libc::SIGINT);
    let status = again.wait(SOON)?;
    ensure!(status.success(), "after SIGINT: {status}");
    Ok(())
}
