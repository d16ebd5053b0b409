//! Copies flow records to new places, and the index entries that lead to them.

use crate::dataplane::{
    Operation, Result, Sizes,
    clock::monotonic_ns,
    xdp::{
        source::Source,
        syscall,
        tables::{Tables, at, io_error},
    },
};
use aya::maps::MapError;
use lb_common::abi::{Flow, FlowKey, FlowRef, FlowState, FlowWord, map};
use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
};

/// Records kept free at the end of each region for flows that old programs open while the new ones are
/// being filled; they are marked claimed, so that programs leave them alone.
const RESERVE: u32 = 4_096;
/// Nonce of reserved records.
const RESERVED: u32 = u32::MAX;

/// The copying of flows: what went where.
pub(in crate::dataplane::xdp) struct FlowCopy {
    half_open: Region,
    established: Region,
    /// By old index and nonce.
    copied: HashMap<(u32, u32), Copied>,
    /// Old index and nonce of those that had no room.
    skipped: HashSet<(u32, u32)>,
    /// New index and nonce of every copy.
    places: HashSet<(u32, u32)>,
}

/// Records of one kind in the new table.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Region {
    free: Vec<u32>,
    reserve: Vec<u32>,
}

/// Where a flow went, and its word then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Copied {
    index: u32,
    word: u64,
}

impl FlowCopy {
    /// Copies every flow into tables that no program uses yet.
    pub(in crate::dataplane::xdp) fn run(
        source: &Source,
        target: &mut Tables,
        sizes: &Sizes,
    ) -> Result<Self> {
        let (half_open, all) = (sizes.half_open(), sizes.flow_records());
        let mut copy = Self {
            half_open: Region::new(0..half_open),
            established: Region::new(half_open..all),
            copied: HashMap::new(),
            places: HashSet::new(),
            skipped: HashSet::new(),
        };
        let mut flows = read(source)?;
        // Where there is less room than before, those that were used last stay.
        flows.sort_unstable_by_key(|(_, flow)| std::cmp::Reverse(flow.last_seen));
        let (mut indices, mut records) = (Vec::new(), Vec::new());
        let (mut keys, mut references) = (Vec::new(), Vec::new());
        for (old, flow) in flows {
            let Some(new) = copy.region(source, old).free.pop() else {
                copy.skipped.insert((old, FlowWord(flow.word).nonce()));
                continue;
            };
            copy.note(old, &flow, new);
            indices.push(new);
            records.push(flow);
            for (key, reference) in index_entries(&flow, new) {
                keys.push(key);
                references.push(reference.0);
            }
        }
        for region in [&copy.half_open, &copy.established] {
            for &index in &region.reserve {
                indices.push(index);
                records.push(Flow {
                    word: FlowWord::new(RESERVED, FlowState::Claimed).0,
                    last_seen: monotonic_ns(),
                    ..Flow::default()
                });
            }
        }
        syscall::update_batch(&target.descriptors.flows, &indices, &records).map_err(at(
            Operation::PutFlow,
            map::FLOWS,
            "a batch",
        ))?;
        syscall::update_batch(&target.descriptors.flow_index, &keys, &references).map_err(at(
            Operation::PutFlow,
            map::FLOW_INDEX,
            "a batch",
        ))?;
        Ok(copy)
    }

    /// Takes up the copying of a process that was killed in the middle: what it reserved is still marked so.
    pub(in crate::dataplane::xdp) fn resume(target: &mut Tables, sizes: &Sizes) -> Result<Self> {
        let empty = || Region { free: Vec::new(), reserve: Vec::new() };
        let mut copy = Self {
            half_open: empty(),
            established: empty(),
            copied: HashMap::new(),
            places: HashSet::new(),
            skipped: HashSet::new(),
        };
        for index in 0..sizes.flow_records() {
            let fail = at(Operation::Read, map::FLOWS, index);
            let flow = target.flows.get(&index, 0).map_err(|error| fail(io_error(error)))?;
            if flow.word == FlowWord::new(RESERVED, FlowState::Claimed).0 {
                let half_open = index < sizes.half_open();
                let region = if half_open { &mut copy.half_open } else { &mut copy.established };
                region.reserve.push(index);
            }
        }
        Ok(copy)
    }

    /// Brings tables that programs use by now up to what the old ones hold at the end.
    pub(in crate::dataplane::xdp) fn finish(&mut self, source: &Source, target: &mut Tables) -> Result<()> {
        for (old, flow) in read(source)? {
            let nonce = FlowWord(flow.word).nonce();
            match self.copied.get(&(old, nonce)).copied() {
                Some(copied) if copied.word == flow.word => {}
                Some(copied) => update(target, copied, &flow)?,
                None if self.skipped.contains(&(old, nonce)) => {}
                None if self.is_known(target, &flow.client)? => {}
                None => {
                    let Some(new) = self.region(source, old).reserve.pop() else {
                        self.skipped.insert((old, nonce));
                        continue;
                    };
                    write(target, new, &flow)?;
                    for (key, reference) in index_entries(&flow, new) {
                        let fail = at(Operation::PutFlow, map::FLOW_INDEX, key);
                        let inserted = target.flow_index.insert(key, reference, 0);
                        inserted.map_err(|error| fail(io_error(error)))?;
                    }
                    self.note(old, &flow, new);
                }
            }
        }
        self.release(target)
    }

    /// Flows in the new table.
    pub(in crate::dataplane::xdp) fn copied(&self) -> u64 {
        self.copied.len() as u64
    }

    /// Flows that had no room.
    pub(in crate::dataplane::xdp) fn left_out(&self) -> u64 {
        self.skipped.len() as u64
    }

    fn region(&mut self, source: &Source, old: u32) -> &mut Region {
        if old < source.settings.half_open { &mut self.half_open } else { &mut self.established }
    }

    fn note(&mut self, old: u32, flow: &Flow, index: u32) {
        let nonce = FlowWord(flow.word).nonce();
        self.copied.insert((old, nonce), Copied { index, word: flow.word });
        self.places.insert((index, nonce));
    }

    /// Whether the new programs lead somewhere with that key, and not to a copy that is out of date because the
    /// flow moved from half-open to established.
    fn is_known(&self, target: &Tables, key: &FlowKey) -> Result<bool> {
        match target.flow_index.get(key, 0) {
            Ok(found) => Ok(!self.places.contains(&(found.index(), found.nonce()))),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(at(Operation::Read, map::FLOW_INDEX, key)(io_error(error))),
        }
    }

    /// Gives the reserved records that were not needed to the programs.
    fn release(&mut self, target: &Tables) -> Result<()> {
        let indices: Vec<u32> =
            self.half_open.reserve.drain(..).chain(self.established.reserve.drain(..)).collect();
        let free = vec![Flow::default(); indices.len()];
        syscall::update_batch(&target.descriptors.flows, &indices, &free).map_err(at(
            Operation::PutFlow,
            map::FLOWS,
            "reserved records",
        ))
    }
}

impl Region {
    fn new(records: Range<u32>) -> Self {
        let length = records.end - records.start;
        let middle = records.end - RESERVE.min(length / 8);
        Self { free: (records.start..middle).rev().collect(), reserve: (middle..records.end).collect() }
    }
}

/// Both index entries of a flow in record `index`.
fn index_entries(flow: &Flow, index: u32) -> [(FlowKey, FlowRef); 2] {
    let nonce = FlowWord(flow.word).nonce();
    [(flow.client, FlowRef::new(index, nonce, false)), (flow.server, FlowRef::new(index, nonce, true))]
}

/// Brings a copy up to date, unless the new programs have changed it themselves.
fn update(target: &mut Tables, copied: Copied, flow: &Flow) -> Result<()> {
    let fail = at(Operation::Read, map::FLOWS, copied.index);
    let now = target.flows.get(&copied.index, 0).map_err(|error| fail(io_error(error)))?;
    if now.word == copied.word { write(target, copied.index, flow) } else { Ok(()) }
}

fn write(target: &mut Tables, index: u32, flow: &Flow) -> Result<()> {
    let fail = at(Operation::PutFlow, map::FLOWS, index);
    target.flows.set(index, flow, 0).map_err(|error| fail(io_error(error)))
}

/// Every flow in use, with its place.
fn read(source: &Source) -> Result<Vec<(u32, Flow)>> {
    let mut flows = Vec::new();
    source.map(map::FLOWS)?.walk(|key, value| {
        let index = super::index(key)
            .ok_or_else(|| at(Operation::Read, map::FLOWS, "a key")(io::ErrorKind::InvalidData.into()))?;
        if let Some(flow) = (source.schema.flow)(value).filter(|flow| is_open(flow.word)) {
            flows.push((index, flow));
        }
        Ok(())
    })?;
    Ok(flows)
}

fn is_open(word: u64) -> bool {
    match FlowWord(word).state() {
        FlowState::Free | FlowState::Claimed => false,
        FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Closing
        | FlowState::Closed => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_keeps_an_eighth_for_late_flows_but_not_more_than_the_reserve() {
        let region = Region::new(0..64);
        assert_eq!((region.free.last(), region.free.len()), (Some(&0), 56));
        assert_eq!(region.reserve, (56..64).collect::<Vec<u32>>());
        assert_eq!(Region::new(64..1_000_064).reserve.len(), 4_096);
    }

    #[test]
    fn both_directions_lead_to_the_record() {
        let flow = Flow { word: FlowWord::new(77, FlowState::Established).0, ..Flow::default() };
        let [client, server] = index_entries(&flow, 5);
        assert_eq!((client.1.index(), client.1.nonce(), client.1.is_reply()), (5, 77, false));
        assert_eq!((server.1.index(), server.1.nonce(), server.1.is_reply()), (5, 77, true));
    }
}
