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

/// Records of each region kept for flows that old programs open until no packet meets them any more; they are
/// marked claimed, so that programs leave them alone.
const RESERVE: u32 = 4_096;
/// Nonce of reserved records.
const RESERVED: u32 = u32::MAX;
/// `BPF_NOEXIST`: only where there is no entry.
const NO_EXIST: u64 = 1;

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
    /// An earlier process copied from the same tables, and what it copied is not in `copied`.
    is_resumed: bool,
}

/// Flows that were connections of a backend, by its slot and generation, and are in no table any more.
pub(in crate::dataplane::xdp) type Lost = HashMap<(u16, u16), u32>;

/// Records of one kind in the new table.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
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
    fn new(half_open: Region, established: Region) -> Self {
        let (copied, skipped, places) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { half_open, established, copied, skipped, places, is_resumed: false }
    }

    /// Copies every flow into tables that no program uses yet.
    pub(in crate::dataplane::xdp) fn run(
        source: &Source,
        target: &mut Tables,
        sizes: &Sizes,
    ) -> Result<Self> {
        let (half_open, all) = (sizes.half_open(), sizes.flow_records());
        let mut copy = Self::new(Region::new(0..half_open), Region::new(half_open..all));
        let mut flows = read(source, is_open)?;
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
        let mut copy = Self { is_resumed: true, ..Self::new(Region::default(), Region::default()) };
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

    /// Another copying, from other tables, into the records that this one kept.
    pub(in crate::dataplane::xdp) fn take_reserve(&mut self) -> Self {
        let (half_open, established) =
            (std::mem::take(&mut self.half_open), std::mem::take(&mut self.established));
        Self { is_resumed: true, ..Self::new(half_open, established) }
    }

    /// Leaves the free records to the programs, which will use them from here on; the reserved ones stay.
    pub(in crate::dataplane::xdp) fn hand_over(&mut self) {
        self.half_open.free.clear();
        self.established.free.clear();
    }

    /// Copies what the old tables have that the new ones lack by now; programs may be using both.
    pub(in crate::dataplane::xdp) fn catch_up(&mut self, source: &Source, target: &mut Tables) -> Result<()> {
        for (old, flow) in read(source, is_open)? {
            let place = (old, FlowWord(flow.word).nonce());
            match self.copied.get_mut(&place) {
                Some(copied) if copied.word == flow.word => {}
                Some(copied) => update(target, copied, &flow)?,
                None if self.skipped.contains(&place) => {}
                None => self.add(source, target, old, &flow)?,
            }
        }
        Ok(())
    }

    /// Copies a flow that was opened, or moved to an established record, since the last look.
    fn add(&mut self, source: &Source, target: &mut Tables, old: u32, flow: &Flow) -> Result<()> {
        // What the new programs opened themselves goes on; the next look finds the same.
        if self.is_known(target, &flow.client)? || self.is_known(target, &flow.server)? {
            return Ok(());
        }
        let region = self.region(source, old);
        let Some(new) = region.free.pop().or_else(|| region.reserve.pop()) else {
            self.skipped.insert((old, FlowWord(flow.word).nonce()));
            return Ok(());
        };
        write(target, new, flow)?;
        // The reply's first: a client's packet that finds the flow may be answered at once.
        let [client, server] = index_entries(flow, new);
        if !self.lead(target, server)? || !self.lead(target, client)? {
            // The new programs were faster, and nobody has found the record.
            write(target, new, &Flow::default())?;
            return Ok(());
        }
        self.note(old, flow, new);
        Ok(())
    }

    /// Leaves a trace of the connections whose requests waited in the old tables' holds, which nobody copies.
    ///
    /// Who has been told that its bytes arrived cannot send them again, and is reset when it goes on; who still has
    /// its whole request sends it again, and begins anew.
    pub(in crate::dataplane::xdp) fn leave_traces(
        &mut self,
        source: &Source,
        target: &mut Tables,
    ) -> Result<()> {
        for (old, flow) in read(source, waits)? {
            if self.is_known(target, &flow.client)? {
                continue;
            }
            let region = self.region(source, old);
            let Some(new) = region.free.pop().or_else(|| region.reserve.pop()) else { return Ok(()) };
            let trace = trace(&flow);
            write(target, new, &trace)?;
            let [client, _] = index_entries(&trace, new);
            if !self.lead(target, client)? {
                write(target, new, &Flow::default())?;
            }
        }
        Ok(())
    }

    /// What counts in the old tables and will be met by nobody, to be taken from the backends' connections; copies of
    /// what counts no more, or under another copy, are not counted from now on either.
    ///
    /// For the end, when no old program runs any more.
    pub(in crate::dataplane::xdp) fn lost(&mut self, source: &Source, target: &mut Tables) -> Result<Lost> {
        let counts = |word| FlowWord(word).has(FlowWord::COUNTED);
        let mut lost = Lost::new();
        let mut seen = HashSet::new();
        for (old, flow) in read(source, counts)? {
            let place = (old, FlowWord(flow.word).nonce());
            seen.insert(place);
            let is_elsewhere = self.copied.contains_key(&place)
                || (self.is_resumed && is_open(flow.word) && self.is_known(target, &flow.client)?);
            if !is_elsewhere {
                *lost.entry((flow.backend, flow.backend_generation)).or_default() += 1;
            }
        }
        for (_, copied) in self.copied.iter().filter(|(place, _)| !seen.contains(place)) {
            let fail = at(Operation::Read, map::FLOWS, copied.index);
            let flow = target.flows.get(&copied.index, 0).map_err(|error| fail(io_error(error)))?;
            if flow.word == copied.word && counts(flow.word) {
                let word = FlowWord(flow.word).without(FlowWord::COUNTED).0;
                write(target, copied.index, &Flow { word, ..flow })?;
            }
        }
        Ok(lost)
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

    /// Whether the new programs made a flow with that key themselves.
    ///
    /// A copy is out of date when its flow has another record in the old tables now.
    fn is_known(&self, target: &Tables, key: &FlowKey) -> Result<bool> {
        let Some(found) = reference(target, key)? else { return Ok(false) };
        if self.places.contains(&(found.index(), found.nonce())) {
            return Ok(false);
        }
        let fail = at(Operation::Read, map::FLOWS, found.index());
        let record = target.flows.get(&found.index(), 0).map_err(|error| fail(io_error(error)))?;
        let word = FlowWord(record.word);
        Ok(word.nonce() == found.nonce() && word.state() != FlowState::Free)
    }

    /// Makes a key lead to a copy, unless the new programs were faster.
    fn lead(&self, target: &mut Tables, (key, to): (FlowKey, FlowRef)) -> Result<bool> {
        let fail = at(Operation::PutFlow, map::FLOW_INDEX, key);
        match target.flow_index.insert(key, to, NO_EXIST).map_err(io_error) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.is_known(target, &key)? {
                    return Ok(false);
                }
                target.flow_index.insert(key, to, 0).map_err(|error| fail(io_error(error)))?;
                Ok(true)
            }
            Err(error) => Err(fail(error)),
        }
    }

    /// Gives the reserved records that were not needed to the programs.
    pub(in crate::dataplane::xdp) fn release(&mut self, target: &Tables) -> Result<()> {
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
    /// Places are given out all over the region, and reserved ones lie between them: programs look for a free
    /// record at one stretch, and refuse a connection when a stretch is full.
    fn new(records: Range<u32>) -> Self {
        let length = records.end - records.start;
        let mut order = scattered(length).map(|place| records.start + place);
        let reserve = order.by_ref().take(RESERVE.min(length / 8) as usize).collect();
        let mut free: Vec<u32> = order.collect();
        free.reverse();
        Self { free, reserve }
    }
}

/// Every number below `length`, any few in a row far from each other: steps by the golden section of the ring.
fn scattered(length: u32) -> impl Iterator<Item = u32> {
    const GOLDEN: u64 = 0x9e37_79b9;
    let length = u64::from(length);
    let golden = (length * GOLDEN) >> 32;
    let step = (golden.max(1)..).find(|&step| greatest_divisor(step, length) == 1).unwrap_or(1);
    (0..length).map(move |n| (n * step % length) as u32)
}

const fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// Both index entries of a flow in record `index`.
fn index_entries(flow: &Flow, index: u32) -> [(FlowKey, FlowRef); 2] {
    let nonce = FlowWord(flow.word).nonce();
    [(flow.client, FlowRef::new(index, nonce, false)), (flow.server, FlowRef::new(index, nonce, true))]
}

/// Where a key leads; an entry that is being deleted leads nowhere.
fn reference(target: &Tables, key: &FlowKey) -> Result<Option<FlowRef>> {
    match target.flow_index.get(key, 0) {
        Ok(found) => Ok(Some(found).filter(|found| *found != FlowRef::default())),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(at(Operation::Read, map::FLOW_INDEX, key)(io_error(error))),
    }
}

/// Brings a copy up to date, unless the new programs have changed it themselves.
fn update(target: &mut Tables, copied: &mut Copied, flow: &Flow) -> Result<()> {
    let fail = at(Operation::Read, map::FLOWS, copied.index);
    let now = target.flows.get(&copied.index, 0).map_err(|error| fail(io_error(error)))?;
    if now.word != copied.word {
        return Ok(());
    }
    write(target, copied.index, flow)?;
    copied.word = flow.word;
    Ok(())
}

fn write(target: &mut Tables, index: u32, flow: &Flow) -> Result<()> {
    let fail = at(Operation::PutFlow, map::FLOWS, index);
    target.flows.set(index, flow, 0).map_err(|error| fail(io_error(error)))
}

/// Flows whose word is as wanted, with their places.
fn read(source: &Source, wanted: fn(u64) -> bool) -> Result<Vec<(u32, Flow)>> {
    let mut flows = Vec::new();
    source.map(map::FLOWS)?.walk(|key, value| {
        let index = super::index(key)
            .ok_or_else(|| at(Operation::Read, map::FLOWS, "a key")(io::ErrorKind::InvalidData.into()))?;
        if let Some(flow) = (source.schema.flow)(value).filter(|flow| wanted(flow.word)) {
            flows.push((index, flow));
        }
        Ok(())
    })?;
    Ok(flows)
}

fn is_open(word: u64) -> bool {
    match FlowWord(word).state() {
        FlowState::Free | FlowState::Claimed => false,
        // What waits in holds is not copied.
        FlowState::Collecting | FlowState::Connecting | FlowState::Releasing => false,
        FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Closing
        | FlowState::Closed => true,
    }
}

fn waits(word: u64) -> bool {
    match FlowWord(word).state() {
        FlowState::Collecting | FlowState::Connecting | FlowState::Releasing => true,
        FlowState::Free
        | FlowState::Claimed
        | FlowState::Opening
        | FlowState::Answered
        | FlowState::Established
        | FlowState::Closing
        | FlowState::Closed => false,
    }
}

/// What is left of a connection whose request waited: one whose hold is lost. Where its client may still have the whole
/// request, its time is over: then a first segment is taken for that of a new connection, and any other is reset.
fn trace(flow: &Flow) -> Flow {
    let word = FlowWord(flow.word);
    Flow {
        word: word.with_state(FlowState::Collecting).without(FlowWord::BUSY | FlowWord::COUNTED).0,
        last_seen: if word.state() == FlowState::Collecting { monotonic_ns() } else { 0 },
        server: FlowKey::default(),
        backend: 0,
        backend_generation: 0,
        hold: 0,
        ..*flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_keeps_an_eighth_for_late_flows_but_not_more_than_the_reserve() {
        for (range, reserved) in [(0..64, 8), (64..1_000_064, 4_096), (0..1, 0), (7..7, 0)] {
            let region = Region::new(range.clone());
            assert_eq!(region.reserve.len(), reserved);
            let mut all: Vec<u32> = region.free.iter().chain(&region.reserve).copied().collect();
            all.sort_unstable();
            assert_eq!(all, range.collect::<Vec<u32>>());
        }
    }

    #[test]
    fn copies_leave_a_free_record_in_every_stretch() {
        // Free and expired records are looked for in 256 places (half-open ones in 16, where only claimed ones stay).
        for (length, probes, taken) in [(32_768, 256, 32_000), (131_072, 256, 128_000), (8_192, 16, 0)] {
            let mut region = Region::new(0..length);
            let mut used = vec![false; length as usize];
            let copied = region
                .free
                .split_off(region.free.len().saturating_sub(taken - region.reserve.len().min(taken)));
            copied.iter().chain(&region.reserve).for_each(|&place| used[place as usize] = true);
            assert!(used.windows(probes).all(|stretch| stretch.contains(&false)), "{length}");
        }
    }

    #[test]
    fn both_directions_lead_to_the_record() {
        let flow = Flow { word: FlowWord::new(77, FlowState::Established).0, ..Flow::default() };
        let [client, server] = index_entries(&flow, 5);
        assert_eq!((client.1.index(), client.1.nonce(), client.1.is_reply()), (5, 77, false));
        assert_eq!((server.1.index(), server.1.nonce(), server.1.is_reply()), (5, 77, true));
    }
}
