//! `lbctl top`: rates, refreshed in place.

use super::CliError;
use super::args::{Output, TopArgs};
use super::frame::{Rates, Sample, show};
use super::table::Look;
use crate::admin::client::{Client, with_query};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Cursor to the upper left corner.
const HOME: &str = "\x1b[H";
/// Erase from the cursor to the end of the line.
const ERASE_LINE: &str = "\x1b[K";
/// Erase from the cursor to the end of the screen.
const ERASE_BELOW: &str = "\x1b[J";
/// Change to the other screen and hide the cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Samples, waits, and shows the difference, until interrupted or enough frames are shown.
pub(super) async fn run(
    args: &TopArgs,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let terminal = std::io::stdout().is_terminal() && form == Output::Table;
    // Without a terminal there is nothing to refresh: one frame, unless more are asked for.
    let frames = match (args.count, terminal || form == Output::Json) {
        (Some(count), _) => count,
        (None, true) => u64::MAX,
        (None, false) => 1,
    };
    let in_place = terminal && frames > 1;
    if in_place {
        out.write_all(ENTER.as_bytes())?;
    }
    let outcome = tokio::select! {
        outcome = watch(args, client, form, look, in_place, frames, out) => Some(outcome),
        _ = tokio::signal::ctrl_c() => None,
    };
    if in_place {
        out.write_all(LEAVE.as_bytes())?;
        out.flush()?;
    }
    outcome.unwrap_or(Ok(()))
}

async fn watch(
    args: &TopArgs,
    client: &Client,
    form: Output,
    look: Look,
    in_place: bool,
    frames: u64,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let interval = Duration::from_secs_f64(args.interval);
    let mut before = sample(args, client).await?;
    for _ in 0..frames {
        tokio::time::sleep(interval).await;
        let now = sample(args, client).await?;
        let rates = Rates::between(&before, &now);
        match form {
            Output::Json => {
                let text = serde_json::to_string(&rates)?;
                writeln!(out, "{text}")?;
            }
            Output::Table if in_place => {
                let text = show(&now, &rates, look).replace('\n', &format!("{ERASE_LINE}\n"));
                write!(out, "{HOME}{text}{ERASE_BELOW}")?;
            }
            Output::Table => out.write_all(show(&now, &rates, look).as_bytes())?,
        }
        out.flush()?;
        before = now;
    }
    Ok(())
}

async fn sample(args: &TopArgs, client: &Client) -> Result<Sample, CliError> {
    let taken = Instant::now();
    let status = client.get("/v1/status").await?;
    let mut services: Vec<crate::admin::row::ServiceRow> = client.get("/v1/services").await?;
    let backends = client.get(&with_query("/v1/backends", &[("service", args.service.clone())])).await?;
    services.retain(|s| args.service.as_ref().is_none_or(|name| s.name == *name));
    Ok(Sample { taken, status, services, backends })
}
