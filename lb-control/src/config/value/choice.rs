//! Values that take a word, a number or a table.

use super::Number;
use crate::config::{defaults, field::Field};
use core::fmt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Unexpected, Visitor};
use std::borrow::Cow;

/// The port of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum PortChoice {
    /// Every port that no other service of the address has.
    Any,
    /// This one.
    Port(u16),
}

/// VLAN tags on the way to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum VlanChoice {
    /// The route's own.
    Auto,
    /// None.
    Untagged,
    /// This one.
    Tag(u16),
}

/// Where the session key comes from.
#[derive(Clone, Debug)]
pub(in super::super) enum AffinityChoice {
    /// A word.
    Kind(AffinityKind),
    /// A table with details.
    Table(AffinityTable),
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
}

/// Affinity with details.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline, extend("required" = ["kind"]))]
pub(in super::super) struct AffinityTable {
    /// What makes a session.
    pub(in super::super) kind: Field<AffinityKind>,
    /// Bits of an IPv4 client address that name the session (`source-ip`).
    #[schemars(extend("default" = defaults::PREFIX_V4))]
    pub(in super::super) prefix_v4: Field<Number<1, 32>>,
    /// Bits of an IPv6 client address that name the session (`source-ip`).
    #[schemars(extend("default" = defaults::PREFIX_V6))]
    pub(in super::super) prefix_v6: Field<Number<1, 128>>,
}

/// The keys of [`AffinityTable`], so that others are reported by name.
const AFFINITY_KEYS: &[&str] = &["kind", "prefix-v4", "prefix-v6"];

impl<'de> Deserialize<'de> for PortChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = PortChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 1 to 65535, or \"any\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortChoice, E> {
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(PortChoice::Port(port)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PortChoice, E> {
        match text {
            "any" => Ok(PortChoice::Any),
            text => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for VlanChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VlanVisitor)
    }
}

struct VlanVisitor;

impl Visitor<'_> for VlanVisitor {
    type Value = VlanChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\", \"none\" or a VLAN id from 1 to 4094")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<VlanChoice, E> {
        match u16::try_from(number) {
            Ok(tag @ 1..=4094) => Ok(VlanChoice::Tag(tag)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<VlanChoice, E> {
        match text {
            "auto" => Ok(VlanChoice::Auto),
            "none" => Ok(VlanChoice::Untagged),
            text => Err(E::invalid_value(Unexpected::Str(text), &self)),
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
        f.write_str("\"source-ip\", \"none\" or a table such as { kind = \"source-ip\", prefix-v4 = 24 }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AffinityChoice, E> {
        AffinityKind::deserialize(IntoDeserializer::<E>::into_deserializer(text)).map(AffinityChoice::Kind)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AffinityChoice, A::Error> {
        AffinityTable::deserialize(MapAccessDeserializer::new(map)).map(AffinityChoice::Table)
    }
}

/// Gives the types above their schemas, in place.
macro_rules! inline_schema {
    ($($ty:ident: |$generator:ident| $schema:expr),* $(,)?) => {$(
        impl JsonSchema for $ty {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($ty))
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

inline_schema! {
    PortChoice: |_generator| json_schema!({
        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65_535 }, { "const": "any" }]
    }),
    VlanChoice: |_generator| json_schema!({
        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 4_094 }, { "enum": ["auto", "none"] }]
    }),
    AffinityChoice: |generator| {
        let kind = generator.subschema_for::<AffinityKind>();
        let table = generator.subschema_for::<AffinityTable>();
        json_schema!({ "anyOf": [kind, table] })
    },
}
