//! The maps as plain collections, with everything checked that must hold of them.

use crate::pool::layout::{FoundBackend, FoundService, Layout, Plan, Stretch};
use crate::pool::table::{Selection, Share};
use crate::pool::{
    Admin, AffinitySpec, BackendSpec, Desired, Limits, NodeSpec, Protocol, ServiceSpec, Timeouts, Vlan,
};
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use lb_common::abi::{ARENA_CHUNK, Mode};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Owner = (u32, u64);
type Services = BTreeMap<u32, Entry>;
/// Owner and generation by slot.
type Backends = BTreeMap<u16, (Option<Owner>, u16)>;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    slot: u16,
    table: u32,
    mask: u32,
    members: u32,
    member_count: u32,
}

/// What the kernel holds.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    arena: Vec<u16>,
    services: Services,
    backends: Backends,
    /// Owner of each generation of each slot: never two.
    history: BTreeMap<(u16, u16), Owner>,
    before: Option<(Services, Backends)>,
}

impl Maps {
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            arena: vec![0; chunks as usize * ARENA_CHUNK],
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            history: BTreeMap::new(),
            before: None,
        }
    }

    /// Chunks that the services' tables and member lists lie in.
    fn used(&self) -> Vec<u32> {
        self.services
            .values()
            .filter(|entry| entry.member_count > 0)
            .flat_map(|entry| {
                let end = entry.members + entry.member_count;
                entry.table / ARENA_CHUNK as u32..end.div_ceil(ARENA_CHUNK as u32)
            })
            .collect()
    }

    pub(super) fn write(&mut self, plan: &Plan) {
        self.before = Some((self.services.clone(), self.backends.clone()));
        let standing: BTreeSet<u32> = self.used().into_iter().collect();
        for service in &plan.services {
            for backend in service.backends.iter().filter(|backend| backend.fresh) {
                let owner = (service.id, backend.number);
                let (old, generation) = self.backends.get(&backend.slot).copied().unwrap_or((None, 0));
                assert_eq!(old, None, "slot {} is owned", backend.slot);
                assert_eq!(backend.generation, generation + 1);
                let twin = self.history.insert((backend.slot, backend.generation), owner);
                assert_eq!(twin, None, "a binding could meet two backends");
                self.backends.insert(backend.slot, (Some(owner), backend.generation));
            }
        }
        for (index, chunk) in plan.services.iter().flat_map(|service| service.chunks()) {
            assert!(!standing.contains(&index), "chunk {index} is in use");
            let first = index as usize * ARENA_CHUNK;
            self.arena[first..first + ARENA_CHUNK].copy_from_slice(&chunk.0);
        }
        for service in &plan.services {
            let entry = Entry {
                slot: service.slot,
                table: service.table,
                mask: service.mask,
                members: service.members,
                member_count: service.member_count,
            };
            assert_eq!(self.services.insert(service.id, entry).is_none(), service.fresh);
        }
    }

    /// Undoes a write; generations of slots stay as they were before, as a crash could leave them.
    pub(super) fn roll_back(&mut self) {
        let (services, backends) = self.before.take().unwrap();
        self.services = services;
        for (slot, (owner, generation)) in core::mem::take(&mut self.backends) {
            let owner = backends.get(&slot).and_then(|before| before.0.filter(|_| owner.is_some()));
            self.backends.insert(slot, (owner, generation));
        }
    }

    pub(super) fn free(&mut self, plan: &Plan) {
        for freed in &plan.freed_services {
            assert_eq!(self.services.remove(&freed.id).map(|entry| entry.slot), Some(freed.slot));
        }
        for freed in &plan.freed_backends {
            let owner = (freed.service, freed.number);
            assert_eq!(
                self.backends.insert(freed.slot, (None, freed.generation)),
                Some((Some(owner), freed.generation))
            );
        }
    }

    /// Everything stands as wanted.
    pub(super) fn check(&self, desired: &Desired, layout: &Layout) {
        let used = self.used();
        assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len(), "regions overlap");
        let slots: BTreeSet<u16> = self.services.values().map(|entry| entry.slot).collect();
        assert_eq!((slots.len(), self.services.len()), (desired.services.len(), desired.services.len()));
        let owners: BTreeSet<Owner> = self.backends.values().filter_map(|backend| backend.0).collect();
        let owned = self.backends.values().filter(|backend| backend.0.is_some()).count();
        let wanted = desired.services.iter().map(|service| service.backends.len()).sum::<usize>();
        assert_eq!((owners.len(), owned), (wanted, wanted));
        for service in &desired.services {
            let selection =
                Selection::new(service.backends.iter().map(|b| Share { number: b.number, weight: b.weight }))
                    .unwrap();
            let entry = &self.services[&service.id];
            assert_eq!(layout.service(service.id), Some(entry.slot));
            let number = |arena: u32| {
                let slot = self.arena[arena as usize];
                let (owner, generation) = self.backends[&slot];
                let (id, number) = owner.unwrap();
                assert_eq!(id, service.id);
                assert_eq!(layout.backend(id, number), Some((slot, generation)));
                number
            };
            let members: Vec<u64> = (0..entry.member_count).map(|i| number(entry.members + i)).collect();
            assert!(members.iter().copied().eq(selection.members().iter().map(|member| member.number)));
            for (slot, &place) in (0..).zip(selection.slots()) {
                assert_eq!(number(entry.table + slot), members[usize::from(place)]);
            }
            assert_eq!(entry.mask as usize, selection.slots().len().saturating_sub(1));
        }
    }

    pub(super) fn found_backends(&self) -> Vec<FoundBackend> {
        self.backends
            .iter()
            .map(|(&slot, &(owner, generation))| FoundBackend { slot, generation, owner })
            .collect()
    }

    pub(super) fn found_services(&self) -> Vec<FoundService> {
        self.services
            .iter()
            .map(|(&id, entry)| FoundService {
                id,
                slot: Some(entry.slot),
                table: entry.table,
                mask: entry.mask,
                members: entry.members,
                member_count: entry.member_count,
                contents: self
                    .arena
                    .get(entry.table as usize..(entry.members as usize + entry.member_count as usize))
                    .unwrap_or_default()
                    .to_vec(),
                servers: Stretch::default(),
                paths: Stretch::default(),
            })
            .collect()
    }
}

/// Up to six services with up to six backends each, from small sets so that much stays from step to step.
pub(super) fn configuration() -> impl Strategy<Value = Desired> {
    let backends = proptest::collection::btree_map(0_u64..8, 0_u32..3, 0..6);
    proptest::collection::btree_map(0_u32..8, backends, 0..6).prop_map(|services| {
        desired(
            services
                .into_iter()
                .map(|(id, backends)| service(id, &backends.into_iter().rev().collect::<Vec<_>>())),
        )
    })
}

pub(super) fn service(id: u32, backends: &[(u64, u32)]) -> ServiceSpec {
    ServiceSpec {
        name: format!("service-{id}"),
        id,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 80,
        protocol: Protocol::Tcp,
        mode: Mode::L2,
        affinity: AffinitySpec::None,
        lifetime: Duration::from_secs(60),
        binding_rate: 1_000,
        source: None,
        mss: None,
        proxy_protocol: false,
        method: lb_common::abi::Method::Order,
        slow_start: core::time::Duration::ZERO,
        mirror: None,
        consistency: crate::pool::Consistency::Tables,
        health: None,
        paths: Vec::new(),
        backends: backends.iter().map(|&(number, weight)| backend(number, weight)).collect(),
    }
}

fn backend(number: u64, weight: u32) -> BackendSpec {
    BackendSpec {
        name: format!("backend-{number}"),
        number,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        weight,
        admin: Admin::Enabled,
        vlan: Vlan::Auto,
        route: None,
        limit: 0,
        server_id: None,
    }
}

pub(super) fn desired(services: impl IntoIterator<Item = ServiceSpec>) -> Desired {
    let second = Duration::from_secs(1);
    Desired {
        node: NodeSpec {
            interfaces: Vec::new(),
            bindings: 1,
            flows: 1,
            held: 1,
            session_secret: [0; 16],
            other_secret: None,
            secrets: Default::default(),
            tunnel_v4: None,
            tunnel_v6: None,
            gue_port: 6080,
            timeouts: Timeouts {
                tcp_half_open: second,
                tcp_established: second,
                tcp_closing: second,
                tcp_reset: second,
                udp_new: second,
                udp_established: second,
                request_head: second,
                connect: second,
            },
            limits: Limits { answer_rate: 1_000, prefix_quota: 0, prefix_window: second, drain_rate: 10_000 },
        },
        services: services.into_iter().collect(),
    }
}
