//! The pipeline, and what it says of itself.

use super::Uint128;

/// What to do with a pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// Nothing is said.
    Unspecified = 0,
    /// Look whether it can run, and run it.
    VerifyAndCommit = 3,
}

/// Asks to run a pipeline.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetForwardingPipelineConfigRequest {
    /// The switch.
    #[prost(uint64, tag = "1")]
    pub device_id: u64,
    /// Who asks.
    #[prost(message, optional, tag = "3")]
    pub election_id: Option<Uint128>,
    /// What to do.
    #[prost(enumeration = "Action", tag = "4")]
    pub action: i32,
    /// The pipeline.
    #[prost(message, optional, tag = "5")]
    pub config: Option<ForwardingPipelineConfig>,
}

/// It runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetForwardingPipelineConfigResponse {}

/// How much of a pipeline is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum ResponseType {
    /// All of it.
    All = 0,
    /// Its cookie.
    CookieOnly = 1,
}

/// Asks for the pipeline that runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetForwardingPipelineConfigRequest {
    /// The switch.
    #[prost(uint64, tag = "1")]
    pub device_id: u64,
    /// How much of it.
    #[prost(enumeration = "ResponseType", tag = "2")]
    pub response_type: i32,
}

/// The pipeline that runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetForwardingPipelineConfigResponse {
    /// As much of it as was asked for.
    #[prost(message, optional, tag = "1")]
    pub config: Option<ForwardingPipelineConfig>,
}

/// A pipeline.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForwardingPipelineConfig {
    /// A [`Info`] as the compiler wrote it: a message inside another one is bytes on the wire, and what is not known here is kept.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub p4info: Option<Vec<u8>>,
    /// What the target runs.
    #[prost(bytes = "vec", tag = "2")]
    pub p4_device_config: Vec<u8>,
    /// What tells pipelines apart.
    #[prost(message, optional, tag = "3")]
    pub cookie: Option<Cookie>,
}

/// What tells pipelines apart.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Cookie {
    /// A number of whoever pushed the pipeline.
    #[prost(uint64, tag = "1")]
    pub cookie: u64,
}

/// P4Info: ids of what a program names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Info {
    /// Tables.
    #[prost(message, repeated, tag = "2")]
    pub tables: Vec<InfoTable>,
    /// Actions.
    #[prost(message, repeated, tag = "3")]
    pub actions: Vec<InfoAction>,
    /// Counters.
    #[prost(message, repeated, tag = "5")]
    pub counters: Vec<Named>,
    /// Meters.
    #[prost(message, repeated, tag = "7")]
    pub meters: Vec<Named>,
    /// Digests.
    #[prost(message, repeated, tag = "12")]
    pub digests: Vec<Named>,
}

/// A name and its id.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Preamble {
    /// The id.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// Something of which only the name is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    /// Name and id.
    #[prost(message, optional, tag = "1")]
    pub preamble: Option<Preamble>,
}

/// A table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoTable {
    /// Name and id.
    #[prost(message, optional, tag = "1")]
    pub preamble: Option<Preamble>,
    /// What it is looked up by.
    #[prost(message, repeated, tag = "2")]
    pub match_fields: Vec<MatchField>,
    /// Entries.
    #[prost(int64, tag = "8")]
    pub size: i64,
}

/// A field that a table is looked up by.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MatchField {
    /// The id.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Bits.
    #[prost(int32, tag = "4")]
    pub bitwidth: i32,
    /// 2 exact, 3 longest prefix.
    #[prost(int32, tag = "5")]
    pub match_type: i32,
}

/// An action.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoAction {
    /// Name and id.
    #[prost(message, optional, tag = "1")]
    pub preamble: Option<Preamble>,
    /// Its parameters.
    #[prost(message, repeated, tag = "2")]
    pub params: Vec<Parameter>,
}

/// A parameter of an action.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Parameter {
    /// The id.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Bits.
    #[prost(int32, tag = "4")]
    pub bitwidth: i32,
}
