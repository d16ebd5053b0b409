//! Sessions and flows as people ask for them.

use lb_common::abi::{FlowKey, FlowState};
use std::time::Duration;

/// Which sessions to list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SessionFilter {
    /// Only of this service.
    pub service: Option<String>,
    /// Only on this backend.
    pub backend: Option<String>,
    /// Only with this key.
    pub session: Option<u64>,
}

/// A session: a binding that has not expired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRow {
    /// Name of the service; `None` for a service that is not configured here.
    pub service: Option<String>,
    /// Id of the service.
    pub service_id: u32,
    /// The session key.
    pub session: u64,
    /// Name of the backend; `None` when the slot has another owner by now.
    pub backend: Option<String>,
    /// Its slot.
    pub slot: u16,
    /// How often the session moved.
    pub generation: u32,
    /// Time until it ends without traffic.
    pub expires_in: Duration,
    /// Set by an administrator.
    pub pinned: bool,
    /// Not told to the control plane yet.
    pub unsynced: bool,
}

/// Which flows to list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FlowFilter {
    /// Only of this service.
    pub service: Option<String>,
    /// Only to this backend.
    pub backend: Option<String>,
    /// Only of this client.
    pub client: Option<std::net::IpAddr>,
    /// Only in this state.
    pub state: Option<FlowState>,
}

/// A translated connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// Name of the service; `None` for a service that is not configured any more.
    pub service: Option<String>,
    /// Name of the backend; `None` when the slot has another owner by now.
    pub backend: Option<String>,
    /// Client -> VIP.
    pub client: FlowKey,
    /// Backend -> client, as the backend sends.
    pub server: FlowKey,
    /// Its state.
    pub state: FlowState,
    /// The session key.
    pub session: u64,
    /// Time since its last packet was noted.
    pub idle: Duration,
    /// Spliced: what is added to the client's acknowledgements and taken from the backend's sequence numbers, modulo 2^32.
    pub offset: Option<u32>,
}
