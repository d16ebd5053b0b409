//! What the journal's bytes mean: events with the time they were written at, checkpoints, views.

use crate::cluster::journal::{Block, Recovered};
use lb_core::binding::{Content, Mark, NodeId, StreamId, Time, Vector, View, ViewMember};
use lb_core::sync::{Config, Recovery, Saved, wire};
use std::time::Duration;

/// Bytes of a view's member.
const MEMBER: usize = 17;

/// Consecutive events of a stream in the making.
pub(super) struct BlockWriter {
    stream: StreamId,
    first: u64,
    last: u64,
    bytes: Vec<u8>,
}

impl BlockWriter {
    /// Begins with an event, at a wall-clock time in milliseconds since 1970.
    pub(super) fn begin(stream: StreamId, number: u64, content: &Content, left: Duration, wall: u64) -> Self {
        let mut bytes = wall.to_be_bytes().to_vec();
        wire::put_event(&mut bytes, content, left, true);
        Self { stream, first: number, last: number, bytes }
    }

    /// Adds an event; false = it does not follow.
    pub(super) fn add(&mut self, stream: StreamId, number: u64, content: &Content, left: Duration) -> bool {
        let follows = stream == self.stream && number == self.last + 1;
        if follows {
            wire::put_event(&mut self.bytes, content, left, true);
            self.last = number;
        }
        follows
    }

    /// The stream and its last event here.
    pub(super) const fn end(&self) -> (StreamId, u64) {
        (self.stream, self.last)
    }

    pub(super) fn block(self) -> Block {
        let StreamId { node, epoch } = self.stream;
        Block { origin: node.0, epoch, first: self.first, last: self.last, bytes: self.bytes }
    }
}

/// A part of a checkpoint, at a wall-clock time.
pub(super) fn part(marks: &[(Mark, Duration)], records: &[Saved], wall: u64) -> Vec<u8> {
    let mut bytes = wall.to_be_bytes().to_vec();
    for (mark, left) in marks {
        wire::put_event(&mut bytes, &Content::Failover(*mark), *left, true);
    }
    for Saved { body, left, is_covered } in records {
        wire::put_event(&mut bytes, &Content::Binding(*body), *left, *is_covered);
    }
    bytes
}

/// A vector as bytes.
pub(super) fn vector(vector: &Vector) -> Vec<u8> {
    let numbers = vector.iter().flat_map(|(stream, event)| [stream.node.0, stream.epoch, event]);
    numbers.flat_map(u64::to_be_bytes).collect()
}

/// A view as bytes.
pub(super) fn view(view: &View) -> Vec<u8> {
    let mut bytes = view.service().to_be_bytes().to_vec();
    for member in view.members() {
        bytes.extend(member.number.to_be_bytes());
        bytes.extend(member.weight.to_be_bytes());
        bytes.extend(member.failover.to_be_bytes());
        bytes.push(u8::from(member.is_live));
    }
    bytes
}

/// What the journal holds cannot be read, though the database says that it is what was written: by another version perhaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} cannot be read")]
pub(super) struct Unreadable(&'static str);

/// Feeds a recovery with what the journal held.
///
/// The vector, and the numbers of events, say that all before them is known, and nobody would tell it again. So when a part cannot be
/// read, nothing counts, and the recovery must not be used.
pub(super) fn feed(recovery: &mut Recovery, recovered: &Recovered) -> Result<(), Unreadable> {
    for bytes in &recovered.views {
        match read_view(bytes) {
            Some(view) => recovery.view(view),
            // Marks know their views' digests.
            None => tracing::error!("a view of the journal cannot be read; it is fetched from the peers"),
        }
    }
    if let Some(snapshot) = &recovered.snapshot {
        let vector = read_vector(&snapshot.vector).ok_or(Unreadable("the checkpoint's vector"))?;
        recovery.vector(&vector);
        for part in &snapshot.parts {
            let read = each(recovery, part, |recovery, content, left, is_covered| match *content {
                Content::Binding(body) => recovery.record(&Saved { body, left, is_covered }),
                Content::Failover(mark) => recovery.mark(mark, left),
            });
            read.ok_or(Unreadable("a part of the checkpoint"))?;
        }
    }
    for block in &recovered.blocks {
        let stream = StreamId { node: NodeId(block.origin), epoch: block.epoch };
        let mut number = block.first;
        let read = each(recovery, &block.bytes, |recovery, content, left, _| {
            recovery.event(stream, number, content, left);
            number += 1;
        });
        read.filter(|()| number == block.last + 1).ok_or(Unreadable("a block of events"))?;
    }
    Ok(())
}

/// Begins a node with values of a journal, whatever they are: the entry of fuzzing. A value is its kind, its length in two bytes,
/// and so many bytes.
pub(super) fn examine(mut data: &[u8]) {
    let new = || Recovery::new(Config::new(NodeId(1), vec![NodeId(2)]), Time(0), 1 << 41, 5);
    let mut recovered = Recovered::default();
    while let Some(([kind, low, high], rest)) = data.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (value, rest) = rest.split_at(length);
        let bytes = value.to_vec();
        match kind % 4 {
            0 => {
                let first = recovered.blocks.last().map_or(1, |block| block.last + 1);
                let mut events = 0;
                let _ = each(&mut new(), &bytes, |_, _, _, _| events += 1);
                let last = first + events - 1;
                recovered.blocks.push(Block { origin: 1, epoch: 1 << 20, first, last, bytes });
            }
            1 => recovered.views.push(bytes),
            2 => recovered.snapshot.get_or_insert_default().vector = bytes,
            _ => recovered.snapshot.get_or_insert_default().parts.push(bytes),
        }
        data = rest;
    }
    let mut recovery = new();
    if feed(&mut recovery, &recovered).is_err() {
        return;
    }
    let mut node = recovery.finish();
    for now in [Time(0), Time(10_000)] {
        node.handle_timeout(now);
        while node.poll_journal(now).is_some() {}
        while node.poll_event(now).is_some() {}
    }
}

/// Reads events behind a wall-clock time; `None` when there is something else.
fn each(
    recovery: &mut Recovery,
    bytes: &[u8],
    mut take: impl FnMut(&mut Recovery, &Content, Duration, bool),
) -> Option<()> {
    let (wall, mut rest) = bytes.split_first_chunk::<8>()?;
    recovery.written_at(u64::from_be_bytes(*wall));
    while let Some(&length) = rest.first() {
        let (event, behind) = rest.split_at_checked(usize::from(length) + 1)?;
        let (content, left, is_covered) = wire::event(event).ok()?;
        take(recovery, &content, left, is_covered);
        rest = behind;
    }
    Some(())
}

fn read_vector(bytes: &[u8]) -> Option<Vector> {
    let (entries, rest) = bytes.as_chunks::<24>();
    let number = |entry: &[u8; 24], at: usize| entry.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let entry = |entry: &[u8; 24]| {
        let stream = StreamId { node: NodeId(number(entry, 0)?), epoch: number(entry, 8)? };
        Some((stream, number(entry, 16)?))
    };
    if rest.is_empty() { entries.iter().map(entry).collect() } else { None }
}

fn read_view(bytes: &[u8]) -> Option<View> {
    let (service, rest) = bytes.split_first_chunk::<4>()?;
    let (members, rest) = rest.as_chunks::<MEMBER>();
    let member = |bytes: &[u8; MEMBER]| {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (weight, rest) = rest.split_first_chunk::<4>()?;
        let (failover, rest) = rest.split_first_chunk::<4>()?;
        Some(ViewMember {
            number: u64::from_be_bytes(*number),
            weight: u32::from_be_bytes(*weight),
            failover: u32::from_be_bytes(*failover),
            is_live: rest == [1],
        })
    };
    let members = members.iter().map(member).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then(|| View::new(u32::from_be_bytes(*service), members))
}
