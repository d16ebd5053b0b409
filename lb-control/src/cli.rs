//! `lbctl`, the command line of a running daemon.

pub mod args;
mod ask;
mod cluster;
mod config;
mod drain;
mod follow;
mod frame;
mod present;
mod screen;
pub mod table;
mod top;

use crate::admin::client::{Client, ClientError};
use args::{Command, Lbctl, Output};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Look;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The daemon did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A configuration file is wrong.
    #[error("{0}")]
    Config(String),
    /// The answer, already printed, is a failure.
    #[error("failed")]
    Told,
    /// There is no daemon to detach, and nothing that one left.
    #[error(
        "nothing to detach: no daemon answers, and nothing is pinned below {}\n  expected: a running lbd, or what one left\n  hint: give the daemon's --socket or its --pin-root, and run it as root",
        root.display()
    )]
    NothingPinned {
        /// The pin directory.
        root: PathBuf,
    },
    /// The data plane could not be removed.
    #[error(transparent)]
    DataPlane(#[from] crate::dataplane::Error),
    /// Somebody else steered a backend while it was waited for.
    #[error(
        "backend {backend} of service {service}: it does not drain any more\n  expected: a backend that drains until nothing is left\n  hint: somebody else has told it something else since, and that holds; see `lbctl backends`"
    )]
    Overruled {
        /// Its service.
        service: String,
        /// Its name.
        backend: String,
    },
    /// The user thought better of it.
    #[error("not done: {0}")]
    Declined(&'static str),
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Write(#[from] std::io::Error),
    /// The answer could not be turned into JSON.
    #[error("the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs `lbctl` on the process's arguments.
pub fn main() -> ExitCode {
    let args = Lbctl::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lbctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let form = args.output;
    let mut out = std::io::stdout().lock();
    match runtime.block_on(run(args, Look::of_stdout(), &mut out)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read us had enough, as in `lbctl sessions list | head`.
        Err(CliError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(CliError::Told) => ExitCode::FAILURE,
        Err(error) => {
            match form {
                Output::Table => eprintln!("lbctl: {error}"),
                Output::Json => eprintln!("{}", error.json()),
            }
            ExitCode::FAILURE
        }
    }
}

impl CliError {
    /// The error for programs, in the API's shape as far as there is one.
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Client(ClientError::Refused(body)) => serde_json::json!(body),
            other => serde_json::json!({ "error": other.to_string() }),
        }
    }
}

/// Runs one command and writes its answer to `out`.
pub async fn run(args: Lbctl, look: Look, out: &mut dyn Write) -> Result<(), CliError> {
    let client = Client::new(&args.socket);
    match args.command {
        Command::Completions { shell } => {
            // Not to `out` at once: the generator panics where writing fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Lbctl::command(), "lbctl", &mut script);
            Ok(out.write_all(&script)?)
        }
        Command::Config(command) => config::run(command, &client, args.output, look, out).await,
        Command::Cluster(command) => cluster::run(command, &client, args.output, look, out).await,
        Command::Top(top) => top::run(&top, &client, args.output, look, out).await,
        command => ask::run(command, &client, args.output, look, out).await,
    }
}

/// Writes an answer in the form asked for.
fn answer<T: serde::Serialize>(
    out: &mut dyn Write,
    form: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    match form {
        Output::Table => out.write_all(table(value).as_bytes())?,
        Output::Json => {
            let mut text = serde_json::to_string_pretty(value)?;
            text.push('\n');
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A reader that has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_has_had_enough_is_no_failure() {
        let is_known = |result: Result<(), CliError>| matches!(result, Err(CliError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe);
        for line in [&["lbctl", "completions", "bash"][..], &["lbctl", "config", "schema"]] {
            let args = Lbctl::parse_from(line);
            assert!(is_known(run(args, Look::PLAIN, &mut Closed).await), "{line:?}");
        }
        for form in [Output::Table, Output::Json] {
            assert!(is_known(answer(&mut Closed, form, &[1, 2], |_| "1 2".to_owned())), "{form:?}");
        }
    }
}
