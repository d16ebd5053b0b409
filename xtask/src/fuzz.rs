//! A minute of every fuzz target, for `cargo xtask test --long`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::progress::{quietly, say};
use crate::setup::fuzzer;
use crate::workspace;

/// How long a target runs.
const SECONDS: u32 = 60;

/// Runs the targets whose name contains the text; whether none of them found anything.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let targets: Vec<String> =
        targets()?.into_iter().filter(|t| filter.is_none_or(|f| t.contains(f))).collect();
    if targets.is_empty() {
        return Ok(true);
    }
    let fuzzer = match fuzzer::find_or_install() {
        Ok(fuzzer) => fuzzer,
        Err(error) => {
            say(&format!(
                "no cargo-fuzz can be had here, so only the fuzz targets' corpus is replayed: {error:#}"
            ));
            return Ok(true);
        }
    };
    let output = workspace::target().join("fuzz");
    let cargo_fuzz = |verb: &str| {
        let mut command = fuzzer.command();
        command.arg(verb).args(["--fuzz-dir", "fuzz", "--target-dir"]).arg(&output);
        command
    };
    quietly("building the fuzz targets", &mut cargo_fuzz("build"))?;
    let mut passed = true;
    for target in targets {
        // New inputs go to the first directory; the second one is read.
        let (found, seeds) = (output.join("corpus").join(&target), Path::new("fuzz/corpus").join(&target));
        fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
        let mut command = cargo_fuzz("run");
        command.arg(&target).arg(found).arg(seeds).arg("--").arg(format!("-max_total_time={SECONDS}"));
        // All of them run, so that one look shows everything that was found.
        if let Err(error) = quietly(&format!("fuzzing {target} for {SECONDS} s"), &mut command) {
            say(&format!("{error:#}"));
            passed = false;
        }
    }
    Ok(passed)
}

/// Names of the targets.
fn targets() -> Result<Vec<String>> {
    let directory = workspace::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut targets: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    targets.sort_unstable();
    Ok(targets)
}
