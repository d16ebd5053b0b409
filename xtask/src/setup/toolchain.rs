//! The compiler and linker of the XDP programs.
//!
//! `core` has to be compiled for the BPF target, so the compiler's sources must be there, and the linker must
//! have been built with an LLVM at least as new as the compiler's. Two ways give that; see `CONTRIBUTING.md`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::{self, Purpose};
use crate::progress::{quietly, read, say};
use crate::workspace;

/// The version whose output the kernel's verifier is tested with.
const BPF_LINKER: &str = "0.13.0";

/// The LLVM that Debian's Rust is built with.
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

/// Where a compiler for the BPF target comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A toolchain of rustup that has the `rust-src` component.
    Rustup {
        /// Its directory's name, as in `cargo +NAME`.
        name: String,
    },
    /// The packages `rustc-web`, `cargo-web` and `rust-web-src` of Debian 12.
    Debian,
}

impl Toolchain {
    /// A cargo call in `lb-ebpf` with this toolchain, ready to compile for BPF.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Rustup { name } => {
                let mut command = Command::new("cargo");
                workspace::forget_toolchain(&mut command).env("RUSTUP_TOOLCHAIN", name);
                command
            }
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                workspace::forget_toolchain(&mut command)
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("PATH", debian_path());
                command
            }
        };
        // `-Z build-std` with a compiler that is not a nightly.
        command.env("RUSTC_BOOTSTRAP", "1").current_dir(workspace::root().join("lb-ebpf"));
        command
    }
}

/// Finds a toolchain, or installs one.
pub(crate) fn find_or_install() -> Result<Toolchain> {
    let linker = linker();
    if let Some(name) = rustup_with_sources()
        && linker.as_ref().is_some_and(|linker| linker.fits(&name))
    {
        return Ok(Toolchain::Rustup { name });
    }
    if !packages::available() {
        bail!(
            "no compiler for XDP programs here. Install one: `rustup toolchain install nightly --component rust-src`, \
             then `cargo install bpf-linker --version {BPF_LINKER}` with the LLVM that `rustc +nightly -vV` names"
        );
    }
    packages::require(&[Purpose::Compiler])?;
    if linker.is_none_or(|linker| linker.llvm.is_some_and(|llvm| llvm < 22)) {
        install_linker()?;
    }
    Ok(Toolchain::Debian)
}

/// A bpf-linker that starts.
struct Linker {
    /// The LLVM it is linked to; none when LLVM is a part of it.
    llvm: Option<u32>,
}

impl Linker {
    /// Whether it reads what this toolchain of rustup writes.
    fn fits(&self, toolchain: &str) -> bool {
        let rustc = workspace::rustup_home().join("toolchains").join(toolchain).join("bin/rustc");
        let Ok(text) = read(Command::new(rustc).arg("-vV")) else { return false };
        let compiler =
            text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).and_then(leading_number);
        match (self.llvm, compiler) {
            (Some(linker), Some(compiler)) => linker >= compiler,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}

fn linker() -> Option<Linker> {
    let path = linker_path()?;
    read(Command::new(&path).arg("--version")).ok()?;
    let libraries = read(Command::new("ldd").arg(&path)).unwrap_or_default();
    let llvm = libraries
        .split_once("libLLVM")
        .and_then(|(_, rest)| leading_number(rest.trim_start_matches(|c: char| !c.is_ascii_digit())));
    Some(Linker { llvm })
}

fn linker_path() -> Option<PathBuf> {
    let installed = workspace::cargo_home().join("bin/bpf-linker");
    if installed.is_file() { Some(installed) } else { workspace::program("bpf-linker") }
}

fn install_linker() -> Result<()> {
    say(&format!("installing bpf-linker {BPF_LINKER} from crates.io (one to two minutes)"));
    let mut command =
        workspace::cargo(&["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]);
    command.args(["--no-default-features", "--features", "llvm-22"]);
    command.env("LLVM_PREFIX", DEBIAN_LLVM).env("PATH", debian_path());
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    quietly("cargo install bpf-linker", &mut command)
        .or_else(|_| quietly("cargo install bpf-linker, again", &mut command))
        .context("could not install bpf-linker: is crates.io reachable? cargo's message is above")
}

/// The first toolchain of rustup, by name, that can compile `core`.
fn rustup_with_sources() -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(workspace::rustup_home().join("toolchains"))
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // A nightly is the usual choice for this and newer than the others.
    names.sort_by_key(|name| (!name.starts_with("nightly"), name.clone()));
    names.into_iter().next()
}

fn debian_path() -> String {
    let installed = workspace::cargo_home().join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{DEBIAN_LLVM}/bin:/usr/bin:{}:{path}", installed.display())
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_start_with_their_major_number() {
        assert_eq!(leading_number("22.1.8"), Some(22));
        assert_eq!(leading_number("22"), Some(22));
        assert_eq!(leading_number("x"), None);
    }
}
