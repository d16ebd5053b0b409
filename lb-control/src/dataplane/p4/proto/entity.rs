//! What is written and read: entries of tables, counters, meters and digests.

use super::Uint128;

/// Updates to be made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    /// The switch.
    #[prost(uint64, tag = "1")]
    pub device_id: u64,
    /// Who asks.
    #[prost(message, optional, tag = "3")]
    pub election_id: Option<Uint128>,
    /// What is to be done, in this order; one that fails stops none of the others.
    #[prost(message, repeated, tag = "4")]
    pub updates: Vec<Update>,
}

/// All were made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteResponse {}

/// Asks for entities.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    /// The switch.
    #[prost(uint64, tag = "1")]
    pub device_id: u64,
    /// Which ones; fields that are not set stand for any.
    #[prost(message, repeated, tag = "2")]
    pub entities: Vec<Entity>,
}

/// A part of the answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponse {
    /// Entities.
    #[prost(message, repeated, tag = "1")]
    pub entities: Vec<Entity>,
}

/// What an update does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum UpdateKind {
    /// Nothing is said.
    Unspecified = 0,
    /// Adds one that is not there.
    Insert = 1,
    /// Changes one that is there.
    Modify = 2,
    /// Removes one.
    Delete = 3,
}

/// One update.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    /// What it does.
    #[prost(enumeration = "UpdateKind", tag = "1")]
    pub kind: i32,
    /// With what.
    #[prost(message, optional, tag = "2")]
    pub entity: Option<Entity>,
}

/// Something that can be written and read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entity {
    /// What it is.
    #[prost(oneof = "entity_kind::Kind", tags = "2, 5, 7, 12")]
    pub kind: Option<entity_kind::Kind>,
}

/// Kinds of entities.
pub mod entity_kind {
    /// Of the kinds that there are those that are used.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// An entry of a table.
        #[prost(message, tag = "2")]
        Table(super::TableEntry),
        /// A meter's rates.
        #[prost(message, tag = "5")]
        Meter(super::MeterEntry),
        /// A counter's numbers.
        #[prost(message, tag = "7")]
        Counter(super::CounterEntry),
        /// How digests are told.
        #[prost(message, tag = "12")]
        Digest(super::DigestEntry),
    }
}

/// An entry of a table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TableEntry {
    /// The table.
    #[prost(uint32, tag = "1")]
    pub table_id: u32,
    /// What it is found by.
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<FieldMatch>,
    /// What it does.
    #[prost(message, optional, tag = "3")]
    pub action: Option<TableAction>,
    /// What is done when no entry is found.
    #[prost(bool, tag = "8")]
    pub is_default_action: bool,
    /// After so long without a packet it is told of; 0 = never.
    #[prost(int64, tag = "9")]
    pub idle_timeout_ns: i64,
}

/// One field of what an entry is found by.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldMatch {
    /// The field.
    #[prost(uint32, tag = "1")]
    pub field_id: u32,
    /// Its value.
    #[prost(oneof = "match_kind::Kind", tags = "2, 4")]
    pub kind: Option<match_kind::Kind>,
}

/// Kinds of matches.
pub mod match_kind {
    /// Of the kinds that there are those that are used.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Kind {
        /// Just this value.
        #[prost(message, tag = "2")]
        Exact(super::Exact),
        /// All that begin like this.
        #[prost(message, tag = "4")]
        Lpm(super::Lpm),
    }
}

/// A value; the shortest bytes that hold it, at least one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Exact {
    /// The value.
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
}

/// A prefix.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Lpm {
    /// The value, zeros behind the prefix.
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
    /// Bits of it.
    #[prost(int32, tag = "2")]
    pub prefix_len: i32,
}

/// What an entry does.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TableAction {
    /// The action.
    #[prost(oneof = "action_type::Kind", tags = "1")]
    pub kind: Option<action_type::Kind>,
}

/// Kinds of actions.
pub mod action_type {
    /// Of the kinds that there are the one that is used.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// An action with its parameters.
        #[prost(message, tag = "1")]
        Action(super::Action),
    }
}

/// An action with its parameters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Action {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub action_id: u32,
    /// The parameters.
    #[prost(message, repeated, tag = "4")]
    pub params: Vec<Param>,
}

/// A parameter.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Param {
    /// Which.
    #[prost(uint32, tag = "2")]
    pub param_id: u32,
    /// The value, as in [`Exact`].
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}

/// A place of an array.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Index {
    /// From 0.
    #[prost(int64, tag = "1")]
    pub index: i64,
}

/// One meter of an array.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MeterEntry {
    /// The array.
    #[prost(uint32, tag = "1")]
    pub meter_id: u32,
    /// Its place.
    #[prost(message, optional, tag = "2")]
    pub index: Option<Index>,
    /// Its rates; none = every packet passes.
    #[prost(message, optional, tag = "3")]
    pub config: Option<MeterConfig>,
}

/// Rates and bursts, in packets (a second).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MeterConfig {
    /// Rate up to which it is green.
    #[prost(int64, tag = "1")]
    pub cir: i64,
    /// Burst of the same.
    #[prost(int64, tag = "2")]
    pub cburst: i64,
    /// Rate above which it is red.
    #[prost(int64, tag = "3")]
    pub pir: i64,
    /// Burst of the same.
    #[prost(int64, tag = "4")]
    pub pburst: i64,
}

/// One counter of an array.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CounterEntry {
    /// The array.
    #[prost(uint32, tag = "1")]
    pub counter_id: u32,
    /// Its place; none = all of them.
    #[prost(message, optional, tag = "2")]
    pub index: Option<Index>,
    /// Its numbers.
    #[prost(message, optional, tag = "3")]
    pub data: Option<CounterData>,
}

/// Numbers of a counter.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CounterData {
    /// Bytes of frames.
    #[prost(int64, tag = "1")]
    pub bytes: i64,
    /// Packets.
    #[prost(int64, tag = "2")]
    pub packets: i64,
}

/// How digests are told.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DigestEntry {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub digest_id: u32,
    /// How.
    #[prost(message, optional, tag = "2")]
    pub config: Option<DigestConfig>,
}

/// When a list of digests is sent.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DigestConfig {
    /// At the latest so long after its first one.
    #[prost(int64, tag = "1")]
    pub max_timeout_ns: i64,
    /// When it has so many.
    #[prost(int32, tag = "2")]
    pub max_list_size: i32,
    /// What stands in a list that was not acknowledged is not told again for so long.
    #[prost(int64, tag = "3")]
    pub ack_timeout_ns: i64,
}
