//! A binding event as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A binding was made or moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Number of the event since the daemon started.
    pub number: u64,
    /// When the daemon read it, seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// `made`, `moved` or `found` (its own event was lost).
    #[schema(example = "made")]
    pub kind: String,
    /// Name of the service.
    pub service: String,
    /// Session key, hexadecimal.
    pub key: String,
    /// The client's address or prefix, where the key holds it.
    pub client: Option<String>,
    /// Name of the backend.
    pub backend: Option<String>,
    /// How often the session moved.
    pub generation: u32,
}
