//! A data plane that is a model: the same tables in memory, no packets.
//!
//! Tests compare what the reconciler wrote with what it should have written, and [`super::p4`] keeps in it what a switch should do.

mod pool;

use super::{
    AttachMode, Attachment, Capabilities, CounterSlot, Cursor, DataPlane, Error, Migration, Operation, Page,
    Result, Sizes, Traffic, Usage, clock::monotonic_ns,
};
use lb_common::abi::{
    AffinityRules, ArenaChunk, Backend, Binding, BindingEvent, BindingEventKind, BindingKey, BindingOp,
    BindingRecord, BindingWord, Counters, Flow, FlowKey, MAX_BACKENDS, MAX_PEERS, MAX_SERVICES, Outcome,
    PATH_ENTRIES, PathRule, Peer, QUIC_ENTRIES, QuicConfig, RebindReport, RebindRequest, RebindWhom,
    RecordResult, SCHEMA_VERSION, SERVER_ENTRIES, STATUS_PER_WORD, Secrets, Server, Service, ServiceKey,
    Settings, SettingsFlags, Status, SweepReport, SweepRequest, SweepTarget, Vitals, map, place,
};
use lb_common::select::{self, Table as _};
use pool::Pool;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    os::fd::BorrowedFd,
};

/// Tables in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    sizes: Sizes,
    settings: Settings,
    services: HashMap<ServiceKey, Service>,
    backends: BTreeMap<u16, Backend>,
    statuses: Vec<u64>,
    arena: Vec<ArenaChunk>,
    affinities: BTreeMap<u16, AffinityRules>,
    servers: Vec<Server>,
    paths: Vec<PathRule>,
    quic: BTreeMap<u32, QuicConfig>,
    peers: Vec<Peer>,
    secrets: Secrets,
    marks: HashSet<FlowKey>,
    devices: BTreeSet<u32>,
    attached: BTreeMap<String, u32>,
    bindings: BTreeMap<(u32, u64), Binding>,
    events: Vec<BindingEvent>,
}

impl Memory {
    /// Empty tables.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            settings: Settings { schema: SCHEMA_VERSION, ..Settings::default() },
            services: HashMap::new(),
            backends: BTreeMap::new(),
            statuses: vec![0; (MAX_BACKENDS / STATUS_PER_WORD) as usize],
            arena: vec![ArenaChunk([0; lb_common::abi::ARENA_CHUNK]); sizes.arena as usize],
            affinities: BTreeMap::new(),
            servers: vec![Server::default(); SERVER_ENTRIES as usize],
            paths: vec![PathRule::default(); PATH_ENTRIES as usize],
            quic: BTreeMap::new(),
            peers: Vec::new(),
            secrets: Secrets::default(),
            marks: HashSet::new(),
            devices: BTreeSet::new(),
            attached: BTreeMap::new(),
            bindings: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Makes a binding as a packet would, with its event.
    pub fn bind(&mut self, key: BindingKey, word: BindingWord, expires: u64) {
        let word = word.with(BindingWord::UNSYNCED).0;
        let binding = Binding { word, expires, ..Binding::default() };
        self.bindings.insert((key.service, key.session), binding);
        let kind = BindingEventKind::Made as u32;
        self.events.push(BindingEvent { session: key.session, service: key.service, kind, word, expires });
    }

    /// How many backends' addresses are marked.
    pub fn mark_count(&self) -> usize {
        self.marks.len()
    }

    /// Whose a backend slot is.
    pub(super) fn backend(&self, slot: u16) -> Option<Backend> {
        self.backends.get(&slot).copied()
    }

    /// Takes a binding away.
    pub(super) fn forget(&mut self, key: &BindingKey) {
        self.bindings.remove(&(key.service, key.session));
    }

    /// Words of a service's bindings, by session key.
    pub(super) fn words_of(&self, service: u32) -> HashMap<u64, u64> {
        let of_service = self.bindings.range((service, 0)..=(service, u64::MAX));
        of_service.map(|(&(_, session), binding)| (session, binding.word)).collect()
    }

    /// Gives each binding that would be over another lifetime.
    pub(super) fn prolong(&mut self, now: u64, lifetime: impl Fn(u32) -> u64) {
        for (&(service, _), binding) in &mut self.bindings {
            if binding.expires <= now {
                binding.expires = now.saturating_add(lifetime(service));
            }
        }
    }

    fn apply(&mut self, record: &BindingRecord, now: u64) -> RecordResult {
        let place = (record.service, record.session);
        let new = BindingWord(record.word);
        let found = self.bindings.get(&place).filter(|binding| binding.expires > now).copied();
        let old = found.map(|binding| BindingWord(binding.word));
        let is_newer = |than: BindingWord| {
            let ahead = new.generation().wrapping_sub(than.generation()) & BindingWord::GENERATION_MASK;
            ahead != 0 && ahead <= BindingWord::GENERATION_MASK / 2
        };
        match (operation(record.op), old) {
            (None, _) => RecordResult::Invalid,
            (Some(BindingOp::Put), Some(old)) if !is_newer(old) => RecordResult::Superseded,
            (Some(BindingOp::Copy), Some(_)) => RecordResult::Superseded,
            (Some(BindingOp::Put | BindingOp::Copy), old) => {
                if old.is_none() && self.bindings.len() >= self.sizes.bindings as usize {
                    return RecordResult::Full;
                }
                let expires = now.saturating_add(record.lifetime);
                let home = match record.op {
                    op if op == BindingOp::Copy as u8 => record.home,
                    _ => home(found, new),
                };
                self.bindings.insert(place, Binding { word: record.word, expires, home, pad: [0; 6] });
                RecordResult::Applied
            }
            (Some(BindingOp::Settle | BindingOp::Clear), Some(old)) if old.has(BindingWord::UNSYNCED) => {
                RecordResult::Superseded
            }
            (Some(BindingOp::Settle), old) => {
                if old.is_none() && self.bindings.len() >= self.sizes.bindings as usize {
                    return RecordResult::Full;
                }
                let expires = now.saturating_add(record.lifetime);
                let expires = found.map_or(expires, |found| found.expires.max(expires));
                let word = new.without(BindingWord::UNSYNCED).0;
                let home = home(found, new);
                self.bindings.insert(place, Binding { word, expires, home, pad: [0; 6] });
                RecordResult::Applied
            }
            (Some(BindingOp::Clear), Some(_)) => {
                self.bindings.remove(&place);
                RecordResult::Applied
            }
            (Some(BindingOp::Delete | BindingOp::Acknowledge | BindingOp::Clear), None) => {
                RecordResult::Absent
            }
            (Some(BindingOp::Delete), Some(old)) => {
                let ahead = old.generation().wrapping_sub(new.generation()) & BindingWord::GENERATION_MASK;
                if ahead != 0 && ahead <= BindingWord::GENERATION_MASK / 2 {
                    return RecordResult::Superseded;
                }
                self.bindings.remove(&place);
                RecordResult::Applied
            }
            (Some(BindingOp::Acknowledge), Some(old)) => {
                if old != new {
                    return RecordResult::Superseded;
                }
                if let Some(binding) = self.bindings.get_mut(&place) {
                    binding.word = old.without(BindingWord::UNSYNCED).0;
                }
                RecordResult::Applied
            }
        }
    }
}

/// Where a session was before it had to move, with a new word.
fn home(found: Option<Binding>, new: BindingWord) -> u16 {
    let Some(old) = found.filter(|_| !new.has(BindingWord::PINNED)) else { return 0 };
    match (old.home, BindingWord(old.word).place()) {
        (0, place) if place != new.place() => place,
        (home, _) => home,
    }
}

const fn operation(op: u8) -> Option<BindingOp> {
    const PUT: u8 = BindingOp::Put as u8;
    const DELETE: u8 = BindingOp::Delete as u8;
    const ACKNOWLEDGE: u8 = BindingOp::Acknowledge as u8;
    const COPY: u8 = BindingOp::Copy as u8;
    const SETTLE: u8 = BindingOp::Settle as u8;
    const CLEAR: u8 = BindingOp::Clear as u8;
    match op {
        PUT => Some(BindingOp::Put),
        DELETE => Some(BindingOp::Delete),
        ACKNOWLEDGE => Some(BindingOp::Acknowledge),
        COPY => Some(BindingOp::Copy),
        SETTLE => Some(BindingOp::Settle),
        CLEAR => Some(BindingOp::Clear),
        _ => None,
    }
}

/// MTU of every interface of this model.
const MTU: u32 = 1_500;

/// Index of an interface of this model: from its name, above 0.
fn ifindex(interface: &str) -> u32 {
    1 + interface.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10_000
}

/// A part of an array, if it is inside.
fn stretch<T>(array: &[T], start: u32, count: u32) -> Option<&[T]> {
    array.get(start as usize..start as usize + count as usize)
}

fn out_of_range(operation: Operation, table: &'static str, entry: u32) -> Error {
    Error::Table { operation, table, entry: entry.to_string(), source: io::ErrorKind::InvalidInput.into() }
}

impl DataPlane for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "memory", survives: false, bindings: true, flows: false }
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn resize(&mut self, sizes: &Sizes) -> Result<Migration> {
        self.sizes = *sizes;
        self.arena.resize(sizes.arena as usize, ArenaChunk([0; lb_common::abi::ARENA_CHUNK]));
        let before = self.bindings.len();
        while self.bindings.len() > sizes.bindings as usize {
            self.bindings.pop_last();
        }
        let settings = self.settings;
        self.put_settings(&settings)?;
        let bindings = self.bindings.len() as u64;
        Ok(Migration { bindings, bindings_left_out: before as u64 - bindings, ..Migration::default() })
    }

    fn settings(&mut self) -> Result<Settings> {
        Ok(self.settings)
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<()> {
        const OWN: u32 = SettingsFlags::TX_BY_REDIRECT | SettingsFlags::MIGRATING;
        self.settings = Settings {
            schema: SCHEMA_VERSION,
            flags: settings.flags & !OWN,
            binding_capacity: self.sizes.bindings,
            binding_buckets: self.sizes.binding_buckets(),
            half_open: self.sizes.half_open(),
            flows: self.sizes.flows,
            holds: self.sizes.holds + 1,
            cpu_holds: 1,
            ..*settings
        };
        Ok(())
    }

    fn services(&mut self) -> Result<Vec<(ServiceKey, Service)>> {
        Ok(self.services.iter().map(|(key, service)| (*key, *service)).collect())
    }

    fn put_service(&mut self, key: &ServiceKey, service: &Service) -> Result<()> {
        self.services.insert(*key, *service);
        Ok(())
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<()> {
        self.services.remove(key);
        Ok(())
    }

    fn backends(&mut self) -> Result<Vec<(u16, Backend)>> {
        let used = self.backends.iter().filter(|(_, backend)| **backend != Backend::default());
        Ok(used.map(|(slot, backend)| (*slot, *backend)).collect())
    }

    fn put_backend(&mut self, slot: u16, backend: &Backend) -> Result<()> {
        self.backends.insert(slot, *backend);
        Ok(())
    }

    fn statuses(&mut self) -> Result<Vec<u64>> {
        Ok(self.statuses.clone())
    }

    fn put_status(&mut self, word: u32, bits: u64) -> Result<()> {
        let place = self.statuses.get_mut(word as usize);
        *place.ok_or_else(|| out_of_range(Operation::PutStatus, map::STATUS, word))? = bits;
        Ok(())
    }

    fn arena(&mut self, start: u32, count: u32) -> Result<Vec<ArenaChunk>> {
        let end = start.saturating_add(count) as usize;
        let chunks = self.arena.get(start as usize..end).map(<[ArenaChunk]>::to_vec);
        chunks.ok_or_else(|| out_of_range(Operation::Read, map::ARENA, start))
    }

    fn put_arena(&mut self, start: u32, chunks: &[ArenaChunk]) -> Result<()> {
        let end = start as usize + chunks.len();
        let places = self.arena.get_mut(start as usize..end);
        places.ok_or_else(|| out_of_range(Operation::PutArena, map::ARENA, start))?.copy_from_slice(chunks);
        Ok(())
    }

    fn affinities(&mut self) -> Result<Vec<(u16, AffinityRules)>> {
        Ok(self.affinities.iter().map(|(slot, rules)| (*slot, *rules)).collect())
    }

    fn put_affinity(&mut self, slot: u16, rules: &AffinityRules) -> Result<()> {
        if u32::from(slot) >= MAX_SERVICES {
            return Err(out_of_range(Operation::PutAffinity, map::AFFINITIES, slot.into()));
        }
        if *rules == AffinityRules::default() {
            self.affinities.remove(&slot);
        } else {
            self.affinities.insert(slot, *rules);
        }
        Ok(())
    }

    fn servers(&mut self, start: u32, count: u32) -> Result<Vec<Server>> {
        let part = stretch(&self.servers, start, count);
        part.map(<[_]>::to_vec).ok_or_else(|| out_of_range(Operation::Read, map::SERVERS, start))
    }

    fn put_servers(&mut self, start: u32, servers: &[Server]) -> Result<()> {
        let place = self.servers.get_mut(start as usize..start as usize + servers.len());
        place
            .ok_or_else(|| out_of_range(Operation::PutServers, map::SERVERS, start))?
            .copy_from_slice(servers);
        Ok(())
    }

    fn paths(&mut self, start: u32, count: u32) -> Result<Vec<PathRule>> {
        let part = stretch(&self.paths, start, count);
        part.map(<[_]>::to_vec).ok_or_else(|| out_of_range(Operation::Read, map::PATHS, start))
    }

    fn put_paths(&mut self, start: u32, rules: &[PathRule]) -> Result<()> {
        let place = self.paths.get_mut(start as usize..start as usize + rules.len());
        place.ok_or_else(|| out_of_range(Operation::PutPaths, map::PATHS, start))?.copy_from_slice(rules);
        Ok(())
    }

    fn quic(&mut self) -> Result<Vec<(u32, QuicConfig)>> {
        Ok(self.quic.iter().map(|(place, configuration)| (*place, *configuration)).collect())
    }

    fn put_quic(&mut self, place: u32, configuration: &QuicConfig) -> Result<()> {
        if place >= QUIC_ENTRIES {
            return Err(out_of_range(Operation::PutQuic, map::QUIC, place));
        }
        if *configuration == QuicConfig::default() {
            self.quic.remove(&place);
        } else {
            self.quic.insert(place, *configuration);
        }
        Ok(())
    }

    fn secrets(&mut self) -> Result<Secrets> {
        Ok(self.secrets)
    }

    fn put_secrets(&mut self, secrets: &Secrets) -> Result<()> {
        self.secrets = *secrets;
        Ok(())
    }

    fn peers(&mut self) -> Result<Vec<Peer>> {
        Ok(self.peers.clone())
    }

    fn put_peers(&mut self, peers: &[Peer]) -> Result<()> {
        if peers.len() > MAX_PEERS as usize {
            return Err(out_of_range(Operation::PutPeers, map::PEERS, MAX_PEERS));
        }
        self.peers = peers.to_vec();
        Ok(())
    }

    fn has_mark(&mut self, mark: &FlowKey) -> Result<bool> {
        Ok(self.marks.contains(mark))
    }

    fn put_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.marks.insert(*mark);
        Ok(())
    }

    fn delete_mark(&mut self, mark: &FlowKey) -> Result<()> {
        self.marks.remove(mark);
        Ok(())
    }

    fn devices(&mut self) -> Result<Vec<u32>> {
        Ok(self.devices.iter().copied().collect())
    }

    fn put_device(&mut self, ifindex: u32) -> Result<()> {
        self.devices.insert(ifindex);
        Ok(())
    }

    fn delete_device(&mut self, ifindex: u32) -> Result<()> {
        self.devices.remove(&ifindex);
        Ok(())
    }

    fn attachments(&mut self) -> Result<Vec<Attachment>> {
        let attached = self.attached.iter().map(|(interface, &ifindex)| Attachment {
            interface: interface.clone(),
            ifindex,
            mode: AttachMode::Native,
            mtu: MTU,
        });
        Ok(attached.collect())
    }

    fn attach(&mut self, interface: &str) -> Result<Attachment> {
        let ifindex = ifindex(interface);
        self.attached.insert(interface.to_owned(), ifindex);
        self.devices.insert(ifindex);
        Ok(Attachment { interface: interface.to_owned(), ifindex, mode: AttachMode::Native, mtu: MTU })
    }

    fn detach(&mut self, interface: &str) -> Result<()> {
        self.attached.remove(interface);
        Ok(())
    }

    fn detach_all(&mut self) -> Result<()> {
        *self = Self::new(self.sizes);
        Ok(())
    }

    fn bindings(&mut self, cursor: Option<Cursor>, limit: usize) -> Result<Page<(BindingKey, Binding)>> {
        let skipped = cursor.map_or(0, |cursor| cursor.0 as usize);
        let rows = self.bindings.iter().skip(skipped).take(limit);
        let rows: Vec<_> = rows
            .map(|(&(service, session), binding)| (BindingKey::new(service, session), *binding))
            .collect();
        let end = skipped + rows.len();
        let next = (end < self.bindings.len()).then_some(Cursor(end as u32));
        Ok(Page { rows, next })
    }

    fn binding(&mut self, key: &BindingKey) -> Result<Option<Binding>> {
        Ok(self.bindings.get(&(key.service, key.session)).copied())
    }

    fn apply_bindings(&mut self, records: &[BindingRecord]) -> Result<Vec<RecordResult>> {
        let now = monotonic_ns();
        Ok(records.iter().map(|record| self.apply(record, now)).collect())
    }

    fn flows(&mut self, _cursor: Option<Cursor>, _limit: usize) -> Result<Page<Flow>> {
        Ok(Page { rows: Vec::new(), next: None })
    }

    fn adopt(&mut self, flows: &[Flow]) -> Result<Vec<RecordResult>> {
        Ok(vec![RecordResult::Full; flows.len()])
    }

    fn counters(&mut self, services: &[u16], backends: &[u16]) -> Result<Traffic> {
        Ok(Traffic {
            services: vec![Counters::default(); services.len()],
            backends: vec![Counters::default(); backends.len()],
        })
    }

    fn vitals(&mut self, backends: &[u16]) -> Result<Vec<Vitals>> {
        Ok(vec![Vitals::default(); backends.len()])
    }

    fn clear_counters(&mut self, _slot: CounterSlot) -> Result<()> {
        Ok(())
    }

    fn outcomes(&mut self) -> Result<Vec<u64>> {
        Ok(vec![0; Outcome::COUNT as usize])
    }

    fn usage(&mut self) -> Result<Usage> {
        Ok(Usage { bindings: self.bindings.len() as u64, holds: 0 })
    }

    fn rebind(&mut self, request: &RebindRequest) -> Result<RebindReport> {
        let (now, statuses) = (monotonic_ns(), &self.statuses);
        let status = |slot: u16| statuses.get(Status::word(slot) as usize).copied().unwrap_or_default();
        let (accepts, serves) =
            (|slot| Status::accepts(status(slot), slot), |slot| Status::serves(status(slot), slot));
        let pool = Pool { arena: &self.arena, request };
        let mut report = RebindReport { looked_at: request.count, ..RebindReport::default() };
        // The whole table is one slot.
        let all = self.bindings.iter_mut().filter(|_| request.start == 0);
        for (&(service, session), binding) in all {
            let word = BindingWord(binding.word);
            let is_stranded = !serves(word.backend());
            let is_return = request.whom == RebindWhom::Homeless as u32;
            let is_wanted = match request.whom {
                _ if is_return => !is_stranded && binding.expires <= now.saturating_add(request.idle),
                whom if whom == RebindWhom::Stranded as u32 => is_stranded,
                whom if whom == RebindWhom::Drained as u32 => {
                    let is_meant = request.backend == 0 || request.backend == u32::from(word.backend()) + 1;
                    is_stranded || (is_meant && !accepts(word.backend()))
                }
                _ => {
                    is_stranded
                        || (word.generation() != 0 && binding.expires <= now.saturating_add(request.idle))
                }
            };
            if service != request.service || binding.expires <= now || !is_wanted {
                continue;
            }
            if report.moved >= request.limit {
                // The stretch is to be looked at once more.
                report.looked_at = 0;
                continue;
            }
            let generation = |slot: u16| self.backends.get(&slot).map_or(0, |backend| backend.generation);
            let is_home = |slot: &u16| place(*slot, generation(*slot)) == binding.home && accepts(*slot);
            let heir = match is_return {
                true => (0..pool.member_count()).filter_map(|place| pool.member(place)).find(is_home),
                false => {
                    select::choose(&pool, session, accepts).or_else(|| select::choose(&pool, session, serves))
                }
            };
            match heir.filter(|&heir| heir != word.backend()) {
                Some(heir) => {
                    let moved = BindingWord::new(heir, generation(heir), word.generation().wrapping_add(1));
                    binding.home = home(Some(*binding), moved);
                    binding.word = moved.with(BindingWord::UNSYNCED).0;
                    report.moved += 1;
                }
                None => report.left += u32::from(is_stranded),
            }
        }
        Ok(report)
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        let now = monotonic_ns();
        let (before, told) = (self.bindings.len(), self.events.len());
        if request.target == SweepTarget::Bindings as u32 && request.start == 0 {
            self.bindings.retain(|_, binding| binding.expires > now);
            let unsynced =
                self.bindings.iter().filter(|(_, row)| BindingWord(row.word).has(BindingWord::UNSYNCED));
            self.events.extend(unsynced.map(|(&(service, session), row)| BindingEvent {
                session,
                service,
                kind: BindingEventKind::Found as u32,
                word: row.word,
                expires: row.expires,
            }));
        }
        let live = self.bindings.len();
        let unsynced = self.events.len() - told;
        let reclaimed = (before - live) as u32;
        Ok(SweepReport { reclaimed, live: live as u32, unsynced: unsynced as u32, pad: 0 })
    }

    fn events(&mut self, limit: usize) -> Result<Vec<BindingEvent>> {
        let taken = self.events.len().min(limit);
        Ok(self.events.drain(..taken).collect())
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
