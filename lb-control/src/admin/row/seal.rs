//! Sealed cookie segments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A sealed cookie segment, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SealedRow {
    /// Name of the service.
    pub service: String,
    /// Name of the cookie.
    pub cookie: String,
    /// What parts the cookie's value; absent when the segment is all of it.
    pub delimiter: Option<String>,
    /// Which part of the value the segment is, from 1; absent when it is all of it.
    pub place: Option<u16>,
    /// The segment: 24 letters, digits, `-` and `_`.
    pub segment: String,
    /// Id of the key that it is sealed with.
    pub key: u8,
}
