//! `lbd`, the daemon: puts the parts together and stops them again.
//!
//! The order matters: what can be refused without a trace (arguments, privileges, configuration, another
//! instance) comes before anything that touches the network.

pub mod args;
mod complaint;
mod configuration;
mod health;
mod heirs;
mod inherit;
mod member;
mod notify;
mod offload;
mod orders;
mod passive;
mod peers;
mod privilege;
mod quorum;
mod run;
mod servers;
mod supervisor;
mod target;
mod vantage;
mod vips;
mod way;

use args::Lbd;
use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Runs `lbd` on the process's arguments.
pub fn main() -> ExitCode {
    let args = Lbd::parse();
    let filter = match EnvFilter::try_new(&args.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("lbd: --log {}: {error}; expected a filter such as info or lb_control=debug", args.log);
            return ExitCode::from(2);
        }
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lbd: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
