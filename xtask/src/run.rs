//! `cargo xtask run`: builds, then becomes `lbd` on a network interface.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::progress::{read, say};
use crate::{build, setup, workspace};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The interface that clients and backends are reached through; can be given several times
    #[arg(long, required = true)]
    iface: Vec<String>,
    /// lbd's configuration; lb-control/lb.sample.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the program runs: in the driver, or in the kernel's generic hook for drivers without XDP
    #[arg(long)]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Native,
    Skb,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    setup::for_attaching()?;
    for name in &arguments.iface {
        // Not /sys, which may show another network namespace's.
        if read(Command::new("ip").args(["-oneline", "link", "show", "dev", name])).is_err() {
            bail!("there is no network interface `{name}`; `ip -brief link` lists them");
        }
    }
    if !arguments.config.is_file() {
        bail!(
            "there is no configuration file {}; begin with lb-control/lb.sample.toml",
            arguments.config.display()
        );
    }
    let product = build::product()?;
    let mut command = Command::new(&product.lbd);
    command.arg("--config").arg(&arguments.config);
    for name in &arguments.iface {
        command.args(["--iface", name]);
    }
    if let Some(mode) = arguments.mode {
        command.args([
            "--mode",
            match mode {
                Mode::Native => "native",
                Mode::Skb => "skb",
            },
        ]);
    }
    workspace::forget_cargo(&mut command);
    say(&format!("starting lbd; in another terminal: {} status", product.lbctl.display()));
    // In place of this process, so that signals reach it.
    Err(command.exec()).with_context(|| format!("cannot start {}", product.lbd.display()))
}
