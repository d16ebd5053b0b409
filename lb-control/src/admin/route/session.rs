//! Session bindings.

use super::{Body, Names, Query};
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::row::{PinBody, SessionPage, SessionRow};
use crate::admin::sessionkey;
use crate::reconcile::{ChangeError, SessionFilter, SessionRow as Session};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lb_core::pool::secret::words;
use lb_core::pool::{Desired, PoolSpec, ServiceSpec};
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;
use utoipa::IntoParams;

/// Rows of an answer unless asked for more.
pub(super) const LIMIT: usize = 100;

/// The longest life of a session that is pinned, in seconds.
const LONGEST: u64 = 365 * 86_400;

/// Filters of sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct SessionQuery {
    /// Only this service.
    service: Option<String>,
    /// Only sessions bound to this backend.
    backend: Option<String>,
    /// Only this client's; services that do not key by client address have none.
    #[param(value_type = Option<String>)]
    client: Option<IpAddr>,
    /// At most this many; 100 when left out.
    limit: Option<usize>,
}

/// Sessions.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(SessionQuery),
    responses((status = 200, body = SessionPage), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn list(
    State(context): State<Context>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<SessionPage>, ApiError> {
    let desired = configured(&context).await?;
    let limit = query.limit.unwrap_or(LIMIT);
    let mut rows = Vec::new();
    match query.client {
        None => {
            let filter = SessionFilter { service: query.service, backend: query.backend, session: None };
            rows = context.reconciler.sessions(filter, limit.saturating_add(1)).await?;
        }
        Some(client) => {
            let secrets = secrets(&desired);
            let services: Vec<ServiceSpec> = match &query.service {
                None => desired.pools().into_iter().map(|pool| pool.service).collect(),
                Some(name) => vec![service(&desired, name)?],
            };
            for service in services.iter().filter(|s| s.address.is_ipv4() == client.to_canonical().is_ipv4())
            {
                for key in secrets.iter().filter_map(|secret| sessionkey::of_client(client, service, secret))
                {
                    match context.reconciler.session(&service.name, key).await {
                        Ok(row) => {
                            rows.push(row);
                            break;
                        }
                        Err(ChangeError::UnknownSession { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            rows.retain(|row| query.backend.is_none() || row.backend == query.backend);
        }
    }
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let pools = desired.pools();
    let sessions = rows.iter().map(|row| show_row(row, &pools)).collect();
    Ok(Json(SessionPage { sessions, truncated }))
}

/// One session.
#[utoipa::path(get, path = "/v1/sessions/{service}/{key}", tag = "sessions",
    params(("service" = String, Path), ("key" = String, Path, description = "client address, or session key in hexadecimal")),
    responses((status = 200, body = SessionRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn show(
    State(context): State<Context>,
    Names(name, key): Names,
) -> Result<Json<SessionRow>, ApiError> {
    let desired = configured(&context).await?;
    let row = find(&context, &name, &keys(&desired, &service(&desired, &name)?, &key)?).await?;
    Ok(Json(show_row(&row, &desired.pools())))
}

/// Delete a session; its next packet makes a new one.
#[utoipa::path(delete, path = "/v1/sessions/{service}/{key}", tag = "sessions",
    params(("service" = String, Path), ("key" = String, Path, description = "client address, or session key in hexadecimal")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn delete(
    State(context): State<Context>,
    Names(name, key): Names,
) -> Result<StatusCode, ApiError> {
    let desired = configured(&context).await?;
    let bindings = context.cluster.bindings().await;
    let (mut is_deleted, mut unknown) = (false, None);
    // Under the other key first: from there a packet that comes in between would bind it anew.
    for key in keys(&desired, &service(&desired, &name)?, &key)?.into_iter().rev() {
        let outcome = match &bindings {
            Some(bindings) => bindings.delete(&name, key).await,
            None => context.reconciler.session_delete(&name, key).await,
        };
        match outcome {
            Ok(()) => is_deleted = true,
            Err(error @ ChangeError::UnknownSession { .. }) => unknown = unknown.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    match unknown {
        Some(error) if !is_deleted => Err(error.into()),
        Some(_) | None => Ok(StatusCode::NO_CONTENT),
    }
}

/// Bind a session to a backend, on all nodes of a cluster; it is not moved while that serves.
#[utoipa::path(put, path = "/v1/sessions/{service}/{key}/pin", tag = "sessions",
    params(("service" = String, Path), ("key" = String, Path, description = "client address, or session key in hexadecimal")),
    request_body = PinBody,
    responses((status = 200, body = SessionRow), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn pin(
    State(context): State<Context>,
    Names(name, key): Names,
    Body(body): Body<PinBody>,
) -> Result<Json<SessionRow>, ApiError> {
    let desired = configured(&context).await?;
    let service = service(&desired, &name)?;
    let keys = keys(&desired, &service, &key)?;
    let lifetime = match body.lifetime_seconds {
        None => service.lifetime,
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Duration::from_secs(seconds),
        Some(seconds) => {
            return Err(ApiError::bad_input(
                format!("{seconds} seconds"),
                "1 second to a year for a session",
            ));
        }
    };
    let bindings = context.cluster.bindings().await;
    // Under both keys: other nodes may go by the other secret for a while.
    for &key in &keys {
        match &bindings {
            Some(bindings) => bindings.pin(&name, key, &body.backend, lifetime).await?,
            None => context.reconciler.session_pin(&name, key, &body.backend, lifetime).await?,
        }
    }
    let row = find(&context, &name, &keys).await?;
    Ok(Json(show_row(&row, &desired.pools())))
}

/// What is configured.
pub(super) async fn configured(context: &Context) -> Result<Desired, ApiError> {
    context.reconciler.desired().await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is still starting",
            "configuration",
            "a configuration that has been applied",
            "try again in a moment; the daemon's log says what it is doing",
        )
    })
}

/// A service, or the pool of a path, by its name.
pub(super) fn service(desired: &Desired, name: &str) -> Result<ServiceSpec, ApiError> {
    let pools = desired.pools();
    let found = pools.iter().find(|pool| pool.service.name == name).map(|pool| pool.service.clone());
    let known = pools.iter().map(|pool| pool.service.name.as_str());
    found.ok_or_else(|| ApiError::unknown_service(name, known))
}

/// The secrets of the session-key hash as the hash takes them, the one in use first.
fn secrets(desired: &Desired) -> Vec<[u64; 2]> {
    let node = &desired.node;
    std::iter::once(&node.session_secret).chain(&node.other_secret).map(words).collect()
}

/// The keys of a session, the one under the secret in use first.
fn keys(desired: &Desired, service: &ServiceSpec, text: &str) -> Result<Vec<u64>, ApiError> {
    let keys = secrets(desired).into_iter().map(|secret| sessionkey::parse(text, service, &secret));
    let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
    keys.dedup();
    Ok(keys)
}

/// The session that is bound under the first of its keys that has a binding.
pub(super) async fn find(context: &Context, service: &str, keys: &[u64]) -> Result<Session, ChangeError> {
    let (first, others) = keys.split_first().expect("a session has a key");
    let unknown = match context.reconciler.session(service, *first).await {
        Err(error @ ChangeError::UnknownSession { .. }) => error,
        outcome => return outcome,
    };
    for &key in others {
        match context.reconciler.session(service, key).await {
            Err(ChangeError::UnknownSession { .. }) => {}
            outcome => return outcome,
        }
    }
    Err(unknown)
}

fn show_row(row: &Session, pools: &[PoolSpec]) -> SessionRow {
    let found = row.service.as_ref().and_then(|name| pools.iter().find(|pool| pool.service.name == *name));
    let spec = found.map(|pool| &pool.service);
    SessionRow {
        service: row.service.clone().unwrap_or_else(|| format!("{:#010x}", row.service_id)),
        key: sessionkey::show(row.session),
        client: spec.and_then(|spec| sessionkey::client(row.session, spec)),
        backend: row.backend.clone(),
        slot: row.slot,
        generation: row.generation,
        pinned: row.pinned,
        unsynced: row.unsynced,
        expires_in_seconds: row.expires_in.as_secs(),
    }
}
