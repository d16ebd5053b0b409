//! What came of the demo: for people, for programs, and as an exit status.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::json;

use super::clients::{self, OfService, Tally};
use super::load::Outcome;
use super::view::Sample;

/// The figures.
pub(super) struct Report {
    seconds: f64,
    requests: u64,
    failed: u64,
    violations: u64,
    per_backend: BTreeMap<String, u64>,
    sessions: BTreeMap<String, u64>,
    drops: BTreeMap<String, u64>,
    median: f64,
    slowest: f64,
    load: Option<Outcome>,
    first_trouble: Option<String>,
    services: BTreeMap<&'static str, OfService>,
}

impl Report {
    /// Puts them together; counters of the balancer count from `before` on.
    pub(super) fn new(
        seconds: f64,
        before: &Sample,
        after: &Sample,
        tally: &Tally,
        load: Option<Outcome>,
    ) -> Self {
        let mut per_backend: BTreeMap<String, u64> =
            after.backends.keys().map(|name| (name.clone(), 0)).collect();
        let more = load.as_ref().map(|load| load.per_backend.clone()).unwrap_or_default();
        for (name, requests) in tally.per_backend.clone().into_iter().chain(more) {
            *per_backend.entry(name).or_default() += requests;
        }
        let drops = after
            .drops
            .iter()
            .map(|(name, n)| (name, n - before.drops.get(name).copied().unwrap_or_default()));
        let mut times = tally.times.clone();
        times.sort_unstable();
        let percentile = |percent: usize| {
            let place = times.len().saturating_sub(1) * percent / 100;
            times.get(place).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        let of_load = |figure: fn(&Outcome) -> u64| load.as_ref().map_or(0, figure);
        let trouble_of_load = || load.as_ref().and_then(Outcome::trouble);
        let first_trouble = tally.first_trouble.clone().or_else(trouble_of_load);
        Self {
            seconds,
            requests: tally.requests + of_load(|load| load.requests),
            failed: tally.failed + of_load(Outcome::failed),
            violations: tally.violations + of_load(|load| load.violations),
            per_backend,
            sessions: after.backends.iter().map(|(name, traffic)| (name.clone(), traffic.bindings)).collect(),
            drops: drops.filter(|(_, n)| *n > 0).map(|(name, n)| (name.clone(), n)).collect(),
            median: percentile(50),
            slowest: percentile(99),
            load,
            first_trouble,
            services: tally.services.clone(),
        }
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let load = self.load.as_ref().map(|load| {
            json!({ "requests": load.requests, "failed": load.failed(), "requests_per_second": load.rate.round(),
                    "p50_ms": load.p50, "p99_ms": load.p99 })
        });
        json!({
            "requests": self.requests,
            "failed": self.failed,
            "sticky_violations": self.violations,
            "per_backend": self.per_backend,
            "services": self.services,
            "sessions_per_backend": self.sessions,
            "drops": self.drops.values().sum::<u64>(),
            "drops_by_reason": self.drops,
            "clients": clients::count(),
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
            "latency_ms": { "p50": self.median, "p99": self.slowest },
            "wrk": load,
            "first_trouble": self.first_trouble,
        })
        .to_string()
    }

    /// Some lines of text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let shares: Vec<String> = self.per_backend.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let sessions: Vec<String> = self.sessions.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let drops: Vec<String> = self.drops.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        let lines = [
            ("requests", format!("{} in {:.1} s ({})", self.requests, self.seconds, shares.join(", "))),
            ("failed", self.failed.to_string()),
            ("sessions", format!("{} moved; bound: {}", self.violations, sessions.join(", "))),
            (
                "single clients",
                format!("{:.2} ms median, {:.2} ms 99th percentile", self.median, self.slowest),
            ),
            ("dropped packets", drops),
        ];
        for (name, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:>16}  {value}");
        }
        for (name, service) in &self.services {
            let OfService { requests, failed, sticky_violations: moved, .. } = service;
            let _ =
                writeln!(text, "{name:>16}  {requests} requests, {failed} failed, {moved} sessions moved");
        }
        if let Some(load) = &self.load {
            let _ = writeln!(
                text,
                "{:>16}  {:.0} requests/s, {:.2} ms median, {:.2} ms 99th percentile",
                "wrk", load.rate, load.p50, load.p99
            );
        }
        if let Some(trouble) = &self.first_trouble {
            let _ = writeln!(text, "{:>16}  {trouble}", "first trouble");
        }
        text
    }

    /// Fails unless every request was answered, by the right backend.
    pub(super) fn verdict(&self) -> Result<()> {
        if self.requests == 0 {
            bail!("no request was answered");
        }
        if self.failed > 0 || self.violations > 0 {
            let trouble = self.first_trouble.as_deref().unwrap_or("unknown");
            bail!("{} requests failed and {} sessions moved; first: {trouble}", self.failed, self.violations);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failed: u64, violations: u64) -> Report {
        let tally = Tally {
            requests: 10,
            failed,
            violations,
            per_backend: [("be1".to_owned(), 10)].into(),
            times: (1..=100).map(|n| n * 1000).collect(),
            ..Tally::default()
        };
        Report::new(2.0, &Sample::default(), &Sample::default(), &tally, None)
    }

    #[test]
    fn the_json_is_one_object_on_one_line() {
        let text = report(0, 0).json();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["requests"], 10);
        assert_eq!(value["per_backend"]["be1"], 10);
        assert_eq!(value["latency_ms"]["p50"], 50.0);
    }

    #[test]
    fn failures_and_moved_sessions_fail_the_demo() {
        assert!(report(0, 0).verdict().is_ok());
        assert!(report(1, 0).verdict().is_err());
        assert!(report(0, 1).verdict().is_err());
    }
}
