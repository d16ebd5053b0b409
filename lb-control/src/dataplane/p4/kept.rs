//! Backend slots in a file: bindings on the switch name slots, so a slot must mean the same backend after a restart of `lbd`.

use crate::dataplane::{Error, Operation, Result};
use lb_common::abi::{Addr, Backend, Be16, map};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Whose a slot is, or was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    slot: u16,
    /// None = free.
    address: Option<IpAddr>,
    port: u16,
    number: u64,
    service: u32,
    generation: u16,
}

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    slots: BTreeMap<u16, Slot>,
}

impl Kept {
    /// Reads the file, if there is one.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("switch-slots.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, slots: BTreeMap::new() });
            }
            Err(source) => return Err(failed(Operation::Read, &path, source)),
        };
        let slots: Vec<Slot> =
            serde_json::from_str(&text).map_err(|error| failed(Operation::Read, &path, error.into()))?;
        Ok(Self { path, slots: slots.into_iter().map(|slot| (slot.slot, slot)).collect() })
    }

    /// The backends as they were: without ways to them.
    pub(super) fn backends(&self) -> impl Iterator<Item = (u16, Backend)> {
        self.slots.values().map(|kept| {
            let backend = Backend {
                address: kept.address.map_or(Addr::NONE, Addr::from),
                port: Be16::new(kept.port),
                number: kept.number,
                service: kept.service,
                generation: kept.generation,
                ..Backend::default()
            };
            (kept.slot, backend)
        })
    }

    /// Keeps a backend before it is used.
    pub(super) fn put(&mut self, slot: u16, backend: &Backend) -> Result<()> {
        let kept = Slot {
            slot,
            address: (backend.address != Addr::NONE).then(|| backend.address.into()),
            port: backend.port.host(),
            number: backend.number,
            service: backend.service,
            generation: backend.generation,
        };
        if self.slots.get(&slot) == Some(&kept) {
            return Ok(());
        }
        self.slots.insert(slot, kept);
        let all: Vec<&Slot> = self.slots.values().collect();
        let text = serde_json::to_vec_pretty(&all)
            .map_err(|error| failed(Operation::PutBackend, &self.path, error.into()))?;
        let new = self.path.with_extension("json.new");
        let written = fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))
            .and_then(|()| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &self.path));
        written.map_err(|source| failed(Operation::PutBackend, &self.path, source))
    }
}

fn failed(operation: Operation, path: &Path, source: io::Error) -> Error {
    Error::Table { operation, table: map::BACKENDS, entry: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_with_owner_and_generation() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut kept = Kept::open(directory.path()).expect("nothing there yet");
        let ip: IpAddr = [10, 0, 0, 9].into();
        let backend = Backend {
            address: ip.into(),
            port: Be16::new(80),
            number: 7,
            service: 3,
            generation: 5,
            ..Backend::default()
        };
        kept.put(4, &backend).expect("written");
        kept.put(9, &Backend { generation: 2, ..Backend::default() }).expect("written");
        let again = Kept::open(directory.path()).expect("read");
        let found: Vec<(u16, Backend)> = again.backends().collect();
        assert_eq!(found, [(4, backend), (9, Backend { generation: 2, ..Backend::default() })]);
    }
}
