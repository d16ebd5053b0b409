//! The tables of the journal's file.

use super::{Block, Recovered, Snapshot, Write};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
};

/// Version of these tables.
const FORMAT: u64 = 1;

/// Single numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Single values by name.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// (origin, epoch, first event) -> (last event, events).
const EVENTS: TableDefinition<'_, (u64, u64, u64), (u64, &[u8])> = TableDefinition::new("events");
/// (snapshot, part) -> records.
const PARTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("parts");
/// Digest -> view of a pool.
const VIEWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("views");

const NUMBER_FORMAT: &str = "format";
const NUMBER_NODE: &str = "node";
const NUMBER_EPOCH: &str = "epoch";
const NUMBER_SNAPSHOT: &str = "snapshot";
const VALUE_VECTOR: &str = "vector";
const VALUE_SNAPSHOT_VECTOR: &str = "snapshot vector";

/// What a file says that cannot be this node's journal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// The database says so.
    #[error("{0}")]
    Database(#[from] redb::Error),
    /// A table, or an entry of one, is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is of another version.
    #[error("format {found}, expected {FORMAT}")]
    Format {
        /// What it is.
        found: u64,
    },
    /// It is of another node.
    #[error("it is node {found:016x}'s")]
    Node {
        /// Whose it is.
        found: u64,
    },
    /// A part of the snapshot is missing.
    #[error("part {part} of snapshot {snapshot} is missing")]
    Part {
        /// The snapshot.
        snapshot: u64,
        /// The part.
        part: u32,
    },
    /// A block's events are not in order, or overlap another block's.
    #[error("events {first}..={last} of node {origin:016x} overlap others or are out of order")]
    Block {
        /// Whose.
        origin: u64,
        /// First event.
        first: u64,
        /// Last event.
        last: u64,
    },
}

/// Makes every table, for a node at the beginning of an epoch.
pub(super) fn initialise(database: &Database, node: u64, epoch: u64) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(NUMBER_FORMAT, FORMAT)?;
        numbers.insert(NUMBER_NODE, node)?;
        numbers.insert(NUMBER_EPOCH, epoch)?;
        transaction.open_table(VALUES)?;
        transaction.open_table(EVENTS)?;
        transaction.open_table(PARTS)?;
        transaction.open_table(VIEWS)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Reads everything, and refuses what is not whole.
pub(super) fn read(database: &Database, node: u64) -> Result<Recovered, Unfit> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let numbers = transaction.open_table(NUMBERS).map_err(absent("table of numbers"))?;
    let number = |name: &'static str| -> Result<Option<u64>, Unfit> {
        Ok(numbers.get(name).map_err(redb::Error::from)?.map(|value| value.value()))
    };
    match number(NUMBER_FORMAT)?.ok_or(Unfit::Missing("the format's number"))? {
        FORMAT => {}
        found => return Err(Unfit::Format { found }),
    }
    let found = number(NUMBER_NODE)?.ok_or(Unfit::Missing("the node's id"))?;
    if found != node {
        return Err(Unfit::Node { found });
    }
    let epoch = number(NUMBER_EPOCH)?.ok_or(Unfit::Missing("the node's epoch"))?;
    let values = transaction.open_table(VALUES).map_err(absent("table of values"))?;
    let value = |name: &'static str| -> Result<Option<Vec<u8>>, Unfit> {
        Ok(values.get(name).map_err(redb::Error::from)?.map(|value| value.value().to_vec()))
    };
    let snapshot = match number(NUMBER_SNAPSHOT)? {
        None => None,
        Some(snapshot) => {
            let vector = value(VALUE_SNAPSHOT_VECTOR)?.ok_or(Unfit::Missing("the snapshot's vector"))?;
            let table = transaction.open_table(PARTS).map_err(absent("table of parts"))?;
            let mut parts = Vec::new();
            for entry in table.range((snapshot, 0)..=(snapshot, u32::MAX)).map_err(redb::Error::from)? {
                let (key, bytes) = entry.map_err(redb::Error::from)?;
                let part = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                if key.value() != (snapshot, part) {
                    return Err(Unfit::Part { snapshot, part });
                }
                parts.push(bytes.value().to_vec());
            }
            Some(Snapshot { number: snapshot, vector, parts })
        }
    };
    let table = transaction.open_table(EVENTS).map_err(absent("table of events"))?;
    let mut blocks: Vec<Block> = Vec::new();
    for entry in table.iter().map_err(redb::Error::from)? {
        let (key, value) = entry.map_err(redb::Error::from)?;
        let ((origin, epoch, first), (last, bytes)) = (key.value(), value.value());
        let overlaps = blocks
            .last()
            .is_some_and(|block| (block.origin, block.epoch) == (origin, epoch) && block.last >= first);
        if overlaps || last < first {
            return Err(Unfit::Block { origin, first, last });
        }
        blocks.push(Block { origin, epoch, first, last, bytes: bytes.to_vec() });
    }
    let table = transaction.open_table(VIEWS).map_err(absent("table of views"))?;
    let mut views = Vec::new();
    for entry in table.iter().map_err(redb::Error::from)? {
        views.push(entry.map_err(redb::Error::from)?.1.value().to_vec());
    }
    Ok(Recovered { epoch, blocks, vector: value(VALUE_VECTOR)?.unwrap_or_default(), snapshot, views })
}

/// Makes batches durable, all or none.
pub(super) fn commit(database: &Database, batches: &[Vec<Write>]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut values = transaction.open_table(VALUES)?;
        let mut events = transaction.open_table(EVENTS)?;
        let mut parts = transaction.open_table(PARTS)?;
        let mut views = transaction.open_table(VIEWS)?;
        for write in batches.iter().flatten() {
            match write {
                Write::Events(block) => {
                    let key = (block.origin, block.epoch, block.first);
                    events.insert(key, (block.last, block.bytes.as_slice()))?;
                }
                Write::Trim { origin, epoch, through } => {
                    let range = (*origin, *epoch, 0)..=(*origin, *epoch, *through);
                    events.retain_in(range, |_, (last, _)| last > *through)?;
                }
                Write::Epoch(epoch) => {
                    numbers.insert(NUMBER_EPOCH, epoch)?;
                }
                Write::Vector(bytes) => {
                    values.insert(VALUE_VECTOR, bytes.as_slice())?;
                }
                Write::Part { snapshot, part, bytes } => {
                    parts.insert((*snapshot, *part), bytes.as_slice())?;
                }
                Write::View { digest, bytes } => {
                    views.insert(digest, bytes.as_slice())?;
                }
                Write::Seal { snapshot, vector, views: needed } => {
                    views.retain(|digest, _| needed.contains(&digest))?;
                    numbers.insert(NUMBER_SNAPSHOT, snapshot)?;
                    values.insert(VALUE_SNAPSHOT_VECTOR, vector.as_slice())?;
                    if parts.len()? > 0 {
                        parts.retain(|(number, _), _| number == *snapshot)?;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn absent(table: &'static str) -> impl Fn(TableError) -> Unfit {
    move |error| match error {
        TableError::TableDoesNotExist(_) => Unfit::Missing(table),
        other => Unfit::Database(other.into()),
    }
}
