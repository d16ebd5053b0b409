//! Translated connections.

use super::Query;
use super::session::LIMIT;
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::row::{FlowPage, FlowRow};
use crate::reconcile::{FlowFilter, FlowRow as Flow};
use axum::Json;
use axum::extract::State;
use lb_common::abi::{Addr, Be16, FlowState};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use utoipa::{IntoParams, ToSchema};

/// States of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::admin) enum StateName {
    /// First packet seen.
    Opening,
    /// SYN-ACK seen.
    Answered,
    /// Both sides proved themselves.
    Established,
    /// A FIN seen.
    Closing,
    /// Over.
    Closed,
    /// The balancer is reading the request.
    Collecting,
    /// The backend has not answered the balancer yet.
    Connecting,
    /// Held bytes are on their way to the backend.
    Releasing,
}

/// Filters of flows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct FlowQuery {
    /// Only this service.
    service: Option<String>,
    /// Only flows to this backend.
    backend: Option<String>,
    /// Only this client's.
    #[param(value_type = Option<String>)]
    client: Option<IpAddr>,
    /// Only flows in this state.
    #[param(inline)]
    state: Option<StateName>,
    /// At most this many; 100 when left out.
    limit: Option<usize>,
}

/// Flows of `nat` services.
#[utoipa::path(get, path = "/v1/flows", tag = "sessions", params(FlowQuery),
    responses((status = 200, body = FlowPage), (status = 404, body = ErrorBody)))]
pub(in crate::admin) async fn list(
    State(context): State<Context>,
    Query(query): Query<FlowQuery>,
) -> Result<Json<FlowPage>, ApiError> {
    let limit = query.limit.unwrap_or(LIMIT);
    let filter = FlowFilter {
        service: query.service,
        backend: query.backend,
        client: query.client.map(|ip| ip.to_canonical()),
        state: query.state.map(FlowState::from),
    };
    let mut rows = context.reconciler.flows(filter, limit.saturating_add(1)).await?;
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    Ok(Json(FlowPage { flows: rows.iter().map(show_row).collect(), truncated }))
}

fn show_row(row: &Flow) -> FlowRow {
    FlowRow {
        service: row.service.clone().unwrap_or_else(|| "gone".to_owned()),
        protocol: match row.client.protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        },
        client: endpoint(row.client.source, row.client.source_port),
        vip: endpoint(row.client.destination, row.client.destination_port),
        source: endpoint(row.server.destination, row.server.destination_port),
        backend: row.backend.clone(),
        backend_address: endpoint(row.server.source, row.server.source_port),
        state: state_name(row.state).to_owned(),
        spliced: row.offset.is_some(),
        offset: row.offset.filter(|_| match row.state {
            FlowState::Established | FlowState::Closing | FlowState::Closed | FlowState::Releasing => true,
            FlowState::Free
            | FlowState::Opening
            | FlowState::Answered
            | FlowState::Claimed
            | FlowState::Collecting
            | FlowState::Connecting => false,
        }),
        idle_seconds: row.idle.as_secs(),
    }
}

fn endpoint(address: Addr, port: Be16) -> String {
    SocketAddr::new(address.into(), port.host()).to_string()
}

/// A state's name in the API.
pub(super) const fn state_name(state: FlowState) -> &'static str {
    match state {
        FlowState::Free => "free",
        FlowState::Opening => "opening",
        FlowState::Answered => "answered",
        FlowState::Established => "established",
        FlowState::Closing => "closing",
        FlowState::Closed => "closed",
        FlowState::Claimed => "claimed",
        FlowState::Collecting => "collecting",
        FlowState::Connecting => "connecting",
        FlowState::Releasing => "releasing",
    }
}

impl From<StateName> for FlowState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Opening => Self::Opening,
            StateName::Answered => Self::Answered,
            StateName::Established => Self::Established,
            StateName::Closing => Self::Closing,
            StateName::Closed => Self::Closed,
            StateName::Collecting => Self::Collecting,
            StateName::Connecting => Self::Connecting,
            StateName::Releasing => Self::Releasing,
        }
    }
}
