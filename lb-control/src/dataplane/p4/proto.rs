//! Messages of P4Runtime 1.4, as far as they are used; field numbers from the specification.

mod config;
mod entity;
mod stream;

pub use config::{
    Action as ConfigAction, Cookie, ForwardingPipelineConfig, GetForwardingPipelineConfigRequest,
    GetForwardingPipelineConfigResponse, Info, InfoAction, InfoTable, MatchField, Named, Parameter, Preamble,
    ResponseType, SetForwardingPipelineConfigRequest, SetForwardingPipelineConfigResponse,
};
pub use entity::{
    Action, CounterData, CounterEntry, DigestConfig, DigestEntry, Entity, Exact, FieldMatch, Index, Lpm,
    MeterConfig, MeterEntry, Param, ReadRequest, ReadResponse, TableAction, TableEntry, Update, UpdateKind,
    WriteRequest, WriteResponse, action_type, entity_kind, match_kind,
};
pub use stream::{
    Arbitration, DigestList, DigestListAck, IdleTimeoutNotification, P4Data, Request, Response, Status,
    StreamError, StructLike, data_kind, request_kind, response_kind,
};

/// An election id; the higher one is master.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Uint128 {
    /// The upper half.
    #[prost(uint64, tag = "1")]
    pub high: u64,
    /// The lower half.
    #[prost(uint64, tag = "2")]
    pub low: u64,
}

/// What happened to one update of a write; comes in the details of the call's status.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EntryError {
    /// A gRPC code; 0 = done.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// A message of any kind, with its name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    /// The kind.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}
