//! Precedence over what else a machine does, for tests that hold the product to a time.

use anyhow::{Context, Result, ensure};
use std::io;
use std::marker::PhantomData;

/// Above everything that has no real-time priority, below what the kernel does at such priorities itself.
const PRIORITY: i32 = 40;

/// While it lives, this thread runs before everything without a real-time priority, and so does for good what it starts meanwhile.
///
/// A time that was measured so is the product's own, however busy others keep the machine; no second try is needed, and none is allowed.
#[derive(Debug)]
pub struct Precedence {
    /// It is the thread's.
    _here: PhantomData<*const ()>,
}

impl Precedence {
    /// Takes it.
    pub fn take() -> Result<Self> {
        schedule(libc::SCHED_RR, PRIORITY).context(
            "this test measures a time and needs a real-time priority: run it as root (CAP_SYS_NICE), in a control group that has real-time runtime",
        )?;
        Ok(Self { _here: PhantomData })
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        if let Err(error) = schedule(libc::SCHED_OTHER, 0) {
            eprintln!("a real-time priority stays: {error}");
        }
    }
}

fn schedule(policy: i32, priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters are there, and 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    ensure!(result == 0, "no other way of being scheduled: {}", io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_its_owner() -> Result<()> {
        // SAFETY: asks who we are.
        if unsafe { libc::geteuid() } != 0 {
            Precedence::take().unwrap_err();
            return Ok(());
        }
        // SAFETY: asks about the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let precedence = Precedence::take()?;
        ensure!(policy() == libc::SCHED_RR);
        drop(precedence);
        ensure!(policy() == libc::SCHED_OTHER && before == libc::SCHED_OTHER);
        Ok(())
    }
}
