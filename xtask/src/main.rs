//! Set-up, builds, the sandbox, the demo, tests and benchmarks: `cargo xtask --help`.
//!
//! Bootstraps a fresh machine, so it depends on nothing that has to be built with the eBPF object.

mod bench;
mod build;
mod demo;
mod ebpf;
mod fuzz;
mod interrupt;
mod lint;
mod p4;
mod progress;
mod run;
mod sandbox;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, shows, tests and measures Stickleback"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine (every other command does so too)
    Setup,
    /// Compile the XDP programs to target/bpf/*.bpf.o
    BuildEbpf(ebpf::Arguments),
    /// Build lbd and lbctl for release, with the XDP programs inside
    Build,
    /// Build, then run lbd in the foreground on a network interface
    Run(run::Arguments),
    /// Show the balancer at work: namespaces, real web servers, real requests
    Demo(demo::Arguments),
    /// A playground of network namespaces with a running balancer
    Sandbox(sandbox::Arguments),
    /// Check formatting and lints of the host crates and of the XDP programs
    Lint,
    /// Sources, build and tests of the program for switches
    P4(p4::Arguments),
    /// Run all tests (needs root for the XDP and namespace tests)
    Test(test::Arguments),
    /// Measure nanoseconds a packet and packets per second
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup => setup::everything(),
        Task::BuildEbpf(arguments) => ebpf::task(&arguments),
        Task::Build => build::task(),
        Task::Run(arguments) => run::task(&arguments),
        Task::Demo(arguments) => demo::task(&arguments),
        Task::Sandbox(arguments) => sandbox::task(arguments),
        Task::Lint => lint::task(),
        Task::P4(arguments) => p4::task(&arguments),
        Task::Test(arguments) => test::task(&arguments),
        Task::Bench(arguments) => bench::task(&arguments),
    };
    finish(outcome)
}

fn finish(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").for_stderr().red().bold());
            ExitCode::FAILURE
        }
    }
}
