//! Health checks: a word, or a table with details.

use super::{AbsolutePath, Lifetime, Number, Text};
use crate::config::{defaults, field::Field};
use core::fmt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use std::borrow::Cow;

/// How backends are checked.
#[derive(Clone, Debug)]
pub(in super::super) enum HealthChoice {
    /// A word.
    Kind(HealthKind),
    /// A table with details.
    Table(Box<HealthTable>),
}

/// The kinds of checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum HealthKind {
    /// Backends are not checked.
    None,
    /// A TCP connection is accepted.
    Tcp,
    /// A request is answered as expected.
    Http,
    /// The gRPC health service says "serving".
    Grpc,
    /// Pings are answered.
    Icmp,
    /// A datagram is answered.
    Udp,
    /// A program says so.
    Command,
}

/// Methods of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum MethodWord {
    /// GET.
    Get,
    /// HEAD.
    Head,
}

/// What happens to moved sessions when their backend returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum FailbackWord {
    /// They stay.
    Never,
    /// They go back when they are idle.
    WhenIdle,
}

/// Which way probes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum WayWord {
    /// That of the traffic.
    Traffic,
    /// To the backend's own address.
    Direct,
}

/// Health checks with details.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline, extend("required" = ["kind"]))]
pub(in super::super) struct HealthTable {
    /// What a probe does.
    pub(in super::super) kind: Field<HealthKind>,
    /// From the start of a probe to the next while the backend is up; 5s for `command`.
    #[schemars(extend("default" = super::spell(defaults::HEALTH.interval)))]
    pub(in super::super) interval: Field<Lifetime>,
    /// The same while results do not agree with the state yet.
    #[schemars(extend("default" = super::spell(defaults::HEALTH.fast)))]
    pub(in super::super) fast_interval: Field<Lifetime>,
    /// The same while the backend is down; never shorter than `interval` by default.
    #[schemars(extend("default" = super::spell(defaults::HEALTH.slow)))]
    pub(in super::super) slow_interval: Field<Lifetime>,
    /// How long an answer may take; 2s for `command`.
    #[schemars(extend("default" = super::spell(defaults::HEALTH.timeout)))]
    pub(in super::super) timeout: Field<Lifetime>,
    /// Probes in a row that a backend which is down must pass.
    #[schemars(extend("default" = defaults::HEALTH.rise))]
    pub(in super::super) rise: Field<Number<1, 1_000>>,
    /// Failures in a row until a backend is down.
    #[schemars(extend("default" = defaults::HEALTH.fall))]
    pub(in super::super) fall: Field<Number<1, 1_000>>,
    /// By how many percent pauses differ by chance.
    #[schemars(extend("default" = defaults::HEALTH.jitter))]
    pub(in super::super) jitter: Field<Number<0, 50>>,
    /// With a smaller percentage of healthy backends all are used; 0 = never.
    #[schemars(extend("default" = defaults::MINIMUM_HEALTHY))]
    pub(in super::super) minimum_healthy: Field<Number<0, 100>>,
    /// Largest percentage of backends that connections alone, without a failed probe, may take out; one always.
    #[schemars(extend("default" = defaults::MAX_EJECTED))]
    pub(in super::super) max_ejected: Field<Number<0, 100>>,
    /// In a cluster, a backend is down when most of the nodes that are heard say so, and only then.
    #[schemars(extend("default" = false))]
    pub(in super::super) quorum: Field<bool>,
    /// What happens to moved sessions when their backend returns.
    #[schemars(extend("default" = "never"))]
    pub(in super::super) failback: Field<FailbackWord>,
    /// How long a session must have been without traffic to go back (`failback = "when-idle"`).
    #[schemars(extend("default" = super::spell(defaults::FAILBACK_IDLE)))]
    pub(in super::super) idle: Field<Lifetime>,
    /// Port to probe; the backend's when absent.
    pub(in super::super) port: Field<Number<1, 65_535>>,
    /// Which way probes go: that of the traffic (`l2`: to the service's address; `ipip`, `gue`: through the tunnel), or to the
    /// backend's own address.
    #[schemars(extend("default" = "traffic"))]
    pub(in super::super) way: Field<WayWord>,
    /// Version of HTTP, 1 or 2 (`http`).
    #[schemars(extend("default" = 1))]
    pub(in super::super) version: Field<Number<1, 2>>,
    /// Method of the request (`http`).
    #[schemars(extend("default" = "get"))]
    pub(in super::super) method: Field<MethodWord>,
    /// Path and query of the request (`http`).
    #[schemars(extend("default" = "/"))]
    pub(in super::super) path: Field<RequestPath>,
    /// Host that the request names; address and port when absent (`http`, `grpc`).
    pub(in super::super) host: Field<HostText>,
    /// Codes that pass (`http`).
    #[schemars(extend("default" = defaults::HEALTH_STATUS))]
    pub(in super::super) status: Field<StatusRanges>,
    /// Text that the body holds within its first 64 KiB (`http`).
    pub(in super::super) body: Field<Payload>,
    /// Whether the connection is encrypted (`http`, `grpc`).
    #[schemars(extend("default" = false))]
    pub(in super::super) tls: Field<bool>,
    /// Name that the certificate must have; the host, or the address, when absent (`tls`).
    pub(in super::super) server_name: Field<HostText>,
    /// Whether the certificate is checked (`tls`).
    #[schemars(extend("default" = true))]
    pub(in super::super) verify: Field<bool>,
    /// File with the certificate authorities that count, as PEM; those of the system when absent (`tls`).
    pub(in super::super) authorities: Field<AbsolutePath>,
    /// Whose health is asked for; the server's when absent (`grpc`).
    pub(in super::super) service: Field<HostText>,
    /// What is sent: text, or bytes as "hex:00ff" (`udp`).
    pub(in super::super) request: Field<Payload>,
    /// What the answer begins with; anything when absent (`udp`).
    pub(in super::super) response: Field<Payload>,
    /// Program and arguments; `{address}` and `{port}` in them are the backend's (`command`).
    pub(in super::super) command: Field<Vec<Field<Argument>>>,
}

/// The keys of [`HealthTable`], so that others are reported by name.
const HEALTH_KEYS: &[&str] = &[
    "kind",
    "interval",
    "fast-interval",
    "slow-interval",
    "timeout",
    "rise",
    "fall",
    "jitter",
    "minimum-healthy",
    "max-ejected",
    "quorum",
    "failback",
    "idle",
    "port",
    "way",
    "version",
    "method",
    "path",
    "host",
    "status",
    "body",
    "tls",
    "server-name",
    "verify",
    "authorities",
    "service",
    "request",
    "response",
    "command",
];

impl HealthKind {
    /// Its word.
    pub(in super::super) const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Icmp => "icmp",
            Self::Udp => "udp",
            Self::Command => "command",
        }
    }
}

impl<'de> Deserialize<'de> for HealthChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Health", HEALTH_KEYS, HealthVisitor)
    }
}

struct HealthVisitor;

impl<'de> Visitor<'de> for HealthVisitor {
    type Value = HealthChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"none\", \"tcp\", \"http\", \"grpc\", \"icmp\" or a table such as { kind = \"http\", path = \"/health\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HealthChoice, E> {
        HealthKind::deserialize(IntoDeserializer::<E>::into_deserializer(text)).map(HealthChoice::Kind)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HealthChoice, A::Error> {
        let table = HealthTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(HealthChoice::Table(Box::new(table)))
    }
}

impl JsonSchema for HealthChoice {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("HealthChoice")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kind = generator.subschema_for::<HealthKind>();
        let table = generator.subschema_for::<HealthTable>();
        json_schema!({ "anyOf": [kind, table] })
    }
}

/// Path and query of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct RequestPath(pub(in super::super) String);

impl Text for RequestPath {
    const EXPECTED: &'static str =
        "the path of a request: `/` and up to 1023 characters without spaces and `#`";
    const PATTERN: Option<&'static str> = Some("^/[!-\"$-~]{0,1023}$");

    fn from_text(text: &str) -> Option<Self> {
        let fits = text.starts_with('/') && text.len() <= 1_024;
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        (fits && plain).then(|| Self(text.to_owned()))
    }
}

/// The name of a host, maybe with a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct HostText(pub(in super::super) String);

impl Text for HostText {
    const EXPECTED: &'static str =
        "a name such as \"shop.example\": 1 to 253 letters, digits, `.`, `-`, `_`, `:`, `[` and `]`";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9._:\\[\\]-]{1,253}$");

    fn from_text(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        ((1..=253).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }
}

/// Codes of HTTP answers: from and to, both included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct StatusRanges(pub(in super::super) Vec<(u16, u16)>);

impl Text for StatusRanges {
    const EXPECTED: &'static str =
        "codes from 100 to 599 and ranges of them, such as \"200-399\" or \"200, 204, 300-399\"";
    const PATTERN: Option<&'static str> =
        Some("^[1-5][0-9][0-9](-[1-5][0-9][0-9])?(, ?[1-5][0-9][0-9](-[1-5][0-9][0-9])?)*$");

    fn from_text(text: &str) -> Option<Self> {
        let code = |text: &str| {
            let is_plain = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|code| is_plain && (100..=599).contains(code))
        };
        let range = |text: &str| {
            let text = text.strip_prefix(' ').unwrap_or(text);
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            Some((code(from)?, code(to)?)).filter(|(from, to)| from <= to)
        };
        text.split(',').map(range).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Text, or bytes as `hex:...`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Payload(pub(in super::super) Vec<u8>);

impl Text for Payload {
    const EXPECTED: &'static str = "text of 1 to 1024 bytes, or bytes in hexadecimal behind `hex:`";
    const PATTERN: Option<&'static str> = Some("^(.|\\s)+$");

    fn from_text(text: &str) -> Option<Self> {
        let bytes = match text.strip_prefix("hex:") {
            None => text.as_bytes().to_vec(),
            Some(digits) => {
                let pair = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
                let is_even = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                is_even.then(|| digits.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>())??
            }
        };
        (1..=1_024).contains(&bytes.len()).then_some(Self(bytes))
    }
}

/// A program or one of its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Argument(pub(in super::super) String);

impl Text for Argument {
    const EXPECTED: &'static str = "text of up to 4096 bytes";

    fn from_text(text: &str) -> Option<Self> {
        (text.len() <= 4_096 && !text.contains('\0')).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ranges_are_read_as_written() {
        let read = |text| StatusRanges::from_text(text).map(|StatusRanges(ranges)| ranges);
        assert_eq!(read("200-399"), Some(vec![(200, 399)]));
        assert_eq!(read("200,204, 300-399"), Some(vec![(200, 200), (204, 204), (300, 399)]));
        for wrong in ["", "99", "600", "399-200", "200-", "200,,201", "200 -299", "+20", "2e2"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn payloads_are_text_or_bytes() {
        let read = |text: &str| Payload::from_text(text).map(|Payload(bytes)| bytes);
        assert_eq!(read("ping"), Some(b"ping".to_vec()));
        assert_eq!(read("hex:00fF"), Some(vec![0, 0xff]));
        for wrong in ["", "hex:", "hex:0", "hex:0g", "hex:\u{e4}", &"x".repeat(1_025)] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
