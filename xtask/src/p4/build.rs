//! The compiled programs, and whether the one that is kept, that for bmv2, is that of the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::tofino;
use crate::progress::{quietly, say};
use crate::workspace;

/// The compiler's backend for bmv2's `simple_switch`.
const COMPILER: &str = "p4c-bm2-ss";
/// What the compiled program is named by: the sum of the sources it was compiled from.
const SOURCES: &str = "stickleback.sources";

/// Compiles the programs that there are compilers for.
pub(super) fn programs() -> Result<()> {
    bmv2()?;
    match tofino::driver() {
        Ok(driver) => tofino::build(&driver),
        Err(missing) => {
            say(&format!(
                "p4/tna is not compiled: {missing} is not on the PATH (p4lang/p4c with its backend for Tofino)"
            ));
            Ok(())
        }
    }
}

/// Compiles the program for bmv2 and writes P4Info (as text for people, as bytes for lbd), bmv2's JSON and the sum of the sources.
fn bmv2() -> Result<()> {
    let Some(compiler) = workspace::program(COMPILER) else {
        bail!("{COMPILER} is not on the PATH: build p4lang/p4c with its bmv2 backend and install it");
    };
    let here = directory();
    let info = ["stickleback.p4info.txtpb", "stickleback.p4info.bin"].map(|name| here.join(name));
    let mut command = Command::new(compiler);
    command.current_dir(&here).args(["--p4v", "16", "--p4runtime-files"]);
    command.arg(format!("{},{}", info[0].display(), info[1].display()));
    command.args(["-o", "stickleback.json", "stickleback.p4"]);
    quietly("compiling p4/v1model/stickleback.p4", &mut command)?;
    strip(&here.join("stickleback.json"))?;
    fs::write(here.join(SOURCES), format!("{:016x}\n", sum()?)).context("writing the sum of the sources")?;
    say(&format!("written: {}", here.join("stickleback.json").display()));
    Ok(())
}

/// Takes out what only says which line of the source something is from: most of the file, which the compiler writes a line a field.
fn strip(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut kept: Vec<&str> = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("\"source_info\" : {") {
            kept.push(line);
            continue;
        }
        let end = lines
            .find(|line| matches!(*line, "}" | "},"))
            .context("an object in the compiler's JSON has no end")?;
        // The last field of an object has no comma behind it.
        if end == "}"
            && let Some(before) = kept.last_mut()
        {
            *before = before.trim_end_matches(',');
        }
    }
    fs::write(file, kept.join("\n") + "\n").with_context(|| format!("writing {}", file.display()))
}

fn directory() -> PathBuf {
    workspace::root().join("p4/v1model")
}

/// FNV-1a over names and contents of the P4 sources.
fn sum() -> Result<u64> {
    let mut files = Vec::new();
    for part in ["p4/shared", "p4/shared/tables", "p4/v1model"] {
        let directory = workspace::root().join(part);
        let entries = fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "p4") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in &files {
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        for byte in name.iter().chain(&content) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "whoever fails it needs p4c: `cargo xtask test --p4`"]
    fn compiled_program_is_that_of_the_sources() {
        let of = fs::read_to_string(directory().join(SOURCES)).expect("the sum can be read");
        let is = sum().expect("the sources can be read");
        assert_eq!(
            of.trim(),
            format!("{is:016x}"),
            "p4/v1model is stale: run `cargo xtask p4 build` where p4c is installed"
        );
    }
}
