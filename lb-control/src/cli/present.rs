//! Answers as tables.

use super::table::{Align, Column, Look, Sheet, Tone, grouped, number, plain, span};
use crate::admin::now;
use crate::admin::row::{
    AdminState, BackendLoad, BackendRow, ChangeRow, ClusterState, EventRow, Explanation, FlowPage,
    HealthEventRow, HealthRow, HealthState, ReloadRow, ReloadState, ServiceRow, ServingState, SessionPage,
    SessionRow, StatusRow, Verdict,
};
use Align::{Left, Right};
use std::fmt::Write;

/// `lbctl status`.
pub(super) fn status(s: &StatusRow, look: Look) -> String {
    let mut facts = Sheet::new(look, &[Column("lbd", Left), Column("", Left)]);
    let mut fact = |name: &str, text: String, tone: Tone| facts.row([plain(name), (text, tone)]);
    fact("version", format!("{} (pid {}, up {})", s.version, s.pid, span(s.uptime_seconds)), Tone::Plain);
    match &s.reload {
        ReloadState::Current { .. } => {
            fact("configuration", format!("{}: current", s.config_file), Tone::Good)
        }
        ReloadState::Refused { .. } => {
            fact("configuration", format!("{}: REFUSED, see below", s.config_file), Tone::Bad);
        }
    }
    let interfaces = s.interfaces.iter().map(|i| format!("{} ({})", i.name, i.mode)).collect::<Vec<_>>();
    match interfaces.is_empty() {
        true => fact("interfaces", "none".into(), Tone::Bad),
        false => fact("interfaces", interfaces.join(", "), Tone::Plain),
    }
    fact("pinned under", s.pin_root.clone(), Tone::Plain);
    let (cluster, tone) = match s.cluster {
        ClusterState::Alone => ("in none", Tone::Plain),
        ClusterState::Joining => {
            ("waiting for the bindings; service addresses are not announced", Tone::Warning)
        }
        ClusterState::Ready => ("ready", Tone::Good),
        ClusterState::Removed => ("REMOVED from it", Tone::Bad),
    };
    fact("cluster", cluster.to_owned(), tone);
    fact("services", s.services.to_string(), Tone::Plain);
    let tone = if s.backends_up < s.backends { Tone::Warning } else { Tone::Good };
    fact("backends", format!("{} of {} take new sessions", s.backends_up, s.backends), tone);
    let tone = if s.hops.unresolved > 0 { Tone::Warning } else { Tone::Plain };
    fact("next hops", format!("{} resolved, {} not", s.hops.resolved, s.hops.unresolved), tone);
    let r = &s.reconciler;
    let state = if r.dirty { "being repaired" } else { "as wanted" };
    let tone = if r.dirty { Tone::Bad } else { Tone::Good };
    fact("data plane", format!("{state} ({} configurations applied, {} refused)", r.applied, r.failed), tone);
    let e = &s.events;
    let text = format!("{} noted, {} too fast to note, {} lost by the ring", e.received, e.missed, e.lost);
    fact("binding events", text, Tone::Plain);
    let mut text = facts.render("");

    let columns =
        [Column("TABLE", Left), Column("USED", Right), Column("CAPACITY", Right), Column("%", Right)];
    let mut tables = Sheet::new(look, &columns);
    for table in &s.tables {
        let share = table.used.map(|used| used as f64 * 100.0 / table.capacity.max(1) as f64);
        let tone = if share.is_some_and(|share| share > 90.0) { Tone::Warning } else { Tone::Plain };
        tables.row([
            plain(&table.name),
            plain(table.used.map_or_else(|| "-".to_owned(), grouped)),
            number(table.capacity),
            (share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1}")), tone),
        ]);
    }
    text.push('\n');
    text.push_str(&tables.render("no tables"));

    let columns = [Column("NOT FORWARDED", Left), Column("PACKETS", Right), Column("LOST", Left)];
    let mut outcomes = Sheet::new(look, &columns);
    for outcome in &s.outcomes {
        let lost = if outcome.drop { ("yes".to_owned(), Tone::Warning) } else { plain("no") };
        outcomes.row([plain(&outcome.name), number(outcome.count), lost]);
    }
    text.push('\n');
    text.push_str(&outcomes.render("every packet was forwarded"));
    for warning in &s.warnings {
        let _ = write!(text, "\nWARNING: {warning}\n");
    }
    if let ReloadState::Refused { reason, .. } = &s.reload {
        let _ = write!(text, "\nThe configuration file was refused; what ran before goes on:\n{reason}\n");
    }
    text
}

/// `lbctl services`.
pub(super) fn services(rows: &[ServiceRow], look: Look) -> String {
    let is_offloaded = rows.iter().any(|row| row.offloaded.is_some());
    let mut columns = vec![
        Column("SERVICE", Left),
        Column("ADDRESS", Left),
        Column("PROTO", Left),
        Column("MODE", Left),
        Column("AFFINITY", Left),
        Column("UP", Right),
        Column("BACKENDS", Right),
        Column("PACKETS", Right),
        Column("BYTES", Right),
        Column("CONNECTIONS", Right),
        Column("BINDINGS", Right),
    ];
    if is_offloaded {
        columns.extend([Column("OFFLOADED", Right), Column("OF PACKETS", Right)]);
    }
    let mut sheet = Sheet::new(look, &columns);
    for row in rows {
        let tone = match row.backends_up {
            0 => Tone::Bad,
            up if up < row.backends => Tone::Warning,
            _ => Tone::Good,
        };
        let mut cells = vec![
            plain(&row.name),
            plain(endpoint(&row.address, row.port)),
            plain(&row.protocol),
            plain(&row.mode),
            plain(&row.affinity),
            (row.backends_up.to_string(), tone),
            plain(row.backends.to_string()),
            number(row.traffic.packets + row.traffic.reply_packets),
            number(row.traffic.bytes + row.traffic.reply_bytes),
            number(row.traffic.connections),
            number(row.traffic.bindings),
        ];
        if let Some(offloaded) = row.offloaded {
            cells.extend([number(offloaded.connections), number(offloaded.packets)]);
        }
        sheet.row(cells);
    }
    sheet.render("No services are configured.")
}

/// `lbctl backends`.
pub(super) fn backends(rows: &[BackendRow], look: Look) -> String {
    let is_disputed = rows.iter().any(BackendRow::is_disputed);
    let mut columns = vec![
        Column("SERVICE", Left),
        Column("BACKEND", Left),
        Column("ADDRESS", Left),
        Column("STATE", Left),
        Column("HEALTH", Left),
        Column("ADMIN", Left),
        Column("WEIGHT", Right),
        Column("NEXT HOP", Left),
        Column("PACKETS", Right),
        Column("BYTES", Right),
        Column("CONNECTIONS", Right),
        Column("OPEN", Right),
        Column("RESPONSE", Right),
        Column("BINDINGS", Right),
    ];
    if is_disputed {
        columns.push(Column("OTHER NODES", Left));
    }
    let mut sheet = Sheet::new(look, &columns);
    for row in rows {
        let state = match row.state {
            ServingState::Up => Tone::Good,
            ServingState::Draining => Tone::Warning,
            ServingState::Down => Tone::Bad,
        };
        let admin = match row.admin {
            AdminState::Enabled => Tone::Plain,
            AdminState::Draining | AdminState::Disabled => Tone::Warning,
        };
        let hop = match &row.hop {
            None => ("unresolved".to_owned(), Tone::Bad),
            Some(hop) => plain(format!("{} {}", hop.mac, hop.interface)),
        };
        let mut cells = vec![
            plain(&row.service),
            plain(&row.name),
            plain(endpoint(&row.address, row.port)),
            (row.state.to_string(), state),
            health(row.health.as_ref(), now()),
            (overridden(row.admin.to_string(), row.configured_admin.is_some()), admin),
            (weight(row), if row.load.ramp_percent.is_some() { Tone::Warning } else { Tone::Plain }),
            hop,
            number(row.traffic.packets + row.traffic.reply_packets),
            number(row.traffic.bytes + row.traffic.reply_bytes),
            number(row.traffic.connections),
            open(&row.load),
            plain(row.load.response_microseconds.map_or_else(|| "-".to_owned(), milliseconds)),
            number(row.traffic.bindings),
        ];
        if is_disputed {
            cells.push(others(row));
        }
        sheet.row(cells);
    }
    let mut text = sheet.render("No backends are configured.");
    if rows.iter().any(|row| row.configured_admin.is_some() || row.configured_weight.is_some()) {
        text.push_str("* set by lbctl; the configuration file says otherwise\n");
    }
    text
}

/// "10", "10*" when overridden, "10 (35 %)" while it grows after a recovery.
fn weight(row: &BackendRow) -> String {
    let text = overridden(row.weight.to_string(), row.configured_weight.is_some());
    match row.load.ramp_percent {
        None => text,
        Some(percent) => format!("{text} ({percent} %)"),
    }
}

/// "12" or "12/100" where there is a limit.
fn open(load: &BackendLoad) -> (String, Tone) {
    match load.limit {
        0 => number(load.connections),
        limit => {
            let is_full = load.connections >= limit.into();
            let tone = if is_full { Tone::Warning } else { Tone::Plain };
            (format!("{}/{}", grouped(load.connections), grouped(limit.into())), tone)
        }
    }
}

/// "1.5 ms".
fn milliseconds(microseconds: u64) -> String {
    format!("{:.1} ms", microseconds as f64 / 1_000.0)
}

/// "down 2m 5s: refused the connection".
fn health(health: Option<&HealthRow>, now: u64) -> (String, Tone) {
    let Some(health) = health else { return plain("not checked") };
    let tone = match health.state {
        HealthState::Healthy => Tone::Good,
        HealthState::New | HealthState::Failing | HealthState::Rising => Tone::Warning,
        HealthState::Down => Tone::Bad,
    };
    let mut text = health.state.to_string();
    if let Some(since) = health.since_unix_seconds {
        let _ = write!(text, " {}", span(now.saturating_sub(since)));
    }
    if let Some(reason) = &health.reason {
        let _ = write!(text, ": {reason}");
    }
    (text, tone)
}

/// `lbctl sessions list`.
pub(super) fn sessions(page: &SessionPage, look: Look) -> String {
    let mut text = session_sheet(&page.sessions, look).render("No sessions.");
    truncation(&mut text, page.truncated, page.sessions.len());
    text
}

/// `lbctl sessions show`.
pub(super) fn session(row: &SessionRow, look: Look) -> String {
    session_sheet(std::slice::from_ref(row), look).render("")
}

fn session_sheet(rows: &[SessionRow], look: Look) -> Sheet {
    let columns = [
        Column("SERVICE", Left),
        Column("KEY", Left),
        Column("CLIENT", Left),
        Column("BACKEND", Left),
        Column("GENERATION", Right),
        Column("EXPIRES IN", Right),
        Column("FLAGS", Left),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for row in rows {
        let flags = [(row.pinned, "pinned"), (row.unsynced, "unsynced")];
        let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        sheet.row([
            plain(&row.service),
            plain(&row.key),
            plain(row.client.as_deref().unwrap_or("-")),
            backend_cell(row.backend.as_deref()),
            number(u64::from(row.generation)),
            plain(span(row.expires_in_seconds)),
            plain(if flags.is_empty() { "-".to_owned() } else { flags.join(",") }),
        ]);
    }
    sheet
}

/// `lbctl flows`.
pub(super) fn flows(page: &FlowPage, look: Look) -> String {
    let columns = [
        Column("SERVICE", Left),
        Column("PROTO", Left),
        Column("CLIENT", Left),
        Column("VIP", Left),
        Column("BACKEND", Left),
        Column("BACKEND ADDRESS", Left),
        Column("SEEN AS", Left),
        Column("STATE", Left),
        Column("OFFSET", Right),
        Column("IDLE", Right),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for row in &page.flows {
        sheet.row([
            plain(&row.service),
            plain(&row.protocol),
            plain(&row.client),
            plain(&row.vip),
            backend_cell(row.backend.as_deref()),
            plain(&row.backend_address),
            plain(if row.source == row.client { "-" } else { row.source.as_str() }),
            plain(&row.state),
            plain(row.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string())),
            plain(span(row.idle_seconds)),
        ]);
    }
    let mut text = sheet.render("No flows.");
    truncation(&mut text, page.truncated, page.flows.len());
    text
}

/// `lbctl events`.
pub(super) fn events(rows: &[EventRow], look: Look) -> String {
    event_sheet(rows, look).render("No events since the daemon started.")
}

/// Events without the titles of their columns.
pub(super) fn more_events(rows: &[EventRow], look: Look) -> String {
    let text = event_sheet(rows, look).render("");
    text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
}

fn event_sheet(rows: &[EventRow], look: Look) -> Sheet {
    let columns = [
        Column("NO", Right),
        Column("TIME (UTC)", Left),
        Column("EVENT", Left),
        Column("SERVICE", Left),
        Column("KEY", Left),
        Column("CLIENT", Left),
        Column("BACKEND", Left),
        Column("GENERATION", Right),
        Column("HEALTH", Left),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for row in rows {
        let day = row.unix_seconds % 86_400;
        sheet.row([
            number(row.number),
            plain(format!("{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60)),
            plain(&row.kind),
            plain(&row.service),
            plain(row.key.as_deref().unwrap_or("-")),
            plain(row.client.as_deref().unwrap_or("-")),
            backend_cell(row.backend.as_deref()),
            row.generation.map_or_else(|| plain("-"), |generation| number(u64::from(generation))),
            plain(row.health.as_ref().map_or_else(|| "-".to_owned(), health_change)),
        ]);
    }
    sheet
}

/// What other nodes say of a backend, where it is not what this one says.
fn others(row: &BackendRow) -> (String, Tone) {
    if !row.is_disputed() {
        return plain("-");
    }
    let word = |serves| if serves { "serves" } else { "down" };
    let said: Vec<String> =
        row.nodes.iter().map(|node| format!("{}: {}", node.node, word(node.serves))).collect();
    (said.join(", "), Tone::Warning)
}

fn health_change(change: &HealthEventRow) -> String {
    let HealthEventRow { from, to, reason } = change;
    match reason {
        Some(reason) => format!("{from} -> {to}: {reason}"),
        None => format!("{from} -> {to}"),
    }
}

/// `lbctl explain`.
pub(super) fn explanation(told: &Explanation, look: Look) -> String {
    let columns = [Column("STEP", Left), Column("FOUND", Left), Column("SO", Left)];
    let mut sheet = Sheet::new(look, &columns);
    for step in &told.steps {
        sheet.row([plain(step.kind.name()), plain(&step.found), plain(&step.because)]);
    }
    let verdict = match &told.verdict {
        Verdict::Forward { service, backend, address, mode } => {
            format!("to backend {backend} ({address}) of service {service}, by {mode}")
        }
        Verdict::Pass { outcome } => format!("passed to the host's own stack ({outcome})"),
        Verdict::Answer { outcome } => format!("answered by the balancer ({outcome})"),
        Verdict::Drop { outcome } => format!("dropped ({outcome})"),
    };
    format!("{}\nVerdict: {verdict}\n", sheet.render("no steps"))
}

/// `lbctl reload`.
pub(super) fn reload(row: &ReloadRow, look: Look) -> String {
    format!("Loaded {}.\n{}", row.file, changes(&row.changes, look))
}

/// Differences between configurations.
pub(super) fn changes(rows: &[ChangeRow], look: Look) -> String {
    let columns = [Column("CHANGE", Left), Column("FROM", Left), Column("TO", Left), Column("EFFECT", Left)];
    let mut sheet = Sheet::new(look, &columns);
    for row in rows {
        sheet.row([
            plain(&row.object),
            (row.before.clone().unwrap_or_else(|| "-".to_owned()), Tone::Bad),
            (row.after.clone().unwrap_or_else(|| "-".to_owned()), Tone::Good),
            plain(&row.effect),
        ]);
    }
    sheet.render("No differences.")
}

fn overridden(text: String, overridden: bool) -> String {
    if overridden { format!("{text}*") } else { text }
}

fn backend_cell(name: Option<&str>) -> (String, Tone) {
    match name {
        Some(name) => plain(name),
        None => ("gone".to_owned(), Tone::Warning),
    }
}

fn truncation(text: &mut String, truncated: bool, shown: usize) {
    if truncated {
        let _ =
            writeln!(text, "... {} shown, there are more: raise --limit or filter", grouped(shown as u64));
    }
}

fn endpoint(address: &str, port: u16) -> String {
    let port = if port == 0 { "*".to_owned() } else { port.to_string() };
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
