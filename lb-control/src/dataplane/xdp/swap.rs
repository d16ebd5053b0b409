//! Puts a new generation of programs in the place of the running one.

use super::{
    fill,
    layout::TABLES,
    links,
    migrate::{self, FlowCopy, Fresh, Lost, Marks},
    object::Generation,
    pins::Pins,
    schema::Schema,
    source::Source,
    tables::{at, io_error},
};
use crate::dataplane::{Error, Migration, Operation, Result, Sizes};
use lb_common::abi::{
    BindingOp, SCHEMA_VERSION, Settings, SettingsFlags, SweepRequest, SweepTarget, hand, map,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Time after which no CPU is in a program any more that no link leads to.
const GRACE: Duration = Duration::from_millis(50);
/// Pause between two looks for flows that old programs made; connections that wait for one are sent again.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Loads programs over the pinned maps, or over new ones where there are none.
pub(super) fn open(pins: &Pins, known: &[Schema], sizes: Sizes) -> Result<(Generation, Option<Migration>)> {
    check(&sizes)?;
    let left = pins.set_aside()?;
    let Some(running) = Source::open(&pins.maps(), known)? else {
        return Ok((first(pins, sizes)?, None));
    };
    // A process was killed after the swap and before the last entries were copied.
    let unfinished = match left {
        Some(directory) if running.is_migrating() => Source::open(&directory, known)?,
        _ => None,
    };
    let sizes = Sizes { arena: sizes.arena.max(running.sizes.arena), ..sizes };
    let changes = running.schema.version != SCHEMA_VERSION || running.sizes != sizes;
    let (generation, migration) = replace(pins, running, sizes, unfinished.as_ref())?;
    Ok((generation, changes.then_some(migration)))
}

/// Replaces the tables that run by ones of other sizes.
pub(super) fn resize(pins: &Pins, known: &[Schema], sizes: Sizes) -> Result<(Generation, Migration)> {
    check(&sizes)?;
    let running = Source::open(&pins.maps(), known)?;
    let running = running.ok_or(Error::Object { kind: "pinned map", name: map::SETTINGS })?;
    replace(pins, running, sizes, None)
}

fn check(sizes: &Sizes) -> Result<()> {
    let allowed = Sizes::SMALLEST..=Sizes::LARGEST;
    let fits = allowed.contains(&sizes.bindings)
        && allowed.contains(&sizes.flows)
        && sizes.arena > 0
        && (1..=Sizes::MOST_HOLDS).contains(&sizes.holds);
    if fits { Ok(()) } else { Err(Error::Sizes { sizes: *sizes }) }
}

/// A seed that nobody can guess, and never 0.
fn new_seed() -> Result<u64> {
    let mut seed = [0; 8];
    // SAFETY: room for as many bytes as are asked for. So few are given at once or not at all.
    let given = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if given == 8 {
        Ok(u64::from_ne_bytes(seed) | 1)
    } else {
        Err(at(Operation::PutSettings, map::SETTINGS, "seed")(std::io::Error::last_os_error()))
    }
}

/// Tables that nothing was in before.
fn first(pins: &Pins, sizes: Sizes) -> Result<Generation> {
    pins.make_next()?;
    let mut generation = Generation::load(pins, sizes, new_seed()?).inspect_err(|_| discard(pins))?;
    let settings = generation.fit(&Settings::default(), 0);
    write_settings(&mut generation, &settings)?;
    pins.exchange()?;
    links::update_all(pins, generation.entry()?)?;
    tell(fill::update_all(pins, generation.fill()?));
    finish(pins, &generation);
    Ok(generation)
}

fn replace(
    pins: &Pins,
    mut running: Source,
    sizes: Sizes,
    unfinished: Option<&Source>,
) -> Result<(Generation, Migration)> {
    let same_schema = running.schema.version == SCHEMA_VERSION;
    if same_schema {
        running.check()?;
    }
    let old_sizes = running.sizes;
    let is_kept = |name: &str| {
        let table = TABLES.iter().find(|table| table.name == name);
        same_schema && table.is_some_and(|table| table.fate.survives(&old_sizes, &sizes))
    };
    let fresh = Fresh(&|name| !is_kept(name));

    pins.make_next()?;
    let prepared = prepare(pins, &running, sizes, &fresh).inspect_err(|_| discard(pins))?;
    let Prepared { mut generation, mut flows, live, marks } = prepared;
    // A packet of either direction may meet a program that does not know its flow, on either side of the swap.
    if let Some(marks) = marks.as_ref().filter(|_| same_schema) {
        let marked = marks.put(running.directory()).and_then(|()| running.set_migrating(true));
        marked.inspect_err(|_| {
            calm(&running, marks);
            discard(pins);
        })?;
    }
    if let Some(flows) = &mut flows {
        flows.hand_over();
    }

    pins.exchange()?;
    running.moved_to(pins.next());
    let moved = generation.entry().and_then(|entry| links::update_all(pins, entry));
    if let Err(error) = moved {
        pins.exchange()?;
        running.moved_to(pins.maps());
        if let Some(marks) = marks.filter(|_| same_schema) {
            calm(&running, &marks);
        }
        discard(pins);
        return Err(error);
    }

    // From here on the new programs run: what fails is told, and does not undo them.
    let swapped = Instant::now();
    tell(generation.fill().and_then(|program| fill::update_all(pins, program)));
    let mut migration = Migration::default();
    loop {
        // What was written before the grace was over is seen by the look that begins after it.
        let is_last = swapped.elapsed() >= GRACE;
        if let Some(flows) = &mut flows {
            tell(flows.catch_up(&running, &mut generation.tables));
        }
        if is_last {
            if let Some(flows) = &mut flows {
                tell(flows.leave_traces(&running, &mut generation.tables));
                if !fresh.is(map::VITALS) {
                    let lost = tell(flows.lost(&running, &mut generation.tables));
                    tell(uncount(&generation, lost));
                }
            }
            break;
        }
        thread::sleep(BETWEEN_LOOKS.min(GRACE.saturating_sub(swapped.elapsed())));
    }
    if fresh.is(map::BINDINGS) {
        migration.bindings_left_out = tell(migrate::copy_bindings(&running, &generation, BindingOp::Put));
        migration.bindings = tell(bindings_live(&generation));
    } else if fresh.is(map::HANDS) {
        tell(migrate::count_late_bindings(&running, live, &mut generation.tables));
    }
    if let Some(unfinished) = unfinished {
        tell(complete(unfinished, flows.as_mut(), &mut generation, &sizes));
    }
    if let Some(flows) = &mut flows {
        tell(flows.release(&generation.tables));
        (migration.flows, migration.flows_left_out) = (flows.copied(), flows.left_out());
    }
    tell(clear_migrating(&mut generation));
    if let Some(marks) = marks {
        tell(marks.remove(&pins.maps()));
    }
    finish(pins, &generation);
    Ok((generation, migration))
}

/// The next generation, filled.
struct Prepared {
    generation: Generation,
    flows: Option<FlowCopy>,
    /// Bindings that lived when the hands were copied.
    live: u64,
    /// Where flow records move, or moved when an earlier process was killed.
    marks: Option<Marks>,
}

/// Lets programs that go on running treat packets as before.
fn calm(running: &Source, marks: &Marks) {
    // What an earlier process could not copy is still missing.
    if running.is_migrating() {
        return;
    }
    tell(running.set_migrating(false));
    tell(marks.remove(running.directory()));
}

/// Loads the next generation and fills it with what the running tables hold.
fn prepare(pins: &Pins, running: &Source, sizes: Sizes, fresh: &Fresh<'_>) -> Result<Prepared> {
    for table in TABLES.iter().filter(|table| !fresh.is(table.name)) {
        pins.carry_over(table.name)?;
    }
    // Tables that go on are read with the seed that they were written with.
    let seed = if running.settings.seed == 0 { new_seed()? } else { running.settings.seed };
    let mut generation = Generation::load(pins, sizes, seed)?;
    if fresh.is(map::SETTINGS) {
        let redirect = running.settings.flags & SettingsFlags::TX_BY_REDIRECT;
        let settings = generation.fit(&running.settings, redirect | SettingsFlags::MIGRATING);
        write_settings(&mut generation, &settings)?;
    }
    let live = migrate::bindings_live(running)?;
    migrate::copy_tables(running, &mut generation.tables, fresh)?;
    if fresh.is(map::BINDINGS) {
        migrate::copy_bindings(running, &generation, BindingOp::Copy)?;
    }
    let marks = (fresh.is(map::FLOWS) || running.is_migrating()).then(|| Marks::of(running)).transpose()?;
    let mut flows = None;
    if fresh.is(map::FLOWS) {
        if let Some(marks) = &marks {
            marks.put(&pins.next())?;
        }
        let mut copy = FlowCopy::run(running, &mut generation.tables, &sizes)?;
        // Copying took a while: what came meanwhile is less, and takes less.
        copy.catch_up(running, &mut generation.tables)?;
        flows = Some(copy);
    }
    Ok(Prepared { generation, flows, live, marks })
}

/// Copies what an earlier process could not copy before it was killed.
fn complete(
    unfinished: &Source,
    flows: Option<&mut FlowCopy>,
    generation: &mut Generation,
    sizes: &Sizes,
) -> Result<()> {
    migrate::copy_bindings(unfinished, generation, BindingOp::Put)?;
    let mut rest = match flows {
        Some(flows) => flows.take_reserve(),
        None => FlowCopy::resume(&mut generation.tables, sizes)?,
    };
    rest.catch_up(unfinished, &mut generation.tables)?;
    let lost = rest.lost(unfinished, &mut generation.tables)?;
    uncount(generation, lost)?;
    rest.release(&generation.tables)
}

/// Takes connections that were not carried over from those of their backends.
fn uncount(generation: &Generation, lost: Lost) -> Result<()> {
    for ((slot, owner), count) in lost {
        let target = SweepTarget::Ended as u32;
        generation.sweep(&SweepRequest { target, start: slot.into(), count, pad: owner.into() })?;
    }
    Ok(())
}

fn clear_migrating(generation: &mut Generation) -> Result<()> {
    let fail = at(Operation::Read, map::SETTINGS, 0);
    let settings = generation.tables.settings.get(&0, 0).map_err(|error| fail(io_error(error)))?;
    let settings = generation.fit(&settings, settings.flags & SettingsFlags::TX_BY_REDIRECT);
    write_settings(generation, &settings)
}

fn write_settings(generation: &mut Generation, settings: &Settings) -> Result<()> {
    let fail = at(Operation::PutSettings, map::SETTINGS, 0);
    generation.tables.settings.set(0, settings, 0).map_err(|error| fail(io_error(error)))
}

fn bindings_live(generation: &Generation) -> Result<u64> {
    let fail = at(Operation::Read, map::HANDS, hand::BINDINGS_LIVE);
    let live = generation.tables.hands.get(&hand::BINDINGS_LIVE, 0);
    live.map(|live| live.value).map_err(|error| fail(io_error(error)))
}

fn finish(pins: &Pins, generation: &Generation) {
    tell(generation.pin_programs(pins));
    tell(pins.remove_leftovers());
}

fn discard(pins: &Pins) {
    tell(pins.remove_next());
}

/// Logs a failure that must not stop what has been done already.
fn tell<T: Default>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "the programs were replaced, but this failed");
        T::default()
    })
}
