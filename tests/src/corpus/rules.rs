//! What of a case says how sessions are read from bytes: affinity rules, servers, path rules, QUIC configurations, keys.

use super::case::{bytes, hex_number, optional_bytes};
use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{
    Affinity, AffinityFlags, AffinityRules, MAX_COOKIE_NAME, MAX_PATH_PREFIX, MAX_PAYLOAD_SEGMENT,
    OnMismatch, PathRule, QuicConfig, Reading, SYN_KEYS, Secrets, SegmentKey, Server, Service,
};
use lb_common::affinity::quic::Layout;
use serde::Deserialize;

/// What a service takes its session keys by.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct RulesData {
    pub reading: String,
    /// Empty, or one character.
    pub delimiter: String,
    pub index: u8,
    pub fallback: String,
    pub on_mismatch: String,
    pub name: String,
    pub flags: Vec<String>,
    pub head_limit: u16,
    pub offset: u16,
    pub length: u16,
    pub mss_v4: u16,
    pub mss_v6: u16,
    #[serde(deserialize_with = "bytes")]
    pub mask: Vec<u8>,
    /// Sorted by mark.
    pub servers: Vec<ServerData>,
    /// Longest prefix first.
    pub paths: Vec<PathData>,
}

/// A server as a segment or connection id names it.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ServerData {
    #[serde(deserialize_with = "hex_number")]
    pub mark: u64,
    pub backend: u16,
    pub generation: u16,
}

/// Requests whose path begins so have a pool of their own.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct PathData {
    pub prefix: String,
    pub id: u32,
    pub table: Vec<u16>,
    pub members: Vec<u16>,
    /// Sorted by mark.
    pub servers: Vec<ServerData>,
}

/// A configuration of QUIC connection ids; without a key they are plain.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct QuicData {
    pub rotation: u8,
    pub server: u8,
    pub nonce: u8,
    #[serde(default, deserialize_with = "optional_bytes")]
    pub key: Option<Vec<u8>>,
}

/// A key of sealed segments.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentKeyData {
    pub id: u32,
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
}

/// Keys of a case.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SecretsData {
    /// Nanoseconds since 1970 when the case begins.
    pub clock: u64,
    /// Keys of SYN cookies, by place.
    pub syn_keys: Vec<String>,
    pub first_epoch: u32,
    pub last_epoch: u32,
    pub segment_keys: Vec<SegmentKeyData>,
}

impl RulesData {
    /// Whether what is not told by anything else is told by its connection.
    pub(super) fn falls_back_to_connections(&self) -> bool {
        self.fallback == "none"
    }

    /// The entry of the map; `first_server` and `first_path` are where its lists begin.
    pub(super) fn entry(&self, first_server: u32, first_path: u32) -> Result<AffinityRules> {
        let delimiter = self.delimiter.as_bytes();
        ensure!(delimiter.len() <= 1, "a delimiter of {} bytes", delimiter.len());
        let mut flags = 0;
        for flag in &self.flags {
            flags |= match flag.as_str() {
                "learn" => AffinityFlags::LEARN,
                "proxy" => AffinityFlags::PROXY,
                other => bail!("no flag of affinity rules: {other}"),
            };
        }
        Ok(AffinityRules {
            reading: match self.reading.as_str() {
                "bind" => Reading::Bind,
                "route" => Reading::Route,
                "pair" => Reading::Pair,
                "sealed-route" => Reading::SealedRoute,
                other => bail!("no reading: {other}"),
            } as u8,
            delimiter: delimiter.first().copied().unwrap_or(0),
            index: self.index,
            fallback: match self.fallback.as_str() {
                "none" => Affinity::None,
                "source-ip" => Affinity::SourceIp,
                other => bail!("no fallback: {other}"),
            } as u8,
            on_mismatch: match self.on_mismatch.as_str() {
                "count" => OnMismatch::Count,
                "reset" => OnMismatch::Reset,
                other => bail!("no answer to a mismatch: {other}"),
            } as u8,
            name_len: u8::try_from(self.name.len())?,
            flags,
            head_limit: self.head_limit,
            offset: self.offset,
            length: self.length,
            mss_v4: self.mss_v4,
            mss_v6: self.mss_v6,
            servers: first_server,
            server_count: u32::try_from(self.servers.len())?,
            paths: first_path,
            path_count: u32::try_from(self.paths.len())?,
            name: padded::<MAX_COOKIE_NAME>(self.name.as_bytes())?,
            mask: padded::<MAX_PAYLOAD_SEGMENT>(&self.mask)?,
            ..AffinityRules::default()
        })
    }

    /// Entries of the servers' map.
    pub(super) fn servers(&self) -> impl Iterator<Item = Server> {
        self.servers.iter().map(ServerData::entry)
    }
}

impl ServerData {
    /// The entry of the map.
    pub(super) const fn entry(&self) -> Server {
        Server { mark: self.mark, backend: self.backend, generation: self.generation, pad: 0 }
    }
}

impl PathData {
    /// The entry of the map, for a pool of `service`.
    pub(super) fn entry(
        &self,
        service: &Service,
        (table, members, servers): (u32, u32, u32),
    ) -> Result<PathRule> {
        let service = Service {
            id: self.id,
            table,
            table_mask: u32::try_from(self.table.len().saturating_sub(1))?,
            members,
            member_count: u32::try_from(self.members.len())?,
            ..*service
        };
        let prefix = padded::<MAX_PATH_PREFIX>(self.prefix.as_bytes())?;
        Ok(PathRule {
            service,
            prefix,
            len: u8::try_from(self.prefix.len())?,
            servers,
            server_count: u16::try_from(self.servers.len())?,
            ..PathRule::default()
        })
    }
}

impl QuicData {
    /// The entry of the map, and its place.
    pub(super) fn entry(&self, service_slot: u16) -> Result<(u32, QuicConfig)> {
        let layout = Layout::new(self.server, self.nonce)?;
        let key: Option<[u8; 16]> = self.key.as_deref().map(TryInto::try_into).transpose()?;
        let place = QuicConfig::place(service_slot, self.rotation).context("a rotation above 6")?;
        Ok((place, QuicConfig::new(layout, key.as_ref())))
    }
}

impl SecretsData {
    /// The entry of the map when the programs' clock shows `now`.
    pub(super) fn entry(&self, now: u64) -> Result<Secrets> {
        let mut secrets = Secrets {
            since_1970: self.clock.wrapping_sub(now),
            first_epoch: self.first_epoch,
            last_epoch: self.last_epoch,
            ..Secrets::default()
        };
        ensure!(self.syn_keys.len() <= SYN_KEYS, "{} keys of SYN cookies", self.syn_keys.len());
        for (place, text) in secrets.syn.iter_mut().zip(&self.syn_keys) {
            let key = u128::from_str_radix(text, 16).with_context(|| format!("key {text}"))?;
            *place = words(&key.to_be_bytes())?;
        }
        ensure!(self.segment_keys.len() <= 2, "{} keys of sealed segments", self.segment_keys.len());
        for (place, data) in secrets.segment.iter_mut().zip(&self.segment_keys) {
            *place = SegmentKey { key: words(&data.key)?, id: data.id, valid: 1 };
        }
        Ok(secrets)
    }
}

/// A SipHash key as its paper writes it.
pub(super) fn words(key: &[u8]) -> Result<[u64; 2]> {
    let key: [u8; 16] = key.try_into().with_context(|| format!("a key of {} bytes", key.len()))?;
    let key = u128::from_le_bytes(key);
    #[expect(clippy::cast_possible_truncation, reason = "the lower and the upper half")]
    Ok([key as u64, (key >> 64) as u64])
}

fn padded<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    ensure!(bytes.len() <= N, "{} bytes, at most {N} fit", bytes.len());
    let mut out = [0; N];
    out[..bytes.len()].copy_from_slice(bytes);
    Ok(out)
}
