//! The configuration: what runs, what would change, and changing it.

use super::Body;
use super::session::configured;
use crate::admin::context::{Context, Order};
use crate::admin::error::{ApiError, ErrorBody, chain};
use crate::admin::row::{ChangeRow, ConfigRow, DiffBody, DiffRow, ReloadRow};
use crate::config;
use crate::dataplane::clock::since_1970;
use crate::reconcile::Gone;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lb_core::pool::Desired;
use tokio::sync::oneshot;

/// What runs, overrides of administrators left out; secrets are not shown.
#[utoipa::path(get, path = "/v1/config", tag = "configuration",
    responses((status = 200, body = ConfigRow), (status = 503, body = ErrorBody)))]
pub(in crate::admin) async fn show(State(context): State<Context>) -> Result<Json<ConfigRow>, ApiError> {
    Ok(Json(ConfigRow::from(&configured(&context).await?)))
}

/// What a reload would change now.
#[utoipa::path(get, path = "/v1/config/diff", tag = "configuration",
    responses((status = 200, body = DiffRow), (status = 422, body = ErrorBody)))]
pub(in crate::admin) async fn pending(State(context): State<Context>) -> Result<Json<DiffRow>, ApiError> {
    let file = context.facts.borrow().config.clone();
    let name = file.display().to_string();
    let text = tokio::fs::read_to_string(&file).await.map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            error.to_string(),
            name.clone(),
            "a configuration file that lbd may read",
            "what runs is not touched",
        )
    })?;
    compare(&context, name, &text).await
}

/// What a reload of these contents would change.
#[utoipa::path(post, path = "/v1/config/diff", tag = "configuration", request_body = DiffBody,
    responses((status = 200, body = DiffRow), (status = 422, body = ErrorBody)))]
pub(in crate::admin) async fn diff(
    State(context): State<Context>,
    Body(body): Body<DiffBody>,
) -> Result<Json<DiffRow>, ApiError> {
    compare(&context, body.file, &body.text).await
}

async fn compare(context: &Context, file: String, text: &str) -> Result<Json<DiffRow>, ApiError> {
    let running = configured(context).await?;
    let parsed = config::parse(text, &file).map_err(|errors| refused(&errors))?;
    let interfaces = context.facts.borrow().interfaces.clone();
    let shared = context.cluster.secrets().borrow().clone();
    let resolved = match shared {
        Some(shared) => parsed.resolve_shared(&shared, since_1970()),
        // Secrets that lbd made are those that run; resolving them would look where a reload would not.
        None => parsed.resolve_beside(&running),
    };
    let mut new = resolved.map_err(|error| secret_missing(&file, &error))?;
    if !interfaces.is_empty() {
        new.node.interfaces = interfaces;
    }
    let changes = changes(&running, &new);
    Ok(Json(DiffRow { from: "running".to_owned(), to: file, changes }))
}

/// Load the configuration file again.
#[utoipa::path(post, path = "/v1/reload", tag = "configuration",
    responses((status = 200, body = ReloadRow), (status = 422, body = ErrorBody)))]
pub(in crate::admin) async fn reload(State(context): State<Context>) -> Result<Json<ReloadRow>, ApiError> {
    let (reply, answer) = oneshot::channel();
    context.orders.send(Order::Reload(reply)).await.map_err(|_| Gone)?;
    let body = answer.await.map_err(|_| Gone)?;
    body.map(Json).map_err(|body| ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, body })
}

/// Leave every interface, remove what is pinned, and end the daemon.
#[utoipa::path(post, path = "/v1/detach", tag = "daemon",
    responses((status = 204), (status = 500, body = ErrorBody)))]
pub(in crate::admin) async fn detach(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    let (reply, answer) = oneshot::channel();
    context.orders.send(Order::Detach(reply)).await.map_err(|_| Gone)?;
    let body = answer.await.map_err(|_| Gone)?;
    body.map(|()| StatusCode::NO_CONTENT)
        .map_err(|body| ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, body })
}

/// The error of a refused configuration.
pub(crate) fn refused(errors: &config::ConfigErrors) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        errors.to_string(),
        errors.file.clone(),
        "a configuration without errors",
        "what ran before goes on; `lbctl config check FILE` checks without touching anything",
    )
}

/// The error of a configuration whose secret cannot be had.
pub(crate) fn secret_missing(file: &str, error: &config::SecretError) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        chain(error),
        file,
        "a secret",
        format!("what ran before goes on; {}", error.hint()),
    )
}

/// The differences between two desired states.
pub(crate) fn changes(old: &Desired, new: &Desired) -> Vec<ChangeRow> {
    config::difference(old, new).iter().map(ChangeRow::from).collect()
}
