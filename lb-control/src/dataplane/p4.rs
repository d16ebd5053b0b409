//! A switch with a P4 program, driven over P4Runtime: the same tables, in the switch's own form.
//!
//! The reconciler's writes go into an [image](super::memory) of the tables; what the switch should have is computed from that,
//! and [`link`] makes it so. No write waits for the switch: while it is away, packets go on by what it has, and when it comes
//! back it gets the difference.

mod client;
mod link;
mod numbers;
mod offloads;
mod ports;
mod program;
pub mod proto;
mod row;
mod stamps;
#[cfg(test)]
mod tests;
mod traffic;
mod wanted;

pub use link::Standing;
pub(crate) use ports::parse_mac;
pub use ports::{Route, SwitchSpec};
pub use program::Program;
pub use row::{Content, Key, Table};

use super::memory::Memory;
use super::{
    AttachMode, Attachment, Capabilities, CounterSlot, Cursor, DataPlane, Error, Migration, Offloaded, Page,
    Result, Sizes, Traffic, Usage, clock::monotonic_ns,
};
use lb_common::abi::{
    Addr, AffinityRules, ArenaChunk, Backend, Binding, BindingEvent, BindingKey, BindingRecord, BindingWord,
    Flow, FlowKey, Mode, Outcome, PathRule, QuicConfig, RebindReport, RebindRequest, RecordResult, Secrets,
    Server, Service, ServiceKey, Settings, SweepReport, SweepRequest, SweepTarget, Vitals, switch,
};
use lb_core::mirror::Express;
use link::{Link, News, Peer, Told};
use numbers::{Numbers, Tag};
use offloads::{Offloads, Ways};
use ports::Ports;
use row::Key as Entry;
use stamps::Stamps;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// Most bindings of the program's table.
const MOST_BINDINGS: u32 = lb_common::abi::DEFAULT_BINDINGS;
/// The only protocol of connections that it goes on with.
const TCP: u8 = lb_core::pool::Protocol::Tcp.number();
/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(5);

/// A switch.
pub struct P4 {
    image: Memory,
    ports: Ports,
    routes: Vec<Route>,
    link: Link,
    attached: BTreeMap<String, Attachment>,
    /// What the switch calls services and backends.
    numbers: Numbers,
    /// Numbers of backends in timestamps.
    stamps: Stamps,
    /// The image was changed since the switch's entries were computed from it.
    is_dirty: bool,
    /// A configuration was applied: until then the switch keeps what it has.
    is_armed: bool,
    /// What counters of a slot said when the slot got its present owner.
    bases: HashMap<(&'static str, u16), (u64, u64)>,
    /// Slots whose next reading is their base.
    cleared: HashSet<(bool, u16)>,
    /// What counters said last, for when the switch is away.
    last: HashMap<(&'static str, u16), (u64, u64)>,
    /// Bindings made, by service slot.
    made: HashMap<u16, u64>,
    /// Connections that it goes on with by itself; `None` = it is not to.
    offloads: Option<Offloads>,
}

impl P4 {
    /// Begins to look after a switch.
    pub fn open(spec: &SwitchSpec, sizes: Sizes) -> Result<Self> {
        let ports = Ports::open(spec)?;
        for route in &spec.routes {
            route.values(&ports)?;
        }
        let program = Program::bmv2().map_err(|source| Error::Program { source: Box::new(source) })?;
        let peer = Peer { address: spec.address.clone(), device: spec.device, election: spec.election };
        let link = Link::start(peer, Arc::new(program), sizes.bindings.min(MOST_BINDINGS));
        let link = link.map_err(|source| Error::Switch { address: spec.address.clone(), source })?;
        Ok(Self {
            image: Memory::new(sizes),
            ports,
            routes: spec.routes.clone(),
            link,
            attached: BTreeMap::new(),
            numbers: Numbers::default(),
            stamps: Stamps::new(Box::new(|_| None)),
            is_dirty: false,
            is_armed: false,
            bases: HashMap::new(),
            cleared: HashSet::new(),
            last: HashMap::new(),
            made: HashMap::new(),
            offloads: spec.offload.then(Offloads::new),
        })
    }

    /// The same, told by this how many milliseconds the TCP clock of the backend at an address is ahead of the wall clock.
    pub fn telling_time(mut self, ahead: impl Fn(SocketAddr) -> Option<u32> + Send + 'static) -> Self {
        self.stamps = Stamps::new(Box::new(ahead));
        self
    }

    /// How it stands with the switch.
    pub fn standing(&self) -> Standing {
        self.link.standing()
    }

    fn service(&mut self, id: u32) -> Result<Option<Service>> {
        let services = self.image.services()?;
        Ok(services
            .into_iter()
            .find(|(key, row)| key.kind == ServiceKey::BY_PORT && row.id == id)
            .map(|(_, row)| row))
    }

    /// Computes the switch's entries anew.
    fn tell(&mut self) -> Result<()> {
        let all = self.image.services()?;
        let backends: Vec<(u16, Backend)> =
            self.image.backends()?.into_iter().filter(|(_, row)| row.address != Addr::NONE).collect();
        self.stamps.survey(&all, &backends);
        let services = all.into_iter().filter(|(key, _)| key.kind == ServiceKey::BY_PORT);
        let services: Vec<Service> = services.map(|(_, service)| service).collect();
        let numbers = Numbers::of(
            services.iter().map(|service| (service.slot, service.id)),
            backends.iter().map(|(slot, row)| (*slot, (row.service, row.number))),
        );
        let before = std::mem::replace(&mut self.numbers, numbers);
        let rows = wanted::rows(&mut self.image, &self.ports, &self.routes, &self.numbers, &mut self.stamps)?;
        let lifetimes = services.iter().map(|service| (service.id, service.lifetime)).collect();
        let owners = backends.iter().filter_map(|(slot, row)| {
            let tag = self.numbers.backend(*slot)?;
            Some((tag, wanted::number(row.address)))
        });
        self.link.want(rows, lifetimes, owners.collect());
        if self.numbers.has_moved(&before) {
            for service in &services {
                for session in self.image.words_of(service.id).into_keys() {
                    self.tell_session(&BindingKey::new(service.id, session))?;
                }
            }
        }
        Ok(())
    }

    /// Makes the switch's entry of a session what the image says.
    fn tell_session(&mut self, key: &BindingKey) -> Result<()> {
        let entry = Entry::exact(Table::Bindings, [u128::from(key.service), u128::from(key.session)]);
        let word = self.image.binding(key)?.map(|binding| BindingWord(binding.word));
        let tag = word.and_then(|word| self.tag(word.backend(), word.slot_generation()));
        let content = match (tag, self.service(key.service)?) {
            (Some(tag), Some(service)) => Some(wanted::binding(&service, tag)),
            (None, _) | (_, None) => None,
        };
        self.link.want_session(entry, content);
        Ok(())
    }

    /// What the switch calls a backend, unless its slot is another's by now.
    fn tag(&self, slot: u16, generation: u16) -> Option<Tag> {
        let row = self.image.backend(slot).filter(|row| row.generation == generation)?;
        if row.address == Addr::NONE { None } else { self.numbers.backend(slot) }
    }

    /// Takes over the marks that the switch was found with, and tells it the time.
    fn follow_clocks(&mut self) {
        if let Some(found) = self.link.marks() {
            let (numbers, image) = (&self.numbers, &self.image);
            let owner = |tag| {
                let row = image.backend(numbers.owner(tag)?)?;
                Some((row.service, row.number))
            };
            self.stamps.adopt(found, owner);
            self.is_dirty = true;
        }
        self.is_dirty |= self.stamps.have_changed();
        if let Some((key, content)) = self.stamps.tick() {
            self.link.want_row(key, content);
        }
    }

    /// Takes in what the switch told.
    fn take(&mut self, limit: usize) -> Result<()> {
        for news in self.link.news(limit) {
            match news {
                News::Bound(told) | News::Found(told) => self.bound(told)?,
                News::Idle { service, session } => {
                    self.image.forget(&BindingKey::new(service, session));
                }
            }
        }
        Ok(())
    }

    fn bound(&mut self, told: Told) -> Result<()> {
        let key = BindingKey::new(told.service, told.session);
        let owner = self.numbers.owner(told.backend);
        let owner = owner.and_then(|slot| self.image.backend(slot).map(|row| (slot, row.generation)));
        let (Some(service), Some((slot, generation))) = (self.service(told.service)?, owner) else {
            return self.tell_session(&key);
        };
        if self.image.binding(&key)?.is_none() {
            let word = BindingWord::new(slot, generation, 0);
            self.image.bind(key, word, monotonic_ns().saturating_add(service.lifetime));
            *self.made.entry(service.slot).or_default() += 1;
        }
        Ok(())
    }
}

impl DataPlane for P4 {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "p4", survives: true, bindings: true, flows: false }
    }

    fn sizes(&self) -> Sizes {
        self.image.sizes()
    }

    fn resize(&mut self, sizes: &Sizes) -> Result<Migration> {
        self.is_dirty = true;
        self.image.resize(sizes)
    }

    fn settings(&mut self) -> Result<Settings> {
        self.image.settings()
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<()> {
        self.is_dirty = true;
        self.image.put_settings(settings)
    }

    fn services(&mut self) -> Result<Vec<(ServiceKey, Service)>> {
        self.image.services()
    }

    fn put_service(&mut self, key: &ServiceKey, service: &Service) -> Result<()> {
        let rules = self.image.affinities()?.into_iter().find(|(slot, _)| *slot == service.slot);
        wanted::examine(key, service, &rules.map(|(_, rules)| rules).unwrap_or_default())?;
        (self.is_dirty, self.is_armed) = (true, true);
        self.image.put_service(key, service)
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<()> {
        self.is_dirty = true;
        self.image.delete_service(key)
    }

    fn backends(&mut self) -> Result<Vec<(u16, Backend)>> {
        self.image.backends()
    }

    fn put_backend(&mut self, slot: u16, backend: &Backend) -> Result<()> {
        self.is_dirty = true;
        self.image.put_backend(slot, backend)
    }

    fn statuses(&mut self) -> Result<Vec<u64>> {
        self.image.statuses()
    }

    fn put_status(&mut self, word: u32, bits: u64) -> Result<()> {
        self.is_dirty = true;
        self.image.put_status(word, bits)
    }

    fn arena(&mut self, start: u32, count: u32) -> Result<Vec<ArenaChunk>> {
        self.image.arena(start, count)
    }

    fn put_arena(&mut self, start: u32, chunks: &[ArenaChunk]) -> Result<()> {
        self.is_dirty = true;
        self.image.put_arena(start, chunks)
    }

    fn affinities(&mut self) -> Result<Vec<(u16, AffinityRules)>> {
        self.image.affinities()
    }

    fn put_affinity(&mut self, slot: u16, rules: &AffinityRules) -> Result<()> {
        self.is_dirty = true;
        self.image.put_affinity(slot, rules)
    }

    fn servers(&mut self, start: u32, count: u32) -> Result<Vec<Server>> {
        self.image.servers(start, count)
    }

    fn put_servers(&mut self, start: u32, servers: &[Server]) -> Result<()> {
        self.is_dirty = true;
        self.image.put_servers(start, servers)
    }

    fn paths(&mut self, start: u32, count: u32) -> Result<Vec<PathRule>> {
        self.image.paths(start, count)
    }

    fn put_paths(&mut self, start: u32, rules: &[PathRule]) -> Result<()> {
        self.image.put_paths(start, rules)
    }

    fn quic(&mut self) -> Result<Vec<(u32, QuicConfig)>> {
        self.image.quic()
    }

    fn put_quic(&mut self, place: u32, configuration: &QuicConfig) -> Result<()> {
        if configuration.valid != 0 && (configuration.encrypted != 0 || configuration.server_id_len > 8) {
            return Err(Error::UnreadableIds { server_id: configuration.server_id_len });
        }
        self.is_dirty = true;
        self.image.put_quic(place, configuration)
    }

    fn secrets(&mut self) -> Result<Secrets> {
        self.image.secrets()
    }

    fn put_secrets(&mut self, secrets: &Secrets) -> Result<()> {
        self.image.put_secrets(secrets)
    }

    fn peers(&mut self) -> Result<Vec<lb_common::abi::Peer>> {
        self.image.peers()
    }

    fn put_peers(&mut self, peers: &[lb_common::abi::Peer]) -> Result<()> {
        self.image.put_peers(peers)
    }

    fn has_mark(&mut self, mark: &FlowKey) -> Result<bool> {
        self.image.has_mark(mark)
    }

    fn put_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.image.put_mark(mark)
    }

    fn delete_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.image.delete_mark(mark)
    }

    fn devices(&mut self) -> Result<Vec<u32>> {
        self.image.devices()
    }

    fn put_device(&mut self, ifindex: u32) -> Result<()> {
        self.image.put_device(ifindex)
    }

    fn delete_device(&mut self, ifindex: u32) -> Result<()> {
        self.image.delete_device(ifindex)
    }

    fn attachments(&mut self) -> Result<Vec<Attachment>> {
        Ok(self.attached.values().cloned().collect())
    }

    fn attach(&mut self, interface: &str) -> Result<Attachment> {
        let port = self.ports.port(interface)?;
        let attachment = Attachment {
            interface: interface.to_owned(),
            ifindex: port.ifindex,
            mode: AttachMode::Native,
            mtu: port.mtu,
        };
        self.attached.insert(interface.to_owned(), attachment.clone());
        (self.is_dirty, self.is_armed) = (true, true);
        self.image.put_device(attachment.ifindex)?;
        Ok(attachment)
    }

    fn detach(&mut self, interface: &str) -> Result<()> {
        self.attached.remove(interface);
        Ok(())
    }

    fn detach_all(&mut self) -> Result<()> {
        self.image.detach_all()?;
        self.attached.clear();
        self.link.leave();
        let begun = Instant::now();
        while matches!(self.link.standing(), Standing::Behind) && begun.elapsed() < LEAVING {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn bindings(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<(BindingKey, Binding)>> {
        self.image.bindings(cursor, limit)
    }

    fn binding(&mut self, key: &BindingKey) -> Result<Option<Binding>> {
        self.image.binding(key)
    }

    fn apply_bindings(&mut self, records: &[BindingRecord]) -> Result<Vec<RecordResult>> {
        let results = self.image.apply_bindings(records)?;
        for (record, result) in records.iter().zip(&results) {
            let is_entry = record.op != lb_common::abi::BindingOp::Acknowledge as u8;
            if *result == RecordResult::Applied && is_entry {
                self.tell_session(&BindingKey::new(record.service, record.session))?;
            }
        }
        Ok(results)
    }

    fn flows(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<Flow>> {
        self.image.flows(cursor, limit)
    }

    fn adopt(&mut self, flows: &[Flow]) -> Result<Vec<RecordResult>> {
        self.image.adopt(flows)
    }

    fn offload(&mut self, all: &[Express]) -> Result<()> {
        let Some(offloads) = &mut self.offloads else { return Ok(()) };
        // Before there is a configuration no service is known.
        if !self.link.has_wants() {
            return Ok(());
        }
        let services = self.image.services()?.into_iter().filter(|(key, service)| {
            key.kind == ServiceKey::BY_PORT && key.protocol == TCP && service.mode == Mode::L2 as u8
        });
        let services: HashMap<(Addr, u16), u16> =
            services.map(|(key, service)| ((key.address, key.port.host()), service.slot)).collect();
        let ways = |express: &Express| {
            let (address, port) = express.service;
            let at = |port| services.get(&(address.into(), port)).copied();
            let service = at(port).or_else(|| at(0))?;
            Some(Ways {
                service,
                number: self.numbers.service(service)?,
                client: offloads::way(&self.routes, &self.ports, express.client.0, true)?,
                backend: offloads::way(&self.routes, &self.ports, express.backend.0, false)?,
            })
        };
        let changes = offloads.follow(all, ways);
        self.link.want_offloads(changes);
        Ok(())
    }

    fn offloaded(&mut self, service: u16) -> Result<Option<Offloaded>> {
        let (packets, bytes) = self.number(switch::EXPRESS, service);
        Ok(self.offloads.as_ref().map(|all| Offloaded { connections: all.of(service), packets, bytes }))
    }

    fn counters(&mut self, services: &[u16], backends: &[u16]) -> Result<Traffic> {
        Ok(Traffic { services: self.traffic(true, services), backends: self.traffic(false, backends) })
    }

    fn vitals(&mut self, backends: &[u16]) -> Result<Vec<Vitals>> {
        self.image.vitals(backends)
    }

    fn clear_counters(&mut self, slot: CounterSlot) -> Result<()> {
        self.cleared.insert(match slot {
            CounterSlot::Service(slot) => {
                self.made.remove(&slot);
                (true, slot)
            }
            CounterSlot::Backend(slot) => (false, slot),
        });
        Ok(())
    }

    fn outcomes(&mut self) -> Result<Vec<u64>> {
        let mut outcomes = vec![0; Outcome::COUNT as usize];
        for (place, packets, _) in self.link.counters(lb_common::abi::map::OUTCOMES, None) {
            if let Some(outcome) = outcomes.get_mut(place as usize) {
                *outcome = packets;
            }
        }
        Ok(outcomes)
    }

    fn usage(&mut self) -> Result<Usage> {
        Ok(Usage { bindings: self.link.bindings() as u64, holds: 0 })
    }

    fn rebind(&mut self, request: &RebindRequest) -> Result<RebindReport> {
        let before = self.image.words_of(request.service);
        let report = self.image.rebind(request)?;
        for (session, word) in self.image.words_of(request.service) {
            if before.get(&session) != Some(&word) {
                self.tell_session(&BindingKey::new(request.service, session))?;
            }
        }
        Ok(report)
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        // Who is idle the switch knows; until it says so a binding lives.
        if request.target == SweepTarget::Bindings as u32 && request.start == 0 {
            let lifetimes: HashMap<u32, u64> = self
                .image
                .services()?
                .into_iter()
                .map(|(_, service)| (service.id, service.lifetime))
                .collect();
            self.image
                .prolong(monotonic_ns(), |service| lifetimes.get(&service).copied().unwrap_or_default());
        }
        let live = u32::try_from(self.link.bindings()).unwrap_or(u32::MAX);
        Ok(SweepReport { reclaimed: 0, live, unsynced: 0, pad: 0 })
    }

    fn events(&mut self, limit: usize) -> Result<Vec<BindingEvent>> {
        self.follow_clocks();
        if self.is_armed
            && std::mem::take(&mut self.is_dirty)
            && let Err(error) = self.tell()
        {
            warn!("the switch keeps what it has: {error}");
        }
        self.take(limit)?;
        self.image.events(limit)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
