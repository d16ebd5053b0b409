//! A data plane that fails on purpose.
//!
//! It wraps another one, by default [`Memory`], and lets chosen calls fail: before they did anything, or after,
//! as a kernel may do either. Everything is decided by counting and a seeded generator, so a failure can be had
//! again.

use super::{
    Attachment, Capabilities, CounterSlot, Cursor, DataPlane, Error, Migration, Operation, Page, Result,
    Sizes, Traffic, Usage, memory::Memory,
};
use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, Binding, BindingEvent, BindingKey, BindingRecord, Flow, FlowKey,
    PathRule, Peer, QuicConfig, RebindReport, RebindRequest, RecordResult, Secrets, Server, Service,
    ServiceKey, Settings, SweepReport, SweepRequest, Vitals,
};
use std::os::fd::BorrowedFd;

/// Which calls fail.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// Calls of these kinds, every time.
    pub kinds: Vec<Operation>,
    /// The calls with these numbers, counted from 0 since the faults were set.
    pub calls: Vec<u64>,
    /// So many in a thousand, by chance.
    pub per_mille: u32,
    /// Seed of that chance.
    pub seed: u64,
    /// The call does its work and fails all the same.
    pub late: bool,
}

/// A data plane that fails on purpose.
#[derive(Clone, Debug)]
pub struct Chaos<D = Memory> {
    inner: D,
    faults: Faults,
    calls: Vec<Operation>,
    failed: u64,
}

impl<D: DataPlane> Chaos<D> {
    /// Wraps a data plane; nothing fails yet.
    pub fn new(inner: D) -> Self {
        Self { inner, faults: Faults::default(), calls: Vec::new(), failed: 0 }
    }

    /// Sets what fails from now on; calls are counted from 0 again.
    pub fn set_faults(&mut self, faults: Faults) {
        (self.faults, self.calls) = (faults, Vec::new());
    }

    /// Calls since the faults were set.
    pub fn calls(&self) -> &[Operation] {
        &self.calls
    }

    /// Calls that were made to fail, ever.
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// The data plane inside.
    pub const fn inner(&mut self) -> &mut D {
        &mut self.inner
    }

    fn call<T>(&mut self, operation: Operation, work: impl FnOnce(&mut D) -> Result<T>) -> Result<T> {
        let number = self.calls.len() as u64;
        self.calls.push(operation);
        let by_chance = splitmix64(self.faults.seed ^ number) % 1_000 < u64::from(self.faults.per_mille);
        if !(by_chance || self.faults.kinds.contains(&operation) || self.faults.calls.contains(&number)) {
            return work(&mut self.inner);
        }
        self.failed += 1;
        if self.faults.late {
            work(&mut self.inner)?;
        }
        Err(Error::Injected { operation })
    }
}

/// A well mixed number (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
const fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<D: DataPlane> DataPlane for Chaos<D> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "chaos", ..self.inner.capabilities() }
    }

    fn sizes(&self) -> Sizes {
        self.inner.sizes()
    }

    /// Late failures would break the promise that a failed change of sizes has changed nothing.
    fn resize(&mut self, sizes: &Sizes) -> Result<Migration> {
        let late = std::mem::take(&mut self.faults.late);
        let result = self.call(Operation::Resize, |inner| inner.resize(sizes));
        self.faults.late = late;
        result
    }

    fn settings(&mut self) -> Result<Settings> {
        self.call(Operation::Read, DataPlane::settings)
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<()> {
        self.call(Operation::PutSettings, |inner| inner.put_settings(settings))
    }

    fn services(&mut self) -> Result<Vec<(ServiceKey, Service)>> {
        self.call(Operation::Read, DataPlane::services)
    }

    fn put_service(&mut self, key: &ServiceKey, service: &Service) -> Result<()> {
        self.call(Operation::PutService, |inner| inner.put_service(key, service))
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<()> {
        self.call(Operation::DeleteService, |inner| inner.delete_service(key))
    }

    fn backends(&mut self) -> Result<Vec<(u16, Backend)>> {
        self.call(Operation::Read, DataPlane::backends)
    }

    fn put_backend(&mut self, slot: u16, backend: &Backend) -> Result<()> {
        self.call(Operation::PutBackend, |inner| inner.put_backend(slot, backend))
    }

    fn statuses(&mut self) -> Result<Vec<u64>> {
        self.call(Operation::Read, DataPlane::statuses)
    }

    fn put_status(&mut self, word: u32, bits: u64) -> Result<()> {
        self.call(Operation::PutStatus, |inner| inner.put_status(word, bits))
    }

    fn arena(&mut self, start: u32, count: u32) -> Result<Vec<ArenaChunk>> {
        self.call(Operation::Read, |inner| inner.arena(start, count))
    }

    fn put_arena(&mut self, start: u32, chunks: &[ArenaChunk]) -> Result<()> {
        self.call(Operation::PutArena, |inner| inner.put_arena(start, chunks))
    }

    fn affinities(&mut self) -> Result<Vec<(u16, AffinityRules)>> {
        self.call(Operation::Read, DataPlane::affinities)
    }

    fn put_affinity(&mut self, slot: u16, rules: &AffinityRules) -> Result<()> {
        self.call(Operation::PutAffinity, |inner| inner.put_affinity(slot, rules))
    }

    fn servers(&mut self, start: u32, count: u32) -> Result<Vec<Server>> {
        self.call(Operation::Read, |inner| inner.servers(start, count))
    }

    fn put_servers(&mut self, start: u32, servers: &[Server]) -> Result<()> {
        self.call(Operation::PutServers, |inner| inner.put_servers(start, servers))
    }

    fn paths(&mut self, start: u32, count: u32) -> Result<Vec<PathRule>> {
        self.call(Operation::Read, |inner| inner.paths(start, count))
    }

    fn put_paths(&mut self, start: u32, rules: &[PathRule]) -> Result<()> {
        self.call(Operation::PutPaths, |inner| inner.put_paths(start, rules))
    }

    fn quic(&mut self) -> Result<Vec<(u32, QuicConfig)>> {
        self.call(Operation::Read, DataPlane::quic)
    }

    fn put_quic(&mut self, place: u32, configuration: &QuicConfig) -> Result<()> {
        self.call(Operation::PutQuic, |inner| inner.put_quic(place, configuration))
    }

    fn secrets(&mut self) -> Result<Secrets> {
        self.call(Operation::Read, DataPlane::secrets)
    }

    fn put_secrets(&mut self, secrets: &Secrets) -> Result<()> {
        self.call(Operation::PutSecrets, |inner| inner.put_secrets(secrets))
    }

    fn peers(&mut self) -> Result<Vec<Peer>> {
        self.call(Operation::Read, DataPlane::peers)
    }

    fn put_peers(&mut self, peers: &[Peer]) -> Result<()> {
        self.call(Operation::PutPeers, |inner| inner.put_peers(peers))
    }

    fn has_mark(&mut self, mark: &FlowKey) -> Result<bool> {
        self.call(Operation::Read, |inner| inner.has_mark(mark))
    }

    fn put_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.call(Operation::PutMark, |inner| inner.put_mark(mark))
    }

    fn delete_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.call(Operation::PutMark, |inner| inner.delete_mark(mark))
    }

    fn devices(&mut self) -> Result<Vec<u32>> {
        self.call(Operation::Read, DataPlane::devices)
    }

    fn put_device(&mut self, ifindex: u32) -> Result<()> {
        self.call(Operation::PutDevice, |inner| inner.put_device(ifindex))
    }

    fn delete_device(&mut self, ifindex: u32) -> Result<()> {
        self.call(Operation::DeleteDevice, |inner| inner.delete_device(ifindex))
    }

    fn attachments(&mut self) -> Result<Vec<Attachment>> {
        self.call(Operation::Read, DataPlane::attachments)
    }

    fn attach(&mut self, interface: &str) -> Result<Attachment> {
        self.call(Operation::Attach, |inner| inner.attach(interface))
    }

    fn detach(&mut self, interface: &str) -> Result<()> {
        self.call(Operation::Detach, |inner| inner.detach(interface))
    }

    fn detach_all(&mut self) -> Result<()> {
        self.call(Operation::Detach, DataPlane::detach_all)
    }

    fn bindings(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<(BindingKey, Binding)>> {
        self.call(Operation::Read, |inner| inner.bindings(cursor, limit))
    }

    fn binding(&mut self, key: &BindingKey) -> Result<Option<Binding>> {
        self.call(Operation::Read, |inner| inner.binding(key))
    }

    fn apply_bindings(&mut self, records: &[BindingRecord]) -> Result<Vec<RecordResult>> {
        self.call(Operation::ApplyBindings, |inner| inner.apply_bindings(records))
    }

    fn flows(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<Flow>> {
        self.call(Operation::Read, |inner| inner.flows(cursor, limit))
    }

    fn adopt(&mut self, flows: &[Flow]) -> Result<Vec<RecordResult>> {
        self.call(Operation::Adopt, |inner| inner.adopt(flows))
    }

    fn counters(&mut self, services: &[u16], backends: &[u16]) -> Result<Traffic> {
        self.call(Operation::Read, |inner| inner.counters(services, backends))
    }

    fn vitals(&mut self, backends: &[u16]) -> Result<Vec<Vitals>> {
        self.call(Operation::Read, |inner| inner.vitals(backends))
    }

    fn clear_counters(&mut self, slot: CounterSlot) -> Result<()> {
        self.call(Operation::ClearCounters, |inner| inner.clear_counters(slot))
    }

    fn outcomes(&mut self) -> Result<Vec<u64>> {
        self.call(Operation::Read, DataPlane::outcomes)
    }

    fn usage(&mut self) -> Result<Usage> {
        self.call(Operation::Read, DataPlane::usage)
    }

    fn rebind(&mut self, request: &RebindRequest) -> Result<RebindReport> {
        self.call(Operation::Rebind, |inner| inner.rebind(request))
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        self.call(Operation::Sweep, |inner| inner.sweep(request))
    }

    fn events(&mut self, limit: usize) -> Result<Vec<BindingEvent>> {
        self.call(Operation::Events, |inner| inner.events(limit))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }
}
