//! The values that keys take: text and numbers that cannot be wrong once they are read.

mod affinity;
mod choice;
mod health;
mod lifetime;
mod octets;
mod plane;
mod url;

pub(super) use affinity::{
    AffinityChoice, AffinityKind, AffinityTable, FallbackWord, MismatchWord, ReadingWord,
};
pub(super) use choice::{PortChoice, VlanChoice};
pub(super) use health::{
    Argument, FailbackWord, HealthChoice, HealthKind, HealthTable, HostText, MethodWord, Payload,
    RequestPath, StatusRanges, WayWord,
};
pub(super) use lifetime::{Lifetime, spell};
pub(super) use octets::{CookieName, Delimiter, Mask, PathPrefix, RouteText, ServerIdText};
pub(super) use plane::{MacText, PlaneWord, Prefix};
pub(super) use url::WebUrl;

use core::fmt;
use core::marker::PhantomData;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use std::borrow::Cow;
use std::path::PathBuf;

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// As a narrower number, which the range of the type allows.
    pub(super) fn narrow<T: TryFrom<u64>>(self) -> T {
        const { assert!(MIN <= MAX) };
        T::try_from(self.0).ok().expect("the range of the key fits the type")
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(NumberVisitor::<MIN, MAX>)
    }
}

struct NumberVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = Number<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&number) {
            Ok(Number(number))
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Number<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Number{MIN}To{MAX}"))
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A value that stands in the file as text.
pub(super) trait Text: Sized {
    /// What the text should be, as in "expected ...".
    const EXPECTED: &'static str;
    /// The pattern of the text, for the schema.
    const PATTERN: Option<&'static str> = None;

    /// The value, if the text is right.
    fn from_text(text: &str) -> Option<Self>;
}

/// Visits the text of a [`Text`] value.
struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Reads a [`Text`] value and describes it in the schema.
macro_rules! text {
    ($($ty:ident),* $(,)?) => {$(
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::<Self>(PhantomData))
            }
        }

        impl JsonSchema for $ty {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($ty))
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                match <Self as Text>::PATTERN {
                    Some(pattern) => json_schema!({ "type": "string", "pattern": pattern }),
                    None => json_schema!({ "type": "string" }),
                }
            }
        }
    )*};
}

/// The name of a node, service, pool or backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Name(pub(super) String);

impl Text for Name {
    const EXPECTED: &'static str =
        "a name of 1 to 63 letters, digits, `.`, `_` and `-` that begins with a letter or digit";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");

    fn from_text(text: &str) -> Option<Self> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        (first && text.len() <= 63 && text.bytes().all(inner)).then(|| Self(text.to_owned()))
    }
}

/// The name of a network interface.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Interface(pub(super) String);

impl Text for Interface {
    const EXPECTED: &'static str =
        "the name of a network interface, 1 to 15 bytes without spaces, `/` and `:`";
    const PATTERN: Option<&'static str> = Some("^[^\\s/:]{1,15}$");

    fn from_text(text: &str) -> Option<Self> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
        (fits && plain).then(|| Self(text.to_owned()))
    }
}

/// An address of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address(pub(super) IpAddr);

impl Text for Address {
    const EXPECTED: &'static str = "an IPv4 or IPv6 address, such as \"192.0.2.1\" or \"2001:db8::1\"";

    fn from_text(text: &str) -> Option<Self> {
        let mapped = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        text.parse().ok().filter(|ip| !mapped(ip)).map(Self)
    }
}

/// An IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AddressV4(pub(super) Ipv4Addr);

impl Text for AddressV4 {
    const EXPECTED: &'static str = "an IPv4 address, such as \"192.0.2.1\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// An IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AddressV6(pub(super) Ipv6Addr);

impl Text for AddressV6 {
    const EXPECTED: &'static str = "an IPv6 address, such as \"2001:db8::1\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|ip: &Ipv6Addr| ip.to_ipv4_mapped().is_none()).map(Self)
    }
}

/// An address and port to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listen(pub(super) SocketAddr);

impl Text for Listen {
    const EXPECTED: &'static str = "an address and port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|at: &SocketAddr| at.port() != 0).map(Self)
    }
}

/// A host, by address or name, and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Endpoint(pub(super) String);

impl Text for Endpoint {
    const EXPECTED: &'static str =
        "a host and port, such as \"192.0.2.11:7117\", \"[2001:db8::11]:7117\" or \"lb1.example.net:7117\"";
    const PATTERN: Option<&'static str> = Some("^(\\[[0-9A-Fa-f:.]+\\]|[^\\s:/\\[\\]]{1,246}):[0-9]{1,5}$");

    fn from_text(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
        let is_host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
            None => is_host_name(host),
        };
        (is_port && is_host).then(|| Self(text.to_owned()))
    }
}

/// A DNS name (RFC 1123), or an IPv4 address, which looks like one.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 246
        && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

/// An absolute path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl Text for AbsolutePath {
    const EXPECTED: &'static str = "an absolute path, such as \"/var/lib/stickleback\"";
    const PATTERN: Option<&'static str> = Some("^/");

    fn from_text(text: &str) -> Option<Self> {
        (text.starts_with('/') && !text.contains('\0')).then(|| Self(PathBuf::from(text)))
    }
}

/// The name of a group of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Group(pub(super) String);

impl Text for Group {
    const EXPECTED: &'static str = "the name of a group of this system";
    const PATTERN: Option<&'static str> = Some("^[^\\s:/]{1,32}$");

    fn from_text(text: &str) -> Option<Self> {
        let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
        (plain && (1..=32).contains(&text.len())).then(|| Self(text.to_owned()))
    }
}

text!(
    Name,
    Interface,
    Address,
    AddressV4,
    AddressV6,
    Listen,
    Endpoint,
    AbsolutePath,
    Group,
    Lifetime,
    Secret,
    WebUrl
);
text!(CookieName, Delimiter, Mask, PathPrefix, RouteText, ServerIdText);
text!(MacText, Prefix);
text!(Argument, HostText, Payload, RequestPath, StatusRanges);

/// 16 bytes in hexadecimal; its debug form does not show them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret(pub(super) [u8; 16]);

impl Text for Secret {
    const EXPECTED: &'static str = "32 hexadecimal digits (16 bytes), such as `openssl rand -hex 16` prints";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Fa-f]{32}$");

    fn from_text(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
