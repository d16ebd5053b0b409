//! The map entries of a service, from what is wanted of it and where its parts lie.

use super::layout::ServicePlan;
use super::{AffinitySpec, Consistency, Fallback, ServiceSpec};
use core::time::Duration;
use lb_common::abi::{
    Addr, Affinity, AffinityFlags, AffinityRules, MAX_COOKIE_NAME, MAX_PATH_PREFIX, MAX_PAYLOAD_SEGMENT,
    PathRule, Reading, Service, ServiceFlags,
};

/// The service's entry, or that of a path's pool.
pub fn service(spec: &ServiceSpec, place: &ServicePlan) -> Service {
    let affinity = match &spec.affinity {
        AffinitySpec::None => Affinity::None,
        AffinitySpec::SourceIp { .. } => Affinity::SourceIp,
        AffinitySpec::HttpCookie(_) => Affinity::HttpCookie,
        AffinitySpec::QuicCid(_) => Affinity::QuicCid,
        AffinitySpec::Payload(_) => Affinity::Payload,
    };
    let (prefix_v4, prefix_v6) = match spec.affinity.fallback() {
        Fallback::None => (32, 128),
        Fallback::SourceIp { v4, v6 } => (v4, v6),
    };
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    Service {
        id: spec.id,
        slot: place.slot,
        mode: spec.mode as u8,
        affinity: affinity as u8,
        table: place.table,
        table_mask: place.mask,
        members: place.members,
        member_count: place.member_count,
        prefix_v4,
        prefix_v6,
        flags: flag(ServiceFlags::SNAT, spec.source.is_some())
            | flag(ServiceFlags::SPLICE, spec.is_spliced())
            | flag(ServiceFlags::STAMPED, spec.consistency == Consistency::Timestamps)
            | flag(ServiceFlags::LIMITED, spec.backends.iter().any(|backend| backend.limit > 0)),
        binding_rate: spec.binding_rate,
        lifetime: nanoseconds(spec.lifetime),
        source: spec.source.map(Addr::from).unwrap_or_default(),
        mss: spec.mss.unwrap_or_default(),
        method: spec.method as u8,
        pad: 0,
        pad2: 0,
    }
}

/// The rules of the service's affinity; `None` when it needs none. `mss` is what is announced to IPv4 and IPv6 clients.
pub fn rules(spec: &ServiceSpec, place: &ServicePlan, mss: [u16; 2]) -> Option<AffinityRules> {
    let mut rules = AffinityRules {
        fallback: match spec.affinity.fallback() {
            Fallback::None => Affinity::None as u8,
            Fallback::SourceIp { .. } => Affinity::SourceIp as u8,
        },
        servers: place.servers.start,
        server_count: place.servers.count,
        paths: place.paths.start,
        path_count: place.paths.count,
        ..AffinityRules::default()
    };
    if spec.is_spliced() {
        [rules.mss_v4, rules.mss_v6] = mss;
        rules.flags = if spec.proxy_protocol { AffinityFlags::PROXY } else { 0 };
    }
    match &spec.affinity {
        AffinitySpec::None | AffinitySpec::SourceIp { .. } => return None,
        AffinitySpec::HttpCookie(cookie) => {
            rules.reading = cookie.reading as u8;
            (rules.delimiter, rules.index) = cookie.part.unwrap_or_default();
            rules.on_mismatch = cookie.on_mismatch as u8;
            rules.head_limit = cookie.head_limit;
            if cookie.learn {
                rules.flags |= AffinityFlags::LEARN;
            }
            rules.name_len = fill(&mut rules.name, cookie.name.as_bytes()) as u8;
        }
        AffinitySpec::QuicCid(_) => {}
        AffinitySpec::Payload(payload) => {
            rules.reading = Reading::Bind as u8;
            rules.offset = payload.offset;
            rules.length = fill(&mut rules.mask, &payload.mask) as u16;
            // A stream is collected until the segment is there.
            rules.head_limit = rules.offset + rules.length;
        }
    }
    Some(rules)
}

/// A path rule; `pool` is the path's pool and `place` that pool's place.
pub fn path_rule(prefix: &str, pool: &ServiceSpec, place: &ServicePlan) -> PathRule {
    let mut rule = PathRule {
        service: service(pool, place),
        servers: place.servers.start,
        server_count: place.servers.count as u16,
        ..PathRule::default()
    };
    rule.len = fill(&mut rule.prefix, prefix.as_bytes()) as u8;
    rule
}

/// The MSS that is announced to clients of both families, when the narrowest link of clients and backends has that MTU.
pub fn mss(spec: &ServiceSpec, mtu: u16) -> [u16; 2] {
    let of = |headers: u16, least: u16| {
        let mss = mtu.saturating_sub(headers).clamp(least, MSS_MOST);
        spec.mss.map_or(mss, |given| mss.min(given))
    };
    [of(40, MSS_LEAST_V4), of(60, MSS_LEAST_V6)]
}

/// What every host takes (RFC 9293 section 3.7.1).
const MSS_LEAST_V4: u16 = 536;
/// The least IPv6 MTU without headers (RFC 8200 section 5).
const MSS_LEAST_V6: u16 = 1_220;
/// Room behind a hold, in which a whole segment has to fit.
const MSS_MOST: u16 = lb_common::abi::HOLD_SLACK as u16;
const _: () = assert!(MAX_COOKIE_NAME <= 255 && MAX_PATH_PREFIX <= 255 && MAX_PAYLOAD_SEGMENT <= 255);

/// Copies what fits and answers how much that is; longer values have been refused before.
fn fill(to: &mut [u8], from: &[u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// Nanoseconds of a duration; the longest when there are more than 64 bits hold.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
