//! cargo-fuzz, and the compiler that it calls.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::{self, Purpose};
use crate::progress::{quietly, say};
use crate::workspace;

/// The version that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// What runs fuzz targets.
pub(crate) struct Fuzzer {
    cargo_fuzz: PathBuf,
    /// A nightly of rustup. Without one, the compiler that runs xtask is told to take a nightly's flags.
    nightly: Option<String>,
}

impl Fuzzer {
    /// A call of `cargo fuzz` at the repository's root.
    pub(crate) fn command(&self) -> Command {
        // cargo-fuzz calls the cargo that it finds there.
        let mut command = Command::new(&self.cargo_fuzz);
        if let Some(nightly) = &self.nightly {
            workspace::forget_toolchain(&mut command).env("RUSTUP_TOOLCHAIN", nightly);
        } else {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command.arg("fuzz").current_dir(workspace::root());
        command
    }
}

/// Finds cargo-fuzz, or installs it.
pub(crate) fn find_or_install() -> Result<Fuzzer> {
    // libFuzzer is C++.
    packages::require(&[Purpose::Fuzz])?;
    let installed = workspace::cargo_home().join("bin/cargo-fuzz");
    let found =
        || Some(installed.clone()).filter(|path| path.is_file()).or_else(|| workspace::program("cargo-fuzz"));
    let cargo_fuzz = match found() {
        Some(path) => path,
        None => {
            say(&format!("installing cargo-fuzz {CARGO_FUZZ} from crates.io (about a minute)"));
            let mut command =
                workspace::cargo(&["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]);
            command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
            quietly("cargo install cargo-fuzz", &mut command)?;
            found().context("cargo install has put no cargo-fuzz where cargo's programs are")?
        }
    };
    Ok(Fuzzer { cargo_fuzz, nightly: nightly() })
}

/// The name of a nightly toolchain of rustup.
fn nightly() -> Option<String> {
    let entries = fs::read_dir(workspace::rustup_home().join("toolchains")).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    names.sort_unstable();
    names.into_iter().next()
}
