//! Paths and their handlers.

pub(super) mod cluster;
pub(super) mod config;
pub(super) mod explain;
pub(super) mod flow;
pub(super) mod pool;
pub(super) mod seal;
pub(super) mod session;
pub(super) mod status;

pub(crate) use config::{changes as configuration_changes, refused as configuration_refused};

use super::context::Context;
use super::error::ApiError;
use super::{metrics, openapi};
use axum::extract::{FromRequest, FromRequestParts, Json, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Router, extract};
use serde::de::DeserializeOwned;

/// Everything the daemon answers on its Unix socket.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/events", get(status::events))
        .route("/v1/services", get(pool::services))
        .route("/v1/services/{service}/failback", post(pool::fail_back))
        .route("/v1/backends", get(pool::backends))
        .route("/v1/backends/{service}/{backend}/drain", post(pool::drain))
        .route("/v1/backends/{service}/{backend}/undrain", post(pool::undrain))
        .route("/v1/backends/{service}/{backend}/disable", post(pool::disable))
        .route("/v1/backends/{service}/{backend}/load", get(pool::load))
        .route("/v1/backends/{service}/{backend}/weight", put(pool::weight))
        .route("/v1/sessions", get(session::list))
        .route("/v1/sessions/{service}/{key}", get(session::show).delete(session::delete))
        .route("/v1/sessions/{service}/{key}/pin", put(session::pin))
        .route("/v1/flows", get(flow::list))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/seal", get(seal::seal))
        .route("/v1/config", get(config::show))
        .route("/v1/config/diff", get(config::pending).post(config::diff))
        .route("/v1/reload", post(config::reload))
        .route("/v1/detach", post(config::detach))
        .route("/v1/cluster", get(cluster::status).post(cluster::init))
        .route("/v1/cluster/join", post(cluster::join))
        .route("/v1/cluster/tokens", post(cluster::token))
        .route("/v1/cluster/members/{member}", delete(cluster::remove))
        .route("/v1/cluster/secrets/{secret}/rotate", post(cluster::rotate))
        .route("/v1/openapi.json", get(description))
        .route("/metrics", get(status::metrics))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(context)
}

/// The metrics alone, for a TCP address that a Prometheus server asks.
pub fn metrics_only(context: Context) -> Router {
    Router::new().route("/metrics", get(status::metrics)).fallback(nowhere).with_state(context)
}

/// The body of a metrics answer.
fn metrics_answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}

async fn nowhere(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no such path",
        uri.path().to_owned(),
        "a path of the description",
        "GET /v1/openapi.json describes them; lbctl and lbd should be of the same version",
    )
}

async fn wrong_method(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path has no such method",
        uri.path().to_owned(),
        "a method of the description",
        "GET /v1/openapi.json describes them",
    )
}

/// A query string, with our errors.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::bad_input(
                format!("query of {}", parts.uri.path()),
                format!("the parameters of the description ({})", error.body_text()),
            )),
        }
    }
}

/// A JSON body, with our errors.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let path = request.uri().path().to_owned();
        match Json::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::bad_input(
                format!("body of {path}"),
                format!("the object of the description ({})", error.body_text()),
            )),
        }
    }
}

/// Segments of the path, with our errors.
pub(super) struct Names(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(extract::Path((first, second))) => Ok(Self(first, second)),
            Err(error) => Err(ApiError::bad_input(
                parts.uri.path().to_owned(),
                format!("two names ({})", error.body_text()),
            )),
        }
    }
}
