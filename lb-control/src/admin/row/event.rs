//! An event as the API shows it.

use super::HealthState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something happened: a binding was made or moved, or health checks found a backend in another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Number of the event since the daemon started.
    pub number: u64,
    /// When the daemon read it, seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// Of a binding `made`, `moved` or `found` (its own event was lost); of a backend `down`, `up` or `health` (another change, which
    /// moves no session).
    #[schema(example = "made")]
    pub kind: String,
    /// Name of the service.
    pub service: String,
    /// Session key, hexadecimal; absent where the event is not of a session.
    #[serde(default)]
    pub key: Option<String>,
    /// The client's address or prefix, where the key holds it.
    pub client: Option<String>,
    /// Name of the backend.
    pub backend: Option<String>,
    /// How often the session moved; absent where the event is not of a session.
    #[serde(default)]
    pub generation: Option<u32>,
    /// What health checks found; absent where the event is of a session.
    #[serde(default)]
    pub health: Option<HealthEventRow>,
}

/// A backend's state changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthEventRow {
    /// What it was.
    pub from: HealthState,
    /// What it is.
    pub to: HealthState,
    /// The latest failure, as long as it counts.
    #[schema(example = "refused the connection")]
    pub reason: Option<String>,
}
