//! Services and backends.

use super::{Body, Names, Query};
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::now;
use crate::admin::row::{BackendRow, LoadRow, NodeViewRow, ServiceRow, WeightBody};
use crate::reconcile::{BackendView, ServiceView, View};
use axum::Json;
use axum::extract::{Path, State};
use lb_core::pool::Admin;
use serde::Deserialize;
use std::ffi::CStr;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::IntoParams;

/// Services and their traffic.
#[utoipa::path(get, path = "/v1/services", tag = "pool", responses((status = 200, body = Vec<ServiceRow>)))]
pub(in crate::admin) async fn services(
    State(context): State<Context>,
) -> Result<Json<Vec<ServiceRow>>, ApiError> {
    let view = context.reconciler.view().await?;
    Ok(Json(view.services.iter().map(ServiceRow::from).collect()))
}

/// Filters of backends.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct BackendQuery {
    /// Only this service.
    service: Option<String>,
}

/// Backends, their state and traffic.
#[utoipa::path(get, path = "/v1/backends", tag = "pool", params(BackendQuery),
    responses((status = 200, body = Vec<BackendRow>), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn backends(
    State(context): State<Context>,
    Query(query): Query<BackendQuery>,
) -> Result<Json<Vec<BackendRow>>, ApiError> {
    let view = context.reconciler.view().await?;
    let wanted: Vec<&ServiceView> = match &query.service {
        None => view.services.iter().collect(),
        Some(name) => vec![service(&view, name)?],
    };
    let others = others(&context).await?;
    let rows = wanted.iter().flat_map(|service| {
        service.backends.iter().map(|b| {
            let server = (service.spec.id, b.spec.number);
            let node = |(node, failed): &Other| NodeViewRow {
                node: node.clone(),
                serves: !failed.contains(&server),
            };
            let row = BackendRow::new(&service.spec.name, b, |i| interface(&view, i));
            BackendRow { nodes: others.iter().map(node).collect(), ..row }
        })
    });
    Ok(Json(rows.collect()))
}

/// How long a backend may take to drain.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct DrainQuery {
    /// Seconds after which sessions that are left are moved, at most `drain-rate` of them a second; left out = never.
    deadline_seconds: Option<u64>,
}

/// Another node, and which servers serve nobody there, by service and number.
type Other = (String, Vec<(u32, u64)>);

/// The other nodes that are heard.
async fn others(context: &Context) -> Result<Vec<Other>, ApiError> {
    let Some(status) = context.cluster.status().await? else { return Ok(Vec::new()) };
    let heard = status.standing.peers.into_iter().filter(|peer| peer.connection.contact.is_some());
    let said = heard.filter_map(|peer| Some((peer.name, peer.replication?.failed?)));
    Ok(said.collect())
}

/// Give a backend no new sessions; bound ones stay, until the deadline if there is one.
#[utoipa::path(post, path = "/v1/backends/{service}/{backend}/drain", tag = "pool",
    params(("service" = String, Path), ("backend" = String, Path), DrainQuery),
    responses((status = 200, body = BackendRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn drain(
    State(context): State<Context>,
    Names(service, backend): Names,
    Query(query): Query<DrainQuery>,
) -> Result<Json<BackendRow>, ApiError> {
    let deadline = query.deadline_seconds.map(|seconds| end_of(seconds, SystemTime::now()));
    context.reconciler.drain(&service, &backend, deadline).await?;
    row(&context, &service, &backend).await
}

/// The first whole second since 1970 UTC before which so many seconds are over; none are over at once.
fn end_of(seconds: u64, now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let is_begun = seconds > 0 && since.subsec_nanos() > 0;
    since.as_secs().saturating_add(u64::from(is_begun)).saturating_add(seconds)
}

/// Give a backend no sessions at all: its own move to others at once.
#[utoipa::path(post, path = "/v1/backends/{service}/{backend}/disable", tag = "pool",
    params(("service" = String, Path), ("backend" = String, Path)),
    responses((status = 200, body = BackendRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn disable(
    State(context): State<Context>,
    Names(service, backend): Names,
) -> Result<Json<BackendRow>, ApiError> {
    context.reconciler.set_admin(&service, &backend, Some(Admin::Disabled)).await?;
    row(&context, &service, &backend).await
}

/// What a backend still has to do.
#[utoipa::path(get, path = "/v1/backends/{service}/{backend}/load", tag = "pool",
    params(("service" = String, Path), ("backend" = String, Path)),
    responses((status = 200, body = LoadRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn load(
    State(context): State<Context>,
    Names(service, backend): Names,
) -> Result<Json<LoadRow>, ApiError> {
    let (sessions, flows) = context.reconciler.load(&service, &backend).await?;
    let overrides = context.reconciler.overrides().await?;
    let change = overrides.backends.get(&(service, backend)).copied().unwrap_or_default();
    let draining = change.admin == Some(Admin::Draining);
    let deadline = change.deadline.filter(|_| draining);
    let is_overdue = deadline.is_some_and(|deadline| deadline <= now());
    let rate = match context.reconciler.desired().await? {
        Some(desired) if is_overdue => Some(desired.node.limits.drain_rate),
        Some(_) | None => None,
    };
    Ok(Json(LoadRow { sessions, flows, draining, deadline_unix_seconds: deadline, moving_per_second: rate }))
}

/// Let sessions that moved go back to where they were, if that backend takes sessions, at most `drain-rate` of them a second.
#[utoipa::path(post, path = "/v1/services/{service}/failback", tag = "pool",
    params(("service" = String, Path)),
    responses((status = 200, body = ServiceRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn fail_back(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<ServiceRow>, ApiError> {
    context.reconciler.fail_back(&name).await?;
    let view = context.reconciler.view().await?;
    Ok(Json(ServiceRow::from(service(&view, &name)?)))
}

/// Give a drained or disabled backend sessions again.
#[utoipa::path(post, path = "/v1/backends/{service}/{backend}/undrain", tag = "pool",
    params(("service" = String, Path), ("backend" = String, Path)),
    responses((status = 200, body = BackendRow), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn undrain(
    State(context): State<Context>,
    Names(service, backend): Names,
) -> Result<Json<BackendRow>, ApiError> {
    let view = context.reconciler.view().await?;
    let found = find(&view, &service, &backend)?;
    let configured = found.configured_admin.unwrap_or(found.spec.admin);
    // What the file says needs no override; an override stays where the file itself drains.
    let admin = (configured != Admin::Enabled).then_some(Admin::Enabled);
    context.reconciler.set_admin(&service, &backend, admin).await?;
    row(&context, &service, &backend).await
}

/// Change a backend's share of new sessions.
#[utoipa::path(put, path = "/v1/backends/{service}/{backend}/weight", tag = "pool",
    params(("service" = String, Path), ("backend" = String, Path)), request_body = WeightBody,
    responses((status = 200, body = BackendRow), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn weight(
    State(context): State<Context>,
    Names(service, backend): Names,
    Body(body): Body<WeightBody>,
) -> Result<Json<BackendRow>, ApiError> {
    let view = context.reconciler.view().await?;
    let found = find(&view, &service, &backend)?;
    let configured = found.configured_weight.unwrap_or(found.spec.weight);
    let weight = (configured != body.weight).then_some(body.weight);
    context.reconciler.set_weight(&service, &backend, weight).await?;
    row(&context, &service, &backend).await
}

async fn row(context: &Context, service: &str, backend: &str) -> Result<Json<BackendRow>, ApiError> {
    let view = context.reconciler.view().await?;
    let found = find(&view, service, backend)?;
    Ok(Json(BackendRow::new(service, found, |i| interface(&view, i))))
}

fn service<'a>(view: &'a View, name: &str) -> Result<&'a ServiceView, ApiError> {
    let known = || view.services.iter().map(|s| s.spec.name.as_str());
    view.services.iter().find(|s| s.spec.name == name).ok_or_else(|| ApiError::unknown_service(name, known()))
}

fn find<'a>(view: &'a View, service_name: &str, name: &str) -> Result<&'a BackendView, ApiError> {
    let service = service(view, service_name)?;
    let known = || service.backends.iter().map(|b| b.spec.name.as_str());
    service
        .backends
        .iter()
        .find(|b| b.spec.name == name)
        .ok_or_else(|| ApiError::unknown_backend(service_name, name, known()))
}

/// Name of an interface.
pub(super) fn interface(view: &View, index: u32) -> String {
    match view.attachments.iter().find(|a| a.ifindex == index) {
        Some(attachment) => attachment.interface.clone(),
        None => interface_name(index),
    }
}

/// Name of an interface as the kernel knows it, else its index.
pub(super) fn interface_name(index: u32) -> String {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the function asks for, and it ends what it writes with a zero.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return format!("if{index}");
    }
    // SAFETY: the function succeeded, so there is a zero inside the buffer.
    unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nobody_is_moved_before_the_time_is_over() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(end_of(2, at(1_000_000)), 1_002);
        assert_eq!(end_of(2, at(1_000_001)), 1_003);
        assert_eq!(end_of(2, at(1_000_999)), 1_003);
        assert_eq!(end_of(0, at(1_000_999)), 1_000);
        assert_eq!(end_of(u64::MAX, at(1_000_999)), u64::MAX);
    }
}
