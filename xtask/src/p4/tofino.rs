//! The program for Tofino: compiled when p4c has the backend, and what it takes of the pipeline.

mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::progress::quietly;
use crate::workspace;

/// Runs compiler and assembler: only the latter says whether a program fits, by how the driver ends.
const DRIVER: &str = "p4c";
/// The compiler's backend.
const BACKEND: &str = "p4c-barefoot";
/// The assembler.
const ASSEMBLER: &str = "bfas";
/// What the backend writes for the assembler.
const ASSEMBLY: &str = "stickleback.bfa";

/// What a run of the driver wrote, and where.
#[derive(Deserialize)]
struct Manifest {
    programs: Vec<Compiled>,
}

#[derive(Deserialize)]
struct Compiled {
    pipes: Vec<Pipe>,
}

#[derive(Deserialize)]
struct Pipe {
    files: Files,
}

#[derive(Deserialize)]
struct Files {
    context: Written,
    resources: Vec<Written>,
}

#[derive(Deserialize)]
struct Written {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The driver, or which of the programs that it takes is not there.
pub(super) fn driver() -> Result<PathBuf, &'static str> {
    let find = |name| workspace::program(name).ok_or(name);
    [BACKEND, ASSEMBLER].into_iter().try_for_each(|name| find(name).map(drop))?;
    find(DRIVER)
}

/// Compiles the program, and prints what it takes.
pub(super) fn build(driver: &Path) -> Result<()> {
    let out = workspace::target().join("p4/tna");
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let mut command = Command::new(driver);
    command.current_dir(workspace::root().join("p4/tna"));
    // -g: only then the compiler says what each stage has.
    command.args(["--target", "tofino", "--arch", "tna", "-g", "--p4runtime-force-std-externs"]);
    command.arg("--p4runtime-files").arg(out.join("stickleback.p4info.txtpb"));
    command.arg("-o").arg(&out).arg("stickleback.p4");
    quietly("compiling p4/tna/stickleback.p4", &mut command)?;
    let manifest: Manifest = read(&out.join("manifest.json"))?;
    let pipe = manifest.programs.iter().flat_map(|program| &program.pipes).next();
    let files = &pipe.context("the compiler's manifest names no pipe")?.files;
    let of_stages = files.resources.iter().find(|file| file.kind.as_deref() == Some("resources"));
    let of_stages = of_stages.context("the compiler's manifest names no resources")?;
    println!("{}", report::text(&read(&out.join(&of_stages.path))?, &read(&out.join(&files.context.path))?));
    let assembly = out.join(&files.context.path).with_file_name(ASSEMBLY);
    let text = fs::read_to_string(&assembly).with_context(|| format!("reading {}", assembly.display()))?;
    ensure!(
        parser_matches(&text),
        "{}: no state of the parser matches anything, so each takes its first way whatever comes; p4c has lost \
         what they select by since p4lang/p4c#5063 (bind_use in allocate_parser_match_register.cpp passes over all \
         registers but scratch ones). Use another version, and load nothing of this one",
        assembly.display()
    );
    Ok(())
}

/// Whether what the assembler was given has a parser that looks at packets.
fn parser_matches(assembly: &str) -> bool {
    let lines = assembly.lines().skip_while(|line| !line.starts_with("parser ingress"));
    let mut parser = lines.skip(1).take_while(|line| line.starts_with(' '));
    parser.any(|line| line.trim_start().starts_with("match:"))
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str =
        "version:\n  target: Tofino\nparser ingress:\n  start: $entry_point\n  states:\n    ethernet:\n";
    const END: &str = "parser egress:\n  states:\n    start:\n      match: [ half ]\n";

    #[test]
    fn parser_that_matches_nothing_is_seen() {
        assert!(parser_matches(&format!("{BEGIN}      match: [ half ]\n      0x0800:\n{END}")));
        assert!(!parser_matches(&format!("{BEGIN}      *:\n        next: ipv4\n{END}")));
    }
}
