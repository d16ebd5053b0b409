//! Protocol stacks of other makes that tests talk to, in a Python environment of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::{self, Purpose};
use crate::progress::{quietly, read};
use crate::workspace;

/// What is to be in it.
const REQUIREMENTS: &str = "tests/peers/requirements.txt";

/// Makes the environment below the target directory, or makes it anew when it was made for other requirements.
pub(super) fn require() -> Result<()> {
    let (wanted, environment) = (workspace::root().join(REQUIREMENTS), workspace::target().join("python"));
    let made_for = environment.join("requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| format!("reading {}", wanted.display()))?;
    if fs::read_to_string(&made_for).is_ok_and(|made| made == text) {
        return Ok(());
    }
    // Debian's interpreter where there is one: what stands first in the path may change from shell to shell.
    let debian = "/usr/bin/python3";
    let python = if Path::new(debian).exists() { debian } else { "python3" };
    if read(Command::new(python).args(["-c", "import ensurepip, venv"])).is_err() {
        packages::require(&[Purpose::Peers])?;
    }
    let mut venv = Command::new(python);
    venv.args(["-m", "venv", "--clear"]).arg(&environment);
    quietly("make a Python environment for the tests' peers", &mut venv)?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--only-binary", ":all:", "-r"]).arg(&wanted);
    quietly("install the tests' peers from PyPI", &mut pip)?;
    fs::write(&made_for, text).with_context(|| format!("writing {}", made_for.display()))
}
