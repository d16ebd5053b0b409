//! The daemon at a glance, its events and metrics.

use super::session::configured;
use super::{Query, metrics_answer};
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::metrics::Snapshot;
use crate::admin::row::{
    EventRow, EventsRow, HopCounts, InterfaceRow, OutcomeRow, ReconcilerRow, StatusRow, TableRow,
};
use crate::admin::sessionkey;
use crate::dataplane::AttachMode;
use crate::reconcile::{HopState, OutcomeRow as Counted, View};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use lb_common::abi::{BindingEventKind, BindingWord, Outcome, Status};
use serde::Deserialize;
use utoipa::IntoParams;

/// The whole at a glance.
#[utoipa::path(get, path = "/v1/status", tag = "daemon", responses((status = 200, body = StatusRow)))]
pub(in crate::admin) async fn status(State(context): State<Context>) -> Result<Json<StatusRow>, ApiError> {
    Ok(Json(row(&context, &context.reconciler.view().await?).await?))
}

async fn row(context: &Context, view: &View) -> Result<StatusRow, ApiError> {
    let outcomes = context.reconciler.outcomes().await?;
    let tables = context.reconciler.tables().await?;
    let facts = context.facts.borrow().clone();
    let backends = || view.services.iter().flat_map(|s| &s.backends);
    let resolved = backends().filter(|b| matches!(b.hop, HopState::Resolved { .. })).count();
    Ok(StatusRow {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: facts.started.elapsed().as_secs(),
        config_file: facts.config.display().to_string(),
        reload: facts.reload,
        interfaces: view
            .attachments
            .iter()
            .map(|a| InterfaceRow { name: a.interface.clone(), mode: mode_name(a.mode).to_owned() })
            .collect(),
        cluster: super::cluster::row(context).await?.state,
        pin_root: facts.pin_root.display().to_string(),
        services: view.services.iter().filter(|service| service.prefix.is_none()).count(),
        backends: backends().count(),
        backends_up: backends().filter(|b| b.status == Status::Up).count(),
        tables: tables
            .iter()
            .map(|t| TableRow { name: t.name.to_owned(), used: t.used, capacity: t.size })
            .collect(),
        outcomes: outcomes.iter().filter(|o| o.packets > 0).map(outcome_row).collect(),
        reconciler: ReconcilerRow {
            applied: facts.reloads.applied,
            failed: facts.reloads.refused,
            dirty: view.repairing,
        },
        hops: HopCounts { resolved, unresolved: backends().count() - resolved },
        events: events_row(context, &outcomes),
        warnings: facts.warnings,
    })
}

fn outcome_row(counted: &Counted) -> OutcomeRow {
    OutcomeRow {
        name: counted.outcome.name().to_owned(),
        drop: counted.outcome.is_lost(),
        count: counted.packets,
    }
}

fn events_row(context: &Context, outcomes: &[Counted]) -> EventsRow {
    let (received, missed) = context.events.counts();
    let lost = outcomes.iter().find(|o| o.outcome == Outcome::EventLost).map_or(0, |o| o.packets);
    EventsRow { received, missed, lost }
}

/// An attach mode's name in the API.
const fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "skb",
    }
}

/// Filters of events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct EventQuery {
    /// Only this service.
    service: Option<String>,
    /// At most this many, the latest ones; 50 when left out.
    limit: Option<usize>,
}

/// The latest events of bindings and of the health of backends, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "sessions", params(EventQuery),
    responses((status = 200, body = Vec<EventRow>), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn events(
    State(context): State<Context>,
    Query(query): Query<EventQuery>,
) -> Result<Json<Vec<EventRow>>, ApiError> {
    let desired = configured(&context).await?;
    let only = match &query.service {
        None => None,
        Some(name) => Some(super::session::service(&desired, name)?.id),
    };
    let view = context.reconciler.view().await?;
    let limit = query.limit.unwrap_or(50);
    let noted = context.events.latest(limit, |e| only.is_none_or(|id| e.service == id));
    let wanted = query.service.as_deref();
    let healths = context.events.latest_health(limit, |e| wanted.is_none_or(|name| e.service == name));
    let bindings = noted.iter().map(|noted| {
        let word = BindingWord(noted.event.word);
        let service = view.services.iter().find(|s| s.spec.id == noted.event.service);
        let backend = service.and_then(|s| {
            s.backends.iter().find(|b| b.slot == word.backend() && b.generation == word.slot_generation())
        });
        EventRow {
            number: noted.number,
            unix_seconds: noted.unix_seconds,
            kind: kind_name(noted.event.kind).to_owned(),
            service: service
                .map_or_else(|| format!("{:#010x}", noted.event.service), |s| s.spec.name.clone()),
            key: Some(sessionkey::show(noted.event.session)),
            client: service.and_then(|s| sessionkey::client(noted.event.session, &s.spec)),
            backend: backend.map(|b| b.spec.name.clone()),
            generation: Some(word.generation()),
            health: None,
        }
    });
    let mut rows: Vec<EventRow> = bindings.chain(healths.iter().map(EventRow::from)).collect();
    rows.sort_by_key(|row| row.number);
    Ok(Json(rows.split_off(rows.len().saturating_sub(limit))))
}

/// An event kind's name in the API.
const fn kind_name(kind: u32) -> &'static str {
    const MADE: u32 = BindingEventKind::Made as u32;
    const MOVED: u32 = BindingEventKind::Moved as u32;
    const FOUND: u32 = BindingEventKind::Found as u32;
    match kind {
        MADE => "made",
        MOVED => "moved",
        FOUND => "found",
        _ => "unknown",
    }
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(in crate::admin) async fn metrics(State(context): State<Context>) -> Result<Response, ApiError> {
    let view = context.reconciler.view().await?;
    let snapshot = Snapshot {
        status: row(&context, &view).await?,
        cluster: super::cluster::row(&context).await?,
        outcomes: context.reconciler.outcomes().await?,
        health_changes: context.events.health_counts(),
        webhook: context.webhook.counts(),
        view,
    };
    snapshot.encode().map(metrics_answer).map_err(|error| ApiError::data_plane("metrics", &error))
}
