//! `cargo xtask build-ebpf`: compiles the XDP programs for the kernel.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::{quietly, say};
use crate::{lint, setup, workspace};

/// The programs of `lb-ebpf`; `testbed` is for tests and benchmarks only.
const OBJECTS: [&str; 3] = ["stickleback", "probes", "testbed"];

const TARGET: &str = "bpfel-unknown-none";

/// Options of `cargo xtask build-ebpf`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Check the programs with clippy instead
    #[arg(long)]
    clippy: bool,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    if arguments.clippy {
        return lint::ebpf();
    }
    build()?;
    for name in OBJECTS {
        println!("{}", workspace::bpf_objects().join(format!("{name}.bpf.o")).display());
    }
    Ok(())
}

/// Compiles the programs and puts the objects where the other crates look for them.
pub(crate) fn build() -> Result<()> {
    let toolchain = setup::for_build()?;
    let mut command = toolchain.cargo();
    command.args(["build", "--release", "--locked"]);
    compile_for_bpf(&mut command);
    quietly("compiling the XDP programs", &mut command)?;
    for name in OBJECTS {
        let built = workspace::bpf_objects().join(TARGET).join("release").join(name);
        let object = workspace::bpf_objects().join(format!("{name}.bpf.o"));
        publish(&built, &object)?;
    }
    Ok(())
}

/// The options that make a cargo call one for BPF.
pub(crate) fn compile_for_bpf(command: &mut Command) {
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    // v3 has atomic operations that return the old value; kernels know it since 5.12.
    let flags =
        ["-Clinker=bpf-linker", "-Ctarget-cpu=v3", &architecture, "-Cdebuginfo=2", "-Clink-arg=--btf"];
    command.args(["--target", TARGET, "-Z", "build-std=core"]);
    command.arg("--target-dir").arg(workspace::bpf_objects());
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
}

/// Copies an object when it changed, so that what embeds it is not built again for nothing.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if new.get(..4) != Some(b"\x7fELF") {
        bail!(
            "{} is not an ELF object; remove {} and build again",
            built.display(),
            workspace::bpf_objects().display()
        );
    }
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    // By renaming: a build that runs at the same time sees the old object or the new one, never a part.
    let fresh = object.with_extension("new");
    fs::write(&fresh, &new)
        .and_then(|()| fs::rename(&fresh, object))
        .with_context(|| format!("cannot write {}", object.display()))?;
    say(&format!("{} ({} KiB)", object.display(), new.len() / 1024));
    Ok(())
}
