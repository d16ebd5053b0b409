//! The cluster: getting into one, letting others in, and how it stands.

use super::session::configured;
use super::{Body, Query};
use crate::admin::context::Context;
use crate::admin::error::{ApiError, ErrorBody};
use crate::admin::row::{
    ClusterCounts, ClusterNodeRow, ClusterRow, ClusterState, ConnectionRow, ConvergenceBucket,
    ConvergenceRow, InitBody, JoinBody, JoinedRow, MirrorRow, PeerRow, StreamRow, TokenBody, TokenRow,
};
use crate::cluster::identity::Role;
use crate::cluster::keyring::Rotation;
use crate::cluster::membership::{self, Status};
use crate::cluster::mirror;
use crate::cluster::replica::{BUCKETS, Peer, Standing};
use crate::config::SharedSecrets;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lb_core::binding::Vector;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// Longest time that a token is good.
const TOKEN_MOST: u64 = 30 * 86_400;

/// How this node and the others stand.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    responses((status = 200, body = ClusterRow), (status = 503, body = ErrorBody)))]
pub(in crate::admin) async fn status(State(context): State<Context>) -> Result<Json<ClusterRow>, ApiError> {
    Ok(Json(row(&context).await?))
}

/// How this node and the others stand.
pub(in crate::admin) async fn row(context: &Context) -> Result<ClusterRow, ApiError> {
    Ok(match context.cluster.status().await? {
        None => ClusterRow { state: ClusterState::Alone, node: None, peers: Vec::new() },
        Some(status) => {
            let asked = context.reconciler.view().await?.peers;
            show(&status, &asked)
        }
    })
}

/// Make a cluster whose first member is this node, and a token for the second one.
#[utoipa::path(post, path = "/v1/cluster", tag = "cluster", request_body = InitBody,
    responses((status = 200, body = TokenRow), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn init(
    State(context): State<Context>,
    Body(body): Body<InitBody>,
) -> Result<Json<TokenRow>, ApiError> {
    let lifetime = lifetime(body.valid_seconds)?;
    let desired = configured(&context).await?;
    let services = desired.services.iter().map(|service| service.address).collect();
    let founded = context.cluster.found(&SharedSecrets::of(&desired), &services, lifetime).await?;
    Ok(Json(TokenRow {
        id: founded.id.to_string(),
        token: founded.token.to_string(),
        role: Role::Node.name().to_owned(),
        valid_seconds: body.valid_seconds,
        addresses: founded.addresses,
    }))
}

/// Join the cluster of another node.
#[utoipa::path(post, path = "/v1/cluster/join", tag = "cluster", request_body = JoinBody,
    responses((status = 200, body = JoinedRow), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn join(
    State(context): State<Context>,
    Body(body): Body<JoinBody>,
) -> Result<Json<JoinedRow>, ApiError> {
    let token = body.token.parse().map_err(membership::MembershipError::Cluster)?;
    let id = context.cluster.join(&token, &membership::with_port(&body.address)).await?;
    Ok(Json(JoinedRow { id: id.to_string() }))
}

/// Make a token that lets one machine join.
#[utoipa::path(post, path = "/v1/cluster/tokens", tag = "cluster", request_body = TokenBody,
    responses((status = 200, body = TokenRow), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn token(
    State(context): State<Context>,
    Body(body): Body<TokenBody>,
) -> Result<Json<TokenRow>, ApiError> {
    let role = Role::named(&body.role);
    let role =
        role.ok_or_else(|| ApiError::bad_input(format!("role {}", body.role), "node, app or switch"))?;
    let token = context.cluster.token(role, lifetime(body.valid_seconds)?).await?;
    let status = context.cluster.status().await?;
    let status = status.ok_or(crate::cluster::error::ClusterError::NoCluster);
    let status = status.map_err(membership::MembershipError::Cluster)?;
    Ok(Json(TokenRow {
        id: status.standing.id.to_string(),
        token: token.to_string(),
        role: body.role,
        valid_seconds: body.valid_seconds,
        addresses: status.member.map_or_else(Vec::new, |member| member.addresses),
    }))
}

/// Remove a member; from then on nobody talks to it.
#[utoipa::path(delete, path = "/v1/cluster/members/{member}", tag = "cluster",
    params(("member" = String, Path, description = "its id or name")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn remove(
    State(context): State<Context>,
    Path(member): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = context.cluster.member(&member).await?;
    context.cluster.remove(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a secret is made new.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct RotateQuery {
    /// `session-key`: even if sessions from before its last change may still live under the secret that goes.
    #[serde(default)]
    force: bool,
}

/// Make a secret that all nodes share new; what was made with the one before stays good.
#[utoipa::path(post, path = "/v1/cluster/secrets/{secret}/rotate", tag = "cluster",
    params(("secret" = String, Path, description = "`segment-mac`, `syn-cookie` or `session-key`"), RotateQuery),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(in crate::admin) async fn rotate(
    State(context): State<Context>,
    Path(secret): Path<String>,
    Query(query): Query<RotateQuery>,
) -> Result<StatusCode, ApiError> {
    let lifetime = if query.force {
        Duration::ZERO
    } else {
        let desired = configured(&context).await?;
        desired.services.iter().map(|service| service.lifetime).max().unwrap_or_default()
    };
    let known = [Rotation::Segment, Rotation::SynCookie, Rotation::Session { lifetime }];
    let rotation = known.into_iter().find(|known| known.name() == secret);
    let names = known.map(Rotation::name).join(", ");
    let rotation = rotation.ok_or_else(|| ApiError::bad_input(format!("secret {secret}"), names))?;
    context.cluster.rotate(rotation).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn lifetime(seconds: u64) -> Result<Duration, ApiError> {
    if (1..=TOKEN_MOST).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(ApiError::bad_input(format!("{seconds} seconds"), "1 second to 30 days for a token"))
    }
}

fn show(status: &Status, asked: &[u64]) -> ClusterRow {
    let Status { member, is_ready, is_removed, listen, is_authority, roster, standing, mirror } = status;
    let state = match (is_removed, is_ready) {
        (true, _) => ClusterState::Removed,
        (false, false) => ClusterState::Joining,
        (false, true) => ClusterState::Ready,
    };
    let node = ClusterNodeRow {
        id: standing.id.to_string(),
        name: member.as_ref().map(|member| member.name.clone()),
        listen: listen.to_string(),
        addresses: member.as_ref().map_or_else(Vec::new, |member| member.addresses.clone()),
        authority: *is_authority,
        member_list: *roster,
        bindings: standing.bindings,
        memory_bytes: standing.bytes,
        vector: vector(&standing.vector),
        counts: counts(standing),
        convergence: convergence(standing),
        mirror: mirror_row(mirror),
        journal_trouble: standing.journal_trouble.clone(),
        certificate_until: standing.certificate_until,
        certificate_overdue: standing.is_certificate_overdue,
    };
    let peers = standing.peers.iter().map(|peer| show_peer(peer, status, asked)).collect();
    ClusterRow { state, node: Some(node), peers }
}

fn show_peer(peer: &Peer, status: &Status, asked: &[u64]) -> PeerRow {
    let standing = &status.standing;
    let told = peer.replication.as_ref();
    let fetching = standing.snapshot.filter(|(from, _)| *from == peer.id);
    PeerRow {
        id: peer.id.to_string(),
        name: peer.name.clone(),
        role: peer.role.name().to_owned(),
        addresses: peer.addresses.clone(),
        connected: peer.connection.contact.as_ref().map(|contact| ConnectionRow {
            address: contact.address.to_string(),
            seconds: contact.age.as_secs(),
            round_trip_ms: contact.round_trip.as_secs_f64() * 1_000.0,
            sent_bytes: contact.sent,
            received_bytes: contact.received,
        }),
        failure: peer.connection.failure.clone(),
        asked: asked.contains(&peer.id.number()),
        held_connections: status.mirror.held.get(&peer.id.number()).copied().unwrap_or(0),
        last_contact_seconds: told.and_then(|told| told.silent).map(|silent| silent.as_secs_f64()),
        behind_events: told.map_or(0, |told| told.behind),
        behind_seconds: peer.behind.map_or(0.0, |behind| behind.as_secs_f64()),
        ahead_events: told.map_or(0, |told| told.ahead),
        vector: told.map_or_else(Vec::new, |told| vector(&told.told)),
        sent_bytes: told.map_or(0, |told| told.sent),
        received_bytes: told.map_or(0, |told| told.received),
        snapshot_records: fetching.map(|(_, records)| records),
    }
}

fn mirror_row(mirror: &mirror::Standing) -> MirrorRow {
    MirrorRow {
        on: mirror.is_on,
        mirrored: mirror.mirrored,
        held: mirror.held.values().sum(),
        sent: mirror.sent,
        received: mirror.received,
        dropped: mirror.dropped,
        missed: mirror.gaps,
        refused: mirror.refused,
        adopted: mirror.adopted,
        lost: mirror.lost,
    }
}

fn vector(vector: &Vector) -> Vec<StreamRow> {
    let rows = vector.iter().map(|(stream, event)| StreamRow {
        node: format!("{:016x}", stream.node.0),
        epoch: format!("{:016x}", stream.epoch),
        event,
    });
    rows.collect()
}

fn convergence(standing: &Standing) -> ConvergenceRow {
    let ends = BUCKETS.into_iter().map(Some).chain([None]);
    let rows = ends.zip(standing.convergence.counts);
    ConvergenceRow {
        sum_milliseconds: standing.convergence.sum,
        buckets: rows.map(|(milliseconds, events)| ConvergenceBucket { milliseconds, events }).collect(),
    }
}

fn counts(standing: &Standing) -> ClusterCounts {
    let counts = &standing.counts;
    ClusterCounts {
        own: counts.own,
        coalesced: counts.coalesced,
        applied: counts.applied,
        repeated: counts.repeated,
        gaps: counts.gaps,
        requests: counts.requests,
        relayed: counts.relayed,
        failovers: counts.failovers,
        snapshots_begun: counts.snapshots_begun,
        snapshots_done: counts.snapshots_done,
        refused: counts.refused,
    }
}
