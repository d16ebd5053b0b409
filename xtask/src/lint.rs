//! `cargo xtask lint`: formatting and clippy, warnings denied, for the host crates and the XDP programs.

use anyhow::Result;

use crate::progress::quietly;
use crate::{ebpf, setup, workspace};

/// Runs the command.
pub(crate) fn task() -> Result<()> {
    quietly("formatting of the workspace", &mut workspace::cargo(&["fmt", "--all", "--check"]))?;
    let manifest = workspace::root().join("lb-ebpf/Cargo.toml");
    let mut format = workspace::cargo(&["fmt", "--check", "--manifest-path"]);
    quietly("formatting of lb-ebpf", format.arg(manifest))?;
    // Clippy of lb-control compiles its build script, which wants the objects.
    ebpf::build()?;
    ebpf()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    quietly("clippy of the workspace", &mut workspace::cargo(&clippy))
}

/// Clippy of the XDP programs, for the target they run on.
pub(crate) fn ebpf() -> Result<()> {
    let toolchain = setup::for_lint()?;
    let mut command = toolchain.cargo();
    command.args(["clippy", "--release", "--locked"]);
    ebpf::compile_for_bpf(&mut command);
    command.args(["--", "-D", "warnings"]);
    quietly("clippy of lb-ebpf", &mut command)
}
