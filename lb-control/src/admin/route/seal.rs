//! Sealed cookie segments.

use super::Query;
use super::session::configured;
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::row::SealedRow;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

/// Whom the segment is to name.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct SealQuery {
    /// Name of the service, or of the pool of a path.
    service: String,
    /// Name of the backend; of a pair, the primary.
    backend: String,
    /// Name of the secondary, where cookies are read as `pair`.
    secondary: Option<String>,
}

/// The cookie segment that names a backend under a MAC (`sealed-route`, `pair`).
#[utoipa::path(get, path = "/v1/seal", tag = "sessions", params(SealQuery),
    responses((status = 200, body = SealedRow), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn seal(
    State(context): State<Context>,
    Query(query): Query<SealQuery>,
) -> Result<Json<SealedRow>, ApiError> {
    let desired = configured(&context).await?;
    crate::admin::seal::seal(&desired, &query.service, &query.backend, query.secondary.as_deref()).map(Json)
}
