//! The embedded object file, and one generation of programs and maps loaded from it.

use super::{
    layout::{self, Layout},
    pins::Pins,
    syscall,
    tables::Tables,
};
use crate::dataplane::{Error, Operation, Result, Sizes, clock, cpus};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    programs::{Program, ProgramError, Xdp as XdpProgram},
};
use lb_common::abi::{
    BindingRecord, Flow, RECORDS_PER_RUN, RebindReport, RebindRequest, RecordResult, SCHEMA_VERSION,
    Settings, SettingsFlags, SweepReport, SweepRequest, map, program,
};
use std::{
    cell::Cell,
    io,
    num::NonZero,
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// What the object is called in messages.
pub(super) const NAME: &str = "the eBPF object";

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/stickleback.bpf.o"));

/// Smallest input of a maintenance program.
const SHORTEST_INPUT: usize = 64;

/// Programs and the maps they use.
pub(super) struct Generation {
    object: Ebpf,
    pub(super) tables: Tables,
    pub(super) sizes: Sizes,
    /// Decides where in the tables an entry is.
    pub(super) seed: u64,
    /// The version of the services that was given out last.
    last_version: Cell<u32>,
}

impl Generation {
    /// Loads the programs over the maps that are pinned below `next`, and makes and pins there those that are
    /// missing.
    pub(super) fn load(pins: &Pins, sizes: Sizes, seed: u64) -> Result<Self> {
        let next = pins.next();
        let mut loader = EbpfLoader::new();
        for table in layout::TABLES {
            loader.map_pin_path(table.name, next.join(table.name));
            if let Layout::Sized(entries) = table.layout {
                loader.map_max_entries(table.name, entries(&sizes));
            }
        }
        let mut object =
            loader.load(OBJECT).map_err(|source| Error::Load { program: NAME, source: Box::new(source) })?;
        let mut tables = Tables::take(&mut object, &next)?;
        load_programs(&mut object)?;
        for (place, name) in program::TAIL_CALLS {
            let target = xdp(&mut object, name)?.fd().map_err(run_error(name))?;
            tables.programs.set(place, target, 0).map_err(|error| {
                super::tables::at(Operation::Pin, map::PROGRAMS, name)(super::tables::io_error(error))
            })?;
        }
        Ok(Self { object, tables, sizes, seed, last_version: Cell::new(0) })
    }

    /// What `settings` becomes in these tables: schema, sizes, seed, version and tick are theirs.
    pub(super) fn fit(&self, settings: &Settings, flags: u32) -> Settings {
        const OWN: u32 = SettingsFlags::TX_BY_REDIRECT | SettingsFlags::MIGRATING;
        Settings {
            schema: SCHEMA_VERSION,
            flags: (settings.flags & !OWN) | (flags & OWN),
            binding_capacity: self.sizes.bindings,
            binding_buckets: self.sizes.binding_buckets(),
            seed: self.seed,
            half_open: self.sizes.half_open(),
            flows: self.sizes.flows,
            holds: self.sizes.hold_records(),
            cpu_holds: cpus(),
            version: self.next_version(),
            tick: clock::tick_ns(),
            ..*settings
        }
    }

    /// The settings as they stand, see [`Settings::placed_like`].
    pub(super) fn settings(&self) -> Result<Settings> {
        let fail = super::tables::at(Operation::Read, map::SETTINGS, 0);
        self.tables.settings.get(&0, 0).map_err(|error| fail(super::tables::io_error(error)))
    }

    /// Lets no CPU use the services it has at hand until [`Self::keep_services`]; to be called before a service changes.
    pub(super) fn forget_services(&mut self) -> Result<()> {
        self.set_version(0)
    }

    /// Lets CPUs keep services at hand again, after all of them were changed.
    pub(super) fn keep_services(&mut self) -> Result<()> {
        let version = self.next_version();
        self.set_version(version)
    }

    /// Writes the version where it is 0 and shall not be, or the other way round.
    fn set_version(&mut self, version: u32) -> Result<()> {
        let fail = super::tables::at(Operation::PutSettings, map::SETTINGS, 0);
        let settings = self.settings()?;
        if (settings.version == 0) == (version == 0) {
            return Ok(());
        }
        let settings = Settings { version, ..settings };
        self.tables.settings.set(0, settings, 0).map_err(|error| fail(super::tables::io_error(error)))
    }

    /// A version of the services that these programs have not met, and never 0.
    fn next_version(&self) -> u32 {
        let present = self.tables.settings.get(&0, 0).map_or(0, |settings| settings.version);
        let last = self.last_version.get().max(present);
        let next = last.checked_add(1).unwrap_or(1);
        self.last_version.set(next);
        next
    }

    /// The entry program.
    pub(super) fn entry(&self) -> Result<BorrowedFd<'_>> {
        self.program_fd(program::ENTRY)
    }

    /// The program at the ingress of the stack.
    pub(super) fn fill(&self) -> Result<BorrowedFd<'_>> {
        self.program_fd(program::FILL)
    }

    /// Pins every program.
    pub(super) fn pin_programs(&self, pins: &Pins) -> Result<()> {
        program_names()
            .chain([program::FILL])
            .try_for_each(|name| pins.put_program(name, self.program_fd(name)?))
    }

    /// Runs the sweep over a stretch of a table.
    pub(super) fn sweep(&self, request: &SweepRequest) -> Result<SweepReport> {
        let mut input = [0; SHORTEST_INPUT];
        let bytes = syscall::bytes_of(std::slice::from_ref(request));
        input[..bytes.len()].copy_from_slice(bytes);
        let output = self.run(program::SWEEP, &input)?;
        output.get(..size_of::<SweepReport>()).and_then(syscall::decode).ok_or_else(|| short(program::SWEEP))
    }

    /// Moves sessions in a stretch of the table of bindings.
    pub(super) fn rebind(&self, request: &RebindRequest) -> Result<RebindReport> {
        let mut input = [0; SHORTEST_INPUT];
        let bytes = syscall::bytes_of(std::slice::from_ref(request));
        input[..bytes.len()].copy_from_slice(bytes);
        let output = self.run(program::REBIND, &input)?;
        output
            .get(..size_of::<RebindReport>())
            .and_then(syscall::decode)
            .ok_or_else(|| short(program::REBIND))
    }

    /// Applies records, one result each.
    pub(super) fn apply(&self, records: &[BindingRecord]) -> Result<Vec<RecordResult>> {
        let mut results = Vec::with_capacity(records.len());
        for run in records.chunks(RECORDS_PER_RUN) {
            let output = self.run(program::APPLY, syscall::bytes_of(run))?;
            let answers = output.chunks_exact(size_of::<BindingRecord>());
            if answers.len() != run.len() {
                return Err(short(program::APPLY));
            }
            results.extend(answers.map(|bytes| {
                let answer = syscall::decode::<BindingRecord>(bytes).unwrap_or_default();
                result_of(answer.op)
            }));
        }
        Ok(results)
    }

    /// Takes over flows, one result each.
    pub(super) fn adopt(&self, flows: &[Flow]) -> Result<Vec<RecordResult>> {
        let adopt = |flow| {
            let output = self.run(program::ADOPT, syscall::bytes_of(std::slice::from_ref(flow)))?;
            Ok(result_of(*output.first().ok_or_else(|| short(program::ADOPT))?))
        };
        flows.iter().map(adopt).collect()
    }

    fn run(&self, name: &'static str, input: &[u8]) -> Result<Vec<u8>> {
        let program: &XdpProgram = self
            .object
            .program(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(Error::Object { kind: "XDP program", name })?;
        let mut output = vec![0; input.len()];
        let options =
            TestRunOptions { data_in: Some(input), data_out: Some(&mut output), ..TestRunOptions::new() };
        let written = program.test_run(options).map_err(run_error(name))?.data_size_out as usize;
        output.truncate(written);
        Ok(output)
    }

    fn program_fd(&self, name: &'static str) -> Result<BorrowedFd<'_>> {
        let program = self.object.program(name).ok_or(Error::Object { kind: "program", name })?;
        Ok(program.fd().map_err(run_error(name))?.as_fd())
    }
}

fn program_names() -> impl Iterator<Item = &'static str> {
    let tail_calls = program::TAIL_CALLS.into_iter().map(|(_, name)| name);
    tail_calls.chain([program::SWEEP, program::APPLY, program::REBIND, program::ADOPT, program::ENTRY])
}

/// Loads every program, several at once: the kernel takes seconds to check them all.
fn load_programs(object: &mut Ebpf) -> Result<()> {
    let names: Vec<&'static str> = program_names().chain([program::FILL]).collect();
    let waiting: Vec<(&'static str, &mut Program)> = object
        .programs_mut()
        .filter_map(|(found, program)| names.iter().find(|&&name| name == found).map(|&name| (name, program)))
        .collect();
    if let Some(&name) = names.iter().find(|&&name| waiting.iter().all(|(found, _)| *found != name)) {
        return Err(Error::Object { kind: "program", name });
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(waiting.len());
    let (waiting, failure) = (Mutex::new(waiting), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((name, program)) = lock(&waiting).pop() else { break };
                    if let Err(source) = load_program(program) {
                        let error = Error::Load { program: name, source: Box::new(source) };
                        lock(&failure).get_or_insert(error);
                        lock(&waiting).clear();
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// What is behind the lock; nothing that is done under these locks can leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load_program(program: &mut Program) -> std::result::Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut XdpProgram> {
    let program = object.program_mut(name).ok_or(Error::Object { kind: "program", name })?;
    program.try_into().map_err(|source: ProgramError| Error::Load { program: name, source: Box::new(source) })
}

fn run_error(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |error| Error::Run {
        program,
        source: match error {
            ProgramError::SyscallError(call) => call.io_error,
            other => io::Error::other(other),
        },
    }
}

fn short(program: &'static str) -> Error {
    Error::Run { program, source: io::Error::new(io::ErrorKind::UnexpectedEof, "its answer is cut short") }
}

const fn result_of(op: u8) -> RecordResult {
    const APPLIED: u8 = RecordResult::Applied as u8;
    const SUPERSEDED: u8 = RecordResult::Superseded as u8;
    const FULL: u8 = RecordResult::Full as u8;
    const ABSENT: u8 = RecordResult::Absent as u8;
    const BUSY: u8 = RecordResult::Busy as u8;
    match op {
        APPLIED => RecordResult::Applied,
        SUPERSEDED => RecordResult::Superseded,
        FULL => RecordResult::Full,
        ABSENT => RecordResult::Absent,
        BUSY => RecordResult::Busy,
        _ => RecordResult::Invalid,
    }
}
