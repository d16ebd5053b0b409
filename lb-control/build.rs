//! Embeds the eBPF objects that `cargo xtask build-ebpf` makes.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OVERRIDE: &str = "STICKLEBACK_BPF_OBJECT";
const PROBES: &str = "probes.bpf.o";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let source = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../target/bpf/stickleback.bpf.o"),
    };
    embed(&source, "stickleback.bpf.o");
    embed(&source.with_file_name(PROBES), PROBES);
}

fn embed(source: &Path, name: &str) {
    println!("cargo::rerun-if-changed={}", source.display());
    let target = PathBuf::from(variable("OUT_DIR")).join(name);
    if let Err(error) = fs::copy(source, &target) {
        println!(
            "cargo::error=cannot embed the eBPF object {}: {error}; run `cargo xtask build-ebpf` first, or set {OVERRIDE} to \
             a finished object with {PROBES} beside it",
            source.display()
        );
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}
