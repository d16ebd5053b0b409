//! Session keys as people write and read them.

use super::error::ApiError;
use lb_common::abi::{Addr, Be16, FlowKey, Reading};
use lb_common::affinity::{self, Slice, Span, segment, text};
use lb_core::pool::{AffinitySpec, Fallback, ServiceSpec};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::explain::Packet;

/// A session key as the API writes it.
pub(super) fn show(session: u64) -> String {
    format!("{session:#018x}")
}

/// A session key from hexadecimal digits, or from the client's address where the service keys by it.
pub(super) fn parse(text: &str, service: &ServiceSpec, secret: &[u64; 2]) -> Result<u64, ApiError> {
    if let Some(value) = text.strip_prefix("cookie=") {
        return of_cookie(value, service, secret);
    }
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if let Ok(address) = text.parse::<IpAddr>() {
        return of_client(address, service, secret).ok_or_else(|| {
            ApiError::bad_input(
                format!("session {text} of service {}", service.name),
                "a session key in hexadecimal, because this service does not key by client address",
            )
        });
    }
    match u64::from_str_radix(digits, 16) {
        Ok(session) if digits.len() <= 16 && !digits.starts_with('+') => Ok(session),
        Ok(_) | Err(_) => Err(ApiError::bad_input(
            format!("session {text}"),
            "a client address (10.0.0.7) or a session key in hexadecimal (0x000000000a000007), or cookie=VALUE",
        )),
    }
}

/// The session key of a cookie's value, where the service binds by it.
fn of_cookie(value: &str, service: &ServiceSpec, secret: &[u64; 2]) -> Result<u64, ApiError> {
    let wrong =
        |expected: String| ApiError::bad_input(format!("cookie of service {}", service.name), expected);
    let cookie = service.affinity.cookie().filter(|cookie| cookie.reading == Reading::Bind).ok_or_else(|| {
        wrong("a service with affinity http-cookie that is read as \"bind\"; others make no sessions of values".into())
    })?;
    let bytes = Slice(value.as_bytes());
    let (delimiter, index) = cookie.part.unwrap_or_default();
    let part = segment::part(&bytes, Span::new(0, value.len() as u32), delimiter, index);
    if part.len == 0 {
        let sign = char::from(delimiter);
        return Err(wrong(format!("a value with a part {} by `{sign}`", u16::from(index) + 1)));
    }
    Ok(text::key(&bytes, part, secret))
}

/// The session key of a client's address, where the service keys by it.
pub(super) fn of_client(client: IpAddr, service: &ServiceSpec, secret: &[u64; 2]) -> Option<u64> {
    match service.affinity.fallback() {
        Fallback::None => None,
        Fallback::SourceIp { v4, v6 } => {
            Some(affinity::source(&Addr::from(client.to_canonical()), v4, v6, secret))
        }
    }
}

/// The session key of a packet.
pub(super) fn of_packet(packet: &Packet, service: &ServiceSpec, secret: &[u64; 2]) -> u64 {
    of_client(packet.source.ip(), service, secret)
        .unwrap_or_else(|| affinity::connection(&flow_key(packet), secret))
}

/// The packet's 5-tuple.
pub(super) fn flow_key(packet: &Packet) -> FlowKey {
    FlowKey {
        source: Addr::from(packet.source.ip().to_canonical()),
        destination: Addr::from(packet.destination.ip().to_canonical()),
        source_port: Be16::new(packet.source.port()),
        destination_port: Be16::new(packet.destination.port()),
        protocol: packet.protocol.number(),
        pad: [0; 3],
    }
}

/// The client's address or prefix, where the key holds it.
pub(super) fn client(session: u64, service: &ServiceSpec) -> Option<String> {
    let &AffinitySpec::SourceIp { v4, v6 } = &service.affinity else { return None };
    let (address, prefix, whole) = match service.address {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(session).ok()?)), v4, 32),
        IpAddr::V6(_) if v6 <= 64 => (IpAddr::V6(Ipv6Addr::from_bits(u128::from(session) << 64)), v6, 128),
        IpAddr::V6(_) => return None,
    };
    Some(if prefix == whole { address.to_string() } else { format!("{address}/{prefix}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::Mode;
    use lb_core::pool::Protocol;
    use std::time::Duration;

    const SECRET: [u64; 2] = [1, 2];

    fn service(vip: &str, affinity: AffinitySpec) -> ServiceSpec {
        ServiceSpec {
            name: "web".into(),
            id: 1,
            address: vip.parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
            mode: Mode::Nat,
            affinity,
            lifetime: Duration::from_secs(60),
            binding_rate: 1,
            source: None,
            mss: None,
            proxy_protocol: false,
            method: lb_common::abi::Method::Order,
            slow_start: core::time::Duration::ZERO,
            mirror: None,
            consistency: lb_core::pool::Consistency::Tables,
            health: None,
            paths: Vec::new(),
            backends: vec![],
        }
    }

    #[test]
    fn address_and_key_name_the_same_session() {
        let v4 = service("10.99.0.1", AffinitySpec::SourceIp { v4: 24, v6: 64 });
        let key = parse("10.0.0.7", &v4, &SECRET).unwrap();
        assert_eq!(key, 0x0a00_0000);
        assert_eq!(parse(&show(key), &v4, &SECRET).unwrap(), key);
        assert_eq!(client(key, &v4).as_deref(), Some("10.0.0.0/24"));
        let v6 = service("fd99::1", AffinitySpec::SourceIp { v4: 32, v6: 64 });
        let key = parse("fd00:1::7", &v6, &SECRET).unwrap();
        assert_eq!(client(key, &v6).as_deref(), Some("fd00:1::/64"));
    }

    #[test]
    fn hashed_keys_show_no_client() {
        let long = service("fd99::1", AffinitySpec::SourceIp { v4: 32, v6: 128 });
        assert_eq!(client(parse("fd00::7", &long, &SECRET).unwrap(), &long), None);
        let none = service("10.99.0.1", AffinitySpec::None);
        assert_eq!(client(7, &none), None);
        let error = parse("10.0.0.7", &none, &SECRET).unwrap_err();
        assert!(error.body.expected.contains("does not key by client address"));
    }

    #[test]
    fn nonsense_is_refused() {
        let service = service("10.99.0.1", AffinitySpec::None);
        for text in ["", "0x", "xyz", "-1", "+1", "0x11112222333344445"] {
            assert!(parse(text, &service, &SECRET).is_err(), "{text}");
        }
    }
}
