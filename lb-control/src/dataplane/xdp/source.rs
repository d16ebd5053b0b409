//! Pinned maps that somebody made earlier, read through the schema they were made with.

use super::{
    layout::{Fate, TABLES},
    schema::Schema,
    syscall,
    tables::{at, io_error},
};
use crate::dataplane::{Error, Operation, Result, Sizes};
use aya::maps::{Array, DevMapHash, Map, MapData};
use lb_common::abi::{Settings, SettingsFlags, map};
use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Entries read at once.
const BATCH: usize = 8_192;

/// A directory of pinned maps.
#[derive(Debug)]
pub(super) struct Source {
    directory: PathBuf,
    pub(super) schema: Schema,
    pub(super) settings: Settings,
    pub(super) sizes: Sizes,
}

/// A pinned map of any layout.
pub(super) struct RawMap {
    name: &'static str,
    data: MapData,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

impl Source {
    /// Opens a directory of pinned maps; `None` when there is none.
    pub(super) fn open(directory: &Path, known: &[Schema]) -> Result<Option<Self>> {
        if !directory.join(map::SETTINGS).exists() {
            return Ok(None);
        }
        let settings = RawMap::open(directory, map::SETTINGS)?.first()?;
        let version = Schema::version_of(&settings).unwrap_or_default();
        let schema = known.iter().find(|schema| schema.version == version).copied();
        let unknown = || Error::UnknownSchema {
            path: directory.to_owned(),
            found: version,
            known: known.iter().map(|schema| schema.version.to_string()).collect::<Vec<_>>().join(", "),
        };
        let schema = schema.ok_or_else(unknown)?;
        let settings = (schema.settings)(&settings).ok_or_else(unknown)?;
        let arena = RawMap::open(directory, map::ARENA)?.max_entries;
        let holds = settings.holds.saturating_sub(settings.cpu_holds);
        let sizes = Sizes { bindings: settings.binding_capacity, flows: settings.flows, arena, holds };
        Ok(Some(Self { directory: directory.to_owned(), schema, settings, sizes }))
    }

    /// Whether entries of the tables that these replaced may still be missing in them.
    pub(super) const fn is_migrating(&self) -> bool {
        self.settings.flags & SettingsFlags::MIGRATING != 0
    }

    /// Where the maps are pinned.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells the programs of these maps whether entries may be missing; only for the current schema.
    pub(super) fn set_migrating(&self, migrating: bool) -> Result<()> {
        let fail = at(Operation::PutSettings, map::SETTINGS, 0);
        let data = MapData::from_pin(self.directory.join(map::SETTINGS));
        let settings = data.and_then(Map::from_map_data).and_then(Array::<_, Settings>::try_from);
        let mut settings = settings.map_err(|error| fail(io_error(error)))?;
        let now = settings.get(&0, 0).map_err(|error| fail(io_error(error)))?;
        let flag = if migrating { SettingsFlags::MIGRATING } else { 0 };
        let flags = now.flags & !SettingsFlags::MIGRATING | flag;
        settings.set(0, Settings { flags, ..now }, 0).map_err(|error| fail(io_error(error)))
    }

    /// The maps are pinned somewhere else by now.
    pub(super) fn moved_to(&mut self, directory: PathBuf) {
        self.directory = directory;
    }

    /// Whether there is such a map.
    pub(super) fn has(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// Opens one of the maps.
    pub(super) fn map(&self, name: &'static str) -> Result<RawMap> {
        RawMap::open(&self.directory, name)
    }

    /// Interfaces in the device map, in any schema keyed by interface index.
    pub(super) fn devices(&self) -> Result<Vec<u32>> {
        let data = MapData::from_pin(self.directory.join(map::DEVICES));
        let fail = at(Operation::Read, map::DEVICES, "keys");
        let devices = data.and_then(Map::from_map_data).and_then(DevMapHash::try_from);
        let devices = devices.map_err(|error| fail(io_error(error)))?;
        devices.keys().map(|key| key.map_err(|error| fail(io_error(error)))).collect()
    }

    /// Refuses maps whose entries are not as large as this schema says; only for the current schema.
    pub(super) fn check(&self) -> Result<()> {
        for table in TABLES {
            let Some(expected) = table.entry else { continue };
            if table.fate == Fate::Fresh {
                continue;
            }
            let map = self.map(table.name)?;
            let found = (map.key_size, map.value_size);
            if found != expected {
                return Err(Error::ForeignMap {
                    path: self.directory.clone(),
                    table: table.name,
                    found: format!("keys of {} and values of {} bytes", found.0, found.1),
                    expected: format!("{} and {}", expected.0, expected.1),
                });
            }
        }
        Ok(())
    }
}

impl RawMap {
    fn open(directory: &Path, name: &'static str) -> Result<Self> {
        let path = directory.join(name);
        let fail = |source| Error::Pin { operation: Operation::Open, path: path.clone(), source };
        let data = MapData::from_pin(&path).map_err(|error| fail(io_error(error)))?;
        let info = data.info().map_err(|error| fail(io_error(error)))?;
        Ok(Self {
            name,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            data,
        })
    }

    /// Calls `each` with the bytes of every key and value.
    pub(super) fn walk(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let (key_size, value_size) = (self.key_size as usize, self.value_size as usize);
        let mut cursor = None;
        loop {
            let batch = syscall::lookup_batch(self.data.fd().as_fd(), (key_size, value_size), cursor, BATCH)
                .map_err(at(Operation::Read, self.name, "a batch"))?;
            for (key, value) in batch.keys.chunks_exact(key_size).zip(batch.values.chunks_exact(value_size)) {
                each(key, value)?;
            }
            cursor = batch.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// The value of the first entry.
    fn first(&self) -> Result<Vec<u8>> {
        let sizes = (self.key_size as usize, self.value_size as usize);
        let fail = at(Operation::Read, self.name, 0);
        let batch = syscall::lookup_batch(self.data.fd().as_fd(), sizes, None, 1).map_err(&fail)?;
        if batch.values.is_empty() { Err(fail(io::ErrorKind::NotFound.into())) } else { Ok(batch.values) }
    }
}
