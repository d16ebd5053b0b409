//! The cluster's part of the metrics.

use super::{counters, gauges, signed, single_gauge};
use crate::admin::row::{ClusterNodeRow, ClusterRow, ClusterState, MirrorRow, PeerRow};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// A number of peers' rows: name, help, and where it is.
type Shown = (&'static str, &'static str, fn(&PeerRow) -> u64);

const GAUGES: [Shown; 4] = [
    ("peer_connected", "Whether a member is connected", |peer| u64::from(peer.connected.is_some())),
    ("peer_behind_events", "Events that this node has and the member has not", |peer| peer.behind_events),
    ("peer_ahead_events", "Events that the member has and this node has not", |peer| peer.ahead_events),
    (
        "peer_snapshot_records",
        "Records that came of the snapshot which is being fetched from the member",
        |peer| peer.snapshot_records.unwrap_or(0),
    ),
];

const COUNTERS: [Shown; 2] = [
    ("peer_sent_bytes", "Bytes of messages sent to a member", |peer| peer.sent_bytes),
    ("peer_received_bytes", "Bytes of messages received from a member", |peer| peer.received_bytes),
];

/// Encodes the cluster; of a node that is in none only that.
pub(super) fn encode(row: &ClusterRow, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let states = [ClusterState::Alone, ClusterState::Joining, ClusterState::Ready, ClusterState::Removed];
    let rows = states.map(|state| ([("state", state.to_string())], i64::from(row.state == state)));
    gauges(e, "cluster_state", "Whether the node stands so in its cluster", rows)?;
    let Some(node) = &row.node else { return Ok(()) };
    own(node, e)?;
    let connected = row.peers.iter().filter(|peer| peer.connected.is_some()).count();
    single_gauge(e, "cluster_peers", "Other members", signed(row.peers.len() as u64))?;
    single_gauge(e, "cluster_peers_connected", "Other members that are connected", signed(connected as u64))?;
    for (name, help, value) in GAUGES {
        let rows = row.peers.iter().map(|peer| (label(peer), signed(value(peer))));
        gauges(e, &format!("cluster_{name}"), help, rows)?;
    }
    for (name, help, value) in COUNTERS {
        let rows = row.peers.iter().map(|peer| (label(peer), value(peer)));
        counters(e, &format!("cluster_{name}"), help, rows)?;
    }
    let help = "Seconds for which a member has lacked an event of this node";
    let mut metric = e.encode_descriptor("cluster_peer_behind_seconds", help, None, MetricType::Gauge)?;
    for peer in &row.peers {
        ConstGauge::new(peer.behind_seconds).encode(metric.encode_family(&label(peer))?)?;
    }
    Ok(())
}

fn mirror(row: &MirrorRow, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let rows = [("told", row.mirrored), ("held", row.held)];
    let rows = rows.map(|(side, flows)| ([("side", side)], signed(flows as u64)));
    let help = "Connections of this node that others hold (told), and of others that this node holds";
    gauges(e, "cluster_mirror_flows", help, rows)?;
    let rows = [
        ("sent", row.sent),
        ("received", row.received),
        ("dropped", row.dropped),
        ("missed", row.missed),
        ("refused", row.refused),
        ("adopted", row.adopted),
        ("lost", row.lost),
    ];
    let rows = rows.map(|(kind, count)| ([("kind", kind)], count));
    counters(
        e,
        "cluster_mirror_events",
        "What happened to mirrored connections since the daemon started",
        rows,
    )
}

fn own(node: &ClusterNodeRow, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    single_gauge(
        e,
        "cluster_bindings",
        "Bindings of the cluster that the node holds",
        signed(node.bindings as u64),
    )?;
    let help = "Bytes that the cluster's bindings and logs take";
    single_gauge(e, "cluster_memory_bytes", help, signed(node.memory_bytes as u64))?;
    let help = "1 while the journal cannot be written";
    single_gauge(e, "cluster_journal_trouble", help, i64::from(node.journal_trouble.is_some()))?;
    let help = "When the node's certificate ends, in seconds since 1970";
    single_gauge(e, "cluster_certificate_end_seconds", help, signed(node.certificate_until))?;
    let counts = &node.counts;
    let rows = [
        ("own", counts.own),
        ("coalesced", counts.coalesced),
        ("applied", counts.applied),
        ("repeated", counts.repeated),
    ];
    let rows = rows.map(|(kind, count)| ([("kind", kind)], count));
    counters(e, "cluster_events", "Events of bindings since the daemon started", rows)?;
    let rows = [
        ("gaps", counts.gaps),
        ("requests", counts.requests),
        ("relayed", counts.relayed),
        ("refused", counts.refused),
        ("failovers", counts.failovers),
        ("snapshots_begun", counts.snapshots_begun),
        ("snapshots_done", counts.snapshots_done),
    ];
    for (name, count) in rows {
        let help = "What happened between the members since the daemon started";
        counters(e, &format!("cluster_{name}"), help, [(NO_LABELS, count)])?;
    }
    mirror(&node.mirror, e)?;
    let ends = node.convergence.buckets.iter();
    let ends = ends.map(|bucket| match bucket.milliseconds {
        Some(milliseconds) => (milliseconds as f64 / 1_000.0, bucket.events),
        None => (f64::MAX, bucket.events),
    });
    let (buckets, count) =
        (ends.collect::<Vec<_>>(), node.convergence.buckets.iter().map(|b| b.events).sum());
    let sum = node.convergence.sum_milliseconds as f64 / 1_000.0;
    let help = "Time until another member said that it had an event of this node";
    let mut metric = e.encode_descriptor("cluster_convergence_seconds", help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

const NO_LABELS: [(&str, &str); 0] = [];

fn label(peer: &PeerRow) -> [(&'static str, &str); 2] {
    [("peer", peer.name.as_str()), ("id", peer.id.as_str())]
}
