//! The product under measurement: loading its object, filling its tables, and its cases.

mod cases;
mod plan;
mod quic;
mod splice;

pub use cases::{NAMES, cases};
pub use plan::{Plan, PlannedService};

use super::rig::{Rig, Verdict, object, program};
use anyhow::{Context, Result, ensure};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::abi::{
    self, ARENA_CHUNK, ArenaChunk, Backend, BindingRecord, Counters, Flow, Outcome, Service, ServiceKey,
    Settings, SettingsFlags, SweepTarget, map, program as names,
};

/// Chunks of selection tables.
const ARENA: u32 = 8_192;
/// Slots in one sweep.
const SWEEP_STRETCH: u32 = 8_192;

/// The loaded product.
pub struct Product {
    object: Ebpf,
    /// Kept open: the kernel empties a program array when its last user file descriptor closes.
    programs: Option<ProgramArray<MapData>>,
    plan: Plan,
    settings: Settings,
}

impl Product {
    /// Loads the object with tables of the size a full run needs, and fills in services and backends.
    pub fn load(rig: &Rig, quick: bool) -> Result<Self> {
        let (bindings, flows) = if quick { (5 << 16, 13 << 16) } else { (5 << 18, 13 << 18) };
        Self::with_sizes(rig, bindings, flows)
    }

    /// The same with tables of these sizes.
    pub fn with_sizes(rig: &Rig, bindings: u32, flows: u32) -> Result<Self> {
        let path = object("stickleback")?;
        let object = EbpfLoader::new()
            .map_max_entries(map::BINDINGS, abi::binding_buckets(bindings))
            .map_max_entries(map::FLOWS, flows + abi::half_open_len(flows))
            .map_max_entries(map::FLOW_INDEX, abi::flow_index_len(flows))
            .map_max_entries(map::ARENA, ARENA)
            .load_file(&path)
            .with_context(|| format!("loading {}", path.display()))?;
        let settings = Settings {
            schema: abi::SCHEMA_VERSION,
            flags: SettingsFlags::NAT,
            binding_capacity: bindings,
            binding_buckets: abi::binding_buckets(bindings),
            half_open: abi::half_open_len(flows),
            flows,
            first_secret: [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908],
            second_secret: [0; 2],
            tunnel_v4: std::net::Ipv4Addr::new(10, 0, 0, 1).into(),
            tunnel_v6: std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
            gue_port: 6_080,
            answer_rate: u32::MAX,
            prefix_quota: 0,
            prefix_window: 60,
            tcp_half_open: seconds(60),
            tcp_established: seconds(3_600),
            tcp_closing: seconds(60),
            tcp_reset: seconds(10),
            udp_new: seconds(30),
            udp_established: seconds(180),
            version: 1,
            tick: tick()?,
            head_timeout: seconds(20),
            // Each request of a measurement finds the flow of the one before expired.
            connect_timeout: 0,
            holds: abi::DEFAULT_HOLDS,
            cpu_holds: 64,
            seed: 0x5eed_5eed_5eed_5eed,
        };
        let mut product = Self { plan: Plan::new(rig)?, object, programs: None, settings };
        product.load_programs()?;
        product.fill(rig)?;
        // The first sweep sets the programs' clock.
        product.sweep(SweepTarget::Flows)?;
        Ok(product)
    }

    /// The services and backends.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The node's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A handle on the entry program.
    pub fn entry(&self) -> Result<ProgramFd> {
        Ok(self.entry_program()?.fd()?.try_clone()?)
    }

    /// One frame through the entry program.
    pub fn send(&self, rig: &Rig, frame: &[u8]) -> Result<Verdict> {
        rig.once(self.entry_program()?, frame)
    }

    /// One sweep over the first stretch of a table, as `lbd` runs it.
    pub fn sweep(&self, target: SweepTarget) -> Result<()> {
        let mut request = [0; MAINTENANCE_INPUT];
        request[..4].copy_from_slice(&(target as u32).to_ne_bytes());
        request[8..12].copy_from_slice(&SWEEP_STRETCH.to_ne_bytes());
        self.maintain(names::SWEEP, &request)
    }

    /// Applies two binding records.
    pub fn apply(&self, records: [BindingRecord; 2]) -> Result<()> {
        let mut input = [0; MAINTENANCE_INPUT];
        for (place, record) in input.chunks_exact_mut(32).zip(records) {
            place[..8].copy_from_slice(&record.session.to_ne_bytes());
            place[8..16].copy_from_slice(&record.word.to_ne_bytes());
            place[16..24].copy_from_slice(&record.lifetime.to_ne_bytes());
            place[24..28].copy_from_slice(&record.service.to_ne_bytes());
            place[28] = record.op;
        }
        self.maintain(names::APPLY, &input)
    }

    /// A hash map by name.
    pub fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<&MapData, K, V>> {
        let map = self.object.map(name).with_context(|| format!("the product has no map {name}"))?;
        Ok(HashMap::try_from(map)?)
    }

    /// The flow records.
    pub fn flows(&self) -> Result<Array<&MapData, Flow>> {
        Ok(Array::try_from(self.object.map(map::FLOWS).context("the product has no map FLOWS")?)?)
    }

    /// What was counted for a service.
    pub fn service_counters(&self, slot: u16) -> Result<Counters> {
        let map =
            PerCpuArray::<_, Counters>::try_from(self.object.map(map::SERVICE_COUNTERS).context("no map")?)?;
        let cpus = map.get(&u32::from(slot), 0)?;
        Ok(cpus.iter().fold(Counters::default(), |sum, cpu| sum.plus(*cpu)))
    }

    /// Every outcome that was counted, for messages.
    pub fn outcomes(&self) -> Result<String> {
        let map = PerCpuArray::<_, u64>::try_from(self.object.map(map::OUTCOMES).context("no map")?)?;
        let mut text = String::new();
        for outcome in Outcome::ALL {
            let count: u64 = map.get(&(*outcome as u32), 0)?.iter().sum();
            if count > 0 {
                text.push_str(&format!("{} {count}, ", outcome.name()));
            }
        }
        Ok(text)
    }

    fn maintain(&self, name: &str, input: &[u8]) -> Result<()> {
        let program: &Xdp =
            self.object.program(name).with_context(|| format!("the product has no {name}"))?.try_into()?;
        program
            .test_run(TestRunOptions { data_in: Some(input), ..TestRunOptions::new() })
            .with_context(|| format!("running {name}"))?;
        Ok(())
    }

    fn entry_program(&self) -> Result<&Xdp> {
        Ok(self.object.program(names::ENTRY).context("the product has no entry program")?.try_into()?)
    }

    fn load_programs(&mut self) -> Result<()> {
        program(&mut self.object, names::ENTRY)?.load().context("loading the entry program")?;
        let maintenance = [names::SWEEP, names::APPLY];
        for name in names::TAIL_CALLS.iter().map(|(_, name)| *name).chain(maintenance) {
            program(&mut self.object, name)?.load().with_context(|| format!("loading program {name}"))?;
        }
        let map = self.object.take_map(map::PROGRAMS).context("the product has no map PROGRAMS")?;
        let mut programs = ProgramArray::try_from(map)?;
        for (place, name) in names::TAIL_CALLS {
            programs.set(place, program(&mut self.object, name)?.fd()?, 0)?;
        }
        self.programs = Some(programs);
        Ok(())
    }

    fn fill(&mut self, rig: &Rig) -> Result<()> {
        let settings = self.settings;
        self.array::<Settings>(map::SETTINGS)?.set(0, settings, 0)?;
        let map = self.object.map_mut(map::DEVICES).context("the product has no map DEVICES")?;
        DevMapHash::try_from(map)?.insert(rig.ifindex(), rig.ifindex(), None, 0)?;
        let plan = self.plan.clone();
        {
            let mut backends = self.array::<Backend>(map::BACKENDS)?;
            for (slot, backend) in plan.backends.iter().enumerate() {
                backends.set(slot as u32, backend, 0)?;
            }
        }
        {
            let mut status = self.array::<u64>(map::STATUS)?;
            let words = (plan.backends.len() as u32).div_ceil(abi::STATUS_PER_WORD);
            (0..words).try_for_each(|word| status.set(word, u64::MAX, 0))?;
        }
        {
            let mut arena = self.array::<ArenaChunk>(map::ARENA)?;
            ensure!(
                plan.arena.len().div_ceil(ARENA_CHUNK) <= arena.len() as usize,
                "the arena of {} chunks is too small for the benchmark's tables",
                arena.len()
            );
            for (index, slots) in plan.arena.chunks(ARENA_CHUNK).enumerate() {
                let mut chunk = ArenaChunk([0; ARENA_CHUNK]);
                chunk.0[..slots.len()].copy_from_slice(slots);
                arena.set(index as u32, chunk, 0)?;
            }
        }
        self.fill_rules()?;
        splice::fill(self)?;
        let map = self.object.map_mut(map::SERVICES).context("the product has no map SERVICES")?;
        let mut services = HashMap::<_, ServiceKey, Service>::try_from(map)?;
        for planned in &plan.services {
            services.insert(planned.key, planned.service, 0)?;
            services.insert(ServiceKey::vip(planned.key.address), Service::default(), 0)?;
        }
        Ok(())
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        let map = self.object.map_mut(name).with_context(|| format!("the product has no map {name}"))?;
        Ok(Array::try_from(map)?)
    }
}

/// Nanoseconds of a tick: the resolution of the kernel's coarse clock.
fn tick() -> Result<u32> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut resolution) };
    ensure!(result == 0, "the coarse clock has no resolution: {}", std::io::Error::last_os_error());
    Ok(u32::try_from(resolution.tv_nsec)?)
}

/// Length of the input of maintenance programs: what the kernel takes at least.
const MAINTENANCE_INPUT: usize = 64;

const fn seconds(n: u64) -> u64 {
    n * 1_000_000_000
}
