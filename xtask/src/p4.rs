//! `cargo xtask p4`: what the program for switches is made of, and what is made of it.

mod build;
mod codegen;
mod tofino;

use anyhow::Result;

/// Options of `cargo xtask p4`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Write p4/shared/abi.p4 from the names and numbers of lb-common
    Codegen,
    /// Compile the program for bmv2 with p4c (p4c-bm2-ss) and write what lbd embeds; and that for Tofino, if p4c can, to see that it fits
    Build,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    match arguments.task {
        Task::Codegen => codegen::write(),
        Task::Build => build::programs(),
    }
}
