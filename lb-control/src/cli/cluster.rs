//! `lbctl cluster`: nodes that act as one.

use super::args::Output;
use super::args::cluster::{Cluster, StatusArgs};
use super::screen::Screen;
use super::table::{Align, Column, Look, Sheet, Tone, grouped, number, plain, scaled, span};
use super::{CliError, answer};
use crate::admin::client::{Client, encode};
use crate::admin::row::{
    ClusterNodeRow, ClusterRow, ClusterState, InitBody, JoinBody, JoinedRow, PeerRow, TokenBody, TokenRow,
};
use Align::{Left, Right};
use hyper::Method;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A peer that was not heard for so many seconds is worth a look.
const SILENT: f64 = 5.0;

/// Runs a `cluster` command.
pub(super) async fn run(
    command: Cluster,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match command {
        Cluster::Init(args) => {
            let body = InitBody { valid_seconds: args.valid.as_secs() };
            let made: TokenRow = client.send(Method::POST, "/v1/cluster", &body).await?;
            answer(out, form, &made, |made| {
                format!("This node is the first one of a new cluster, as {}.\n{}", made.id, invitation(made))
            })
        }
        Cluster::Token(args) => {
            let body = TokenBody { role: args.role.name().to_owned(), valid_seconds: args.valid.as_secs() };
            let made: TokenRow = client.send(Method::POST, "/v1/cluster/tokens", &body).await?;
            answer(out, form, &made, invitation)
        }
        Cluster::Join(args) => {
            let token = match args.token.as_str() {
                "-" => std::io::read_to_string(std::io::stdin())?.trim().to_owned(),
                _ => args.token,
            };
            let body = JoinBody { token, address: args.address };
            let joined: JoinedRow = client.send(Method::POST, "/v1/cluster/join", &body).await?;
            answer(out, form, &joined, |joined| {
                format!("Joined, as {}. `lbctl cluster status` shows how it comes along.\n", joined.id)
            })
        }
        Cluster::Remove(args) => {
            client.act(Method::DELETE, &format!("/v1/cluster/members/{}", encode(&args.member))).await?;
            let done = serde_json::json!({"removed": true, "member": args.member});
            answer(out, form, &done, |_| format!("Removed {}.\n", args.member))
        }
        Cluster::Rotate(args) => {
            let name = args.secret.name();
            let force = if args.force { "?force=true" } else { "" };
            client.act(Method::POST, &format!("/v1/cluster/secrets/{name}/rotate{force}")).await?;
            let done = serde_json::json!({"rotated": true, "secret": name});
            answer(out, form, &done, |_| format!("There is a new {name} secret; every node is told.\n"))
        }
        Cluster::Status(args) => watch(&args, client, form, look, out).await,
    }
}

/// What the next machine has to do.
fn invitation(made: &TokenRow) -> String {
    let address = made.addresses.first().map_or("ADDRESS-OF-THIS-NODE", String::as_str);
    let mut text = format!(
        "Within {}, on the machine that is to join:\n\n  lbctl cluster join {} {address}\n",
        span(made.valid_seconds),
        made.token
    );
    if made.addresses.len() > 1 {
        let _ = write!(text, "\nor at {}.\n", made.addresses[1..].join(", "));
    }
    text
}

async fn watch(
    args: &StatusArgs,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    if !args.watch {
        let row: ClusterRow = client.get("/v1/cluster").await?;
        return answer(out, form, &row, |row| status(row, look));
    }
    let terminal = std::io::stdout().is_terminal() && form == Output::Table;
    let screen = if terminal { Screen::InPlace } else { Screen::Rolling };
    screen.enter(out)?;
    let outcome = tokio::select! {
        outcome = frames(args, client, form, look, screen, out) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    screen.leave(out)?;
    outcome
}

async fn frames(
    args: &StatusArgs,
    client: &Client,
    form: Output,
    look: Look,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    loop {
        let row: ClusterRow = client.get("/v1/cluster").await?;
        match form {
            Output::Table => screen.frame(out, &status(&row, look))?,
            Output::Json => {
                let text = serde_json::to_string(&row)?;
                writeln!(out, "{text}")?;
                out.flush()?;
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(args.interval)).await;
    }
}

/// `lbctl cluster status`.
fn status(row: &ClusterRow, look: Look) -> String {
    let Some(node) = &row.node else {
        return "This node is in no cluster; `lbctl cluster init` makes one, `lbctl cluster join` joins one.\n"
            .to_owned();
    };
    let mut text = node_sheet(row.state, node, look);
    text.push('\n');
    text.push_str(&peer_sheet(&row.peers, look));
    for peer in &row.peers {
        if let Some(failure) = &peer.failure {
            let _ = write!(text, "\n{}: {failure}\n", peer.name);
        }
    }
    if let Some(trouble) = &node.journal_trouble {
        let _ = write!(text, "\nWARNING: the journal is not written: {trouble}\n");
    }
    if node.certificate_overdue {
        let left = node.certificate_until.saturating_sub(unix_now()) / 86_400;
        let _ = write!(
            text,
            "\nWARNING: this node's certificate ends in {left} days and was not made new: connect this node to the one where \
             `lbctl cluster init` ran\n"
        );
    }
    text
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn node_sheet(state: ClusterState, node: &ClusterNodeRow, look: Look) -> String {
    let mut facts = Sheet::new(look, &[Column("cluster", Left), Column("", Left)]);
    let mut fact = |name: &str, text: String, tone: Tone| facts.row([plain(name), (text, tone)]);
    let (words, tone) = match state {
        ClusterState::Ready => ("ready", Tone::Good),
        ClusterState::Joining | ClusterState::Alone => {
            ("waiting for the bindings; not announced", Tone::Warning)
        }
        ClusterState::Removed => ("REMOVED: the others do not talk to it any more", Tone::Bad),
    };
    fact("state", words.to_owned(), tone);
    let name = node.name.as_deref().unwrap_or("-");
    let role = if node.authority { ", holds the authority's key" } else { "" };
    fact("this node", format!("{name} ({}){role}", node.id), Tone::Plain);
    fact("called at", node.addresses.join(", "), Tone::Plain);
    let bytes = scaled(node.memory_bytes as f64);
    fact("bindings", format!("{} in {bytes}B", grouped(node.bindings as u64)), Tone::Plain);
    let counts = &node.counts;
    let events = format!("{} own, {} of others", grouped(counts.own), grouped(counts.applied));
    fact("events", events, Tone::Plain);
    let mirror = &node.mirror;
    if mirror.on || mirror.held > 0 || mirror.adopted > 0 {
        let (told, held, adopted) =
            (grouped(mirror.mirrored as u64), grouped(mirror.held as u64), grouped(mirror.adopted));
        let text = format!("{told} mirrored, {held} held for others, {adopted} taken over");
        fact("connections", text, Tone::Plain);
    }
    if let Some(time) = median(node) {
        fact("convergence", format!("half of the events within {time} ms"), Tone::Plain);
    }
    facts.render("")
}

/// What half of the measured events took at most, in milliseconds.
fn median(node: &ClusterNodeRow) -> Option<u64> {
    let all: u64 = node.convergence.buckets.iter().map(|row| row.events).sum();
    let mut seen = 0;
    let bucket = node.convergence.buckets.iter().find(|row| {
        seen += row.events;
        all > 0 && seen * 2 >= all
    })?;
    bucket.milliseconds
}

fn peer_sheet(peers: &[PeerRow], look: Look) -> String {
    let columns = [
        Column("PEER", Left),
        Column("ID", Left),
        Column("ROLE", Left),
        Column("ADDRESS", Left),
        Column("CONNECTED", Left),
        Column("RTT", Right),
        Column("ASKED", Left),
        Column("HELD", Right),
        Column("LAST HEARD", Right),
        Column("LACKS", Right),
        Column("FOR", Right),
        Column("HAS MORE", Right),
        Column("SENT", Right),
        Column("RECEIVED", Right),
        Column("SNAPSHOT", Left),
    ];
    let mut sheet = Sheet::new(look, &columns);
    for peer in peers {
        let connected = match &peer.connected {
            Some(connection) => (span(connection.seconds), Tone::Good),
            None => ("no".to_owned(), Tone::Bad),
        };
        let address = peer.connected.as_ref().map(|connection| connection.address.clone());
        let address = address.or_else(|| peer.addresses.first().cloned());
        let round_trip =
            peer.connected.as_ref().map(|connection| format!("{:.1} ms", connection.round_trip_ms));
        let heard = match peer.last_contact_seconds {
            Some(seconds) if seconds < SILENT => plain(format!("{seconds:.1} s")),
            Some(seconds) => (span(seconds as u64), Tone::Warning),
            None => plain("-"),
        };
        let lacks = if peer.behind_seconds > SILENT { Tone::Warning } else { Tone::Plain };
        let snapshot = peer
            .snapshot_records
            .map_or_else(|| "-".to_owned(), |records| format!("{} records came", grouped(records)));
        sheet.row([
            plain(&peer.name),
            plain(&peer.id),
            plain(&peer.role),
            plain(address.unwrap_or_else(|| "-".to_owned())),
            connected,
            plain(round_trip.unwrap_or_else(|| "-".to_owned())),
            plain(if peer.asked { "yes" } else { "no" }),
            number(peer.held_connections as u64),
            heard,
            (grouped(peer.behind_events), lacks),
            (format!("{:.1} s", peer.behind_seconds), lacks),
            number(peer.ahead_events),
            plain(format!("{}B", scaled(peer.sent_bytes as f64))),
            plain(format!("{}B", scaled(peer.received_bytes as f64))),
            plain(snapshot),
        ]);
    }
    sheet.render("No other members yet; `lbctl cluster token` lets one in.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn member(end: u64, is_overdue: bool) -> ClusterRow {
        let row = json!({
            "state": "ready", "peers": [],
            "node": {
                "id": "00f3a1d2b4c5e697", "name": "lb1", "listen": "[::]:7117", "addresses": [], "authority": false,
                "member_list": 1, "bindings": 0, "memory_bytes": 0, "vector": [], "journal_trouble": null,
                "certificate_until": end, "certificate_overdue": is_overdue,
                "counts": {
                    "own": 0, "coalesced": 0, "applied": 0, "repeated": 0, "gaps": 0, "requests": 0, "relayed": 0,
                    "failovers": 0, "snapshots_begun": 0, "snapshots_done": 0, "refused": 0,
                },
                "convergence": {"sum_milliseconds": 0, "buckets": []},
                "mirror": {
                    "on": true, "mirrored": 12, "held": 3_400, "sent": 0, "received": 0, "dropped": 0, "missed": 0,
                    "refused": 0, "adopted": 7, "lost": 0,
                },
            },
        });
        serde_json::from_value(row).expect("a row")
    }

    #[test]
    fn mirrored_connections_are_shown_where_there_are_any() {
        let look = Look { colour: false, width: None };
        let mut row = member(unix_now() + 86_400, false);
        let shown = status(&row, look);
        assert!(shown.contains("12 mirrored, 3,400 held for others, 7 taken over"), "{shown}");
        if let Some(node) = &mut row.node {
            node.mirror = crate::admin::row::MirrorRow::default();
        }
        assert!(!status(&row, look).contains("mirrored"));
    }

    #[test]
    fn a_certificate_that_was_not_made_new_is_warned_of() {
        let end = unix_now() + 40 * 86_400 + 60;
        let shown = status(&member(end, true), Look { colour: false, width: None });
        assert!(shown.contains("WARNING: this node's certificate ends in 40 days"), "{shown}");
        assert!(shown.contains("`lbctl cluster init` ran"), "{shown}");
        assert!(!status(&member(end, false), Look { colour: false, width: None }).contains("WARNING"));
    }
}
