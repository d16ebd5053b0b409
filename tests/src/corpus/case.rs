//! A case as it stands in the files.

use super::rules::{QuicData, RulesData, SecretsData};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// One file of the corpus.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Its name.
    pub area: String,
    /// Settings that hold where a case says nothing else.
    pub defaults: Map<String, Value>,
    /// The cases.
    pub cases: Vec<Case>,
}

impl Area {
    /// Directory of the corpus.
    pub fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
    }

    /// Reads an area's file.
    pub fn read(name: &str) -> Result<Self> {
        let path = Self::directory().join(name).with_extension("json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no area of the corpus", path.display()))
    }
}

/// Tables, then steps.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique in its area.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// Overrides of the area's defaults.
    pub settings: Map<String, Value>,
    /// Services.
    pub services: Vec<ServiceData>,
    /// Backends of all services, by slot.
    pub backends: Vec<BackendData>,
    /// The other nodes, in the order of the ring.
    #[serde(default)]
    pub peers: Vec<PeerData>,
    /// Bindings that are there at the start.
    pub bindings: Vec<BindingData>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Settings in the units of the files; times in seconds.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsData {
    pub flags: Vec<String>,
    #[serde(deserialize_with = "bytes")]
    pub secret: Vec<u8>,
    /// With it there are two.
    #[serde(default, deserialize_with = "bytes")]
    pub other_secret: Vec<u8>,
    pub tunnel_v4: IpAddr,
    pub tunnel_v6: IpAddr,
    pub gue_port: u16,
    pub answer_rate: u32,
    pub prefix_quota: u32,
    pub prefix_window: u32,
    pub binding_capacity: u32,
    pub flows: u32,
    pub half_open: u32,
    pub tcp_half_open: u64,
    pub tcp_established: u64,
    pub tcp_closing: u64,
    pub tcp_reset: u64,
    pub udp_new: u64,
    pub udp_established: u64,
    /// How long a request head may take.
    #[serde(default = "twenty")]
    pub head_timeout: u64,
    /// How long a backend may take to answer.
    #[serde(default = "twenty")]
    pub connect_timeout: u64,
    /// Holds that flows share.
    #[serde(default = "sixteen")]
    pub holds: u32,
    #[serde(default)]
    pub secrets: SecretsData,
}

const fn twenty() -> u64 {
    20
}

const fn sixteen() -> u32 {
    16
}

/// A service; its selection table is given, not computed.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ServiceData {
    pub id: u32,
    pub slot: u16,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: u8,
    pub mode: String,
    pub affinity: String,
    pub prefix_v4: u8,
    pub prefix_v6: u8,
    pub source: Option<IpAddr>,
    pub mss: u16,
    pub binding_rate: u32,
    /// Seconds.
    pub lifetime: u64,
    /// Backend slot that owns each slot of the table.
    pub table: Vec<u16>,
    /// Backend slots in the order of the member list.
    pub members: Vec<u16>,
    /// What session keys are taken by, where it takes more than that.
    #[serde(default)]
    pub rules: Option<RulesData>,
    /// Configurations of connection ids.
    #[serde(default)]
    pub quic: Vec<QuicData>,
    /// How a new session's backend is chosen: `order`, `two-choices`, `least-connections` or `least-time`.
    #[serde(default)]
    pub method: Option<String>,
}

/// A backend.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct BackendData {
    pub slot: u16,
    pub service: u32,
    pub number: u64,
    pub address: IpAddr,
    pub port: u16,
    pub generation: u16,
    pub vlan: VlanData,
    pub status: String,
    pub hop: HopData,
    /// Its share of load.
    #[serde(default)]
    pub weight: u16,
    /// Connections at a time; 0 = any number.
    #[serde(default)]
    pub limit: u32,
    /// Connections that it has at the start.
    #[serde(default)]
    pub connections: u64,
    /// How long it has taken to answer SYNs, in milliseconds.
    #[serde(default)]
    pub response: u64,
}

/// `"keep"`, `"none"` or a number.
#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
pub enum VlanData {
    Tag(u16),
    Word(String),
}

/// Way to a backend.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct HopData {
    pub destination: String,
    pub source: String,
    pub ifindex: u32,
    pub mtu: u16,
}

/// Another node.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct PeerData {
    pub id: u64,
    pub own: u64,
    pub address: IpAddr,
    pub source: IpAddr,
    pub hop: HopData,
    pub vlan: u16,
    pub port: u16,
    pub rate: u32,
}

/// A binding that is there at the start.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct BindingData {
    pub service: u32,
    #[serde(deserialize_with = "hex_number")]
    pub session: u64,
    pub backend: u16,
    pub slot_generation: u16,
    pub generation: u32,
    pub flags: Vec<String>,
    /// Seconds from the start; negative is past.
    pub expires: i64,
}

/// One thing that happens, or one look at the tables.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A packet comes in.
    Packet(PacketStep),
    /// Seconds pass.
    Advance(u64),
    /// A backend's status changes.
    Status {
        /// Backend slot.
        backend: u16,
        /// `up`, `draining` or `down`.
        status: String,
    },
    /// A backend slot is written anew.
    Backend(BackendData),
    /// The service with that id is taken away.
    RemoveService(u32),
    /// The secret of the session-key hash changes, to this one from that one.
    SessionSecrets(HexBytes, HexBytes),
    /// All bindings that live.
    Bindings(Vec<BoundData>),
    /// When one binding ends.
    Expiry(ExpiryData),
    /// All flows that live.
    Flows(Vec<FlowData>),
    /// How many holds flows own.
    Holds(usize),
    /// What is noted of backends.
    Vitals(Vec<VitalsData>),
}

/// Bytes in hexadecimal.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(transparent)]
pub struct HexBytes(#[serde(deserialize_with = "bytes")] pub Vec<u8>);

/// What is noted of a backend; times are left out.
#[derive(Deserialize, Clone, PartialEq, Eq, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct VitalsData {
    /// Backend slot.
    pub backend: u16,
    /// Flows that have not ended.
    pub connections: u64,
    /// SYNs of the balancer's own that it refused.
    pub refused: u64,
    /// SYNs of the balancer's own that it did not answer.
    pub silent: u64,
    /// What clients may have caused.
    pub suspected: u64,
    /// New sessions that its limit sent elsewhere.
    pub overflowed: u64,
}

/// A packet in and what is expected of it.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct PacketStep {
    /// The frame.
    #[serde(deserialize_with = "bytes")]
    pub frame: Vec<u8>,
    /// Interface it comes in on.
    pub ifindex: u32,
    /// `pass`, `drop`, `tx` or `redirect`.
    pub verdict: String,
    /// Frame out; absent = untouched, or lost.
    #[serde(default, deserialize_with = "optional_bytes")]
    pub out: Option<Vec<u8>>,
    /// Interface it is redirected to.
    pub to: Option<u32>,
    /// Outcomes counted, sorted by name.
    pub outcomes: Vec<String>,
    /// Changes of the counters, by `service:SLOT` and `backend:SLOT`; all others stay.
    pub counters: std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>,
    /// For readers.
    pub note: Option<String>,
    /// The only executor that can run it.
    pub only: Option<String>,
}

/// A live binding.
#[derive(Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(deny_unknown_fields)]
pub struct BoundData {
    /// Service id.
    pub service: u32,
    /// Session key.
    #[serde(deserialize_with = "hex_number")]
    pub session: u64,
    /// Backend slot.
    pub backend: u16,
    /// How often it moved.
    pub generation: u32,
    /// `pinned`.
    pub flags: Vec<String>,
}

/// A window in which a binding ends.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ExpiryData {
    /// Service id.
    pub service: u32,
    /// Session key.
    #[serde(deserialize_with = "hex_number")]
    pub session: u64,
    /// Seconds from now, at the earliest.
    pub from: i64,
    /// Seconds from now, at the latest.
    pub to: i64,
}

/// A 5-tuple: source, its port, destination, its port, protocol.
pub type Tuple = (IpAddr, u16, IpAddr, u16, u8);

/// A live flow.
#[derive(Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(deny_unknown_fields)]
pub struct FlowData {
    /// As it stands in the client's packets.
    pub client: Tuple,
    /// As it stands in the backend's packets; nothing while no backend was chosen.
    pub server: Option<Tuple>,
    /// Its state.
    pub state: String,
    /// Backend slot; 0 while none was chosen.
    pub backend: u16,
    /// Spliced, once the backend answered: what is added to the client's acknowledgements.
    #[serde(default)]
    pub offset: Option<u32>,
}

pub(super) fn hex_number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    u64::from_str_radix(&text, 16).map_err(D::Error::custom)
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    let pair = |i: usize| u8::from_str_radix(text.get(i..i + 2).unwrap_or("?"), 16);
    (0..text.len()).step_by(2).map(pair).collect::<Result<_, _>>().map_err(D::Error::custom)
}

pub(super) fn optional_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    bytes(from).map(Some)
}
