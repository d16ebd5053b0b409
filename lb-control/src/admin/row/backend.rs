//! A backend as the API shows it.

use super::Traffic;
use crate::reconcile::{BackendView, Health, HopState};
use lb_common::abi::Status;
use lb_core::health::State;
use lb_core::pool::Admin;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::UNIX_EPOCH;
use utoipa::ToSchema;

/// A server of one service's pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendRow {
    /// Name of its service.
    #[schema(example = "web")]
    pub service: String,
    /// Name, unique in its service.
    #[schema(example = "be1")]
    pub name: String,
    /// Server number, hexadecimal.
    #[schema(example = "0x9c3f0a6be2d41705")]
    pub number: String,
    /// Its address.
    #[schema(example = "10.1.0.11")]
    pub address: String,
    /// Destination port for `nat`; 0 = the packet's own.
    pub port: u16,
    /// Share of new sessions, 0..=1000.
    pub weight: u32,
    /// Weight in the configuration file, where an administrator changed it since.
    pub configured_weight: Option<u32>,
    /// What the administrator says of it.
    pub admin: AdminState,
    /// What the configuration file says of it, where an administrator changed it since.
    pub configured_admin: Option<AdminState>,
    /// What it may receive now.
    pub state: ServingState,
    /// What health checks say; absent while it is not checked.
    pub health: Option<HealthRow>,
    /// Place in the data plane's backend table.
    pub slot: u16,
    /// The way to it; absent while it is not resolved.
    pub hop: Option<HopRow>,
    /// What the other nodes of the cluster say that are heard.
    #[serde(default)]
    pub nodes: Vec<NodeViewRow>,
    /// Counters.
    pub traffic: Traffic,
    /// What it has to do now.
    pub load: BackendLoad,
}

/// What a backend has to do, as far as its answers come through the balancer (`nat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendLoad {
    /// Connections that have not ended.
    pub connections: u64,
    /// Connections at a time beyond which it gets no new sessions; 0 = no limit.
    pub limit: u32,
    /// New sessions that went elsewhere because of the limit.
    pub overflowed: u64,
    /// How long it takes to answer a SYN, in microseconds, smoothed; absent = not known.
    pub response_microseconds: Option<u64>,
    /// SYNs of the balancer's own that it refused.
    pub refused: u64,
    /// SYNs of the balancer's own that it did not answer.
    pub silent: u64,
    /// Slow start: hundredths of its weight that it has; absent = all of it.
    pub ramp_percent: Option<u8>,
}

/// What another node says of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeViewRow {
    /// Name of the node.
    #[schema(example = "lb2")]
    pub node: String,
    /// Whether the backend serves there.
    pub serves: bool,
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HopRow {
    /// Outgoing interface.
    pub interface: String,
    /// The neighbour's MAC.
    #[schema(example = "02:00:00:00:00:0b")]
    pub mac: String,
    /// Largest IP packet the link takes.
    pub mtu: u16,
}

/// What health checks say of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthRow {
    /// Where it stands.
    pub state: HealthState,
    /// Since when it is healthy or not, in seconds since 1970 UTC; absent = since before the start of the daemon.
    pub since_unix_seconds: Option<u64>,
    /// The latest failure, as long as it counts.
    #[schema(example = "refused the connection")]
    pub reason: Option<String>,
}

/// Where a backend stands with its health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Not heard of yet; used.
    New,
    /// It passes.
    Healthy,
    /// It is used still, but the latest probes failed.
    Failing,
    /// It is not used.
    Down,
    /// It is not used yet, but the latest probes passed.
    Rising,
}

/// What an administrator says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// In use.
    Enabled,
    /// No new sessions; bound ones stay.
    Draining,
    /// Neither new nor bound sessions.
    Disabled,
}

/// What a backend may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServingState {
    /// New and bound sessions.
    Up,
    /// Bound sessions only.
    Draining,
    /// Nothing.
    Down,
}

/// What a backend still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadRow {
    /// Sessions bound to it.
    pub sessions: u64,
    /// Translated connections to it, without those that are over.
    pub flows: u64,
    /// Whether it was last told to drain.
    pub draining: bool,
    /// When its sessions are moved, in seconds since 1970 UTC; absent = never.
    pub deadline_unix_seconds: Option<u64>,
    /// Sessions that are moved a second, now that its deadline has come.
    pub moving_per_second: Option<u32>,
}

/// A new weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeightBody {
    /// 0..=1000; 0 = no new sessions.
    #[schema(maximum = 1000)]
    pub weight: u32,
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for ServingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Down => "down",
            Self::Rising => "rising",
        })
    }
}

impl HealthState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::New, Self::Healthy, Self::Failing, Self::Down, Self::Rising];
}

impl From<State> for HealthState {
    fn from(state: State) -> Self {
        match state {
            State::New => Self::New,
            State::Up => Self::Healthy,
            State::Failing(_) => Self::Failing,
            State::Down(_) => Self::Down,
            State::Rising(_, _) => Self::Rising,
        }
    }
}

impl From<&Health> for HealthRow {
    fn from(health: &Health) -> Self {
        let since = health.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            state: health.state.into(),
            since_unix_seconds: Some(since).filter(|&since| since > 0),
            reason: health.reason.as_ref().map(ToString::to_string),
        }
    }
}

impl From<Admin> for AdminState {
    fn from(admin: Admin) -> Self {
        match admin {
            Admin::Enabled => Self::Enabled,
            Admin::Draining => Self::Draining,
            Admin::Disabled => Self::Disabled,
        }
    }
}

impl From<Status> for ServingState {
    fn from(status: Status) -> Self {
        match status {
            Status::Up => Self::Up,
            Status::Draining => Self::Draining,
            Status::Down => Self::Down,
        }
    }
}

impl BackendRow {
    /// The row of a backend of `service`; `interface` gives names to interface indices.
    pub(in crate::admin) fn new(
        service: &str,
        view: &BackendView,
        interface: impl Fn(u32) -> String,
    ) -> Self {
        let spec = &view.spec;
        Self {
            service: service.to_owned(),
            name: spec.name.clone(),
            number: format!("{:#018x}", spec.number),
            address: spec.address.to_string(),
            port: spec.port,
            weight: spec.weight,
            configured_weight: view.configured_weight,
            admin: spec.admin.into(),
            configured_admin: view.configured_admin.map(AdminState::from),
            state: view.status.into(),
            health: view.health.as_ref().map(HealthRow::from),
            slot: view.slot,
            hop: match view.hop {
                HopState::Unresolved => None,
                HopState::Resolved { hop, .. } => Some(HopRow {
                    interface: interface(hop.ifindex),
                    mac: mac(hop.destination.0),
                    mtu: hop.mtu,
                }),
            },
            nodes: Vec::new(),
            traffic: view.counters.into(),
            load: BackendLoad {
                connections: view.vitals.load(),
                limit: spec.limit,
                overflowed: view.vitals.overflowed,
                response_microseconds: Some(view.vitals.response / 1_000)
                    .filter(|_| view.vitals.response > 0),
                refused: view.vitals.refused,
                silent: view.vitals.silent,
                ramp_percent: view.ramp,
            },
        }
    }

    /// Whether another node sees it otherwise than this one.
    pub fn is_disputed(&self) -> bool {
        let serves = self.state != ServingState::Down;
        self.nodes.iter().any(|node| node.serves != serves)
    }
}

/// A MAC address as people write it.
pub(in crate::admin) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
