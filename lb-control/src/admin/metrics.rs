//! Prometheus metrics, made anew from a snapshot of the data plane for every scrape.
//!
//! The data plane counts; nothing is kept here. So counters go on over restarts of the daemon.

mod cluster;

use super::row::{ClusterRow, HealthRow, HealthState, StatusRow};
use crate::reconcile::{HopState, OutcomeRow, View};
use crate::webhook;
use lb_common::abi::{Counters, Status, Vitals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;

/// Content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one scrape shows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The daemon.
    pub status: StatusRow,
    /// The cluster.
    pub cluster: ClusterRow,
    /// Every outcome, those never met too.
    pub outcomes: Vec<OutcomeRow>,
    /// Services and backends.
    pub view: View,
    /// How often each backend came into each state, by service and backend.
    pub health_changes: BTreeMap<(String, String), [u64; HealthState::ALL.len()]>,
    /// What became of events for the webhook; `None` = there is none.
    pub webhook: Option<webhook::Counts>,
}

impl Snapshot {
    /// The metrics as text.
    pub fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("stickleback");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// A counter of services and backends: name, help, and where it is.
type Counted = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTED: [Counted; 6] = [
    ("packets", "Packets towards backends", |c| c.packets),
    ("bytes", "Bytes towards backends, from the IP header on, before encapsulation", |c| c.bytes),
    ("reply_packets", "Packets from backends that were translated back", |c| c.reply_packets),
    ("reply_bytes", "Bytes from backends that were translated back", |c| c.reply_bytes),
    ("bindings_made", "Session bindings made", |c| c.bindings),
    ("connections", "Connections opened", |c| c.connections),
];

/// What health checks can find.
const HEALTH_STATES: [(&str, HealthState); HealthState::ALL.len()] = [
    ("new", HealthState::New),
    ("healthy", HealthState::Healthy),
    ("failing", HealthState::Failing),
    ("down", HealthState::Down),
    ("rising", HealthState::Rising),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        self.traffic(e)?;
        self.backends(e)?;
        self.tables(e)?;
        self.daemon(e)?;
        cluster::encode(&self.cluster, e)
    }
}

impl Snapshot {
    fn traffic(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in COUNTED {
            let rows = self.view.services.iter();
            let rows = rows.map(|s| ([("service", s.spec.name.as_str())], value(&s.counters)));
            counters(e, &format!("service_{name}"), help, rows)?;
            let rows = self.view.services.iter().flat_map(|s| {
                let label = move |b| [("service", s.spec.name.as_str()), ("backend", b)];
                s.backends.iter().map(move |b| (label(b.spec.name.as_str()), value(&b.counters)))
            });
            counters(e, &format!("backend_{name}"), help, rows)?;
        }
        let offloaded = || {
            self.view
                .services
                .iter()
                .filter_map(|s| Some(([("service", s.spec.name.as_str())], s.offloaded?)))
        };
        let rows = offloaded().map(|(labels, all)| (labels, signed(all.connections)));
        let help = "Connections of nodes that the switch goes on with by itself";
        gauges(e, "service_offloaded_connections", help, rows)?;
        let rows = offloaded().map(|(labels, all)| (labels, all.packets));
        let help = "Packets of both directions that the switch went on with by itself";
        counters(e, "service_offloaded_packets", help, rows)?;
        let rows = offloaded().map(|(labels, all)| (labels, all.bytes));
        counters(e, "service_offloaded_bytes", "Bytes of those packets, from the IP header on", rows)?;
        let rows = self.outcomes.iter().map(|o| {
            let lost = if o.outcome.is_lost() { "yes" } else { "no" };
            ([("outcome", o.outcome.name()), ("drop", lost)], o.packets)
        });
        counters(e, "outcomes", "Packets by what became of them other than plain forwarding", rows)
    }

    fn backends(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let each = || {
            self.view.services.iter().flat_map(|s| {
                s.backends
                    .iter()
                    .map(move |b| ([("service", s.spec.name.as_str()), ("backend", b.spec.name.as_str())], b))
            })
        };
        let states = [("up", Status::Up), ("draining", Status::Draining), ("down", Status::Down)];
        let rows = each().flat_map(|([service, backend], b)| {
            states.map(|(name, status)| ([service, backend, ("state", name)], i64::from(b.status == status)))
        });
        gauges(e, "backend_state", "Whether a backend is in that state", rows)?;
        let checked = || each().filter_map(|(labels, b)| Some((labels, HealthRow::from(b.health.as_ref()?))));
        let rows = checked().flat_map(|([service, backend], health)| {
            HEALTH_STATES
                .map(|(name, state)| ([service, backend, ("state", name)], i64::from(health.state == state)))
        });
        gauges(e, "backend_health", "Whether health checks find a backend in that state", rows)?;
        let rows = self.health_changes.iter().flat_map(|((service, backend), counts)| {
            let labels = [("service", service.as_str()), ("backend", backend.as_str())];
            let each = HEALTH_STATES.iter().zip(counts);
            each.map(move |((name, _), &count)| ([labels[0], labels[1], ("to", *name)], count))
        });
        counters(e, "backend_health_changes", "How often a backend came into that state", rows)?;
        let since = |health: &HealthRow| health.since_unix_seconds.map(signed);
        let rows = checked().filter_map(|(labels, health)| Some((labels, since(&health)?)));
        gauges(
            e,
            "backend_health_since_seconds",
            "Since when a backend is healthy or not, in Unix time",
            rows,
        )?;
        let rows = each().map(|(labels, b)| (labels, i64::from(b.spec.weight)));
        gauges(e, "backend_weight", "Share of new sessions", rows)?;
        let rows = each().map(|(labels, b)| (labels, signed(b.vitals.load())));
        gauges(e, "backend_open_connections", "Translated connections that have not ended", rows)?;
        let rows = each().filter(|(_, b)| b.spec.limit > 0).map(|(labels, b)| (labels, b.spec.limit.into()));
        gauges(
            e,
            "backend_max_connections",
            "Connections beyond which a backend gets no new sessions",
            rows,
        )?;
        let rows = each().filter(|(_, b)| b.vitals.response > 0);
        let rows = rows.map(|(labels, b)| (labels, signed(b.vitals.response / 1_000)));
        gauges(e, "backend_response_microseconds", "Time to answer a SYN, smoothed", rows)?;
        let rows = each().map(|(labels, b)| (labels, i64::from(b.ramp.unwrap_or(100))));
        gauges(e, "backend_ramp_percent", "Part of its weight that a backend has after a recovery", rows)?;
        type Sign = (&'static str, &'static str, fn(&Vitals) -> u64);
        let signs: [Sign; 3] = [
            ("backend_overflowed", "New sessions that went elsewhere because of the limit", |v| v.overflowed),
            ("backend_refused", "SYNs of the balancer's own that a backend refused", |v| v.refused),
            ("backend_silent", "SYNs of the balancer's own that a backend did not answer", |v| v.silent),
        ];
        for (name, help, value) in signs {
            counters(e, name, help, each().map(|(labels, b)| (labels, value(&b.vitals))))?;
        }
        let resolved = |hop: &HopState| matches!(hop, HopState::Resolved { .. });
        let rows = each().map(|(labels, b)| (labels, i64::from(resolved(&b.hop))));
        gauges(e, "backend_hop_resolved", "Whether the next hop of a backend is resolved", rows)?;
        let hops = &self.status.hops;
        let rows = [([("state", "resolved")], hops.resolved), ([("state", "unresolved")], hops.unresolved)];
        gauges(e, "hops", "Ways to backends by state", rows.map(|(l, n)| (l, signed(n as u64))))
    }

    fn tables(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tables = &self.status.tables;
        let rows = tables.iter().map(|t| ([("table", t.name.as_str())], signed(t.capacity)));
        gauges(e, "table_capacity", "Entries a table can hold", rows)?;
        let used = tables.iter().filter_map(|t| Some(([("table", t.name.as_str())], signed(t.used?))));
        gauges(e, "table_used", "Entries of a table in use", used)
    }

    fn daemon(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let s = &self.status;
        let build = [([("version", s.version.as_str())], 1)];
        gauges(e, "build_info", "Version of the daemon", build)?;
        single_gauge(e, "uptime_seconds", "Seconds since the daemon started", signed(s.uptime_seconds))?;
        let r = &s.reconciler;
        let rows = [([("result", "applied")], r.applied), ([("result", "failed")], r.failed)];
        counters(e, "reconciler_applies", "Configurations by what became of them", rows)?;
        let help = "1 while the data plane does not hold what is wanted and is being repaired";
        single_gauge(e, "reconciler_dirty", help, i64::from(r.dirty))?;
        let refused = matches!(s.reload, super::row::ReloadState::Refused { .. });
        let help = "1 when the configuration file in its latest form is what runs";
        single_gauge(e, "config_current", help, i64::from(!refused))?;
        let events = [
            ([("result", "noted")], s.events.received),
            ([("result", "missed")], s.events.missed),
            ([("result", "lost")], s.events.lost),
        ];
        counters(e, "binding_events", "Events of made and moved bindings", events)?;
        let Some(webhook) = self.webhook else { return Ok(()) };
        let rows = [
            ([("result", "delivered")], webhook.delivered),
            ([("result", "failed")], webhook.failed),
            ([("result", "dropped")], webhook.dropped),
        ];
        counters(e, "webhook_events", "Events for the webhook by what became of them", rows)?;
        let help = "Attempts to reach the webhook that failed";
        let metric = e.encode_descriptor("webhook_attempts_failed", help, None, MetricType::Counter)?;
        ConstCounter::new(webhook.attempts_failed).encode(metric)
    }
}

fn counters<S: EncodeLabelSet>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (S, u64)>,
) -> fmt::Result {
    let mut metric = e.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<S: EncodeLabelSet>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (S, i64)>,
) -> fmt::Result {
    let mut metric = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn single_gauge(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

/// A size as a gauge; sizes stay far below the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
