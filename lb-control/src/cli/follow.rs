//! `lbctl events --follow`.

use super::args::{EventsArgs, Output};
use super::table::Look;
use super::{CliError, present};
use crate::admin::client::{Client, with_query};
use crate::admin::row::EventRow;
use std::io::Write;
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Events that are asked for at a time: all that the daemon keeps.
const ALL: usize = 4_096;

/// Shows the latest events and then those that come, until interrupted.
pub(super) async fn run(
    args: &EventsArgs,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    tokio::select! {
        outcome = follow(args, client, form, look, out) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(
    args: &EventsArgs,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let (mut last, mut limit) = (None, args.limit);
    loop {
        let query = [("service", args.service.clone()), ("limit", Some(limit.to_string()))];
        let mut rows: Vec<EventRow> = client.get(&with_query("/v1/events", &query)).await?;
        // A daemon that was started anew counts from 1 again.
        let is_older = |row: &EventRow| last.is_some_and(|last| row.number <= last);
        let is_new_daemon = rows.last().is_some_and(|row| last.is_some_and(|last| row.number < last));
        if !is_new_daemon {
            rows.retain(|row| !is_older(row));
        }
        show(&rows, last.is_none(), form, look, out)?;
        last = rows.last().map(|row| row.number).or(last).or(Some(0));
        limit = ALL;
        tokio::time::sleep(LOOK).await;
    }
}

fn show(
    rows: &[EventRow],
    is_first: bool,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match form {
        Output::Json => {
            for row in rows {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")?;
            }
        }
        Output::Table if is_first => out.write_all(present::events(rows, look).as_bytes())?,
        Output::Table => out.write_all(present::more_events(rows, look).as_bytes())?,
    }
    Ok(out.flush()?)
}
