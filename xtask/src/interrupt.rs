//! Ctrl-C and SIGTERM, for commands that have something to clean up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

static PENDING: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C only sets a mark, and whoever waits for something has to look at it.
pub(crate) fn catch() -> Result<()> {
    ctrlc::set_handler(|| PENDING.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")
}

/// Whether somebody wants this to end.
pub(crate) fn pending() -> bool {
    PENDING.load(Ordering::Relaxed)
}

/// Fails when somebody wants this to end.
pub(crate) fn check() -> Result<()> {
    if pending() {
        bail!("interrupted");
    }
    Ok(())
}
