//! The maps of the loaded programs: filling, emptying, ageing, reading.

use super::super::tables::{Change, DEVICES, Tables, with_secrets};
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf, xdp::DevMapHash};
use aya::programs::Xdp;
use aya::{Ebpf, Pod};
use lb_common::abi::{
    ARENA_CHUNK, AffinityRules, ArenaChunk, Backend, Binding, BindingBucket, BindingKey, BindingSlot,
    Counters, Flow, FlowKey, FragmentKey, FragmentRef, Hand, Hold, Outcome, PathRule, Peer, QuicConfig,
    Secrets, Server, Service, ServiceKey, Settings, Vitals, hand, map, program,
};
use std::borrow::BorrowMut;
use std::os::fd::{AsFd, AsRawFd};

/// Handles of all maps.
pub(super) struct Maps {
    settings: Array<MapData, Settings>,
    current: Settings,
    services: HashMap<MapData, ServiceKey, Service>,
    backends: Array<MapData, Backend>,
    used_backends: Vec<u32>,
    status: Cleared<u64>,
    arena: Cleared<ArenaChunk>,
    bindings: Cleared<BindingBucket>,
    hands: Cleared<Hand>,
    flow_index: HashMap<MapData, FlowKey, u64>,
    flows: Cleared<Flow>,
    fragments: HashMap<MapData, FragmentKey, FragmentRef>,
    service_counters: PerCpuArray<MapData, Counters>,
    backend_counters: PerCpuArray<MapData, Counters>,
    outcomes: PerCpuArray<MapData, u64>,
    rates: Cleared<u64>,
    quotas: Cleared<u64>,
    doorkeeper: Cleared<u64>,
    wrote_quotas: bool,
    wrote_doorkeeper: bool,
    affinities: Array<MapData, AffinityRules>,
    used_affinities: Vec<u32>,
    servers: Array<MapData, Server>,
    path_rules: Array<MapData, PathRule>,
    quic: Array<MapData, QuicConfig>,
    used_quic: Vec<u32>,
    secrets: Array<MapData, Secrets>,
    peers: Cleared<Peer>,
    vitals: Array<MapData, Vitals>,
    choices: Cleared<u64>,
    wrote_choices: bool,
    holds: Cleared<Hold>,
    wrote_holds: bool,
    events: RingBuf<MapData>,
    /// Held so that the tail calls go on.
    _programs: ProgramArray<MapData>,
    _devices: DevMapHash<MapData>,
}

fn taken<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T> {
    let map = ebpf.take_map(name).with_context(|| format!("no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name}"))
}

impl Maps {
    /// Takes the maps out of the object and links the programs.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut programs: ProgramArray<MapData> = taken(ebpf, map::PROGRAMS)?;
        for (place, name) in program::TAIL_CALLS {
            let program: &Xdp =
                ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
            programs.set(place, program.fd()?, 0).with_context(|| format!("linking {name}"))?;
        }
        let mut devices: DevMapHash<MapData> = taken(ebpf, map::DEVICES)?;
        for index in DEVICES {
            devices.insert(index, index, None, 0).with_context(|| format!("device {index}"))?;
        }
        Ok(Self {
            settings: taken(ebpf, map::SETTINGS)?,
            current: Settings { version: 1, ..Settings::default() },
            services: taken(ebpf, map::SERVICES)?,
            backends: taken(ebpf, map::BACKENDS)?,
            used_backends: Vec::new(),
            status: Cleared::take(ebpf, map::STATUS)?,
            arena: Cleared::take(ebpf, map::ARENA)?,
            bindings: Cleared::take(ebpf, map::BINDINGS)?,
            hands: Cleared::take(ebpf, map::HANDS)?,
            flow_index: taken(ebpf, map::FLOW_INDEX)?,
            flows: Cleared::take(ebpf, map::FLOWS)?,
            fragments: taken(ebpf, map::FRAGMENTS)?,
            service_counters: taken(ebpf, map::SERVICE_COUNTERS)?,
            backend_counters: taken(ebpf, map::BACKEND_COUNTERS)?,
            outcomes: taken(ebpf, map::OUTCOMES)?,
            rates: Cleared::take(ebpf, map::RATES)?,
            quotas: Cleared::take(ebpf, map::QUOTAS)?,
            doorkeeper: Cleared::take(ebpf, map::DOORKEEPER)?,
            wrote_quotas: false,
            wrote_doorkeeper: false,
            affinities: taken(ebpf, map::AFFINITIES)?,
            used_affinities: Vec::new(),
            servers: taken(ebpf, map::SERVERS)?,
            path_rules: taken(ebpf, map::PATHS)?,
            quic: taken(ebpf, map::QUIC)?,
            used_quic: Vec::new(),
            secrets: taken(ebpf, map::SECRETS)?,
            peers: Cleared::take(ebpf, map::PEERS)?,
            vitals: taken(ebpf, map::VITALS)?,
            choices: Cleared::take(ebpf, map::CHOICES)?,
            wrote_choices: false,
            holds: Cleared::take(ebpf, map::HOLDS)?,
            wrote_holds: false,
            events: taken(ebpf, map::EVENTS)?,
            _programs: programs,
            _devices: devices,
        })
    }

    /// Empties everything and fills in the tables of a case.
    pub(super) fn install(&mut self, tables: &Tables, now: u64) -> Result<()> {
        empty(&mut self.services)?;
        empty(&mut self.flow_index)?;
        empty(&mut self.fragments)?;
        self.status.clear()?;
        self.arena.clear()?;
        self.hands.clear()?;
        self.flows.clear()?;
        self.rates.clear()?;
        // The large ones only after a case that could write to them.
        if std::mem::replace(&mut self.wrote_quotas, tables.settings.prefix_quota != 0) {
            self.quotas.clear()?;
        }
        if std::mem::replace(&mut self.wrote_doorkeeper, tables.has_datagrams()) {
            self.doorkeeper.clear()?;
        }
        if std::mem::replace(&mut self.wrote_holds, tables.has_holds()) {
            self.holds.clear()?;
        }
        if std::mem::replace(&mut self.wrote_choices, tables.has_methods()) {
            self.choices.clear()?;
        }
        while self.events.next().is_some() {}
        self.install_rules(tables, now)?;
        self.peers.clear()?;
        for (row, peer) in (0..).zip(&tables.peers) {
            self.peers.map.set(row, peer, 0)?;
        }
        for mark in tables.marks() {
            self.flow_index.insert(mark, 0, 0)?;
        }
        self.current =
            Settings { version: self.current.version, tick: clock_resolution()?, ..tables.settings };
        for slot in self.used_backends.drain(..) {
            self.backends.set(slot, Backend::default(), 0)?;
            self.vitals.set(slot, Vitals::default(), 0)?;
        }
        for (slot, backend) in &tables.backends {
            self.backends.set(u32::from(*slot), backend, 0)?;
            self.vitals.set(u32::from(*slot), tables.vitals(*slot, now), 0)?;
            self.used_backends.push(u32::from(*slot));
        }
        for (word, value) in &tables.status {
            self.status.map.set(*word, value, 0)?;
        }
        for (place, slots) in (0..).zip(tables.arena.chunks(ARENA_CHUNK)) {
            let mut chunk = [0; ARENA_CHUNK];
            chunk[..slots.len()].copy_from_slice(slots);
            self.arena.map.set(place, ArenaChunk(chunk), 0)?;
        }
        self.bindings.fill(&tables.binding_table(now)?)?;
        let live = Hand { value: tables.bindings.len() as u64, ..Hand::default() };
        self.hands.map.set(hand::BINDINGS_LIVE, live, 0)?;
        self.change(&Change::Services(tables.service_entries()))
    }

    /// What session keys are taken by.
    fn install_rules(&mut self, tables: &Tables, now: u64) -> Result<()> {
        self.secrets.set(0, tables.secrets(now)?, 0)?;
        for slot in self.used_affinities.drain(..) {
            self.affinities.set(slot, AffinityRules::default(), 0)?;
        }
        for place in self.used_quic.drain(..) {
            self.quic.set(place, QuicConfig::default(), 0)?;
        }
        for (slot, rules) in &tables.affinities {
            self.affinities.set(u32::from(*slot), rules, 0)?;
            self.used_affinities.push(u32::from(*slot));
        }
        // Rules say which of these are theirs; what an earlier case left behind them is nobody's.
        for (place, server) in (0..).zip(&tables.servers) {
            self.servers.set(place, server, 0)?;
        }
        for (place, rule) in (0..).zip(&tables.path_rules) {
            self.path_rules.set(place, rule, 0)?;
        }
        for (place, config) in &tables.quic {
            self.quic.set(*place, config, 0)?;
            self.used_quic.push(*place);
        }
        Ok(())
    }

    /// What is noted of a backend.
    pub(super) fn vitals(&self, slot: u16) -> Result<Vitals> {
        self.vitals.get(&slot.into(), 0).with_context(|| format!("vitals of backend {slot}"))
    }

    /// A hold.
    pub(super) fn hold(&self, index: u32) -> Result<Hold> {
        self.holds.map.get(&index, 0).with_context(|| format!("hold {index}"))
    }

    /// Writes a hold.
    pub(super) fn set_hold(&mut self, index: u32, hold: &Hold) -> Result<()> {
        self.holds.map.set(index, hold, 0).with_context(|| format!("hold {index}"))
    }

    /// Changes a table.
    pub(super) fn change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Status(word, value) => self.status.map.set(*word, value, 0)?,
            Change::Backend(slot, backend) => self.backends.set(u32::from(*slot), backend, 0)?,
            Change::SessionSecrets(in_use, other) => {
                self.current = with_secrets(self.current, *in_use, *other);
                self.settings.set(0, self.current, 0)?;
            }
            Change::Services(entries) => {
                empty(&mut self.services)?;
                for (key, service) in entries {
                    self.services.insert(key, service, 0)?;
                }
                // CPUs forget the services they have at hand.
                self.current.version += 1;
                self.settings.set(0, self.current, 0)?;
            }
        }
        Ok(())
    }

    /// Puts the programs' clock forward.
    pub(super) fn advance(&mut self, by: u64) -> Result<()> {
        let mut clock = self.hands.map.get(&hand::CLOCK, 0)?;
        ensure!(clock.value != 0, "the programs' clock was not set");
        clock.value = clock.value.wrapping_add(by);
        Ok(self.hands.map.set(hand::CLOCK, clock, 0)?)
    }

    /// Counts an outcome once more.
    pub(super) fn count(&mut self, outcome: Outcome) -> Result<()> {
        let number = outcome as u32;
        let mut counts: Vec<u64> = self.outcomes.get(&number, 0)?.iter().copied().collect();
        *counts.first_mut().context("a machine without CPUs")? += 1;
        Ok(self.outcomes.set(number, PerCpuValues::try_from(counts)?, 0)?)
    }

    /// Totals by outcome number.
    pub(super) fn outcomes(&self) -> Result<Vec<u64>> {
        (0..Outcome::COUNT).map(|number| Ok(self.outcomes.get(&number, 0)?.iter().sum())).collect()
    }

    /// Totals of a service slot.
    pub(super) fn service_counters(&self, slot: u16) -> Result<Counters> {
        Ok(total(self.service_counters.get(&u32::from(slot), 0)?.iter()))
    }

    /// Totals of a backend slot.
    pub(super) fn backend_counters(&self, slot: u16) -> Result<Counters> {
        Ok(total(self.backend_counters.get(&u32::from(slot), 0)?.iter()))
    }

    /// All bindings.
    pub(super) fn bindings(&self) -> Result<Vec<(BindingKey, Binding)>> {
        let mut bindings = Vec::new();
        for bucket in self.bindings.map.iter() {
            bindings.extend(bucket?.0.iter().filter_map(BindingSlot::binding));
        }
        Ok(bindings)
    }

    /// All references to flows.
    pub(super) fn flow_index(&self) -> Result<Vec<(FlowKey, u64)>> {
        Ok(self.flow_index.iter().collect::<Result<_, _>>()?)
    }

    /// A flow record.
    pub(super) fn flow(&self, index: u32) -> Result<Flow> {
        self.flows.map.get(&index, 0).with_context(|| format!("flow record {index}"))
    }
}

/// Nanoseconds of a tick of the kernel's coarse clock.
fn clock_resolution() -> Result<u32> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a place for the answer.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    u32::try_from(time.tv_nsec).context("the coarse clock's resolution")
}

fn total<'a>(counters: impl Iterator<Item = &'a Counters>) -> Counters {
    counters.fold(Counters::default(), |sum, one| sum.plus(*one))
}

fn empty<K: Pod, V: Pod>(map: &mut HashMap<impl BorrowMut<MapData>, K, V>) -> Result<()> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}

/// An array that is zeroed before each case, in one system call.
struct Cleared<V: Pod> {
    map: Array<MapData, V>,
    descriptor: std::os::fd::OwnedFd,
}

/// Arguments of the kernel's batch commands (`union bpf_attr`, member `batch`).
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

impl<V: Pod> Cleared<V> {
    fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        let map = ebpf.take_map(name).with_context(|| format!("no map {name}"))?;
        let aya::maps::Map::Array(data) = &map else { anyhow::bail!("map {name} is no array") };
        let descriptor = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { map: Array::try_from(map)?, descriptor })
    }

    fn clear(&mut self) -> Result<()> {
        // The kernel keeps array values at multiples of eight bytes.
        self.write(&vec![0_u8; self.map.len() as usize * size_of::<V>()])
    }

    /// Replaces all of it.
    fn fill(&mut self, content: &[V]) -> Result<()> {
        ensure!(content.len() == self.map.len() as usize, "{} entries for {}", content.len(), self.map.len());
        // SAFETY: plain integers without padding.
        self.write(unsafe { std::slice::from_raw_parts(content.as_ptr().cast(), size_of_val(content)) })
    }

    fn write(&mut self, values: &[u8]) -> Result<()> {
        let count = self.map.len();
        let keys: Vec<u32> = (0..count).collect();
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count,
            map_fd: u32::try_from(self.descriptor.as_raw_fd())?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the pointers are to `count` keys and values, and the size is that of the structure.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
        ensure!(done == 0 && batch.count == count, "emptying an array: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

const _: () = assert!(size_of::<BindingBucket>().is_multiple_of(8) && size_of::<Flow>().is_multiple_of(8));
const _: () = assert!(size_of::<Hold>().is_multiple_of(8));
