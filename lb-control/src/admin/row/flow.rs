//! A translated connection as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One flow of a `nat` service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowRow {
    /// Name of its service; its id in hexadecimal when no configured service has it.
    pub service: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client's address and port.
    #[schema(example = "10.0.0.7:51312")]
    pub client: String,
    /// The VIP and port the client talks to.
    #[schema(example = "10.99.0.1:80")]
    pub vip: String,
    /// Source that the backend sees; the client's own unless the service translates sources.
    pub source: String,
    /// Name of its backend; absent when the backend is gone.
    pub backend: Option<String>,
    /// The backend's address and port.
    pub backend_address: String,
    /// `opening`, `answered`, `established`, `closing` or `closed`; of connections that the balancer makes itself also
    /// `collecting` (the request), `connecting` (to the backend) and `releasing` (held bytes).
    pub state: String,
    /// Whether the balancer answered the client's handshake itself.
    pub spliced: bool,
    /// What sequence numbers from the backend are lowered by, modulo 2^32; absent until the backend answered.
    pub offset: Option<u32>,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
}

/// Some of the flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowPage {
    /// The flows, at most as many as the limit.
    pub flows: Vec<FlowRow>,
    /// Whether more matched than are shown.
    pub truncated: bool,
}
