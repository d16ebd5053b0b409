//! The live table: per backend requests, sessions, packets; and what was dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use console::Term;
use serde::Deserialize;

use super::clients::Tally;
use crate::sandbox::Sandbox;

/// What the balancer counts at one moment.
#[derive(Clone, Default)]
pub(super) struct Sample {
    /// By backend, over all services.
    pub(super) backends: BTreeMap<String, Traffic>,
    /// Lost packets by reason.
    pub(super) drops: BTreeMap<String, u64>,
    tables: BTreeMap<String, TableUse>,
}

/// Counters of a backend.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Traffic {
    /// Packets to it.
    pub(super) packets: u64,
    /// Packets from it.
    #[serde(default)]
    pub(super) reply_packets: u64,
    /// Bytes from it.
    #[serde(default)]
    pub(super) reply_bytes: u64,
    /// Sessions bound to it.
    #[serde(default)]
    pub(super) bindings: u64,
    /// Connections opened.
    #[serde(default)]
    pub(super) connections: u64,
}

#[derive(Deserialize)]
struct BackendRow {
    name: String,
    traffic: Traffic,
}

#[derive(Deserialize)]
struct Status {
    outcomes: Vec<OutcomeRow>,
    tables: Vec<TableUse>,
}

#[derive(Deserialize)]
struct OutcomeRow {
    name: String,
    drop: bool,
    count: u64,
}

#[derive(Clone, Deserialize)]
struct TableUse {
    name: String,
    used: Option<u64>,
    capacity: u64,
}

impl Sample {
    /// Asks the balancer.
    pub(super) fn take(sandbox: &Sandbox) -> Result<Self> {
        let rows: Vec<BackendRow> =
            serde_json::from_value(sandbox.ask(&["backends"])?).context("lbctl's answer about backends")?;
        let status: Status =
            serde_json::from_value(sandbox.ask(&["status"])?).context("lbctl's answer about the status")?;
        let mut sample = Self::default();
        for row in rows {
            // A backend serves the IPv4 and the IPv6 service.
            let sum = sample.backends.entry(row.name).or_default();
            sum.packets += row.traffic.packets;
            sum.reply_packets += row.traffic.reply_packets;
            sum.reply_bytes += row.traffic.reply_bytes;
            sum.bindings += row.traffic.bindings;
            sum.connections += row.traffic.connections;
        }
        sample.drops =
            status.outcomes.into_iter().filter(|row| row.drop).map(|row| (row.name, row.count)).collect();
        sample.tables = status.tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        Ok(sample)
    }

    /// All lost packets.
    pub(super) fn lost(&self) -> u64 {
        self.drops.values().sum()
    }
}

/// A table that is drawn again and again in the same place; a line now and then where that cannot be.
pub(super) struct View {
    term: Term,
    time: Duration,
    last: Option<(Duration, Sample)>,
    drawn: usize,
    lines: u64,
}

impl View {
    /// A view of something that takes `time`.
    pub(super) fn new(time: Duration) -> Self {
        Self { term: Term::stderr(), time, last: None, drawn: 0, lines: 0 }
    }

    /// Shows the newest figures.
    pub(super) fn show(&mut self, at: Duration, sample: &Sample, tally: &Tally) {
        if self.term.is_term() {
            let text = self.render(at, sample, tally);
            self.erase();
            // A terminal that is gone is no reason to stop.
            let _ = self.term.write_line(&text);
            self.drawn = text.lines().count();
        } else if at.as_secs() >= self.lines * 2 {
            self.lines = at.as_secs() / 2 + 1;
            eprintln!(
                "    {:>3} s: {} requests, {} failed, {} sessions moved, {} packets dropped",
                at.as_secs(),
                tally.requests,
                tally.failed,
                tally.violations,
                sample.lost()
            );
        }
        self.last = Some((at, sample.clone()));
    }

    /// Leaves the last table where it is.
    pub(super) fn finish(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self) {
        let _ = self.term.clear_last_lines(self.drawn);
        self.drawn = 0;
    }

    fn render(&self, at: Duration, sample: &Sample, tally: &Tally) -> String {
        let none = Sample::default();
        let (seconds, last) = match &self.last {
            Some((then, last)) => ((at - *then).as_secs_f64().max(0.001), last),
            None => (f64::INFINITY, &none),
        };
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(self.term.size().1);
        table.set_header([
            "backend",
            "checked requests",
            "sessions",
            "connections",
            "packets in",
            "packets/s",
            "Mbit/s out",
        ]);
        for (name, now) in &sample.backends {
            let before = last.backends.get(name).copied().unwrap_or_default();
            let packets = now.packets + now.reply_packets - before.packets - before.reply_packets;
            let bits = 8 * (now.reply_bytes - before.reply_bytes);
            table.add_row([
                name.clone(),
                tally.per_backend.get(name).copied().unwrap_or_default().to_string(),
                now.bindings.to_string(),
                now.connections.to_string(),
                now.packets.to_string(),
                format!("{:.0}", packets as f64 / seconds),
                format!("{:.1}", bits as f64 / seconds / 1e6),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let used: Vec<String> = sample
            .tables
            .values()
            .map(|table| (table.name.to_lowercase(), table))
            .filter(|(name, _)| ["bindings", "flows"].contains(&name.as_str()))
            .filter_map(|(name, table)| Some(format!("{name} {} of {}", table.used?, table.capacity)))
            .collect();
        let drops: Vec<String> =
            sample.drops.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        format!(
            "{table}\n {:>2} s of {} s   requests {}   failed {}   sessions moved {}\n {}\n dropped packets: {drops}",
            at.as_secs().min(self.time.as_secs()),
            self.time.as_secs(),
            tally.requests,
            tally.failed,
            tally.violations,
            if used.is_empty() { String::new() } else { used.join("   ") },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_rates_since_the_last_one() {
        let traffic = |packets| Traffic { packets, bindings: 3, ..Traffic::default() };
        let sample =
            |packets| Sample { backends: [("be1".to_owned(), traffic(packets))].into(), ..Sample::default() };
        let mut view = View::new(Duration::from_secs(10));
        view.last = Some((Duration::from_secs(1), sample(1000)));
        let text = view.render(Duration::from_secs(3), &sample(3000), &Tally::default());
        let row = text.lines().find(|line| line.contains("be1")).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.contains(['│', '┆'])).collect();
        assert_eq!(cells, ["be1", "0", "3", "0", "3000", "1000", "0.0"]);
        assert!(text.contains("dropped packets: none"));
    }
}
