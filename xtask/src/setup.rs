//! `cargo xtask setup`: finds out what is missing on this machine and installs it.
//!
//! Every other command calls the part it needs first; when all is there that takes some milliseconds.

pub(crate) mod fuzzer;
pub(crate) mod kernel;
mod packages;
mod python;
pub(crate) mod toolchain;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::progress::say;
use packages::Purpose;

/// Everything that any command needs.
pub(crate) fn everything() -> Result<()> {
    for_build()?;
    for_lint()?;
    for_tests()?;
    say("everything is there");
    Ok(())
}

/// What compiling the XDP programs needs.
pub(crate) fn for_build() -> Result<toolchain::Toolchain> {
    toolchain::find_or_install()
}

/// What checking the XDP programs needs beyond compiling them.
pub(crate) fn for_lint() -> Result<toolchain::Toolchain> {
    let toolchain = toolchain::find_or_install()?;
    if toolchain == toolchain::Toolchain::Debian {
        packages::require(&[Purpose::Lint])?;
    }
    Ok(toolchain)
}

/// What the sandbox, the demo, the tests and the benchmarks need: programs, a fit kernel, bpffs and root.
pub(crate) fn for_namespaces() -> Result<()> {
    require_root("network namespaces and XDP programs")?;
    kernel::check()?;
    packages::require(&[Purpose::Sandbox])?;
    kernel::mount_bpffs()
}

/// What the tests need beyond that: protocol stacks of other makes.
pub(crate) fn for_tests() -> Result<()> {
    for_namespaces()?;
    python::require()
}

/// What attaching to a network interface needs.
pub(crate) fn for_attaching() -> Result<()> {
    require_root("attaching an XDP program")?;
    kernel::check()?;
    kernel::mount_bpffs()
}

/// Fails with a plain sentence when not root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!("{what} need root: log in as root (or `sudo -i`) and run the command again");
}
