//! A network namespace by name.

use super::process::{Finished, Process, run};
use super::{NAMESPACES, SOON};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A network namespace; whoever made it removes it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with settings that suit tests: no source validation, no redirects, no address checks.
    pub(super) fn create(name: &str) -> Result<Self> {
        let made = Self { name: name.to_owned() };
        let add = run(Command::new("ip").args(["netns", "add", name]), SOON)?;
        ensure!(add.status.success(), "ip netns add {name}: {}", add.stderr.trim());
        made.sh("ip link set lo up")?;
        for setting in [
            "ipv4/conf/all/rp_filter=0",
            "ipv4/conf/default/rp_filter=0",
            "ipv4/conf/all/send_redirects=0",
            "ipv4/conf/default/send_redirects=0",
            "ipv4/conf/all/accept_redirects=0",
            "ipv4/conf/default/accept_redirects=0",
            "ipv4/conf/all/arp_ignore=1",
            "ipv4/conf/all/arp_announce=2",
            "ipv4/ip_local_port_range=1024 65535",
            "ipv4/ip_nonlocal_bind=1",
            "ipv6/ip_nonlocal_bind=1",
            "ipv6/conf/all/accept_dad=0",
            "ipv6/conf/default/accept_dad=0",
            "ipv6/conf/all/accept_redirects=0",
            "ipv6/conf/default/accept_redirects=0",
            "ipv6/conf/default/accept_ra=0",
        ] {
            made.set(setting)?;
        }
        // After bad luck TCP waits twice as long each time; many short waits find out the same. Linux 6.15 and newer can.
        if Path::new("/proc/sys/net/ipv4/tcp_rto_max_ms").exists() {
            for setting in [
                "ipv4/tcp_rto_max_ms=2000",
                "ipv4/tcp_retries2=60",
                "ipv4/tcp_syn_retries=30",
                "ipv4/tcp_synack_retries=30",
            ] {
                made.set(setting)?;
            }
        }
        Ok(made)
    }

    /// A namespace that is there already.
    pub(super) fn existing(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes one `path=value` below `/proc/sys/net`.
    pub fn set(&self, setting: &str) -> Result<()> {
        let (path, value) = setting.split_once('=').context("a setting is path=value")?;
        self.inside(|| {
            std::fs::write(Path::new("/proc/sys/net").join(path), value)
                .with_context(|| format!("setting {setting}"))
        })
    }

    /// A command that will run here.
    ///
    /// Not by `ip netns exec`, which hides the BPF file system behind a new `/sys`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // Nothing outlives the test that started it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Ok(command)
    }

    /// Runs shell lines here and gives back standard output; fails when they fail or take long.
    pub fn sh(&self, lines: &str) -> Result<String> {
        self.sh_within(lines, SOON)
    }

    /// The same with a deadline of one's own.
    pub fn sh_within(&self, lines: &str, patience: Duration) -> Result<String> {
        let finished = self.try_sh(lines, patience)?;
        if !finished.status.success() {
            bail!(
                "in {}: `{lines}` ended with {}: {}{}",
                self.name,
                finished.status,
                finished.stdout,
                finished.stderr
            );
        }
        Ok(finished.stdout)
    }

    /// Runs shell lines here; a failure is an answer, too.
    pub fn try_sh(&self, lines: &str, patience: Duration) -> Result<Finished> {
        let mut command = self.command("sh")?;
        run(command.args(["-e", "-c", lines]), patience)
            .with_context(|| format!("in {}: `{lines}`", self.name))
    }

    /// Starts a long-running command here; both its outputs go to `log`.
    pub fn start(&self, command: &[&str], log: &Path) -> Result<Process> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut starting = self.command(program)?;
        Process::start(starting.args(arguments), log)
    }

    /// Runs code in this namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter(&file)?;
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread here for good.
    pub fn enter(&self) -> Result<()> {
        enter(&self.open()?)
    }

    /// Removes it, whoever still uses it.
    pub(super) fn remove(&self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]), SOON);
    }

    fn open(&self) -> Result<File> {
        let path = Path::new(NAMESPACES).join(&self.name);
        File::open(&path).with_context(|| format!("there is no network namespace {}", self.name))
    }
}

fn enter(file: &File) -> Result<()> {
    // SAFETY: an open descriptor; only the calling thread moves.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error()).context("entering a network namespace");
    }
    Ok(())
}
