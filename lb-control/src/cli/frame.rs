//! One frame of `lbctl top`.

use super::table::{Align, Column, Look, Sheet, Tone, grouped, plain, scaled, span};
use crate::admin::row::{BackendRow, OutcomeRow, ServiceRow, ServingState, StatusRow, Traffic};
use Align::{Left, Right};
use serde::Serialize;
use std::fmt::Write;
use std::time::Instant;

/// What the daemon said at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) taken: Instant,
    pub(super) status: StatusRow,
    pub(super) services: Vec<ServiceRow>,
    pub(super) backends: Vec<BackendRow>,
}

/// Rates between two samples.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    seconds: f64,
    services: Vec<Rate>,
    backends: Vec<Rate>,
    outcomes: Vec<OutcomeRate>,
}

/// What one service or backend does in a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    packets_per_second: f64,
    bytes_per_second: f64,
    reply_packets_per_second: f64,
    reply_bytes_per_second: f64,
    connections_per_second: f64,
    bindings_per_second: f64,
}

/// What becomes of packets in a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct OutcomeRate {
    name: String,
    drop: bool,
    per_second: f64,
    total: u64,
}

impl Rates {
    /// Rates from `before` to `now`; a counter that went back counts as still.
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.taken.duration_since(before.taken).as_secs_f64().max(0.001);
        let services = now.services.iter().map(|row| {
            let old = before.services.iter().find(|old| old.name == row.name);
            rate(&row.name, None, old.map(|old| old.traffic), row.traffic, seconds)
        });
        let backends = now.backends.iter().map(|row| {
            let old =
                before.backends.iter().find(|old| (&old.service, &old.name) == (&row.service, &row.name));
            rate(&row.service, Some(&row.name), old.map(|old| old.traffic), row.traffic, seconds)
        });
        let outcomes = now.status.outcomes.iter().map(|row: &OutcomeRow| {
            let old = before.status.outcomes.iter().find(|old| old.name == row.name);
            let since = row.count.saturating_sub(old.map_or(0, |old| old.count));
            let per_second = since as f64 / seconds;
            OutcomeRate { name: row.name.clone(), drop: row.drop, per_second, total: row.count }
        });
        Self {
            seconds,
            services: services.collect(),
            backends: backends.collect(),
            outcomes: outcomes.collect(),
        }
    }
}

fn rate(service: &str, backend: Option<&String>, old: Option<Traffic>, new: Traffic, seconds: f64) -> Rate {
    // What has just appeared has no rate yet.
    let old = old.unwrap_or(new);
    let per_second = |value: fn(&Traffic) -> u64| value(&new).saturating_sub(value(&old)) as f64 / seconds;
    Rate {
        service: service.to_owned(),
        backend: backend.cloned(),
        packets_per_second: per_second(|t| t.packets),
        bytes_per_second: per_second(|t| t.bytes),
        reply_packets_per_second: per_second(|t| t.reply_packets),
        reply_bytes_per_second: per_second(|t| t.reply_bytes),
        connections_per_second: per_second(|t| t.connections),
        bindings_per_second: per_second(|t| t.bindings),
    }
}

/// The frame as text.
pub(super) fn show(now: &Sample, rates: &Rates, look: Look) -> String {
    let status = &now.status;
    let mut text = String::new();
    let table =
        |name: &str| status.tables.iter().find(|t| t.name.eq_ignore_ascii_case(name)).and_then(|t| t.used);
    let sessions = table("bindings").map_or_else(|| "-".to_owned(), grouped);
    let lost = rates.outcomes.iter().filter(|o| o.drop).fold(0.0, |sum, o| sum + o.per_second);
    let _ = writeln!(
        text,
        "lbd up {}   sessions {sessions}   drops {}/s   backends {}/{} up   every {:.1} s\n",
        span(status.uptime_seconds),
        scaled(lost),
        status.backends_up,
        status.backends,
        rates.seconds,
    );
    let columns = [
        Column("SERVICE", Left),
        Column("BACKEND", Left),
        Column("STATE", Left),
        Column("PACKETS/S", Right),
        Column("BYTES/S", Right),
        Column("REPLIES/S", Right),
        Column("BYTES/S", Right),
        Column("CONN/S", Right),
        Column("NEW SESSIONS/S", Right),
        Column("SESSIONS MADE", Right),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for (service, rate) in now.services.iter().zip(&rates.services) {
        let state = (format!("{}/{} up", service.backends_up, service.backends), Tone::Plain);
        sheet.row(line(&service.name, "", state, rate, service.traffic.bindings));
        let backends = now.backends.iter().zip(&rates.backends);
        for (backend, rate) in backends.filter(|(b, _)| b.service == service.name) {
            let tone = match backend.state {
                ServingState::Up => Tone::Good,
                ServingState::Draining => Tone::Warning,
                ServingState::Down => Tone::Bad,
            };
            let state = (backend.state.to_string(), tone);
            sheet.row(line("", &backend.name, state, rate, backend.traffic.bindings));
        }
    }
    text.push_str(&sheet.render("No services are configured."));
    let columns = [
        Column("NOT FORWARDED", Left),
        Column("PER SECOND", Right),
        Column("TOTAL", Right),
        Column("LOST", Left),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for outcome in &rates.outcomes {
        let lost = match outcome.drop {
            true => ("yes", if outcome.per_second > 0.0 { Tone::Bad } else { Tone::Plain }),
            false => ("no", Tone::Plain),
        };
        sheet.row([
            plain(&outcome.name),
            plain(scaled(outcome.per_second)),
            plain(grouped(outcome.total)),
            (lost.0.to_owned(), lost.1),
        ]);
    }
    text.push('\n');
    text.push_str(&sheet.render("every packet was forwarded"));
    text
}

fn line(service: &str, backend: &str, state: (String, Tone), rate: &Rate, made: u64) -> [(String, Tone); 10] {
    [
        plain(service),
        plain(backend),
        state,
        plain(scaled(rate.packets_per_second)),
        plain(scaled(rate.bytes_per_second)),
        plain(scaled(rate.reply_packets_per_second)),
        plain(scaled(rate.reply_bytes_per_second)),
        plain(scaled(rate.connections_per_second)),
        plain(scaled(rate.bindings_per_second)),
        plain(grouped(made)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let old = Traffic { packets: 100, bytes: 1_000, ..Traffic::default() };
        let new = Traffic { packets: 300, bytes: 500, ..Traffic::default() };
        let told = rate("web", None, Some(old), new, 2.0);
        assert_eq!(told.packets_per_second, 100.0);
        assert_eq!(told.bytes_per_second, 0.0, "a counter that was reset is not a negative rate");
        assert_eq!(rate("web", None, None, new, 2.0).packets_per_second, 0.0);
    }
}
