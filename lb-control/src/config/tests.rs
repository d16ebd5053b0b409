//! Bad files as data, the sample, the schema, and text that must not make the reader panic.

use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

mod cases;
mod changes;
mod conformance;

/// The parts of the crate's directory that tests read.
fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Whether generated files and expected messages are to be written anew.
fn renew() -> bool {
    std::env::var_os("RENEW").is_some()
}

/// Compares a file with what it should hold, or writes it when asked to.
fn hold(file: &Path, is: &str) -> Result<(), String> {
    if renew() {
        fs::write(file, is).unwrap();
    }
    let was = fs::read_to_string(file).unwrap_or_default();
    (was == is)
        .then_some(())
        .ok_or_else(|| format!("{} is not up to date (RENEW=1 writes it)\n{is}", file.display()))
}
