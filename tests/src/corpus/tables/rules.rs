//! What services read of payloads.

use super::super::case::{BackendData, ServiceData};
use super::Tables;
use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{Affinity, AffinityRules, MAX_PAYLOAD_SEGMENT, QuicConfig, Server};
use lb_common::affinity::quic::{Layout, ServerId};

impl Tables {
    /// Fills in the rules, marks and configurations of a service whose affinity needs them.
    pub(super) fn rules(&mut self, data: &ServiceData, backends: &[BackendData]) -> Result<()> {
        let Some(fallback) = &data.fallback else { return Ok(()) };
        let mut rules = AffinityRules {
            fallback: match fallback.as_str() {
                "none" => Affinity::None,
                "source-ip" => Affinity::SourceIp,
                other => bail!("no fallback: {other}"),
            } as u8,
            servers: u32::try_from(self.servers.len())?,
            ..AffinityRules::default()
        };
        if let Some(payload) = &data.payload {
            ensure!(payload.mask.len() <= MAX_PAYLOAD_SEGMENT, "a mask of {} bytes", payload.mask.len());
            rules.offset = payload.offset;
            rules.length = u16::try_from(payload.mask.len())?;
            rules.mask[..payload.mask.len()].copy_from_slice(&payload.mask);
        }
        let mut servers = Vec::new();
        for backend in backends.iter().filter(|backend| backend.service == data.id) {
            if let Some(id) = &backend.server_id {
                let mark = ServerId::new(id).context("a server id has 1 to 15 bytes")?.mark();
                servers.push(Server { mark, backend: backend.slot, generation: backend.generation, pad: 0 });
            }
        }
        servers.sort_by_key(|server| server.mark);
        rules.server_count = u32::try_from(servers.len())?;
        self.servers.extend(servers);
        self.affinities.insert(data.slot, rules);
        for config in &data.quic {
            let layout = Layout::new(config.server, config.nonce)?;
            let key: Option<[u8; 16]> = config.key.as_deref().map(TryInto::try_into).transpose()?;
            let place = QuicConfig::place(data.slot, config.rotation).context("a rotation above 6")?;
            self.quic.insert(place, QuicConfig::new(layout, key.as_ref()));
        }
        Ok(())
    }
}
