//! A binding as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A session bound to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRow {
    /// Name of its service; its id in hexadecimal when no configured service has it.
    #[schema(example = "web")]
    pub service: String,
    /// Session key, hexadecimal.
    #[schema(example = "0x000000000a000007")]
    pub key: String,
    /// The client's address or prefix, where the key holds it.
    #[schema(example = "10.0.0.7")]
    pub client: Option<String>,
    /// Name of its backend; absent when the backend is gone (the session moves with its next packet).
    pub backend: Option<String>,
    /// Backend slot.
    pub slot: u16,
    /// How often the session moved.
    pub generation: u32,
    /// Set by an administrator.
    pub pinned: bool,
    /// The daemon has not yet acknowledged its latest change.
    pub unsynced: bool,
    /// Seconds until it ends without traffic.
    pub expires_in_seconds: u64,
}

/// Where a session is to be bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinBody {
    /// Name of the backend.
    #[schema(example = "be2")]
    pub backend: String,
    /// How long it lives without traffic; as long as the service's sessions when absent.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub lifetime_seconds: Option<u64>,
}

/// Some of the sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// The sessions, at most as many as the limit.
    pub sessions: Vec<SessionRow>,
    /// Whether more matched than are shown.
    pub truncated: bool,
}
