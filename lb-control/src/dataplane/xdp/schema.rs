//! How pinned maps of each known schema version are read.
//!
//! A new version adds a [`Schema`] for the one before it and keeps the older ones, so an upgrade may skip
//! versions. Decoders answer `None` for entries that mean nothing today; those are left behind.

use super::syscall::decode;
use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, Binding, BindingBucket, BindingKey, BindingSlot, Flow, Hand,
    PathRule, QuicConfig, SCHEMA_VERSION, Secrets, Server, Service, ServiceKey, Settings, binding_buckets,
};

/// Decoder of a key and its value.
pub type Entry<K, V> = fn(&[u8], &[u8]) -> Option<(K, V)>;

/// Decoder of a key and its value that may hold several bindings.
pub type Bindings = fn(&[u8], &[u8]) -> Vec<(BindingKey, Binding)>;

/// Decoders of one schema version, from the bytes of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The version, which every schema keeps in the first four bytes of the settings.
    pub version: u32,
    /// The settings.
    pub settings: fn(&[u8]) -> Option<Settings>,
    /// A service.
    pub service: Entry<ServiceKey, Service>,
    /// A backend slot.
    pub backend: fn(&[u8]) -> Option<Backend>,
    /// A status word.
    pub status: fn(&[u8]) -> Option<u64>,
    /// A clock hand.
    pub hand: fn(&[u8]) -> Option<Hand>,
    /// An arena chunk.
    pub arena: fn(&[u8]) -> Option<ArenaChunk>,
    /// The rules of an affinity.
    pub affinity: fn(&[u8]) -> Option<AffinityRules>,
    /// A server's mark.
    pub server: fn(&[u8]) -> Option<Server>,
    /// A path rule.
    pub path: fn(&[u8]) -> Option<PathRule>,
    /// A configuration of QUIC connection ids.
    pub quic: fn(&[u8]) -> Option<QuicConfig>,
    /// The keys that packets are checked with.
    pub secrets: fn(&[u8]) -> Option<Secrets>,
    /// The bindings in one entry of their table.
    pub bindings: Bindings,
    /// A flow record.
    pub flow: fn(&[u8]) -> Option<Flow>,
}

impl Schema {
    /// The schema of this build.
    pub const CURRENT: Self = Self {
        version: SCHEMA_VERSION,
        settings: decode,
        service: |key, value| Some((decode(key)?, decode(value)?)),
        backend: decode,
        status: decode,
        hand: decode,
        arena: decode,
        affinity: decode,
        server: decode,
        path: decode,
        quic: decode,
        secrets: decode,
        bindings: |_, value| {
            let bucket = decode::<BindingBucket>(value).unwrap_or_default();
            bucket.0.iter().filter_map(BindingSlot::binding).collect()
        },
        flow: decode,
    };

    /// Version 4: settings without a second secret of the session-key hash.
    pub const V4: Self = Self { version: 4, settings: |bytes| longer(bytes, 176), ..Self::CURRENT };

    /// Version 3: without what is noted of single backends.
    pub const V3: Self = Self { version: 3, ..Self::V4 };

    /// Version 2: a hash map of bindings; settings and flows without what sessions by cookie and the seed added.
    pub const V2: Self = Self {
        version: 2,
        settings: |bytes| with_buckets(bytes, 168),
        bindings: |key, value| decode(key).zip(longer(value, 16)).into_iter().collect(),
        flow: |bytes| longer(bytes, 160),
        ..Self::CURRENT
    };

    /// Version 1: the same without what delayed binding added.
    pub const V1: Self = Self {
        version: 1,
        settings: |bytes| with_buckets(bytes, 144),
        flow: |bytes| longer(bytes, 144),
        ..Self::V2
    };

    /// Every schema that this build reads.
    pub const KNOWN: &[Self] = &[Self::CURRENT, Self::V4, Self::V3, Self::V2, Self::V1];

    /// The schema version of a settings entry.
    pub(super) fn version_of(settings: &[u8]) -> Option<u32> {
        decode(settings.get(..4)?)
    }
}

/// Settings of a version that had a ring of keys in the place of buckets.
fn with_buckets(bytes: &[u8], length: usize) -> Option<Settings> {
    let mut settings: Settings = longer(bytes, length)?;
    settings.binding_buckets = binding_buckets(settings.binding_capacity);
    Some(settings)
}

/// A value whose first `length` bytes are known and whose other fields did not exist.
fn longer<T: aya::Pod>(bytes: &[u8], length: usize) -> Option<T> {
    let mut value = bytes.get(..length)?.to_vec();
    value.resize(size_of::<T>(), 0);
    decode(&value)
}
