//! `cargo xtask test`: every test there is, with the runner's own closing line last.

use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::{openly, quietly, read, say};
use crate::{ebpf, setup, workspace};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also the tests that take minutes
    #[arg(long)]
    long: bool,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    setup::for_namespaces()?;
    ebpf::build()?;
    // The end-to-end tests look for the programs beside themselves.
    let mut programs = workspace::cargo(&["build", "--locked", "--package", "lb-control", "--bins"]);
    quietly("building lbd and lbctl for tests", &mut programs)?;
    let miri = if arguments.filter.is_none() { miri() } else { Ok(()) };
    let rest = if has_nextest() { nextest(arguments) } else { cargo_test(arguments) };
    miri.and(rest)
}

/// `.config/nextest.toml` keeps the namespace tests apart.
fn nextest(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    if arguments.long {
        command.args(["--profile", "long"]);
    }
    command.args(&arguments.filter);
    openly(marked(&mut command, arguments))
}

/// Examples in documentation first, so that the closing line is one of real tests. The tests of the test package
/// share the kernel, its interfaces and its few CPUs: one at a time.
fn cargo_test(arguments: &Arguments) -> Result<()> {
    let rounds: [(&[&str], &[&str]); 3] = [
        (&["--workspace", "--doc"], &[]),
        (&["--workspace", "--exclude", "stickleback-tests", "--tests"], &[]),
        (&["--package", "stickleback-tests", "--tests"], &["--test-threads=1"]),
    ];
    let mut failed = 0;
    for (what, how) in rounds {
        let mut command = workspace::cargo(&["test", "--locked", "--no-fail-fast"]);
        command.args(what).arg("--").args(how).args(&arguments.filter);
        // All of them run, so that one look shows everything that fails.
        failed += usize::from(openly(marked(&mut command, arguments)).is_err());
    }
    if failed > 0 {
        bail!("tests failed in {failed} of {} rounds; see above", rounds.len());
    }
    Ok(())
}

fn marked<'a>(command: &'a mut Command, arguments: &Arguments) -> &'a mut Command {
    if arguments.long {
        command.env("STICKLEBACK_LONG", "1");
    }
    command
}

fn has_nextest() -> bool {
    workspace::program("cargo-nextest").is_some()
        || workspace::cargo_home().join("bin/cargo-nextest").is_file()
}

/// Runs the data plane's code in Rust's interpreter, which sees undefined behaviour, where one is installed.
fn miri() -> Result<()> {
    let toolchains = read(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let has_miri = |name: &&str| {
        let bin = workspace::rustup_home().join("toolchains").join(name).join("bin");
        bin.join("cargo-miri").is_file() && bin.with_file_name("lib/rustlib/src/rust/library/core").is_dir()
    };
    let Some(name) = toolchains.lines().filter_map(|line| line.split_whitespace().next()).find(has_miri)
    else {
        say("no toolchain with miri and rust-src here: lb-common is not run in the interpreter");
        return Ok(());
    };
    let mut command = Command::new("cargo");
    workspace::forget_toolchain(&mut command).env("RUSTUP_TOOLCHAIN", name).current_dir(workspace::root());
    command
        .args(["miri", "test", "--package", "lb-common", "--lib", "--target-dir"])
        .arg(workspace::target().join("miri"));
    // Property tests read files to remember failures; thousands of cases take hours in the interpreter.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "8");
    openly(&mut command)
}
