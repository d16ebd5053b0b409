//! Whose the sandbox is: one command at a time, and nothing removed that this tool did not make.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::{DIRECTORY, PINS, netns, topology};

const LOCK: &str = "/run/stickleback-sandbox.lock";

/// The right to make or remove the sandbox, held until dropped.
pub(super) struct Claim {
    _lock: Flock<File>,
}

impl Claim {
    /// Waits a little for other commands that work on the sandbox.
    pub(super) fn take() -> Result<Self> {
        let open = || OpenOptions::new().create(true).write(true).truncate(false).open(LOCK);
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let file = open().with_context(|| format!("cannot open {LOCK}"))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { _lock: lock }),
                Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(100)),
                Err((_, error)) => {
                    return Err(error)
                        .context("another `cargo xtask demo` or `sandbox` command is at work on the sandbox; wait for it or end it");
                }
            }
        }
    }

    /// Notes that namespaces of our names are from now on ours.
    pub(super) fn mark(&self) -> Result<()> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))
    }

    /// Removes everything that the sandbox consists of.
    pub(super) fn remove(&self) -> Result<()> {
        let there: Vec<String> =
            topology::namespaces().into_iter().filter(|name| netns::exists(name)).collect();
        if !there.is_empty() && !Path::new(DIRECTORY).exists() {
            // A reboot removes both, a crash neither.
            bail!(
                "the network namespaces {} exist but were not made by `cargo xtask sandbox` ({DIRECTORY} is missing); \
                 remove them with `ip netns delete NAME` when nobody needs them",
                there.join(", ")
            );
        }
        for name in &there {
            netns::end_processes(name)?;
        }
        for name in &there {
            netns::delete(name)?;
        }
        for directory in [PINS, DIRECTORY] {
            if Path::new(directory).exists() {
                fs::remove_dir_all(directory).with_context(|| format!("cannot remove {directory}"))?;
            }
        }
        Ok(())
    }
}
