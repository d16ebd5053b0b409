//! Network namespaces by name, as `ip netns` keeps them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

use crate::progress::read;

/// Makes a namespace.
pub(super) fn add(name: &str) -> Result<()> {
    read(Command::new("ip").args(["netns", "add", name])).map(drop)
}

/// Removes a namespace, and with it the interfaces in it, when it exists.
pub(super) fn delete(name: &str) -> Result<()> {
    if !exists(name) {
        return Ok(());
    }
    read(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

/// Whether a namespace of that name exists.
pub(super) fn exists(name: &str) -> bool {
    path(name).exists()
}

/// A program that will run in a namespace.
///
/// Not through `ip netns exec`, which mounts a new `/sys` over the one that has the BPF file system.
pub(crate) fn command(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(namespace).display())).arg("--").arg(program);
    command
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(namespace: &str) -> Result<()> {
    let path = path(namespace);
    let file = File::open(&path).with_context(|| format!("there is no network namespace {namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace {namespace}"))
}

/// Runs some code in a namespace, on a thread of its own.
pub(super) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(namespace)?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Ends every process in a namespace: asks first, then insists.
pub(super) fn end_processes(name: &str) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(5);
    let insist = Instant::now() + Duration::from_secs(2);
    let mut asked = Vec::new();
    loop {
        let left = processes(name)?;
        if left.is_empty() || Instant::now() > give_up {
            return Ok(());
        }
        for process in left {
            if Instant::now() > insist {
                signal(process, Signal::SIGKILL)?;
            } else if !asked.contains(&process) {
                signal(process, Signal::SIGTERM)?;
                asked.push(process);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(process: Pid, signal: Signal) -> Result<()> {
    match kill(process, signal) {
        // It ended by itself in the meantime.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot end process {process}")),
    }
}

/// The processes in a namespace, without those that run this command.
fn processes(name: &str) -> Result<Vec<Pid>> {
    if !exists(name) {
        return Ok(Vec::new());
    }
    let text = read(Command::new("ip").args(["netns", "pids", name]))?;
    let numbers = text.lines().filter_map(|line| line.trim().parse().ok()).map(Pid::from_raw);
    Ok(numbers.filter(|pid| *pid != getpid() && *pid != getppid() && !zombie(*pid)).collect())
}

/// Whether a process has ended and only waits for its parent to notice.
fn zombie(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}
