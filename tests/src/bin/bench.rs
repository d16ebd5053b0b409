//! `cargo xtask bench`: what a packet costs in the XDP programs, and what a request costs end to end.

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use stickleback_tests::bench;

/// Measure what a packet and a request cost.
#[derive(Parser)]
struct Arguments {
    /// Only cases whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Where the JSON report goes.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Short rounds and small tables: shows that it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Leave out the whole-path section (needs `lbd`, nginx and wrk).
    #[arg(long)]
    no_path: bool,
}

fn main() -> Result<()> {
    let Arguments { filter, json, quick, no_path } = Arguments::parse();
    bench::run(&bench::Options { filter, json, quick, no_path })?;
    Ok(())
}
