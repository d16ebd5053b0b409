//! The data plane in the kernel: the compiled programs through `BPF_PROG_TEST_RUN`.

mod maps;

use super::executor::{Executor, FlowView, Ran, Verdict};
use super::fill::{fill, outcome};
use super::netns::OwnNamespace;
use super::tables::{CPU_HOLDS, Change, DEVICES, MOST_HOLDS, Tables};
use anyhow::{Context, Result, bail, ensure};
use aya::programs::{TestRun, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{
    Binding, BindingKey, Counters, Filling, FlowRef, HoldWord, Settings, SweepRequest, SweepTarget, Vitals,
    binding_buckets, flow_index_len, map, program,
};
use maps::Maps;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest frame that a program may make.
const LONGEST: usize = 4096;
/// Rates count in windows of 2^30 ns; a case begins at least this long before one ends.
const QUIET: u64 = 50_000_000;

/// The loaded programs and their maps, in a network namespace of this thread.
pub struct Kernel {
    namespace: OwnNamespace,
    loaded: Option<Loaded>,
    /// How far the programs' clock is ahead of the machine's, in nanoseconds.
    ahead: u64,
}

/// Programs for tables of certain sizes.
struct Loaded {
    sizes: (u32, u32, u32),
    ebpf: Ebpf,
    maps: Maps,
}

impl Kernel {
    /// Enters the namespace; the programs are loaded with the first case.
    pub fn new() -> Result<Self> {
        Ok(Self { namespace: OwnNamespace::enter()?, loaded: None, ahead: 0 })
    }

    /// Where the compiled programs are.
    pub fn object() -> PathBuf {
        std::env::var_os("STICKLEBACK_OBJECT").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/stickleback.bpf.o"),
            PathBuf::from,
        )
    }

    fn load(&mut self, settings: &Settings) -> Result<&mut Loaded> {
        let sizes = (settings.binding_capacity, settings.flows, settings.half_open);
        if self.loaded.as_ref().is_none_or(|loaded| loaded.sizes != sizes) {
            // The old programs leave the interfaces first.
            self.loaded = None;
            self.loaded = Some(Loaded::new(sizes, &self.namespace)?);
        }
        self.loaded.as_mut().context("just loaded")
    }

    /// Does what the program behind XDP would do.
    fn fill(&mut self, frame: Vec<u8>, filling: &Filling) -> Result<Ran> {
        let maps = &mut self.loaded.as_mut().context("no case is installed")?.maps;
        let mut hold = maps.hold(filling.hold)?;
        let ran = fill(frame, filling, &mut hold);
        maps.set_hold(filling.hold, &hold)?;
        maps.count(outcome(&ran))?;
        Ok(ran)
    }

    fn loaded(&self) -> Result<&Loaded> {
        self.loaded.as_ref().context("no case is installed")
    }
}

impl Loaded {
    fn new(sizes @ (bindings, flows, half_open): (u32, u32, u32), _: &OwnNamespace) -> Result<Self> {
        let path = Kernel::object();
        ensure!(path.exists(), "{} is missing: run `cargo xtask build-ebpf`", path.display());
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::BINDINGS, binding_buckets(bindings))
            .map_max_entries(map::FLOWS, flows + half_open)
            .map_max_entries(map::FLOW_INDEX, flow_index_len(flows))
            .map_max_entries(map::HOLDS, MOST_HOLDS)
            .load_file(&path)
            .with_context(|| format!("loading {}", path.display()))?;
        let names = program::TAIL_CALLS.iter().map(|(_, name)| *name).chain([program::ENTRY, program::SWEEP]);
        for name in names {
            let program: &mut Xdp =
                ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("loading program {name}"))?;
        }
        let entry: &mut Xdp = ebpf.program_mut(program::ENTRY).context("no entry program")?.try_into()?;
        for index in DEVICES {
            // A test run takes an ingress interface only when its receive queue is set up for XDP.
            entry
                .attach_to_if_index(index, XdpMode::Driver)
                .with_context(|| format!("attaching to {}", OwnNamespace::interface(index)))?;
        }
        let maps = Maps::take(&mut ebpf)?;
        Ok(Self { sizes, ebpf, maps })
    }

    /// Every run of the sweep sets the programs' clock; this one sweeps nothing.
    fn set_clock(&self) -> Result<()> {
        let sweep: &Xdp = self.ebpf.program(program::SWEEP).context("no program sweep")?.try_into()?;
        let mut request = [0; size_of::<SweepRequest>()];
        request[0] = u8::try_from(SweepTarget::Bindings as u32)?;
        sweep.test_run(TestRunOptions { data_in: Some(&request), ..TestRunOptions::new() })?;
        Ok(())
    }

    fn entry(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program(program::ENTRY).context("no entry program")?.try_into()?)
    }
}

/// What the program sees, to a few milliseconds.
fn coarse_now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `struct xdp_md` as the test run wants it: where the frame ends and where it came in.
fn context(length: usize, ifindex: u32) -> Result<[u8; 24]> {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&u32::try_from(length)?.to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    Ok(context)
}

/// What the program left in front of the frame.
fn filling(metadata: &[u8]) -> Option<Filling> {
    // SAFETY: integers, and as many bytes as they have.
    (metadata.len() == size_of::<Filling>())
        .then(|| unsafe { metadata.as_ptr().cast::<Filling>().read_unaligned() })
}

impl Executor for Kernel {
    const NAME: &'static str = "xdp";

    fn install(&mut self, tables: &Tables) -> Result<()> {
        self.ahead = 0;
        let left = (1 << 30) - coarse_now() % (1 << 30);
        if left < QUIET {
            std::thread::sleep(Duration::from_nanos(left + QUIET / 10));
        }
        let loaded = self.load(&tables.settings)?;
        loaded.maps.install(tables, coarse_now())?;
        loaded.set_clock()
    }

    fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Ran> {
        let context = context(frame.len(), ifindex)?;
        let mut out = vec![0; LONGEST];
        let mut after = [0; 24];
        let result = self.loaded()?.entry()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        let verdict = match result.return_value {
            0 => Verdict::Aborted,
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Tx,
            4 => Verdict::Redirect(None),
            other => bail!("the program returned {other}"),
        };
        // What comes out begins with the metadata, and the context says where the frame begins.
        let start = u32::from_ne_bytes(after[0..4].try_into()?) as usize;
        let frame = out.split_off(start.min(out.len()));
        match filling(&out) {
            Some(filling) if verdict == Verdict::Pass => self.fill(frame, &filling),
            _ => Ok(Ran { verdict, frame }),
        }
    }

    fn advance(&mut self, by: Duration) -> Result<()> {
        let by = u64::try_from(by.as_nanos())?;
        self.ahead += by;
        self.loaded.as_mut().context("no case is installed")?.maps.advance(by)
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        self.loaded.as_mut().context("no case is installed")?.maps.change(change)
    }

    fn now(&self) -> u64 {
        coarse_now() + self.ahead
    }

    fn outcomes(&self) -> Result<Vec<u64>> {
        self.loaded()?.maps.outcomes()
    }

    fn service_counters(&self, slot: u16) -> Result<Counters> {
        self.loaded()?.maps.service_counters(slot)
    }

    fn backend_counters(&self, slot: u16) -> Result<Counters> {
        self.loaded()?.maps.backend_counters(slot)
    }

    fn vitals(&self, slot: u16) -> Result<Vitals> {
        self.loaded()?.maps.vitals(slot)
    }

    fn bindings(&self) -> Result<Vec<(BindingKey, Binding)>> {
        self.loaded()?.maps.bindings()
    }

    fn hold_words(&self) -> Result<Vec<HoldWord>> {
        let loaded = self.loaded()?;
        (CPU_HOLDS..MOST_HOLDS).map(|index| Ok(HoldWord(loaded.maps.hold(index)?.word))).collect()
    }

    fn flows(&self) -> Result<Vec<FlowView>> {
        let maps = &self.loaded()?.maps;
        let mut views = Vec::new();
        for (key, word) in maps.flow_index()? {
            let reference = FlowRef(word);
            views.push(FlowView { key, reference, record: maps.flow(reference.index())? });
        }
        Ok(views)
    }
}
