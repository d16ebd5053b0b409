//! `lbctl top`: rates, refreshed in place.

use super::CliError;
use super::args::{Output, TopArgs};
use super::frame::{Rates, Sample, show};
use super::screen::Screen;
use super::table::Look;
use crate::admin::client::{Client, with_query};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

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
    let screen = if terminal && frames > 1 { Screen::InPlace } else { Screen::Rolling };
    screen.enter(out)?;
    let outcome = tokio::select! {
        outcome = watch(args, client, form, look, screen, frames, out) => Some(outcome),
        _ = tokio::signal::ctrl_c() => None,
    };
    screen.leave(out)?;
    outcome.unwrap_or(Ok(()))
}

async fn watch(
    args: &TopArgs,
    client: &Client,
    form: Output,
    look: Look,
    screen: Screen,
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
                out.flush()?;
            }
            Output::Table => screen.frame(out, &show(&now, &rates, look))?,
        }
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
