//! What makes a session: a word, or a table with details.

use super::{CookieName, Delimiter, Mask, Number};
use crate::config::{defaults, field::Field};
use core::fmt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use std::borrow::Cow;

/// Where the session key comes from.
#[derive(Clone, Debug)]
pub(in super::super) enum AffinityChoice {
    /// A word.
    Kind(AffinityKind),
    /// A table with details.
    Table(Box<AffinityTable>),
}

/// The kinds of affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum AffinityKind {
    /// Every connection is a session of its own.
    None,
    /// All connections of a client address (or of its prefix) are one session.
    SourceIp,
    /// A cookie of the connection's first HTTP request names the session.
    HttpCookie,
    /// QUIC connection ids name the server.
    QuicCid,
    /// Bytes at a fixed place of the payload name the session.
    Payload,
}

/// What a cookie's segment means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum ReadingWord {
    /// Its hash names the session, and the session is bound to a backend.
    Bind,
    /// It is the `route` of a backend.
    Route,
    /// It names primary and secondary by the sum of their server numbers, under a MAC.
    Pair,
    /// It names the backend under a MAC.
    SealedRoute,
}

/// What a packet follows that does not say whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum FallbackWord {
    /// Each connection goes by itself.
    None,
    /// The client's address.
    SourceIp,
}

/// What another session's cookie later on a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum MismatchWord {
    /// It is counted.
    Count,
    /// It is counted, and the connection is reset.
    Reset,
}

/// Affinity with details.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline, extend("required" = ["kind"]))]
pub(in super::super) struct AffinityTable {
    /// What makes a session.
    pub(in super::super) kind: Field<AffinityKind>,
    /// Bits of an IPv4 client address that name the session (`source-ip`, as kind or as fallback).
    #[schemars(extend("default" = defaults::PREFIX_V4))]
    pub(in super::super) prefix_v4: Field<Number<1, 32>>,
    /// Bits of an IPv6 client address that name the session (`source-ip`, as kind or as fallback).
    #[schemars(extend("default" = defaults::PREFIX_V6))]
    pub(in super::super) prefix_v6: Field<Number<1, 128>>,
    /// Name of the cookie (`http-cookie`).
    pub(in super::super) cookie: Field<CookieName>,
    /// What the cookie's segment means (`http-cookie`).
    #[schemars(extend("default" = "bind"))]
    pub(in super::super) read: Field<ReadingWord>,
    /// Character that parts the cookie's value (`http-cookie`).
    pub(in super::super) delimiter: Field<Delimiter>,
    /// Which part is the segment, from 1; all of the value when absent (`http-cookie`).
    pub(in super::super) segment: Field<Number<1, 256>>,
    /// Whether responses are scanned for the cookie, and its value bound to their backend (`http-cookie`).
    #[schemars(extend("default" = true))]
    pub(in super::super) learn: Field<bool>,
    /// What packets follow that do not say whose they are.
    #[schemars(extend("default" = "none"))]
    pub(in super::super) fallback: Field<FallbackWord>,
    /// What another session's cookie later on a connection does (`http-cookie`).
    #[schemars(extend("default" = "count"))]
    pub(in super::super) on_mismatch: Field<MismatchWord>,
    /// Bytes of a request head that are looked at (`http-cookie`).
    #[schemars(extend("default" = defaults::HEAD_LIMIT))]
    pub(in super::super) head_limit: Field<Number<256, { lb_common::abi::HOLD_LEN as u64 }>>,
    /// Bytes of payload in front of the segment (`payload`).
    #[schemars(extend("default" = 0))]
    pub(in super::super) offset: Field<Number<0, LAST_OFFSET>>,
    /// Bytes of the segment (`payload`).
    pub(in super::super) length: Field<Number<1, { lb_common::abi::MAX_PAYLOAD_SEGMENT as u64 }>>,
    /// What is kept of each byte, in hexadecimal; all of it when absent (`payload`).
    pub(in super::super) mask: Field<Mask>,
}

/// Last place where the longest segment still fits a hold.
const LAST_OFFSET: u64 = (lb_common::abi::HOLD_LEN - lb_common::abi::MAX_PAYLOAD_SEGMENT) as u64;

/// The keys of [`AffinityTable`], so that others are reported by name.
const AFFINITY_KEYS: &[&str] = &[
    "kind",
    "prefix-v4",
    "prefix-v6",
    "cookie",
    "read",
    "delimiter",
    "segment",
    "learn",
    "fallback",
    "on-mismatch",
    "head-limit",
    "offset",
    "length",
    "mask",
];

impl AffinityKind {
    /// Its word.
    pub(in super::super) const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SourceIp => "source-ip",
            Self::HttpCookie => "http-cookie",
            Self::QuicCid => "quic-cid",
            Self::Payload => "payload",
        }
    }
}

impl<'de> Deserialize<'de> for AffinityChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Affinity", AFFINITY_KEYS, AffinityVisitor)
    }
}

struct AffinityVisitor;

impl<'de> Visitor<'de> for AffinityVisitor {
    type Value = AffinityChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"source-ip\", \"none\", \"quic-cid\" or a table such as { kind = \"http-cookie\", cookie = \"SESS\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AffinityChoice, E> {
        AffinityKind::deserialize(IntoDeserializer::<E>::into_deserializer(text)).map(AffinityChoice::Kind)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AffinityChoice, A::Error> {
        let table = AffinityTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(AffinityChoice::Table(Box::new(table)))
    }
}

impl JsonSchema for AffinityChoice {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("AffinityChoice")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kind = generator.subschema_for::<AffinityKind>();
        let table = generator.subschema_for::<AffinityTable>();
        json_schema!({ "anyOf": [kind, table] })
    }
}
