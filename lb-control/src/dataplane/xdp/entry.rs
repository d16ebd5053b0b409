//! Entries of array maps, one or several in a row.

use super::tables::{at, io_error};
use crate::dataplane::{Operation, Result};
use aya::{
    Pod,
    maps::{Array, MapData},
};

/// Writes an entry.
pub(super) fn put<T: Pod>(
    array: &mut Array<MapData, T>,
    (operation, table): (Operation, &'static str),
    index: u32,
    value: &T,
) -> Result<()> {
    let fail = at(operation, table, index);
    array.set(index, value, 0).map_err(|error| fail(io_error(error)))
}

/// Writes entries from a place on.
pub(super) fn put_all<T: Pod>(
    array: &mut Array<MapData, T>,
    what: (Operation, &'static str),
    start: u32,
    values: &[T],
) -> Result<()> {
    (start..).zip(values).try_for_each(|(index, value)| put(array, what, index, value))
}

/// Reads entries from a place on.
pub(super) fn stretch<T: Pod>(
    array: &Array<MapData, T>,
    table: &'static str,
    start: u32,
    count: u32,
) -> Result<Vec<T>> {
    let one = |index| {
        let fail = at(Operation::Read, table, index);
        array.get(&index, 0).map_err(|error| fail(io_error(error)))
    };
    (start..start.saturating_add(count)).map(one).collect()
}
