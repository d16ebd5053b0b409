//! Why a packet goes where it goes.

use super::pool::interface_name;
use super::session::{configured, find};
use super::{Body, flow};
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::explain::{
    Bound, Candidate, Content, Load, Marks, Packet, Scene, explain as decide, not_ours, read_content,
    service_of,
};
use crate::admin::row::{ExplainBody, Explanation, mac};
use crate::admin::sessionkey;
use crate::dataplane::clock::monotonic_ns;
use crate::reconcile::{BackendView, ChangeError, ExplainInputs, FlowFilter, HopState};
use axum::Json;
use axum::extract::State;
use lb_common::abi::{BindingWord, FlowState};
use lb_common::select::Table;
use lb_core::pool::Protocol;
use std::net::SocketAddr;

/// Flows of one client that are looked through for the packet's own.
const CLIENT_FLOWS: usize = 100_000;

/// Which backend a packet that opens a connection gets, and why.
#[utoipa::path(post, path = "/v1/explain", tag = "sessions", request_body = ExplainBody,
    responses((status = 200, body = Explanation), (status = 400, body = ErrorBody)))]
pub(in crate::admin) async fn explain(
    State(context): State<Context>,
    Body(body): Body<ExplainBody>,
) -> Result<Json<Explanation>, ApiError> {
    let packet = packet(&body)?;
    let content = Content::of(&body)?;
    let desired = configured(&context).await?;
    let Some(service) = service_of(&packet, &desired.services) else {
        return Ok(Json(not_ours(&packet)));
    };
    let (pool, path_step) = content.pool(service);
    let pool = pool.unwrap_or_else(|| service.name.clone());
    let inputs = context.reconciler.explain_inputs(&pool).await?;
    let marks = Marks {
        rules: &inputs.rules,
        servers: &inputs.servers,
        secrets: &inputs.secrets,
        session_secret: &inputs.session_secret,
        service_id: service.id,
    };
    let mut read = read_content(&packet, service, &content, marks);
    if let (Some(read), Some(step)) = (&mut read, path_step) {
        read.steps.insert(0, step);
    }
    let session = match &read {
        Some(read) => read.session,
        None => sessionkey::of_packet(&packet, service, &inputs.session_secret),
    };
    // What is bound under the other key is carried over by the first packet.
    let mut keys = vec![session];
    keys.extend(inputs.other_secret.as_ref().map(|other| {
        let marks = Marks { session_secret: other, ..marks };
        match read_content(&packet, service, &content, marks) {
            Some(read) => read.session,
            None => sessionkey::of_packet(&packet, service, other),
        }
    }));
    let binding = match find(&context, &pool, &keys).await {
        Ok(row) => {
            let generation = inputs.view.backends.iter().find(|b| b.slot == row.slot).map(|b| b.generation);
            // A row without a backend has a slot generation that is no longer the slot's.
            let stale = generation.map_or(0, |g| g.wrapping_add(u16::from(row.backend.is_none())));
            Some(Bound {
                word: BindingWord::new(row.slot, stale, row.generation),
                remaining: u64::try_from(row.expires_in.as_nanos()).unwrap_or(u64::MAX),
            })
        }
        Err(ChangeError::UnknownSession { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let open = open_flow(&context, &packet, &pool).await?;
    let table = Tables(&inputs);
    let scene = Scene {
        service,
        session,
        read: read.as_ref(),
        flow: open.as_ref().map(|(backend, state)| (backend.as_str(), flow::state_name(*state))),
        binding,
        table: &table,
        backend: |slot| candidate(&inputs, slot),
    };
    Ok(Json(decide(&packet, &scene)))
}

fn packet(body: &ExplainBody) -> Result<Packet, ApiError> {
    let endpoint = |name: &str, text: &str| {
        text.parse::<SocketAddr>().map_err(|_| {
            ApiError::bad_input(
                format!("{name} {text}"),
                "an address and port, 10.0.0.7:40000 or [fd00::7]:40000",
            )
        })
    };
    let protocol = match body.proto.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(ApiError::bad_input(format!("proto {other}"), "tcp or udp")),
    };
    let (source, destination) = (endpoint("src", &body.src)?, endpoint("dst", &body.dst)?);
    if source.ip().to_canonical().is_ipv4() != destination.ip().to_canonical().is_ipv4() {
        return Err(ApiError::bad_input(
            format!("src {source} and dst {destination}"),
            "addresses of one family, because they stand in one packet",
        ));
    }
    Ok(Packet { source, destination, protocol })
}

/// The backend and state of the open connection with that 5-tuple.
async fn open_flow(
    context: &Context,
    packet: &Packet,
    service: &str,
) -> Result<Option<(String, FlowState)>, ApiError> {
    let filter = FlowFilter {
        service: Some(service.to_owned()),
        client: Some(packet.source.ip().to_canonical()),
        ..FlowFilter::default()
    };
    let key = sessionkey::flow_key(packet);
    let rows = context.reconciler.flows(filter, CLIENT_FLOWS).await?;
    Ok(rows.into_iter().find(|row| row.client == key).and_then(|row| match row.state {
        FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Connecting
        | FlowState::Releasing => Some((row.backend?, row.state)),
        FlowState::Free
        | FlowState::Closing
        | FlowState::Closed
        | FlowState::Claimed
        | FlowState::Collecting => None,
    }))
}

fn candidate(inputs: &ExplainInputs, slot: u16) -> Option<Candidate> {
    let view = inputs.view.backends.iter().find(|b| b.slot == slot)?;
    Some(Candidate {
        name: view.spec.name.clone(),
        address: view.spec.address,
        status: view.status,
        generation: view.generation,
        hop: match view.hop {
            HopState::Unresolved => None,
            HopState::Resolved { hop, .. } => {
                Some(format!("{}, {}", interface_name(hop.ifindex), mac(hop.destination.0)))
            }
        },
        load: load(view),
    })
}

/// What the backend has to do, as the programs see it.
fn load(view: &BackendView) -> Load {
    let weight = u64::from(view.spec.weight) * u64::from(view.ramp.unwrap_or(100)) / 100;
    // What was measured counts half after each 2^33 nanoseconds.
    let age = monotonic_ns().saturating_sub(view.vitals.accepted) >> 33;
    let response = view.vitals.response >> age.min(40);
    Load {
        connections: view.vitals.load(),
        limit: view.spec.limit,
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        milliseconds: (response >> 20).max(1),
    }
}

/// The tables as the order function reads them.
struct Tables<'a>(&'a ExplainInputs);

impl Table for Tables<'_> {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.0.table.get(slot as usize).copied()
    }
    fn member(&self, place: u32) -> Option<u16> {
        self.0.members.get(place as usize).copied()
    }
    fn mask(&self) -> u32 {
        self.0.service.table_mask
    }
    fn member_count(&self) -> u32 {
        u32::try_from(self.0.members.len()).unwrap_or(u32::MAX)
    }
}
