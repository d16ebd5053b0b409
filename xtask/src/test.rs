//! `cargo xtask test`: every test there is, with the runner's own closing line last.

use std::process::{Command, exit};

use anyhow::{Context, Result};

use crate::progress::{quietly, read, say, shown};
use crate::{ebpf, fuzz, setup, workspace};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also the tests that take minutes, and a minute of each fuzz target
    #[arg(long)]
    long: bool,
    /// Only those of the program for switches, some of which no other command runs: they need p4c and bmv2
    #[arg(long, conflicts_with_all = ["long", "filter"])]
    p4: bool,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    setup::for_tests()?;
    ebpf::build()?;
    // The end-to-end tests look for the programs beside themselves.
    let mut programs = workspace::cargo(&["build", "--locked", "--package", "lb-control", "--bins"]);
    quietly("building lbd and lbctl for tests", &mut programs)?;
    if arguments.p4 {
        return switch();
    }
    let mut passed = arguments.filter.is_some() || miri()?;
    if arguments.long {
        passed &= fuzz::run(arguments.filter.as_deref())?;
    }
    let rounds = if has_nextest() { nextest(arguments) } else { cargo_test(arguments) };
    for mut round in rounds {
        if arguments.long {
            round.env("STICKLEBACK_LONG", "1");
        }
        // All of them run, so that one look shows everything that fails.
        passed &= run(&mut round)?;
    }
    if !passed {
        // The runner has said what failed, and its closing line is to stay the last one.
        exit(1);
    }
    Ok(())
}

/// The tests of the program for switches, one after the other, in words; what needs tools that are not here is named, and not run.
///
/// Without them those tests fail. That is why they are marked as ignored, and why every other command leaves them out.
fn switch() -> Result<()> {
    let mut passed = run(&mut workspace::cargo(&["test", "--locked", "--package", "xtask", "p4"]))?;
    passed &= run(&mut workspace::cargo(&["test", "--locked", "--package", "lb-control", "--lib", "p4"]))?;
    let mut missing = Vec::new();
    for (tool, origin, package, target, what) in [
        ("p4c-bm2-ss", "p4lang/p4c", "xtask", "--bins", "whether p4/v1model was compiled from its sources"),
        (
            "simple_switch_grpc",
            "p4lang/behavioral-model with p4lang/PI",
            "stickleback-tests",
            "--test=namespace_p4",
            "every test of namespace_p4: packets through bmv2",
        ),
    ] {
        if workspace::program(tool).is_some() {
            let test =
                ["test", "--locked", "--package", package, target, "--", "--ignored", "--test-threads=1"];
            passed &= run(workspace::cargo(&test).arg("--nocapture"))?;
        } else {
            missing.push(format!("not run: {what}; for that install {origin} ({tool} on the PATH)"));
        }
    }
    for line in missing {
        say(&line);
    }
    if !passed {
        exit(1);
    }
    Ok(())
}

/// `.config/nextest.toml` keeps the namespace tests apart.
fn nextest(arguments: &Arguments) -> Vec<Command> {
    let mut tests = workspace::cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    if arguments.long {
        tests.args(["--profile", "long"]);
    }
    tests.args(&arguments.filter);
    vec![round(&["--workspace", "--doc"], &[], arguments), tests]
}

/// The tests of the test package share the kernel, its interfaces and its few CPUs: one at a time.
fn cargo_test(arguments: &Arguments) -> Vec<Command> {
    vec![
        // First, so that the closing line is one of real tests.
        round(&["--workspace", "--doc"], &[], arguments),
        round(&["--workspace", "--exclude", "stickleback-tests", "--tests"], &[], arguments),
        round(&["--package", "stickleback-tests", "--tests"], &["--test-threads=1"], arguments),
    ]
}

fn round(what: &[&str], how: &[&str], arguments: &Arguments) -> Command {
    let mut command = workspace::cargo(&["test", "--locked", "--no-fail-fast"]);
    command.args(what).arg("--").args(how).args(&arguments.filter);
    command
}

/// Whether all passed.
fn run(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    Ok(status.success())
}

fn has_nextest() -> bool {
    workspace::program("cargo-nextest").is_some()
        || workspace::cargo_home().join("bin/cargo-nextest").is_file()
}

/// Runs the data plane's code in Rust's interpreter, which sees undefined behaviour, where one is installed.
fn miri() -> Result<bool> {
    let toolchains = read(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let has_miri = |name: &&str| {
        let bin = workspace::rustup_home().join("toolchains").join(name).join("bin");
        bin.join("cargo-miri").is_file() && bin.with_file_name("lib/rustlib/src/rust/library/core").is_dir()
    };
    let Some(name) = toolchains.lines().filter_map(|line| line.split_whitespace().next()).find(has_miri)
    else {
        say("no toolchain with miri and rust-src here: lb-common is not run in the interpreter");
        return Ok(true);
    };
    let mut command = Command::new("cargo");
    workspace::forget_toolchain(&mut command).env("RUSTUP_TOOLCHAIN", name).current_dir(workspace::root());
    command
        .args(["miri", "test", "--package", "lb-common", "--lib", "--target-dir"])
        .arg(workspace::target().join("miri"));
    // Property tests read files to remember failures; thousands of cases take hours in the interpreter.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "8");
    run(&mut command)
}
