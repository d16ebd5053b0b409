//! `lbctl config`: files checked and compared.

use super::args::{Config, Output};
use super::table::Look;
use super::{CliError, answer, present};
use crate::admin::client::Client;
use crate::admin::row::{ConfigRow, DiffBody, DiffRow};
use crate::config::{self, Report};
use hyper::Method;
use std::io::Write;
use std::path::Path;

/// Runs a `config` command; all but two need no daemon.
pub(super) async fn run(
    command: Config,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match command {
        Config::Check { file } => report(config::check_file(&file), form, out),
        Config::Diff { file, other: Some(new) } => report(config::diff_files(&file, &new), form, out),
        Config::Diff { file, other: None } => {
            let text = read(&file)?;
            let body = DiffBody { file: file.display().to_string(), text };
            // Refused here, with the whole report, rather than by the daemon.
            if config::parse(&body.text, &body.file).is_err() {
                return report(config::check_file(&file), form, out);
            }
            let diff: DiffRow = client.send(Method::POST, "/v1/config/diff", &body).await?;
            answer(out, form, &diff, |d| present::changes(&d.changes, look))
        }
        Config::Show => {
            let row: ConfigRow = client.get("/v1/config").await?;
            answer(out, Output::Json, &row, |_| String::new())
        }
        Config::Schema => answer(out, Output::Json, &config::schema(), |_| String::new()),
    }
}

/// Prints a report; a failed one is an error, but of the file and not of the command.
fn report(report: Report, form: Output, out: &mut dyn Write) -> Result<(), CliError> {
    match (form, report.success) {
        (Output::Table, false) => Err(CliError::Config(report.text)),
        (Output::Table, true) => Ok(writeln!(out, "{}", report.text)?),
        (Output::Json, success) => {
            answer(out, Output::Json, &report.json, |_| String::new())?;
            if success { Ok(()) } else { Err(CliError::Told) }
        }
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::Config(format!(
            "{}: {error}\n  expected: a configuration file\n  hint: give the path of a file you may read",
            file.display()
        ))
    })
}
