//! The writes that lead from one content of the tables to another, in an order that leaves no gap.

use super::image::Image;
use crate::dataplane::{CounterSlot, DataPlane, Migration, Result, Sizes};
use lb_common::abi::{
    Addr, AffinityRules, ArenaChunk, Backend, FlowKey, PathRule, Peer, QuicConfig, STATUS_PER_WORD, Secrets,
    Server, Service, ServiceKey, Settings, Status,
};
use lb_core::pool::layout::ServicePlan;
use std::collections::BTreeSet;

/// One write, with what it replaces.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    Arena { start: u32, content: Vec<ArenaChunk> },
    Servers { start: u32, content: Vec<Server> },
    Paths { start: u32, content: Vec<PathRule> },
    ClearCounters(CounterSlot),
    Device { ifindex: u32, allow: bool },
    Backend { slot: u16, from: Box<Backend>, to: Box<Backend> },
    Status { word: u32, from: u64, to: u64 },
    Settings { from: Box<Settings>, to: Box<Settings> },
    Service { key: ServiceKey, from: Option<Box<Service>>, to: Option<Box<Service>> },
    Affinity { slot: u16, from: Box<AffinityRules>, to: Box<AffinityRules> },
    Quic { place: u32, from: Box<QuicConfig>, to: Box<QuicConfig> },
    Secrets { from: Box<Secrets>, to: Box<Secrets> },
    Peers { from: Vec<Peer>, to: Vec<Peer> },
    Mark { mark: Box<FlowKey>, stands: bool },
    Attach(String),
    Detach(String),
    Resize(Sizes),
}

impl Step {
    /// Does it; a change of sizes says what it copied.
    pub(super) fn run(&self, plane: &mut dyn DataPlane) -> Result<Option<Migration>> {
        match self {
            Self::Resize(sizes) => return plane.resize(sizes).map(Some),
            Self::Arena { start, content } => plane.put_arena(*start, content),
            Self::Servers { start, content } => plane.put_servers(*start, content),
            Self::Paths { start, content } => plane.put_paths(*start, content),
            Self::ClearCounters(slot) => plane.clear_counters(*slot),
            Self::Device { ifindex, allow: true } => plane.put_device(*ifindex),
            Self::Device { ifindex, allow: false } => plane.delete_device(*ifindex),
            Self::Backend { slot, to, .. } => plane.put_backend(*slot, to),
            Self::Status { word, to, .. } => plane.put_status(*word, *to),
            Self::Settings { to, .. } => plane.put_settings(to),
            Self::Service { key, to: Some(service), .. } => plane.put_service(key, service),
            Self::Service { key, to: None, .. } => plane.delete_service(key),
            Self::Affinity { slot, to, .. } => plane.put_affinity(*slot, to),
            Self::Quic { place, to, .. } => plane.put_quic(*place, to),
            Self::Secrets { to, .. } => plane.put_secrets(to),
            Self::Peers { to, .. } => plane.put_peers(to),
            Self::Mark { mark, stands: true } => plane.put_mark(mark),
            Self::Mark { mark, stands: false } => plane.delete_mark(mark),
            Self::Attach(interface) => plane.attach(interface).map(drop),
            Self::Detach(interface) => plane.detach(interface),
        }
        .map(|()| None)
    }

    /// The interface it attaches to.
    pub(super) fn attached(&self) -> Option<String> {
        if let Self::Attach(interface) = self { Some(interface.clone()) } else { None }
    }

    /// The mark that it sets or takes away.
    pub(super) fn mark(&self) -> Option<FlowKey> {
        if let Self::Mark { mark, .. } = self { Some(**mark) } else { None }
    }

    /// The interface it leaves.
    pub(super) fn detached(&self) -> Option<String> {
        if let Self::Detach(interface) = self { Some(interface.clone()) } else { None }
    }

    /// The write that takes it back, whether it was done or failed half way.
    ///
    /// What lies in free places of the arena, of marks and of path rules, and counters of slots without an owner, mean nothing; a change
    /// of sizes is done or not done.
    pub(super) fn undo(self) -> Option<Self> {
        match self {
            Self::Arena { .. }
            | Self::Servers { .. }
            | Self::Paths { .. }
            | Self::ClearCounters(_)
            | Self::Resize(_) => None,
            Self::Device { ifindex, allow } => Some(Self::Device { ifindex, allow: !allow }),
            Self::Backend { slot, from, to } => {
                // Bindings may have been made to the new owner: the next one must have another generation.
                let is_free = from.address == Addr::NONE;
                let generation = if is_free { to.generation } else { from.generation };
                let from = Box::new(Backend { generation, ..*from });
                Some(Self::Backend { slot, from: to, to: from })
            }
            Self::Status { word, from, to } => Some(Self::Status { word, from: to, to: from }),
            Self::Settings { from, to } => Some(Self::Settings { from: to, to: from }),
            Self::Service { key, from, to } => Some(Self::Service { key, from: to, to: from }),
            Self::Affinity { slot, from, to } => Some(Self::Affinity { slot, from: to, to: from }),
            Self::Quic { place, from, to } => Some(Self::Quic { place, from: to, to: from }),
            Self::Secrets { from, to } => Some(Self::Secrets { from: to, to: from }),
            Self::Peers { from, to } => Some(Self::Peers { from: to, to: from }),
            Self::Mark { mark, stands } => Some(Self::Mark { mark, stands: !stands }),
            Self::Attach(interface) => Some(Self::Detach(interface)),
            Self::Detach(interface) => Some(Self::Attach(interface)),
        }
    }

    /// Takes note in an image that it was done.
    pub(super) fn note(&self, image: &mut Image) {
        match self {
            Self::Arena { .. }
            | Self::Servers { .. }
            | Self::Paths { .. }
            | Self::ClearCounters(_)
            | Self::Resize(_) => {}
            Self::Device { ifindex, allow: true } => {
                image.devices.insert(*ifindex);
            }
            Self::Device { ifindex, allow: false } => {
                image.devices.remove(ifindex);
            }
            Self::Backend { slot, to, .. } => {
                image.backends.insert(*slot, **to);
            }
            Self::Status { word, to, .. } => image.put_status(*word, *to),
            Self::Settings { to, .. } => image.settings = **to,
            Self::Service { key, to: Some(service), .. } => {
                image.services.insert(*key, **service);
            }
            Self::Service { key, to: None, .. } => {
                image.services.remove(key);
            }
            Self::Affinity { slot, to, .. } if **to == AffinityRules::default() => {
                image.affinities.remove(slot);
            }
            Self::Affinity { slot, to, .. } => {
                image.affinities.insert(*slot, **to);
            }
            Self::Quic { place, to, .. } if **to == QuicConfig::default() => {
                image.quic.remove(place);
            }
            Self::Quic { place, to, .. } => {
                image.quic.insert(*place, **to);
            }
            Self::Peers { to, .. } => image.peers.clone_from(to),
            Self::Secrets { to, .. } => image.secrets = **to,
            Self::Mark { mark, stands: true } => {
                image.marks.insert(**mark);
            }
            Self::Mark { mark, stands: false } => {
                image.marks.remove(mark);
            }
            Self::Attach(interface) => {
                image.attached.insert(interface.clone());
            }
            Self::Detach(interface) => {
                image.attached.remove(interface);
            }
        }
    }
}

/// Chunks of the arena that one write takes.
const CHUNKS_AT_ONCE: usize = 16;

/// The writes for new tables: arena, marks of servers, path rules, and counters that start from 0.
pub(super) fn places(plans: &[ServicePlan]) -> Vec<Step> {
    let mut steps = Vec::new();
    for plan in plans {
        let mut chunks = plan.chunks().peekable();
        while let Some(&(start, _)) = chunks.peek() {
            let content = chunks.by_ref().take(CHUNKS_AT_ONCE).map(|(_, chunk)| chunk).collect();
            steps.push(Step::Arena { start, content });
        }
        let (servers, paths) = (&plan.servers, &plan.paths);
        if !servers.contents.is_empty() {
            steps.push(Step::Servers { start: servers.start, content: servers.contents.clone() });
        }
        if !paths.contents.is_empty() {
            steps.push(Step::Paths { start: paths.start, content: paths.contents.clone() });
        }
        if plan.fresh {
            steps.push(Step::ClearCounters(CounterSlot::Service(plan.slot)));
        }
        let fresh = plan.backends.iter().filter(|backend| backend.fresh);
        steps.extend(fresh.map(|backend| Step::ClearCounters(CounterSlot::Backend(backend.slot))));
    }
    steps
}

/// The writes that make `actual` into `target`.
///
/// What services will need comes first, then the services, then the removal of what none needs any more.
pub(super) fn difference(actual: &Image, target: &Image) -> Vec<Step> {
    let mut steps = Vec::new();

    let added = target.devices.difference(&actual.devices);
    steps.extend(added.map(|&ifindex| Step::Device { ifindex, allow: true }));
    for (&slot, backend) in &target.backends {
        put_backend(&mut steps, actual, slot, *backend);
    }
    let words: BTreeSet<u32> = actual.statuses.keys().chain(target.statuses.keys()).copied().collect();
    let changes = |word: &u32| actual.status_word(*word) != target.status_word(*word);
    let words: Vec<u32> = words.into_iter().filter(changes).collect();
    for &word in &words {
        put_status(&mut steps, word, actual.status_word(word), between_word(actual, target, word));
    }
    // A flag that some service needs must be there before it and stay until it is gone.
    let flags = actual.settings.flags | target.settings.flags;
    let between = Settings { flags, ..target.settings };
    // Nobody is asked before it is known where they are, and for as long as some are.
    if actual.peers != target.peers {
        steps.push(Step::Peers { from: actual.peers.clone(), to: target.peers.clone() });
    }
    put_settings(&mut steps, &actual.settings, &between);

    if actual.secrets != target.secrets {
        let (from, to) = (Box::new(actual.secrets), Box::new(target.secrets));
        steps.push(Step::Secrets { from, to });
    }
    let added = target.marks.difference(&actual.marks);
    steps.extend(added.map(|mark| Step::Mark { mark: Box::new(*mark), stands: true }));
    for (&place, to) in &target.quic {
        put_quic(&mut steps, actual, place, *to);
    }
    for (&slot, to) in &target.affinities {
        put_affinity(&mut steps, actual, slot, *to);
    }

    for (key, service) in &target.services {
        let from = actual.services.get(key);
        if from != Some(service) {
            steps.push(Step::Service {
                key: *key,
                from: from.copied().map(Box::new),
                to: Some(Box::new(*service)),
            });
        }
    }
    for (key, service) in actual.services.iter().filter(|(key, _)| !target.services.contains_key(key)) {
        steps.push(Step::Service { key: *key, from: Some(Box::new(*service)), to: None });
    }

    for &slot in actual.affinities.keys().filter(|slot| !target.affinities.contains_key(slot)) {
        put_affinity(&mut steps, actual, slot, AffinityRules::default());
    }
    for &place in actual.quic.keys().filter(|place| !target.quic.contains_key(place)) {
        put_quic(&mut steps, actual, place, QuicConfig::default());
    }
    // Before the backends: from those a restart knows which marks may stand.
    let gone = actual.marks.difference(&target.marks);
    steps.extend(gone.map(|mark| Step::Mark { mark: Box::new(*mark), stands: false }));
    for word in words {
        put_status(&mut steps, word, between_word(actual, target, word), target.status_word(word));
    }
    for (&slot, backend) in actual.backends.iter().filter(|(slot, _)| !target.backends.contains_key(slot)) {
        put_backend(
            &mut steps,
            actual,
            slot,
            Backend { generation: backend.generation, ..Backend::default() },
        );
    }
    put_settings(&mut steps, &between, &target.settings);
    let attached = target.attached.difference(&actual.attached);
    steps.extend(attached.map(|interface| Step::Attach(interface.clone())));
    let left = actual.attached.difference(&target.attached);
    steps.extend(left.map(|interface| Step::Detach(interface.clone())));
    let removed = actual.devices.difference(&target.devices);
    steps.extend(removed.map(|&ifindex| Step::Device { ifindex, allow: false }));
    steps
}

/// A status word while both old and new services may lead to its backends: those of `target` have their new
/// status, those that go their old one.
fn between_word(actual: &Image, target: &Image, word: u32) -> u64 {
    let first = word * STATUS_PER_WORD;
    let staying = (first..first + STATUS_PER_WORD).filter_map(|slot| u16::try_from(slot).ok());
    let staying = staying.filter(|slot| target.backends.contains_key(slot));
    let mask = staying.fold(0, |mask, slot| mask | 0b11 << Status::shift(slot));
    (actual.status_word(word) & !mask) | (target.status_word(word) & mask)
}

fn put_backend(steps: &mut Vec<Step>, actual: &Image, slot: u16, to: Backend) {
    let from = actual.backends.get(&slot).copied().unwrap_or_default();
    if from != to {
        steps.push(Step::Backend { slot, from: Box::new(from), to: Box::new(to) });
    }
}

fn put_status(steps: &mut Vec<Step>, word: u32, from: u64, to: u64) {
    if from != to {
        steps.push(Step::Status { word, from, to });
    }
}

fn put_affinity(steps: &mut Vec<Step>, actual: &Image, slot: u16, to: AffinityRules) {
    let from = actual.affinities.get(&slot).copied().unwrap_or_default();
    if from != to {
        steps.push(Step::Affinity { slot, from: Box::new(from), to: Box::new(to) });
    }
}

fn put_quic(steps: &mut Vec<Step>, actual: &Image, place: u32, to: QuicConfig) {
    let from = actual.quic.get(&place).copied().unwrap_or_default();
    if from != to {
        steps.push(Step::Quic { place, from: Box::new(from), to: Box::new(to) });
    }
}

fn put_settings(steps: &mut Vec<Step>, from: &Settings, to: &Settings) {
    if from != to {
        steps.push(Step::Settings { from: Box::new(*from), to: Box::new(*to) });
    }
}
