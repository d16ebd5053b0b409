//! `cargo xtask bench`: measures the XDP programs; results go to `target/bench.json`.

use anyhow::Result;

use crate::progress::openly;
use crate::{build, setup, workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Options of the benchmark itself; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    setup::for_namespaces()?;
    // The whole-path cases run the real daemon.
    build::product()?;
    let mut command = workspace::cargo(&[
        "run",
        "--release",
        "--locked",
        "--package",
        "stickleback-tests",
        "--bin",
        "bench",
        "--",
    ]);
    openly(command.args(&arguments.arguments))
}
