//! The data plane in the kernel: XDP programs, their maps, and the files that keep both alive.
//!
//! Programs are loaded anew whenever `lbd` starts and whenever a table changes its size; maps go on. A new
//! set of maps, most of them the old ones under a second name, is put together aside, changes places with
//! the running set, and then every link is moved to the new programs: no packet meets an interface without
//! a program, and a process killed at any step leaves a set that works.

mod entry;
mod fill;
mod interface;
mod layout;
mod links;
mod migrate;
mod netlink;
mod object;
mod pins;
mod schema;
mod source;
mod swap;
mod syscall;
mod tables;

pub use pins::DEFAULT_ROOT;
pub use schema::{Bindings, Entry, Schema};

use super::{
    AttachMode, Attachment, Capabilities, CounterSlot, Cursor, DataPlane, Migration, Operation, Page, Result,
    Sizes, Traffic, Usage,
};
use aya::maps::MapError;
use interface::Interface;
use lb_common::abi::{
    AffinityRules, ArenaChunk, BINDING_PROBES, BINDING_SLOTS, Backend, Binding, BindingBucket, BindingEvent,
    BindingKey, BindingPath, BindingRecord, BindingSlot, Counters, Flow, FlowKey, FlowRef, FlowState,
    FlowWord, MAX_PEERS, Outcome, PathRule, Peer, QuicConfig, RebindReport, RebindRequest, RecordResult,
    Secrets, Server, Service, ServiceKey, Settings, SettingsFlags, SweepReport, SweepRequest, Vitals, hand,
    map,
};
use object::Generation;
use pins::Pins;
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};
use tables::{at, device_error, io_error};

/// Backend slots or status words read at once.
const BATCH: usize = 8_192;

/// How to open the data plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system, for this program alone.
    pub root: PathBuf,
    /// Where in the receive path to attach.
    pub attach: AttachPolicy,
    /// Schemas that pinned maps may have.
    pub schemas: &'static [Schema],
}

/// Where in the receive path to attach.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AttachPolicy {
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
    /// In the driver where it can, else in the stack.
    #[default]
    Any,
}

/// The data plane in the kernel.
pub struct Xdp {
    pins: Pins,
    options: Options,
    running: Generation,
    /// Interfaces that lose what is sent back out of them other than by redirect.
    redirecting: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: DEFAULT_ROOT.into(), attach: AttachPolicy::default(), schemas: Schema::KNOWN }
    }
}

impl Xdp {
    /// Loads the programs over the pinned maps, or over new ones, and moves the attachments there are to them.
    ///
    /// Tables whose size differs from `sizes` are replaced by ones that fit, with all that they hold; an arena
    /// with more room than asked for stays as it is.
    pub fn open(options: Options, sizes: Sizes) -> Result<(Self, Option<Migration>)> {
        raise_memory_limit();
        let pins = Pins::new(&options.root)?;
        let (running, migration) =
            swap::open(&pins, options.schemas, sizes).inspect_err(|_| pins.remove_empty())?;
        let mut plane = Self { pins, options, running, redirecting: false };
        plane.note_redirecting()?;
        Ok((plane, migration))
    }

    /// Removes attachments, maps and pins of a data plane that no process runs.
    pub fn remove(options: &Options) -> Result<()> {
        if !options.root.exists() {
            return Ok(());
        }
        let pins = Pins::new(&options.root)?;
        fill::remove_all(&pins)?;
        pins.remove_all()
    }

    /// Whether a data plane was left to run by an earlier process.
    pub fn is_left(options: &Options) -> bool {
        options.root.join("maps").exists()
    }

    /// Writes whether answers and replies have to leave by redirect.
    fn note_redirecting(&mut self) -> Result<()> {
        let redirecting = links::owned(&self.pins)?.iter().any(|link| needs_redirect(&link.interface));
        self.set_redirecting(redirecting)
    }

    fn set_redirecting(&mut self, redirecting: bool) -> Result<()> {
        self.redirecting = redirecting;
        let settings = self.settings()?;
        self.put_settings(&settings)
    }
}

/// Whether frames sent back by `XDP_TX` would be lost.
const fn needs_redirect(interface: &Interface) -> bool {
    interface.veth && !matches!(interface.attached, Some(AttachMode::Generic))
}

/// Kernels before 5.11 count maps against the limit of locked memory.
fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct outlives the call. Where it is not allowed, newer kernels do not need it.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

impl DataPlane for Xdp {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "xdp", survives: true, bindings: true, flows: true }
    }

    fn sizes(&self) -> Sizes {
        self.running.sizes
    }

    fn resize(&mut self, sizes: &Sizes) -> Result<Migration> {
        if *sizes == self.running.sizes {
            return Ok(Migration::default());
        }
        let (running, migration) = swap::resize(&self.pins, self.options.schemas, *sizes)?;
        self.running = running;
        Ok(migration)
    }

    fn settings(&mut self) -> Result<Settings> {
        self.running.settings().map(Settings::in_order)
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<()> {
        let flags = if self.redirecting { SettingsFlags::TX_BY_REDIRECT } else { 0 };
        let present = self.running.settings()?;
        let settings = self.running.fit(settings, flags).placed_like(&present);
        let fail = at(Operation::PutSettings, map::SETTINGS, 0);
        let before = Some(present.before(&settings)).filter(|before| *before != present);
        for settings in before.into_iter().chain([settings]) {
            self.running.tables.settings.set(0, settings, 0).map_err(|error| fail(io_error(error)))?;
        }
        // Any sweep sets the programs' clock; this one sweeps nothing.
        self.running.sweep(&SweepRequest::default()).map(|_| ())
    }

    fn services(&mut self) -> Result<Vec<(ServiceKey, Service)>> {
        let fail = at(Operation::Read, map::SERVICES, "all");
        let services = self.running.tables.services.iter();
        services.map(|entry| entry.map_err(|error| fail(io_error(error)))).collect()
    }

    fn put_service(&mut self, key: &ServiceKey, service: &Service) -> Result<()> {
        let fail = at(Operation::PutService, map::SERVICES, key);
        self.running.forget_services()?;
        self.running.tables.services.insert(key, service, 0).map_err(|error| fail(io_error(error)))
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<()> {
        let fail = at(Operation::DeleteService, map::SERVICES, key);
        self.running.forget_services()?;
        absent_is_fine(self.running.tables.services.remove(key)).map_err(|error| fail(io_error(error)))
    }

    fn backends(&mut self) -> Result<Vec<(u16, Backend)>> {
        let descriptor = self.running.tables.descriptors.backends.as_fd();
        let rows = array::<Backend>(descriptor, map::BACKENDS)?;
        let used = (0_u16..=u16::MAX).zip(rows).filter(|(_, backend)| *backend != Backend::default());
        Ok(used.collect())
    }

    fn put_backend(&mut self, slot: u16, backend: &Backend) -> Result<()> {
        let fail = at(Operation::PutBackend, map::BACKENDS, slot);
        self.running.tables.backends.set(slot.into(), backend, 0).map_err(|error| fail(io_error(error)))
    }

    fn statuses(&mut self) -> Result<Vec<u64>> {
        array(self.running.tables.descriptors.statuses.as_fd(), map::STATUS)
    }

    fn put_status(&mut self, word: u32, bits: u64) -> Result<()> {
        let fail = at(Operation::PutStatus, map::STATUS, word);
        self.running.tables.statuses.set(word, bits, 0).map_err(|error| fail(io_error(error)))
    }

    fn arena(&mut self, start: u32, count: u32) -> Result<Vec<ArenaChunk>> {
        let fail = at(Operation::Read, map::ARENA, start);
        let sizes = (size_of::<u32>(), size_of::<ArenaChunk>());
        let arena = self.running.tables.descriptors.arena.as_fd();
        let mut chunks = Vec::with_capacity(count as usize);
        // The cursor is the key that was read last.
        let mut cursor = start.checked_sub(1);
        while chunks.len() < count as usize {
            let rest = count as usize - chunks.len();
            let batch = syscall::lookup_batch(arena, sizes, cursor, rest).map_err(&fail)?;
            if batch.values.is_empty() {
                return Err(fail(std::io::ErrorKind::NotFound.into()));
            }
            chunks.extend(batch.values.chunks_exact(sizes.1).filter_map(syscall::decode::<ArenaChunk>));
            cursor = (start + chunks.len() as u32).checked_sub(1);
        }
        Ok(chunks)
    }

    fn put_arena(&mut self, start: u32, chunks: &[ArenaChunk]) -> Result<()> {
        let keys: Vec<u32> = (start..).take(chunks.len()).collect();
        let arena = self.running.tables.descriptors.arena.as_fd();
        syscall::update_batch(arena, &keys, chunks).map_err(at(Operation::PutArena, map::ARENA, start))
    }

    fn affinities(&mut self) -> Result<Vec<(u16, AffinityRules)>> {
        let rows =
            array::<AffinityRules>(self.running.tables.descriptors.affinities.as_fd(), map::AFFINITIES)?;
        Ok((0_u16..).zip(rows).filter(|(_, rules)| *rules != AffinityRules::default()).collect())
    }

    fn put_affinity(&mut self, slot: u16, rules: &AffinityRules) -> Result<()> {
        entry::put(
            &mut self.running.tables.affinities,
            (Operation::PutAffinity, map::AFFINITIES),
            slot.into(),
            rules,
        )
    }

    fn servers(&mut self, start: u32, count: u32) -> Result<Vec<Server>> {
        entry::stretch(&self.running.tables.servers, map::SERVERS, start, count)
    }

    fn put_servers(&mut self, start: u32, servers: &[Server]) -> Result<()> {
        entry::put_all(
            &mut self.running.tables.servers,
            (Operation::PutServers, map::SERVERS),
            start,
            servers,
        )
    }

    fn paths(&mut self, start: u32, count: u32) -> Result<Vec<PathRule>> {
        entry::stretch(&self.running.tables.paths, map::PATHS, start, count)
    }

    fn put_paths(&mut self, start: u32, rules: &[PathRule]) -> Result<()> {
        entry::put_all(&mut self.running.tables.paths, (Operation::PutPaths, map::PATHS), start, rules)
    }

    fn quic(&mut self) -> Result<Vec<(u32, QuicConfig)>> {
        let rows = array::<QuicConfig>(self.running.tables.descriptors.quic.as_fd(), map::QUIC)?;
        Ok((0..).zip(rows).filter(|(_, configuration)| *configuration != QuicConfig::default()).collect())
    }

    fn put_quic(&mut self, place: u32, configuration: &QuicConfig) -> Result<()> {
        entry::put(&mut self.running.tables.quic, (Operation::PutQuic, map::QUIC), place, configuration)
    }

    fn secrets(&mut self) -> Result<Secrets> {
        let fail = at(Operation::Read, map::SECRETS, 0);
        self.running.tables.secrets.get(&0, 0).map_err(|error| fail(io_error(error)))
    }

    fn put_secrets(&mut self, secrets: &Secrets) -> Result<()> {
        entry::put(&mut self.running.tables.secrets, (Operation::PutSecrets, map::SECRETS), 0, secrets)
    }

    fn peers(&mut self) -> Result<Vec<Peer>> {
        let fail = at(Operation::Read, map::PEERS, "all");
        let rows = self.running.tables.peers.iter().collect::<std::result::Result<Vec<Peer>, _>>();
        let rows = rows.map_err(|error| fail(io_error(error)))?;
        Ok(rows.into_iter().take_while(|peer| peer.id != 0).collect())
    }

    fn put_peers(&mut self, peers: &[Peer]) -> Result<()> {
        let none = Peer::default();
        let free = std::iter::repeat(&none);
        // The last ones first: a packet that meets the first row finds the ring behind it.
        let rows = (0..MAX_PEERS).zip(peers.iter().chain(free)).collect::<Vec<_>>();
        rows.into_iter().rev().try_for_each(|(row, peer)| {
            entry::put(&mut self.running.tables.peers, (Operation::PutPeers, map::PEERS), row, peer)
        })
    }

    fn has_mark(&mut self, mark: &FlowKey) -> Result<bool> {
        match self.running.tables.flow_index.get(mark, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(at(Operation::Read, map::FLOW_INDEX, mark)(io_error(error))),
        }
    }

    fn put_mark(&mut self, mark: &FlowKey) -> Result<()> {
        let fail = at(Operation::PutMark, map::FLOW_INDEX, mark);
        let index = &mut self.running.tables.flow_index;
        index.insert(mark, FlowRef::default(), 0).map_err(|error| fail(io_error(error)))
    }

    fn delete_mark(&mut self, mark: &FlowKey) -> Result<()> {
        let fail = at(Operation::PutMark, map::FLOW_INDEX, mark);
        absent_is_fine(self.running.tables.flow_index.remove(mark)).map_err(|error| fail(io_error(error)))
    }

    fn devices(&mut self) -> Result<Vec<u32>> {
        let fail = at(Operation::Read, map::DEVICES, "all");
        let devices = self.running.tables.devices.keys();
        devices.map(|key| key.map_err(|error| fail(io_error(error)))).collect()
    }

    fn put_device(&mut self, ifindex: u32) -> Result<()> {
        let fail = at(Operation::PutDevice, map::DEVICES, ifindex);
        let devices = &mut self.running.tables.devices;
        match devices.insert(ifindex, ifindex, None, 0).map_err(device_error) {
            // Nothing is sent to an interface that is gone; routes will say so in a moment.
            Err(_) if !interface::exists(ifindex) => Ok(()),
            other => other.map_err(fail),
        }
    }

    fn delete_device(&mut self, ifindex: u32) -> Result<()> {
        let fail = at(Operation::DeleteDevice, map::DEVICES, ifindex);
        absent_is_fine(self.running.tables.devices.remove(ifindex)).map_err(|error| fail(io_error(error)))
    }

    fn attachments(&mut self) -> Result<Vec<Attachment>> {
        links::attachments(&self.pins)
    }

    fn attach(&mut self, interface: &str) -> Result<Attachment> {
        let attached = self.attachments()?.into_iter().find(|attachment| attachment.interface == interface);
        if let Some(attachment) = attached {
            return Ok(attachment);
        }
        let found = Interface::query(interface).map_err(|source| links::failed(interface, source))?;
        self.put_device(found.index)?;
        if found.veth && self.options.attach != AttachPolicy::Generic {
            self.set_redirecting(true)?;
        }
        let attachment = links::attach(&self.pins, &found, self.running.entry()?, self.options.attach);
        if attachment.is_ok() {
            fill::put(&self.pins, &found, self.running.fill()?);
        }
        self.note_redirecting()?;
        attachment
    }

    fn detach(&mut self, interface: &str) -> Result<()> {
        fill::remove(&self.pins, interface);
        self.pins.remove_link(interface)?;
        self.note_redirecting()
    }

    fn detach_all(&mut self) -> Result<()> {
        fill::remove_all(&self.pins)?;
        self.pins.remove_all()
    }

    fn bindings(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<(BindingKey, Binding)>> {
        let sizes = (size_of::<u32>(), size_of::<BindingBucket>());
        let descriptor = &self.running.tables.descriptors.bindings;
        let buckets = limit.div_ceil(BINDING_SLOTS as usize);
        let batch = syscall::lookup_batch(descriptor, sizes, cursor.map(|cursor| cursor.0), buckets)
            .map_err(at(Operation::Read, map::BINDINGS, "a batch"))?;
        let buckets = batch.values.chunks_exact(sizes.1).filter_map(syscall::decode::<BindingBucket>);
        let rows = buckets.flat_map(|bucket| bucket.0).filter_map(|slot| slot.binding());
        Ok(Page { rows: rows.collect(), next: batch.next.map(Cursor) })
    }

    fn binding(&mut self, key: &BindingKey) -> Result<Option<Binding>> {
        let fail = at(Operation::Read, map::BINDINGS, key);
        let path = BindingPath::new(key, self.running.seed, self.running.sizes.binding_buckets());
        for n in 0..BINDING_PROBES {
            let bucket = self.running.tables.bindings.get(&path.bucket(n), 0);
            let BindingBucket(slots) = bucket.map_err(|error| fail(io_error(error)))?;
            let found = slots.iter().filter_map(BindingSlot::binding).find(|(found, _)| found == key);
            if found.is_some() || slots[0].passed == 0 {
                return Ok(found.map(|(_, binding)| binding));
            }
        }
        Ok(None)
    }

    fn apply_bindings(&mut self, records: &[BindingRecord]) -> Result<Vec<RecordResult>> {
        self.running.apply(records)
    }

    fn flows(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<Flow>> {
        let sizes = (size_of::<u32>(), size_of::<Flow>());
        let descriptor = &self.running.tables.descriptors.flows;
        let batch = syscall::lookup_batch(descriptor, sizes, cursor.map(|cursor| cursor.0), limit)
            .map_err(at(Operation::Read, map::FLOWS, "a batch"))?;
        let flows = batch.values.chunks_exact(sizes.1).filter_map(syscall::decode::<Flow>);
        let used = flows.filter(|flow| match FlowWord(flow.word).state() {
            FlowState::Free | FlowState::Claimed => false,
            FlowState::Opening
            | FlowState::Answered
            | FlowState::Established
            | FlowState::Closing
            | FlowState::Closed
            | FlowState::Collecting
            | FlowState::Connecting
            | FlowState::Releasing => true,
        });
        Ok(Page { rows: used.collect(), next: batch.next.map(Cursor) })
    }

    fn adopt(&mut self, flows: &[Flow]) -> Result<Vec<RecordResult>> {
        self.running.adopt(flows)
    }

    fn counters(&mut self, services: &[u16], backends: &[u16]) -> Result<Traffic> {
        let tables = &self.running.tables;
        let read = |counters: &aya::maps::PerCpuArray<_, Counters>, table, slots: &[u16]| {
            let one = |&slot: &u16| match counters.get(&slot.into(), 0) {
                Ok(values) => Ok(tables::sum(&values)),
                Err(error) => Err(at(Operation::Read, table, slot)(io_error(error))),
            };
            slots.iter().map(one).collect::<Result<Vec<_>>>()
        };
        Ok(Traffic {
            services: read(&tables.service_counters, map::SERVICE_COUNTERS, services)?,
            backends: read(&tables.backend_counters, map::BACKEND_COUNTERS, backends)?,
        })
    }

    fn vitals(&mut self, backends: &[u16]) -> Result<Vec<Vitals>> {
        let vitals = &self.running.tables.vitals;
        let one = |&slot: &u16| {
            let fail = at(Operation::Read, map::VITALS, slot);
            vitals.get(&slot.into(), 0).map_err(|error| fail(io_error(error)))
        };
        backends.iter().map(one).collect()
    }

    fn clear_counters(&mut self, slot: CounterSlot) -> Result<()> {
        if let CounterSlot::Backend(slot) = slot {
            let fail = at(Operation::ClearCounters, map::VITALS, slot);
            let vitals = &mut self.running.tables.vitals;
            vitals.set(slot.into(), Vitals::default(), 0).map_err(|error| fail(io_error(error)))?;
        }
        let (counters, table, slot) = match slot {
            CounterSlot::Service(slot) => {
                (&mut self.running.tables.service_counters, map::SERVICE_COUNTERS, slot)
            }
            CounterSlot::Backend(slot) => {
                (&mut self.running.tables.backend_counters, map::BACKEND_COUNTERS, slot)
            }
        };
        let fail = at(Operation::ClearCounters, table, slot);
        let zero = tables::on_every_cpu(Counters::default()).map_err(&fail)?;
        counters.set(slot.into(), zero, 0).map_err(|error| fail(io_error(error)))
    }

    fn outcomes(&mut self) -> Result<Vec<u64>> {
        let counters = &self.running.tables.outcomes;
        let one = |outcome: u32| match counters.get(&outcome, 0) {
            Ok(values) => Ok(values.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value))),
            Err(error) => Err(at(Operation::Read, map::OUTCOMES, outcome)(io_error(error))),
        };
        (0..Outcome::COUNT.min(counters.len())).map(one).collect()
    }

    fn usage(&mut self) -> Result<Usage> {
        let hand = |hand: u32| {
            let fail = at(Operation::Read, map::HANDS, hand);
            let value = self.running.tables.hands.get(&hand, 0).map_err(|error| fail(io_error(error)))?.value;
            // Counted up and down by programs that may be replaced in between.
            Ok(if (value as i64) < 0 { 0 } else { value })
        };
        Ok(Usage { bindings: hand(hand::BINDINGS_LIVE)?, holds: hand(hand::HOLDS_LIVE)? })
    }

    fn rebind(&mut self, request: &RebindRequest) -> Result<RebindReport> {
        self.running.rebind(request)
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        // Sweeps come many times a second, and none between the changes of one plan.
        self.running.keep_services()?;
        self.running.sweep(request)
    }

    fn events(&mut self, limit: usize) -> Result<Vec<BindingEvent>> {
        let ring = &mut self.running.tables.events;
        let mut events = Vec::new();
        while events.len() < limit {
            let Some(item) = ring.next() else { break };
            events.extend(syscall::decode::<BindingEvent>(&item));
        }
        Ok(events)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.running.tables.descriptors.events.as_fd())
    }
}

/// Every value of an array map.
fn array<T: aya::Pod>(map: BorrowedFd<'_>, table: &'static str) -> Result<Vec<T>> {
    let sizes = (size_of::<u32>(), size_of::<T>());
    let (mut values, mut cursor) = (Vec::new(), None);
    loop {
        let batch = syscall::lookup_batch(map, sizes, cursor, BATCH).map_err(at(
            Operation::Read,
            table,
            "a batch",
        ))?;
        values.extend(batch.values.chunks_exact(sizes.1).filter_map(syscall::decode::<T>));
        cursor = batch.next;
        if cursor.is_none() {
            return Ok(values);
        }
    }
}

fn absent_is_fine(result: std::result::Result<(), MapError>) -> std::result::Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
