//! Which backend a packet would get, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The packet to explain: a packet that opens a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainBody {
    /// Source address and port.
    #[schema(example = "10.0.0.7:51312")]
    pub src: String,
    /// Destination address and port.
    #[schema(example = "10.99.0.1:80")]
    pub dst: String,
    /// `tcp` or `udp`.
    #[schema(example = "tcp")]
    pub proto: String,
    /// Value of the service's cookie (`http-cookie`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Path of the request, for services with pools by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Destination connection id, hexadecimal (`quic-cid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Payload from its first byte on, hexadecimal (`payload`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// The way of a packet through the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// Where it ends.
    pub verdict: Verdict,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What was done.
    pub kind: StepKind,
    /// What was found.
    pub found: String,
    /// Why that leads on to the next step, or ends the search.
    pub because: String,
}

/// Kinds of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Looking up the destination.
    Service,
    /// Choosing the pool by the request's path.
    Path,
    /// Reading what the packet carries: cookie, connection id, payload.
    Segment,
    /// Taking the session key from the packet.
    SessionKey,
    /// Looking for the translated connection (`nat`).
    Flow,
    /// Looking for the server that the packet names.
    Server,
    /// Looking for the session's binding.
    Binding,
    /// The selection method, for a session without a binding, and what it compares.
    Method,
    /// A probe of the selection table.
    Probe,
    /// The walk over the member list behind the probes.
    Walk,
    /// A second reading of the order that also takes draining backends.
    SecondReading,
    /// Forwarding mode and next hop.
    Forward,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Sent to a backend.
    Forward {
        /// Name of the service.
        service: String,
        /// Name of the backend.
        backend: String,
        /// Its address.
        address: String,
        /// Forwarding mode.
        mode: String,
    },
    /// Passed to the host's own stack.
    Pass {
        /// Name of the outcome that counts it.
        outcome: String,
    },
    /// Answered by the balancer.
    Answer {
        /// Name of the outcome that counts it.
        outcome: String,
    },
    /// Dropped.
    Drop {
        /// Name of the outcome that counts it.
        outcome: String,
    },
}

impl StepKind {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Path => "path",
            Self::Segment => "segment",
            Self::SessionKey => "session key",
            Self::Flow => "flow",
            Self::Server => "server",
            Self::Binding => "binding",
            Self::Method => "method",
            Self::Probe => "probe",
            Self::Walk => "member walk",
            Self::SecondReading => "second reading",
            Self::Forward => "forward",
        }
    }
}
