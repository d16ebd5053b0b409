//! The maps as plain collections, for tests of what two CPUs do at once.
//!
//! Deleted entries keep their memory, as in the kernel, so that a pointer held too long still points somewhere.

use super::{Env, Insert, Scratch, Verdict};
use crate::abi::{
    AffinityRules, Backend, BindingBucket, BindingEvent, CHOICE_ENTRIES, Counters, Filling, Flow, FlowKey,
    FlowRef, FragmentKey, FragmentRef, Hold, Outcome, PathRule, Peer, QUOTA_ENTRIES, QuicConfig, Secrets,
    Server, Service, ServiceKey, Settings, Vitals, binding_buckets, hand,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// CPUs: the one whose test it is, and the other one.
const CPUS: u32 = 2;
/// Holds, the first of them the CPUs'.
const HOLDS: u32 = CPUS + 3;
/// Backends that something is noted of.
const VITALS: usize = 16;
/// Bindings that the table is for.
const BINDINGS: u32 = 64;

/// What is about to be done when another CPU interferes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A compare-exchange that expects this value.
    Exchange(u64),
    /// The insert of a reference.
    Insert(FlowKey),
    /// The deletion of a reference.
    Delete(FlowKey),
    /// The look-up of a record.
    Record(u32),
}

type Other<'a> = Box<dyn FnOnce(&Model<'a>) + 'a>;

/// Half-open records first, as many established ones behind them.
pub(super) struct Model<'a> {
    pub(super) settings: Settings,
    pub(super) now: Cell<u64>,
    pub(super) arena: Vec<u16>,
    pub(super) status: Vec<u64>,
    pub(super) service: Option<Service>,
    pub(super) backends: Vec<Backend>,
    no_backend: Backend,
    cpu: Cell<u32>,
    frames: [Cell<*mut [u8]>; CPUS as usize],
    scratches: *mut [Scratch],
    index: RefCell<HashMap<FlowKey, *mut u64>>,
    bindings: *mut [BindingBucket],
    records: *mut [Flow],
    hands: *mut [u64],
    quotas: *mut [u64],
    rate: *mut u64,
    interference: RefCell<Option<(Step, Other<'a>)>>,
    pub(super) affinities: Vec<AffinityRules>,
    pub(super) servers: Vec<Server>,
    pub(super) secrets: Secrets,
    pub(super) peers: Vec<Peer>,
    holds: *mut [Hold],
    vitals: *mut [Vitals],
    choices: *mut [u64],
    silence: *mut u64,
}

impl<'a> Model<'a> {
    /// Tables with `half_open` and `flows` records, all of them free.
    pub(super) fn new(half_open: u32, flows: u32) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let settings = Settings {
            half_open,
            flows,
            binding_capacity: BINDINGS,
            binding_buckets: binding_buckets(BINDINGS),
            tcp_half_open: 10 * SECOND,
            tcp_established: 600 * SECOND,
            tcp_closing: 60 * SECOND,
            tcp_reset: 10 * SECOND,
            udp_new: 10 * SECOND,
            udp_established: 120 * SECOND,
            prefix_window: 60,
            head_timeout: 20 * SECOND,
            connect_timeout: 20 * SECOND,
            holds: HOLDS,
            cpu_holds: CPUS,
            ..Settings::default()
        };
        let records = vec![Flow::default(); (half_open + flows) as usize].leak();
        Self {
            settings,
            now: Cell::new(1000 * SECOND),
            arena: Vec::new(),
            status: Vec::new(),
            service: None,
            backends: Vec::new(),
            no_backend: Backend::default(),
            cpu: Cell::new(0),
            frames: [const { Cell::new(&mut [] as *mut [u8]) }; CPUS as usize],
            scratches: vec![Scratch::default(); CPUS as usize].leak(),
            index: RefCell::default(),
            bindings: vec![BindingBucket::default(); binding_buckets(BINDINGS) as usize].leak(),
            records,
            hands: vec![0; hand::COUNT as usize].leak(),
            quotas: vec![0; QUOTA_ENTRIES as usize].leak(),
            rate: Box::leak(Box::new(0)),
            interference: RefCell::default(),
            affinities: Vec::new(),
            servers: Vec::new(),
            secrets: Secrets::default(),
            peers: Vec::new(),
            holds: vec![Hold::default(); HOLDS as usize].leak(),
            vitals: vec![Vitals::default(); VITALS].leak(),
            choices: vec![0; CHOICE_ENTRIES as usize].leak(),
            silence: Box::leak(Box::new(0)),
        }
    }

    /// A binding table of another size.
    pub(super) fn with_bindings(capacity: u32) -> Self {
        let mut model = Self::new(0, 0);
        model.settings.binding_capacity = capacity;
        model.settings.binding_buckets = binding_buckets(capacity);
        model.bindings = vec![BindingBucket::default(); binding_buckets(capacity) as usize].leak();
        model
    }

    /// So many holds besides the CPUs'.
    pub(super) fn with_holds(count: u32) -> Self {
        let mut model = Self::new(0, 0);
        model.settings.holds = CPUS + count;
        model.holds = vec![Hold::default(); (CPUS + count) as usize].leak();
        model
    }

    /// Lets another CPU do something right before `step`.
    pub(super) fn interfere(&self, step: Step, other: impl FnOnce(&Model<'a>) + 'a) {
        *self.interference.borrow_mut() = Some((step, Box::new(other)));
    }

    /// Changes a backend.
    pub(super) fn set_backend(&mut self, slot: u16, change: impl FnOnce(&mut Backend)) {
        let slot = usize::from(slot);
        if self.backends.len() <= slot {
            self.backends.resize(slot + 1, Backend::default());
        }
        change(&mut self.backends[slot]);
    }

    /// Puts a frame before the CPU at work; there is no room around it.
    pub(super) fn set_frame(&self, bytes: &[u8]) {
        self.here().set(bytes.to_vec().leak());
    }

    /// The frame as it is now.
    pub(super) fn frame(&self) -> Vec<u8> {
        // SAFETY: leaked memory, and tests have one thread.
        unsafe { (*self.here().get()).to_vec() }
    }

    fn here(&self) -> &Cell<*mut [u8]> {
        &self.frames[self.cpu.get() as usize]
    }

    /// Whether what was to interfere has done so.
    pub(super) fn has_interfered(&self) -> bool {
        self.interference.borrow().is_none()
    }

    /// What a key leads to.
    pub(super) fn reference(&self, key: &FlowKey) -> Option<FlowRef> {
        // SAFETY: cells are leaked, and tests have one thread.
        self.index.borrow().get(key).map(|cell| FlowRef(unsafe { cell.read() }))
    }

    /// Number of index entries.
    pub(super) fn indexed(&self) -> usize {
        self.index.borrow().len()
    }

    fn before(&self, step: Step) {
        let due = self.interference.borrow().as_ref().is_some_and(|(when, _)| *when == step);
        if due && let Some((_, other)) = self.interference.take() {
            let cpu = self.cpu.replace(1);
            other(self);
            self.cpu.set(cpu);
        }
    }
}

/// A small source of random numbers; the same ones in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// The next number.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 16
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }

    /// So many bytes.
    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.roll() as u8).collect()
    }
}

/// The Internet checksum's sum over some bytes, with 0 for 0xffff.
pub(super) fn ones_sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    (bytes.chunks(2).map(word).sum::<u64>() % 0xffff) as u16
}

// SAFETY: every pointer is to leaked memory, and tests have one thread.
unsafe impl Env for Model<'_> {
    fn data(&self) -> *mut u8 {
        self.here().get().cast()
    }
    fn data_end(&self) -> *mut u8 {
        self.data().wrapping_add(self.here().get().len())
    }
    fn adjust_head(&self, _delta: i32) -> bool {
        false
    }
    fn adjust_tail(&self, _delta: i32) -> bool {
        false
    }
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        let (offset, len) = (offset as usize, len as usize);
        // SAFETY: leaked memory, inside the frame; the caller's bytes are elsewhere.
        let fits = len != 0 && offset + len <= self.here().get().len();
        if fits {
            unsafe { self.data().add(offset).copy_to_nonoverlapping(to, len) };
        }
        fits
    }
    unsafe fn store(&self, offset: u32, from: *const u8, len: u32) -> bool {
        let (offset, len) = (offset as usize, len as usize);
        // SAFETY: as above.
        let fits = len != 0 && offset + len <= self.here().get().len();
        if fits {
            unsafe { from.copy_to_nonoverlapping(self.data().add(offset), len) };
        }
        fits
    }
    fn leave_to_fill(&self, _filling: &Filling) -> bool {
        false
    }
    fn cpu(&self) -> u32 {
        self.cpu.get()
    }
    fn ingress(&self) -> u32 {
        1
    }
    fn ingress_mtu(&self) -> u32 {
        0
    }
    fn redirect(&self, _ifindex: u32) -> Verdict {
        Verdict::Redirect
    }
    fn tail(&self, _number: u32) -> Verdict {
        Verdict::Tail
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    unsafe fn exchange(&self, cell: *mut u64, old: u64, new: u64) -> bool {
        self.before(Step::Exchange(old));
        // SAFETY: the caller's cell came from here.
        unsafe {
            let same = cell.read_volatile() == old;
            if same {
                cell.write_volatile(new);
            }
            same
        }
    }
    unsafe fn add(&self, cell: *mut u64, n: u64) -> u64 {
        // SAFETY: the caller's cell came from here.
        unsafe {
            let before = cell.read_volatile();
            cell.write_volatile(before.wrapping_add(n));
            before
        }
    }
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        let _ = (0..count).any(&mut step);
    }
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.service.as_ref().filter(|_| key.kind == ServiceKey::BY_PORT)
    }
    fn backend(&self, slot: u16) -> Option<&Backend> {
        Some(self.backends.get(slot as usize).unwrap_or(&self.no_backend))
    }
    fn status(&self, word: u32) -> Option<u64> {
        self.status.get(word as usize).copied()
    }
    fn arena(&self, slot: u32) -> Option<u16> {
        self.arena.get(slot as usize).copied()
    }
    fn affinity_rules(&self, service_slot: u16) -> Option<&AffinityRules> {
        self.affinities.get(service_slot as usize)
    }
    fn server(&self, index: u32) -> Option<&Server> {
        self.servers.get(index as usize)
    }
    fn path_rule(&self, _index: u32) -> Option<&PathRule> {
        None
    }
    fn quic_config(&self, _index: u32) -> Option<&QuicConfig> {
        None
    }
    fn secrets(&self) -> Option<&Secrets> {
        Some(&self.secrets)
    }
    fn peer(&self, row: u32) -> Option<&Peer> {
        self.peers.get(row as usize)
    }
    fn vitals(&self, slot: u16) -> Option<*mut Vitals> {
        let vitals = self.vitals.cast::<Vitals>();
        ((slot as usize) < self.vitals.len()).then(|| vitals.wrapping_add(slot as usize))
    }
    fn choice(&self, index: u32) -> Option<*mut u64> {
        ((index as usize) < self.choices.len())
            .then(|| self.choices.cast::<u64>().wrapping_add(index as usize))
    }
    fn hold(&self, index: u32) -> Option<*mut Hold> {
        ((index as usize) < self.holds.len()).then(|| self.holds.cast::<Hold>().wrapping_add(index as usize))
    }
    fn binding_bucket(&self, bucket: u32) -> Option<*mut BindingBucket> {
        ((bucket as usize) < self.bindings.len())
            .then(|| self.bindings.cast::<BindingBucket>().wrapping_add(bucket as usize))
    }
    fn hand(&self, hand: u32) -> Option<*mut u64> {
        (hand < hand::COUNT).then(|| self.hands.cast::<u64>().wrapping_add(hand as usize))
    }
    fn silence(&self) -> Option<*mut u64> {
        Some(self.silence)
    }
    fn flow_ref(&self, key: &FlowKey) -> Option<*mut u64> {
        self.index.borrow().get(key).copied()
    }
    fn insert_flow_ref(&self, key: &FlowKey, flow: FlowRef) -> Insert {
        self.before(Step::Insert(*key));
        let mut index = self.index.borrow_mut();
        if index.contains_key(key) {
            return Insert::Taken;
        }
        index.insert(*key, Box::leak(Box::new(flow.0)));
        Insert::Done
    }
    fn delete_flow_ref(&self, key: &FlowKey) {
        self.before(Step::Delete(*key));
        self.index.borrow_mut().remove(key);
    }
    fn flow(&self, index: u32) -> Option<*mut Flow> {
        self.before(Step::Record(index));
        ((index as usize) < self.records.len())
            .then(|| self.records.cast::<Flow>().wrapping_add(index as usize))
    }
    fn fragment(&self, _key: &FragmentKey) -> Option<FragmentRef> {
        None
    }
    fn keep_fragment(&self, _key: &FragmentKey, _decision: &FragmentRef) {}
    fn service_counters(&self, _slot: u16) -> Option<*mut Counters> {
        None
    }
    fn backend_counters(&self, _slot: u16) -> Option<*mut Counters> {
        None
    }
    fn count(&self, _outcome: Outcome) {}
    fn rate(&self, _slot: u16) -> Option<*mut u64> {
        Some(self.rate)
    }
    fn answer_rate(&self) -> Option<*mut u64> {
        None
    }
    fn quota(&self, index: u32) -> Option<*mut u64> {
        (index < QUOTA_ENTRIES).then(|| self.quotas.cast::<u64>().wrapping_add(index as usize))
    }
    fn doorkeeper(&self, _index: u32) -> Option<*mut u64> {
        None
    }
    fn tell(&self, _event: &BindingEvent) -> bool {
        true
    }
    fn scratch(&self) -> Option<*mut Scratch> {
        Some(self.scratches.cast::<Scratch>().wrapping_add(self.cpu.get() as usize))
    }
}
