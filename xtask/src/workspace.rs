//! Where things are: the repository, cargo's output and the eBPF objects.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a member of the workspace")
}

/// Cargo's output directory; `CARGO_TARGET_DIR` moves it.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // Relative paths are relative to where cargo is called, which for xtask is always the root.
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where the finished eBPF objects lie: `lb-control`'s build script and the tests read them here.
pub(crate) fn bpf_objects() -> PathBuf {
    target().join("bpf")
}

/// A cargo call at the repository's root with the toolchain that runs xtask.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Takes out of the environment what rustup and an outer cargo put there, so that another toolchain sees none of it.
pub(crate) fn forget_toolchain(command: &mut Command) -> &mut Command {
    for name in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "LD_LIBRARY_PATH",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

/// Takes out of the environment what cargo put there for xtask, so that a program sees what a shell would give it.
pub(crate) fn forget_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" && text != "CARGO_TARGET_DIR" {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH")
}

/// The path of a program that a shell would find.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    // Administrators' programs are not on everybody's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Cargo's home, where it installs programs to.
pub(crate) fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// Rustup's home, where its toolchains lie.
pub(crate) fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from)
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}
