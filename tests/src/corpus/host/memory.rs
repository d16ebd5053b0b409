//! Collections that behave like the kernel's maps.

use super::super::tables::{Change, Tables, with_secrets};
use anyhow::Result;
use lb_common::abi::{
    self, AffinityRules, Backend, BindingBucket, Counters, Flow, FlowKey, FragmentKey, FragmentRef, Hold,
    Outcome, PathRule, Peer, QuicConfig, Secrets, Server, Service, ServiceKey, Settings, Vitals, hand,
};
use lb_common::datapath::{Insert, Scratch};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// All maps.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) settings: Settings,
    pub(super) services: HashMap<ServiceKey, Service>,
    pub(super) backends: BTreeMap<u16, Backend>,
    pub(super) free_backend: Backend,
    pub(super) status: BTreeMap<u32, u64>,
    pub(super) arena: Vec<u16>,
    pub(super) bindings: Cells<BindingBucket>,
    pub(super) hands: Cells<u64>,
    pub(super) flow_index: Table<FlowKey, u64>,
    pub(super) flows: Cells<Flow>,
    pub(super) fragments: Table<FragmentKey, FragmentRef>,
    pub(super) service_counters: Cells<Counters>,
    pub(super) backend_counters: Cells<Counters>,
    pub(super) rates: Cells<u64>,
    pub(super) quotas: Cells<u64>,
    pub(super) doorkeeper: Cells<u64>,
    pub(super) scratch: Cells<Scratch>,
    pub(super) outcomes: Vec<Cell<u64>>,
    pub(super) affinities: BTreeMap<u16, AffinityRules>,
    pub(super) servers: Vec<Server>,
    pub(super) path_rules: Vec<PathRule>,
    pub(super) quic: BTreeMap<u32, QuicConfig>,
    pub(super) secrets: Secrets,
    pub(super) peers: Vec<Peer>,
    pub(super) holds: Cells<Hold>,
    pub(super) vitals: Cells<Vitals>,
    pub(super) choices: Cells<u64>,
    pub(super) silence: Cells<u64>,
}

impl Memory {
    /// The maps as a case begins.
    pub(super) fn of(tables: &Tables, now: u64) -> Result<Self> {
        let settings = tables.settings;
        let secrets = tables.secrets(now)?;
        let memory = Self {
            settings,
            services: tables.service_entries().into_iter().collect(),
            backends: tables.backends.clone(),
            free_backend: Backend::default(),
            status: tables.status.clone(),
            arena: tables.arena.clone(),
            bindings: Cells::of(settings.binding_buckets),
            hands: Cells::of(hand::COUNT),
            flow_index: Table::of((settings.flows + settings.half_open) * 2),
            flows: Cells::of(settings.flows + settings.half_open),
            fragments: Table::of(abi::FRAGMENT_ENTRIES),
            service_counters: Cells::of(abi::MAX_SERVICES),
            backend_counters: Cells::of(abi::MAX_BACKENDS),
            rates: Cells::of(abi::RATE_ENTRIES),
            quotas: Cells::of(abi::QUOTA_ENTRIES),
            doorkeeper: Cells::of(abi::DOORKEEPER_ENTRIES),
            scratch: Cells::one(),
            outcomes: vec![Cell::new(0); Outcome::COUNT as usize],
            affinities: tables.affinities.clone(),
            servers: tables.servers.clone(),
            path_rules: tables.path_rules.clone(),
            quic: tables.quic.clone(),
            secrets,
            peers: tables.peers.clone(),
            holds: Cells::of(settings.holds),
            vitals: Cells::of(abi::MAX_BACKENDS),
            choices: Cells::of(abi::CHOICE_ENTRIES),
            silence: Cells::one(),
        };
        for (number, bucket) in (0..).zip(tables.binding_table(now)?) {
            memory.bindings.set(number, bucket);
        }
        for slot in tables.backends.keys() {
            memory.vitals.set(u32::from(*slot), tables.vitals(*slot, now));
        }
        memory.hands.set(hand::BINDINGS_LIVE, tables.bindings.len() as u64);
        for mark in tables.marks() {
            memory.flow_index.insert(mark, 0, true);
        }
        Ok(memory)
    }

    /// Changes a table.
    pub(super) fn change(&mut self, change: &Change) {
        match change {
            Change::Status(word, value) => {
                self.status.insert(*word, *value);
            }
            Change::Backend(slot, backend) => {
                self.backends.insert(*slot, *backend);
            }
            Change::SessionSecrets(in_use, other) => {
                self.settings = with_secrets(self.settings, *in_use, *other);
            }
            Change::Services(entries) => self.services = entries.iter().copied().collect(),
        }
    }

    /// Frees what was deleted while pointers to it might have been held.
    pub(super) fn forget_deleted(&self) {
        self.flow_index.deleted.borrow_mut().clear();
        self.fragments.deleted.borrow_mut().clear();
    }
}

/// An array map.
pub(super) struct Cells<T>(Box<[UnsafeCell<T>]>);

impl<T: aya::Pod> Cells<T> {
    /// Cells of zeros, whose memory the kernel gives out when it is touched: most cases touch little of it.
    fn of(length: u32) -> Self {
        // SAFETY: zero is a value of every type of map values.
        Self(unsafe { Box::new_zeroed_slice(length as usize).assume_init() })
    }
}

impl<T: Copy + Default> Cells<T> {
    /// One cell.
    fn one() -> Self {
        Self(Box::new([UnsafeCell::new(T::default())]))
    }

    /// The cell at an index.
    pub(super) fn get(&self, index: u32) -> Option<*mut T> {
        self.0.get(index as usize).map(UnsafeCell::get)
    }

    /// What is in it; an index beyond the end holds nothing.
    pub(super) fn value(&self, index: u32) -> T {
        // SAFETY: no reference to the cell's content is ever made, and there is one thread.
        self.get(index).map_or_else(T::default, |cell| unsafe { cell.read() })
    }

    /// Overwrites it.
    pub(super) fn set(&self, index: u32, value: T) {
        if let Some(cell) = self.get(index) {
            // SAFETY: as above.
            unsafe { cell.write(value) };
        }
    }
}

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

/// A value that stays where it is while its table changes.
type Pinned<V> = Box<UnsafeCell<V>>;

/// A hash map with a capacity.
pub(super) struct Table<K, V> {
    entries: RefCell<HashMap<K, Pinned<V>>>,
    deleted: RefCell<Vec<Pinned<V>>>,
    capacity: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> {
    fn of(capacity: u32) -> Self {
        Self { capacity: capacity as usize, ..Self::default() }
    }

    /// The cell of a key.
    pub(super) fn get(&self, key: &K) -> Option<*mut V> {
        self.entries.borrow().get(key).map(|cell| cell.get())
    }

    /// Inserts, and overwrites if `replace`.
    pub(super) fn insert(&self, key: K, value: V, replace: bool) -> Insert {
        let mut entries = self.entries.borrow_mut();
        if entries.contains_key(&key) && !replace {
            return Insert::Taken;
        }
        if !entries.contains_key(&key) && entries.len() >= self.capacity {
            return Insert::Full;
        }
        if let Some(old) = entries.insert(key, Box::new(UnsafeCell::new(value))) {
            self.deleted.borrow_mut().push(old);
        }
        Insert::Done
    }

    /// Deletes; whether it was there.
    pub(super) fn remove(&self, key: &K) -> bool {
        let old = self.entries.borrow_mut().remove(key);
        let there = old.is_some();
        self.deleted.borrow_mut().extend(old);
        there
    }

    /// A copy of everything.
    pub(super) fn entries(&self) -> Vec<(K, V)> {
        // SAFETY: no reference to a cell's content is ever made, and there is one thread.
        self.entries.borrow().iter().map(|(key, cell)| (*key, unsafe { cell.get().read() })).collect()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: RefCell::default(), deleted: RefCell::default(), capacity: 0 }
    }
}
