//! What `lbctl config check` and `lbctl config diff` print.

use super::{Configuration, Difference, difference, load};
use lb_core::pool::{Desired, secret::SegmentSecret};
use serde_json::{Value, json};
use std::path::Path;

/// The answer of a command, for people and for programs.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// For people; ends without a line break.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Whether the command did what was asked; the exit status.
    pub success: bool,
}

/// `lbctl config check FILE`: whether `lbd` would take the file.
pub fn check_file(path: impl AsRef<Path>) -> Report {
    let path = path.as_ref();
    let configuration = match load(path) {
        Ok(configuration) => configuration,
        Err(errors) => return refused(&errors),
    };
    let services = &configuration.unsealed.services;
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    let mut text: String = configuration.warnings.iter().map(|warning| format!("{warning}\n")).collect();
    text.push_str(&format!(
        "{}: valid, {}, {}",
        path.display(),
        count(services.len(), "service"),
        count(backends, "backend")
    ));
    let json = json!({
        "file": path.display().to_string(),
        "valid": true,
        "services": services.len(),
        "backends": backends,
        "problems": configuration.warnings,
    });
    Report { text, json, success: true }
}

/// `lbctl config diff OLD NEW`: what changes from one file to the other.
pub fn diff_files(old: impl AsRef<Path>, new: impl AsRef<Path>) -> Report {
    let (old, new) = match (load(old), load(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(errors), _) | (_, Err(errors)) => return refused(&errors),
    };
    // The secrets themselves do not matter here, only whether they are the same.
    let mut after = new.unsealed.clone();
    let other = |is_other| [u8::from(is_other); 16];
    after.node.session_secret = other(old.secrets.session != new.secrets.session);
    after.node.secrets.syn_cookie = other(old.secrets.syn_cookie != new.secrets.syn_cookie);
    if old.secrets.segment != new.secrets.segment {
        after.node.secrets.segment = vec![SegmentSecret { id: 0, key: [1; 16] }];
    }
    let mut differences = difference(&old.unsealed, &after);
    differences.extend(super::difference::daemon(&old.daemon, &new.daemon));
    changes(&differences, &new)
}

/// `lbctl config diff FILE`: what a reload of the file would change.
pub fn diff_running(running: &Desired, path: impl AsRef<Path>) -> Report {
    let new = match load(path) {
        Ok(new) => new,
        Err(errors) => return refused(&errors),
    };
    match new.resolve_beside(running) {
        Ok(desired) => changes(&difference(running, &desired), &new),
        Err(fault) => {
            let text = format!("error: {fault}");
            Report { json: json!({ "valid": false, "error": fault.to_string() }), text, success: false }
        }
    }
}

fn refused(errors: &super::ConfigErrors) -> Report {
    let json = json!({ "file": errors.file, "valid": false, "problems": errors.problems });
    Report { text: errors.to_string(), json, success: false }
}

fn changes(differences: &[Difference], new: &Configuration) -> Report {
    let mut text: String = new.warnings.iter().map(|warning| format!("{warning}\n")).collect();
    for difference in differences {
        text.push_str(&format!("{difference}\n"));
    }
    match differences.len() {
        0 => text.push_str("no differences"),
        n => text.push_str(&count(n, "difference")),
    }
    let json = json!({ "valid": true, "differences": differences, "problems": new.warnings });
    Report { text, json, success: true }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
