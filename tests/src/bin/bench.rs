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
    /// Be a node of a benchmark: its state directory and its address.
    #[arg(long, hide = true, num_args = 2, value_names = ["DIRECTORY", "ADDRESS"])]
    replication_node: Option<Vec<String>>,
}

fn main() -> Result<()> {
    let Arguments { filter, json, quick, no_path, replication_node } = Arguments::parse();
    if let Some([state, listen]) = replication_node.as_deref() {
        return bench::run_node(state.as_ref(), listen.parse()?);
    }
    bench::run(&bench::Options { filter, json, quick, no_path })?;
    Ok(())
}
