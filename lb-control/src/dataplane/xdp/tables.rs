//! The maps of one generation of programs, by type.

use super::{object, syscall};
use crate::dataplane::{Error, Operation, Result};
use aya::{
    Ebpf, Pod,
    maps::{
        Array, DevMapHash, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf,
        xdp::XdpMapError,
    },
    util::nr_cpus,
};
use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, BindingBucket, Counters, Flow, FlowKey, FlowRef, Hand, PathRule,
    Peer, QuicConfig, Secrets, Server, Service, ServiceKey, Settings, Vitals, map,
};
use std::{io, os::fd::OwnedFd, path::Path};

/// Every map that userspace reads or writes.
pub(super) struct Tables {
    pub(super) settings: Array<MapData, Settings>,
    pub(super) services: HashMap<MapData, ServiceKey, Service>,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) statuses: Array<MapData, u64>,
    pub(super) arena: Array<MapData, ArenaChunk>,
    pub(super) affinities: Array<MapData, AffinityRules>,
    pub(super) servers: Array<MapData, Server>,
    pub(super) paths: Array<MapData, PathRule>,
    pub(super) quic: Array<MapData, QuicConfig>,
    pub(super) secrets: Array<MapData, Secrets>,
    pub(super) peers: Array<MapData, Peer>,
    pub(super) bindings: Array<MapData, BindingBucket>,
    pub(super) hands: Array<MapData, Hand>,
    pub(super) flow_index: HashMap<MapData, FlowKey, FlowRef>,
    pub(super) flows: Array<MapData, Flow>,
    pub(super) devices: DevMapHash<MapData>,
    pub(super) service_counters: PerCpuArray<MapData, Counters>,
    pub(super) backend_counters: PerCpuArray<MapData, Counters>,
    pub(super) vitals: Array<MapData, Vitals>,
    pub(super) outcomes: PerCpuArray<MapData, u64>,
    pub(super) events: RingBuf<MapData>,
    pub(super) programs: ProgramArray<MapData>,
    pub(super) descriptors: Descriptors,
}

/// Maps that are also read or written in batches.
pub(super) struct Descriptors {
    pub(super) backends: OwnedFd,
    pub(super) statuses: OwnedFd,
    pub(super) arena: OwnedFd,
    pub(super) affinities: OwnedFd,
    pub(super) quic: OwnedFd,
    pub(super) bindings: OwnedFd,
    pub(super) flow_index: OwnedFd,
    pub(super) flows: OwnedFd,
    pub(super) events: OwnedFd,
}

impl Tables {
    /// Takes the maps out of a loaded object; they are pinned below `directory`.
    pub(super) fn take(object: &mut Ebpf, directory: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = directory.join(name);
            syscall::open_pin(&path).map_err(|source| Error::Pin { operation: Operation::Open, path, source })
        };
        Ok(Self {
            descriptors: Descriptors {
                backends: open(map::BACKENDS)?,
                statuses: open(map::STATUS)?,
                arena: open(map::ARENA)?,
                affinities: open(map::AFFINITIES)?,
                quic: open(map::QUIC)?,
                bindings: open(map::BINDINGS)?,
                flow_index: open(map::FLOW_INDEX)?,
                flows: open(map::FLOWS)?,
                events: open(map::EVENTS)?,
            },
            settings: take(object, map::SETTINGS)?,
            services: take(object, map::SERVICES)?,
            backends: take(object, map::BACKENDS)?,
            statuses: take(object, map::STATUS)?,
            arena: take(object, map::ARENA)?,
            affinities: take(object, map::AFFINITIES)?,
            servers: take(object, map::SERVERS)?,
            paths: take(object, map::PATHS)?,
            quic: take(object, map::QUIC)?,
            secrets: take(object, map::SECRETS)?,
            peers: take(object, map::PEERS)?,
            bindings: take(object, map::BINDINGS)?,
            hands: take(object, map::HANDS)?,
            flow_index: take(object, map::FLOW_INDEX)?,
            flows: take(object, map::FLOWS)?,
            devices: take(object, map::DEVICES)?,
            service_counters: take(object, map::SERVICE_COUNTERS)?,
            backend_counters: take(object, map::BACKEND_COUNTERS)?,
            vitals: take(object, map::VITALS)?,
            outcomes: take(object, map::OUTCOMES)?,
            events: take(object, map::EVENTS)?,
            programs: take(object, map::PROGRAMS)?,
        })
    }
}

fn take<M>(object: &mut Ebpf, name: &'static str) -> Result<M>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let found = object.take_map(name).ok_or(Error::Object { kind: "map", name })?;
    M::try_from(found).map_err(|source| Error::Load { program: object::NAME, source: Box::new(source) })
}

/// Adds up a per-CPU entry.
pub(super) fn sum(values: &PerCpuValues<Counters>) -> Counters {
    values.iter().fold(Counters::default(), |sum, cpu| sum.plus(*cpu))
}

/// The same value for every CPU.
pub(super) fn on_every_cpu<T: Pod>(value: T) -> io::Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    PerCpuValues::try_from(vec![value; cpus])
}

/// Names the table and entry of a failure.
pub(super) fn at(
    operation: Operation,
    table: &'static str,
    entry: impl std::fmt::Debug,
) -> impl Fn(io::Error) -> Error {
    move |source| Error::Table { operation, table, entry: format!("{entry:?}"), source }
}

/// The error number behind an error of aya's, where there is one.
pub(super) fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(call) => call.io_error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}

/// The same for device maps.
pub(super) fn device_error(error: XdpMapError) -> io::Error {
    match error {
        XdpMapError::MapError(error) => io_error(error),
        other => io::Error::other(other),
    }
}
