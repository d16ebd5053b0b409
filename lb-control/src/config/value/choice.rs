//! Values that take a word or a number.

use core::fmt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
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
}
