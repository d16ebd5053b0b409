//! The testbed's XDP programs on interfaces of a topology: decapsulation, loss, plain passing.

use super::Namespace;
use crate::bench::rig::{object, program};
use crate::bench::template::{Loss, decap};
use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray};
use aya::programs::xdp::XdpMode;
use aya::{Ebpf, EbpfLoader};

/// A program of the testbed on one interface; taken off when dropped.
pub struct Testbed {
    object: Ebpf,
}

impl Testbed {
    /// Takes tunnel headers off what the interface receives.
    pub fn decapsulate(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::attach(namespace, interface, "decap_pass")
    }

    /// Of every `period` packets that the interface receives, drops the first `lost`.
    pub fn lose(namespace: &Namespace, interface: &str, lost: u32, period: u32) -> Result<Self> {
        let mut attached = Self::attach(namespace, interface, "drop_some")?;
        let map = attached.object.map_mut("LOSS").context("testbed has no map LOSS")?;
        Array::try_from(map)?.set(0, Loss { period, lost, seen: 0, dropped: 0 }, 0)?;
        Ok(attached)
    }

    /// What was taken off so far, by the places of [`decap`].
    pub fn decapsulated(&self) -> Result<[u64; decap::COUNT as usize]> {
        let map =
            PerCpuArray::<_, u64>::try_from(self.object.map("DECAP").context("testbed has no map DECAP")?)?;
        let mut counts = [0; decap::COUNT as usize];
        for (place, count) in (0..).zip(&mut counts) {
            *count = map.get(&place, 0)?.iter().sum();
        }
        Ok(counts)
    }

    fn attach(namespace: &Namespace, interface: &str, name: &str) -> Result<Self> {
        let path = object("testbed")?;
        let mut object =
            EbpfLoader::new().load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        program(&mut object, name)?.load()?;
        namespace.inside(|| {
            program(&mut object, name)?
                .attach(interface, XdpMode::Driver)
                .with_context(|| format!("attaching {name} to {interface} in {}", namespace.name()))
        })?;
        Ok(Self { object })
    }
}
