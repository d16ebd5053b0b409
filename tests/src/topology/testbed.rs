//! The testbed's programs on interfaces of a topology: decapsulation, loss, bad cables, VLANs, plain passing.

use super::Namespace;
use crate::bench::rig::{object, program};
use crate::bench::template::{Fault, Loss, decap};
use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
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
        attached.set_loss(Loss { period, lost, seen: 0, dropped: 0 })?;
        Ok(attached)
    }

    /// Of [`Self::lose`]: of the packets from now on drops the one with this number, counted from 0, and no other.
    pub fn lose_only(&mut self, number: u32) -> Result<()> {
        // What stands in front of it belongs to a period that is about to end.
        let seen = u64::from(u32::MAX - number);
        self.set_loss(Loss { period: u32::MAX, lost: 1, seen, dropped: 0 })
    }

    /// Of [`Self::lose`]: how many packets were dropped since it was last set.
    pub fn lost(&self) -> Result<u64> {
        let map = Array::<_, Loss>::try_from(self.object.map("LOSS").context("testbed has no map LOSS")?)?;
        Ok(map.get(&0, 0)?.dropped)
    }

    fn set_loss(&mut self, loss: Loss) -> Result<()> {
        let map = self.object.map_mut("LOSS").context("testbed has no map LOSS")?;
        Ok(Array::try_from(map)?.set(0, loss, 0)?)
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

    /// Passes everything, one frame after the other as they were sent: without GRO.
    pub fn pass(namespace: &Namespace, interface: &str) -> Result<Self> {
        let attached = Self::attach(namespace, interface, "pass")?;
        namespace.sh(&format!("ethtool -K {interface} gro off >/dev/null"))?;
        Ok(attached)
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

/// How bad a cable is.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// Share of TCP segments that are lost.
    pub lose: f64,
    /// Share that arrives twice.
    pub double: f64,
    /// Share that arrives behind its successor.
    pub swap: f64,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// A cable that loses, doubles and swaps what an interface sends; taken off when dropped.
pub struct BadCable {
    object: Ebpf,
}

impl BadCable {
    /// Makes what the interface sends go through a bad cable.
    pub fn new(namespace: &Namespace, interface: &str, faults: Faults) -> Result<Self> {
        let path = object("testbed")?;
        let mut object =
            EbpfLoader::new().load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        let rate = |share: f64| (share * f64::from(u32::MAX)) as u32;
        let fault = Fault {
            lose: rate(faults.lose),
            double: rate(faults.double),
            swap: rate(faults.swap),
            len: 0,
            random: faults.seed,
            state: 0,
            seen: 0,
            lost: 0,
            doubled: 0,
            swapped: 0,
            frame: [0; 2_048],
        };
        let map = object.map_mut("FAULT").context("testbed has no map FAULT")?;
        Array::try_from(map)?.set(0, fault, 0)?;
        classify(&mut object, "bad_cable", namespace, interface, TcAttachType::Egress)?;
        Ok(Self { object })
    }

    /// Segments seen, lost, doubled and swapped so far.
    pub fn done(&self) -> Result<[u64; 4]> {
        let map = Array::<_, Fault>::try_from(self.object.map("FAULT").context("testbed has no map FAULT")?)?;
        let fault = map.get(&0, 0)?;
        Ok([fault.seen, fault.lost, fault.doubled, fault.swapped])
    }
}

/// An interface on a VLAN; without it again when dropped.
pub struct Vlan {
    object: Ebpf,
}

impl Vlan {
    /// Puts a tag on what the stack sends, and takes it off what comes in, behind the programs that are there.
    ///
    /// Tags stand in the frames, where XDP programs look for them.
    pub fn new(namespace: &Namespace, interface: &str, number: u16) -> Result<Self> {
        let path = object("testbed")?;
        let mut object =
            EbpfLoader::new().load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        let map = object.map_mut("VLAN").context("testbed has no map VLAN")?;
        Array::try_from(map)?.set(0, u32::from(number), 0)?;
        namespace.sh(&format!("ethtool -K {interface} txvlan off rxvlan off >/dev/null"))?;
        classify(&mut object, "tag", namespace, interface, TcAttachType::Egress)?;
        classify(&mut object, "untag", namespace, interface, TcAttachType::Ingress)?;
        Ok(Self { object })
    }

    /// Frames that came in with a tag so far.
    pub fn taken_off(&self) -> Result<u32> {
        let map = Array::<_, u32>::try_from(self.object.map("VLAN").context("testbed has no map VLAN")?)?;
        Ok(map.get(&1, 0)?)
    }
}

/// Attaches a classifier behind those that are there.
fn classify(
    object: &mut Ebpf,
    name: &str,
    namespace: &Namespace,
    interface: &str,
    at: TcAttachType,
) -> Result<()> {
    let program = object.program_mut(name).with_context(|| format!("testbed has no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    namespace.inside(|| {
        program
            .attach_with_options(interface, at, TcAttachOptions::TcxOrder(LinkOrder::last()))
            .with_context(|| format!("attaching {name} to {interface} in {}", namespace.name()))
    })?;
    Ok(())
}
