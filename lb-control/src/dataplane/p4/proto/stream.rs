//! What goes over the stream: who is master, digests, and entries that nobody used.

use super::{Any, TableEntry, Uint128};

/// From us.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What it is.
    #[prost(oneof = "request_kind::Kind", tags = "1, 3")]
    pub kind: Option<request_kind::Kind>,
}

/// Kinds of requests.
pub mod request_kind {
    /// Of the kinds that there are those that are used.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Our election id.
        #[prost(message, tag = "1")]
        Arbitration(super::Arbitration),
        /// A list of digests has come.
        #[prost(message, tag = "3")]
        DigestAck(super::DigestListAck),
    }
}

/// From the switch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What it is; none = something that is not used.
    #[prost(oneof = "response_kind::Kind", tags = "1, 3, 4, 6")]
    pub kind: Option<response_kind::Kind>,
}

/// Kinds of responses.
pub mod response_kind {
    /// Of the kinds that there are those that are used.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Who is master.
        #[prost(message, tag = "1")]
        Arbitration(super::Arbitration),
        /// Digests.
        #[prost(message, tag = "3")]
        Digest(super::DigestList),
        /// Entries that no packet met for a time.
        #[prost(message, tag = "4")]
        Idle(super::IdleTimeoutNotification),
        /// Something that we sent was wrong.
        #[prost(message, tag = "6")]
        Error(super::StreamError),
    }
}

/// Who is master.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Arbitration {
    /// The switch.
    #[prost(uint64, tag = "1")]
    pub device_id: u64,
    /// From us: our id. From the switch: the highest.
    #[prost(message, optional, tag = "3")]
    pub election_id: Option<Uint128>,
    /// Code 0 = you are master.
    #[prost(message, optional, tag = "4")]
    pub status: Option<Status>,
}

/// A status of gRPC with its details.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Of a write: a [`super::EntryError`] for each update.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// Digests.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DigestList {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub digest_id: u32,
    /// Number of the list.
    #[prost(uint64, tag = "2")]
    pub list_id: u64,
    /// The digests.
    #[prost(message, repeated, tag = "3")]
    pub data: Vec<P4Data>,
}

/// A list of digests has come.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DigestListAck {
    /// Which digest.
    #[prost(uint32, tag = "1")]
    pub digest_id: u32,
    /// Number of the list.
    #[prost(uint64, tag = "2")]
    pub list_id: u64,
}

/// A value of the program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct P4Data {
    /// The value.
    #[prost(oneof = "data_kind::Kind", tags = "1, 4, 5")]
    pub kind: Option<data_kind::Kind>,
}

/// Kinds of values.
pub mod data_kind {
    /// Of the kinds that there are those that are used.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// A number.
        #[prost(bytes, tag = "1")]
        Bits(Vec<u8>),
        /// Fields without names.
        #[prost(message, tag = "4")]
        Tuple(super::StructLike),
        /// Fields.
        #[prost(message, tag = "5")]
        Struct(super::StructLike),
    }
}

/// Fields in their order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StructLike {
    /// The fields.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<P4Data>,
}

/// Entries that no packet met for a time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdleTimeoutNotification {
    /// Table and what each is found by.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<TableEntry>,
}

/// Something that we sent was wrong.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamError {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}
