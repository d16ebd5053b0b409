//! A service as the API shows it.

use super::Traffic;
use crate::admin::explain::{mode_name, protocol_name};
use crate::dataplane::Offloaded;
use crate::reconcile::ServiceView;
use lb_common::abi::Status;
use lb_core::pool::AffinitySpec;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A virtual IP, port and protocol with its pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRow {
    /// What requests' paths begin with that go to this pool; absent for a service itself.
    pub path: Option<String>,
    /// Unique name.
    #[schema(example = "web")]
    pub name: String,
    /// Id from the name or given; part of every binding.
    pub id: u32,
    /// The VIP.
    #[schema(example = "10.99.0.1")]
    pub address: String,
    /// Port; 0 = any port.
    pub port: u16,
    /// `tcp` or `udp`.
    #[schema(example = "tcp")]
    pub protocol: String,
    /// `nat`, `l2`, `ipip` or `gue`.
    #[schema(example = "nat")]
    pub mode: String,
    /// `none`, `quic-cid`, `payload`, `http-cookie` with the cookie's name, or `source-ip` with its prefix length unless
    /// that is 32 (IPv4) or 64 (IPv6).
    #[schema(example = "source-ip/24")]
    pub affinity: String,
    /// Lifetime of a binding without traffic, in seconds.
    pub lifetime_seconds: u64,
    /// Backends configured.
    pub backends: usize,
    /// Backends that take new sessions now.
    pub backends_up: usize,
    /// Counters.
    pub traffic: Traffic,
    /// What the switch goes on with of it by itself; absent: this is no switch, or it is not to.
    pub offloaded: Option<OffloadedRow>,
}

/// Connections of nodes that a switch goes on with by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OffloadedRow {
    /// How many.
    pub connections: u64,
    /// Packets of both directions that no node saw; they are among those of `traffic`.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

impl From<&ServiceView> for ServiceRow {
    fn from(view: &ServiceView) -> Self {
        let spec = &view.spec;
        Self {
            name: spec.name.clone(),
            path: view.prefix.clone(),
            id: spec.id,
            address: spec.address.to_string(),
            port: spec.port,
            protocol: protocol_name(spec.protocol).to_owned(),
            mode: mode_name(spec.mode).to_owned(),
            affinity: affinity(&spec.affinity, spec.address.is_ipv4()),
            lifetime_seconds: spec.lifetime.as_secs(),
            backends: view.backends.len(),
            backends_up: view.backends.iter().filter(|b| b.status == Status::Up).count(),
            traffic: view.counters.into(),
            offloaded: view.offloaded.map(OffloadedRow::from),
        }
    }
}

impl From<Offloaded> for OffloadedRow {
    fn from(Offloaded { connections, packets, bytes }: Offloaded) -> Self {
        Self { connections, packets, bytes }
    }
}

/// An affinity in a word; the prefix only where it is not the usual one of the service's family.
fn affinity(affinity: &AffinitySpec, ipv4: bool) -> String {
    match (affinity, ipv4) {
        (AffinitySpec::None | AffinitySpec::QuicCid(_) | AffinitySpec::Payload(_), _)
        | (AffinitySpec::SourceIp { v4: 32, .. }, true)
        | (AffinitySpec::SourceIp { v6: 64, .. }, false) => affinity.kind().to_owned(),
        (AffinitySpec::SourceIp { v4, .. }, true) => format!("source-ip/{v4}"),
        (AffinitySpec::SourceIp { v6, .. }, false) => format!("source-ip/{v6}"),
        (AffinitySpec::HttpCookie(cookie), _) => format!("http-cookie {}", cookie.name),
    }
}
