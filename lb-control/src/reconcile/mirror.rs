//! The connections of a node that is one of several: what is told to the others, and what is taken over from one that died.

use super::{Gone, Handle, QueryError, ResolvedHop, handle::Request, node::Node};
use crate::dataplane::{self, Cursor, clock::monotonic_ns};
use lb_common::abi::{Be16, RecordResult, VlanTags};
use lb_core::mirror::{Lifetimes, Place, Record, Seen};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// Records that one request reads or writes.
const PAGE: usize = 8_192;
const WRITES: usize = 1_024;
/// The protocol of a VLAN tag (IEEE 802.1Q).
const VLAN: u16 = 0x8100;

/// What the configuration says of mirroring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mirroring {
    /// Whether connections of some service are mirrored.
    pub(crate) is_on: bool,
    /// How long connections live without traffic.
    pub(crate) lifetimes: Lifetimes,
    /// Connections that there is room for in the tables.
    pub(crate) room: usize,
    /// Addresses that this node translates clients to: what is sent there comes here.
    pub(crate) sources: BTreeSet<IpAddr>,
}

/// Connections of one page of the table, and where to go on.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Seen>,
    pub(crate) next: Option<Cursor>,
}

/// A connection to be taken over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heirloom {
    pub(crate) record: Record,
    /// The way to its client.
    pub(crate) way: ResolvedHop,
    /// Whether it counts as one of its backend's connections here.
    pub(crate) is_counted: bool,
}

/// What became of connections that were to be taken over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Taken {
    /// They go on here.
    pub(crate) adopted: u64,
    /// They were here already.
    pub(crate) known: u64,
    /// There was no room, or no such service or backend.
    pub(crate) lost: u64,
}

impl Handle {
    /// What the configuration says of mirroring; `None` before there is one.
    pub(crate) async fn mirroring(&self) -> Result<Option<Mirroring>, Gone> {
        self.ask(Request::Mirroring).await
    }

    /// Connections that are mirrored, of one page of the table.
    pub(crate) async fn mirrored(&self, cursor: Option<Cursor>) -> Result<Page, QueryError> {
        Ok(self.ask(|reply| Request::Mirrored { cursor, reply }).await??)
    }

    /// Takes connections over.
    pub(crate) async fn adopt(&self, mut all: Vec<Heirloom>) -> Result<Taken, QueryError> {
        let mut taken = Taken::default();
        while !all.is_empty() {
            let part = all.split_off(all.len().saturating_sub(WRITES));
            let done = self.ask(|reply| Request::Adopt(part, reply)).await??;
            taken.adopted += done.adopted;
            taken.known += done.known;
            taken.lost += done.lost;
        }
        Ok(taken)
    }
}

impl Node {
    pub(super) fn mirroring(&self) -> Option<Mirroring> {
        let desired = &self.applied()?.desired;
        let timeouts = &desired.node.timeouts;
        Some(Mirroring {
            is_on: desired.services.iter().any(|service| service.mirror.is_some()),
            lifetimes: Lifetimes { established: timeouts.tcp_established, closing: timeouts.tcp_closing },
            room: desired.node.flows as usize,
            sources: desired.services.iter().filter_map(|service| service.source).collect(),
        })
    }

    pub(super) fn mirrored(&mut self, cursor: Option<Cursor>) -> dataplane::Result<Page> {
        let mut ages: HashMap<u32, Duration> = HashMap::new();
        let mut numbers = HashMap::new();
        if let Some(applied) = self.applied() {
            for (pool, place) in applied.pools.iter().zip(&applied.places) {
                let Some(age) = pool.service.mirror else { continue };
                ages.insert(place.id, age);
                numbers.extend(place.backends.iter().map(|b| ((b.slot, b.generation), b.number)));
            }
        }
        if ages.is_empty() {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        let page = self.plane.flows(cursor, PAGE)?;
        let now = monotonic_ns();
        let rows = page.rows.iter().filter_map(|flow| {
            let age = *ages.get(&flow.service)?;
            let server = *numbers.get(&(flow.backend, flow.backend_generation))?;
            Some(Seen { record: Record::of(flow, server, now)?, age })
        });
        Ok(Page { rows: rows.collect(), next: page.next })
    }

    pub(super) fn adopt(&mut self, all: &[Heirloom]) -> dataplane::Result<Taken> {
        let mut places = HashMap::new();
        if let Some(applied) = self.applied() {
            for place in &applied.places {
                let backends = place.backends.iter();
                places.extend(backends.map(|b| ((place.id, b.number), (place.slot, b.slot, b.generation))));
            }
        }
        let flow = |heirloom: &Heirloom| {
            let record = &heirloom.record;
            let (service_slot, backend, generation) = *places.get(&(record.service, record.server))?;
            let (hop, tag) = (&heirloom.way.hop, heirloom.way.vlan);
            let outer = tag.map_or([Be16::default(); 2], |id| [Be16::new(VLAN), Be16::new(id)]);
            Some(record.flow(&Place {
                service_slot,
                backend,
                generation,
                ifindex: hop.ifindex,
                client_mac: hop.destination,
                local_mac: hop.source,
                mtu: hop.mtu,
                tags: VlanTags { outer, ..VlanTags::default() },
                is_counted: heirloom.is_counted,
            }))
        };
        let flows: Vec<_> = all.iter().filter_map(flow).collect();
        let mut taken = Taken { lost: (all.len() - flows.len()) as u64, ..Taken::default() };
        for result in self.plane.adopt(&flows)? {
            match result {
                RecordResult::Applied => taken.adopted += 1,
                RecordResult::Superseded => taken.known += 1,
                RecordResult::Full | RecordResult::Invalid | RecordResult::Absent | RecordResult::Busy => {
                    taken.lost += 1;
                }
            }
        }
        Ok(taken)
    }
}
