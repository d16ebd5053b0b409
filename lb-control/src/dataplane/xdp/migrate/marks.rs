//! Marks of backends in a flow index, by which programs tell replies of flows they do not know yet.
//!
//! Passed on as they are, such replies would reach a client or this host from an address it has no connection
//! with, and be answered with a reset. While [`SettingsFlags::MIGRATING`](lb_common::abi::SettingsFlags) is
//! set, programs drop what comes from a marked address and port; it is sent again.

use crate::dataplane::{
    Operation, Result,
    xdp::{
        source::Source,
        tables::{at, io_error},
    },
};
use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::abi::{Addr, FlowKey, FlowRef, Service, ServiceFlags, map};
use std::{collections::HashSet, path::Path};

/// The marks of every backend that a data plane has.
pub(in crate::dataplane::xdp) struct Marks {
    /// Those of spliced services, which always stand there.
    lasting: HashSet<FlowKey>,
    /// All others.
    passing: HashSet<FlowKey>,
}

/// A pinned flow index.
struct Index(HashMap<MapData, FlowKey, FlowRef>);

impl Marks {
    /// Reads the backends.
    pub(in crate::dataplane::xdp) fn of(source: &Source) -> Result<Self> {
        let spliced = spliced(source)?;
        let mut marks = Self { lasting: HashSet::new(), passing: HashSet::new() };
        source.map(map::BACKENDS)?.walk(|_, value| {
            let backend = (source.schema.backend)(value).filter(|backend| backend.address != Addr::NONE);
            let Some(backend) = backend else { return Ok(()) };
            let lasts = spliced.contains(&backend.service);
            let set = if lasts { &mut marks.lasting } else { &mut marks.passing };
            set.insert(FlowKey::mark(backend.address, backend.port));
            Ok(())
        })?;
        marks.passing.retain(|mark| !marks.lasting.contains(mark));
        Ok(marks)
    }

    /// Writes the marks; where the index is full, some are missing, and what they were for is lost, not more.
    pub(in crate::dataplane::xdp) fn put(&self, maps: &Path) -> Result<()> {
        let mut index = Index::open(maps)?;
        for mark in self.lasting.iter().chain(&self.passing) {
            match index.0.insert(mark, FlowRef::default(), 0).map_err(io_error) {
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                    tracing::warn!(
                        "the flow index is full: connections opened during the change may be lost"
                    );
                    return Ok(());
                }
                other => other.map_err(at(Operation::PutFlow, map::FLOW_INDEX, mark))?,
            }
        }
        Ok(())
    }

    /// Removes the marks, but for those that always stand there.
    pub(in crate::dataplane::xdp) fn remove(&self, maps: &Path) -> Result<()> {
        let mut index = Index::open(maps)?;
        for mark in &self.passing {
            match index.0.remove(mark) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => match io_error(error) {
                    error if error.kind() == std::io::ErrorKind::NotFound => {}
                    error => return Err(at(Operation::PutFlow, map::FLOW_INDEX, mark)(error)),
                },
            }
        }
        Ok(())
    }
}

/// Ids of spliced services and of the pools of their paths.
fn spliced(source: &Source) -> Result<HashSet<u32>> {
    let mut ids = HashSet::new();
    let mut note = |service: Option<Service>| {
        ids.extend(
            service.filter(|service| service.flags & ServiceFlags::SPLICE != 0).map(|service| service.id),
        );
        Ok(())
    };
    source
        .map(map::SERVICES)?
        .walk(|key, value| note((source.schema.service)(key, value).map(|(_, row)| row)))?;
    // Rules that no service leads to any more name pools without backends.
    if source.has(map::PATHS) {
        source
            .map(map::PATHS)?
            .walk(|_, value| note((source.schema.path)(value).map(|rule| rule.service)))?;
    }
    Ok(ids)
}

impl Index {
    fn open(maps: &Path) -> Result<Self> {
        let fail = at(Operation::Open, map::FLOW_INDEX, "all");
        let data = MapData::from_pin(maps.join(map::FLOW_INDEX));
        let index = data.and_then(Map::from_map_data).and_then(HashMap::try_from);
        Ok(Self(index.map_err(|error| fail(io_error(error)))?))
    }
}
