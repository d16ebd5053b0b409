//! Runs cases and says in what they differ from what is expected.

use super::case::{Area, BoundData, Case, ExpiryData, FlowData, PacketStep, Step, Tuple, VitalsData};
use super::checksum::check;
use super::dissect::dissect;
use super::executor::{Executor, FlowView, Verdict};
use super::tables::{Tables, ip};
use anyhow::{Context, Result, ensure};
use lb_common::abi::{
    BindingKey, BindingWord, Counters, FlowKey, FlowState, FlowWord, HoldWord, Outcome, Settings,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Windows of limits are this power of two of nanoseconds long.
const WINDOW: u32 = 30;

/// Runs every case of an area; fails with all that went wrong.
pub fn run_area<E: Executor>(executor: &mut E, name: &str) -> Result<()> {
    let area = Area::read(name)?;
    let mut failed = Vec::new();
    // Those with tables of one size in a row: others have to be made anew.
    let mut cases: Vec<&Case> = area.cases.iter().collect();
    cases.sort_by_key(|case| {
        ["binding_capacity", "flows", "half_open"].map(|size| case.settings.get(size).and_then(Value::as_u64))
    });
    for case in cases {
        match replay_in_time(executor, case, &area) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => failed.push(format!("{}: {}\n{}", case.name, case.description, found.join("\n"))),
            Err(error) => failed.push(format!("{}: {error:#}", case.name)),
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {} cases of area {name} failed on {}:\n\n{}",
        failed.len(),
        area.cases.len(),
        E::NAME,
        failed.join("\n\n")
    );
    Ok(())
}

/// Runs one case; again when a window of time in which limits count ended in the middle of it, as on a busy machine.
fn replay_in_time<E: Executor>(executor: &mut E, case: &Case, area: &Area) -> Result<Vec<String>> {
    const TRIES: usize = 5;
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let window = executor.now() >> WINDOW;
        found = replay(executor, case, area)?;
        let stepped = case.steps.iter().any(|step| matches!(step, Step::Advance(_)));
        if found.is_empty() || stepped || executor.now() >> WINDOW == window {
            break;
        }
    }
    Ok(found)
}

/// Runs one case; answers what differed.
pub fn replay<E: Executor>(executor: &mut E, case: &Case, area: &Area) -> Result<Vec<String>> {
    let mut tables = Tables::of(case, &area.defaults)?;
    executor.install(&tables)?;
    let mut found = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let at = |text: String| format!("  step {number}: {text}");
        match step {
            Step::Packet(packet) if packet.only.as_deref().is_some_and(|only| only != E::NAME) => {}
            Step::Packet(packet) => {
                found.extend(
                    run_packet(executor, &tables, packet)
                        .with_context(|| format!("step {number}"))?
                        .into_iter()
                        .map(at),
                );
            }
            Step::Advance(seconds) => executor.advance(Duration::from_secs(*seconds))?,
            Step::Status { backend, status } => {
                let change = tables.set_status(*backend, status)?;
                executor.change(&change)?;
            }
            Step::Backend(data) => {
                let change = tables.replace_backend(data)?;
                executor.change(&change)?;
            }
            Step::SessionSecrets(in_use, other) => {
                let change = tables.set_secrets(in_use, other)?;
                executor.change(&change)?;
            }
            Step::RemoveService(id) => {
                let change = tables.remove_service(*id);
                executor.change(&change)?;
            }
            Step::Bindings(expected) => {
                let live = live_bindings(executor)?;
                if live != *expected {
                    found.push(at(format!("bindings\n    expected {expected:?}\n    found    {live:?}")));
                }
            }
            Step::Expiry(expected) => found.extend(expiry(executor, expected)?.map(at)),
            Step::Flows(expected) => {
                let (mut live, mut odd) = live_flows(executor, &tables.settings)?;
                if expected.iter().all(|flow| flow.offset.is_none()) {
                    live.iter_mut().for_each(|flow| flow.offset = None);
                }
                if live != *expected {
                    odd.push(format!("flows\n    expected {expected:?}\n    found    {live:?}"));
                }
                found.extend(odd.into_iter().map(at));
            }
            Step::Vitals(expected) => {
                for expected in expected {
                    let vitals = executor.vitals(expected.backend)?;
                    let live = VitalsData {
                        backend: expected.backend,
                        connections: vitals.load(),
                        refused: vitals.refused,
                        silent: vitals.silent,
                        suspected: vitals.suspected,
                        overflowed: vitals.overflowed,
                    };
                    if live != *expected {
                        found.push(at(format!("vitals\n    expected {expected:?}\n    found    {live:?}")));
                    }
                }
            }
            Step::Holds(expected) => {
                let owned = executor.hold_words()?.into_iter().filter(|word| word.has(HoldWord::TAKEN));
                let count = owned.count();
                if count != *expected {
                    found.push(at(format!("{count} holds are owned, expected {expected}")));
                }
            }
        }
    }
    Ok(found)
}

/// All counters that a packet may move.
struct Totals {
    outcomes: Vec<u64>,
    counters: BTreeMap<String, Counters>,
}

impl Totals {
    fn of<E: Executor>(executor: &E, tables: &Tables) -> Result<Self> {
        let mut counters = BTreeMap::new();
        for slot in tables.service_slots() {
            counters.insert(format!("service:{slot}"), executor.service_counters(*slot)?);
        }
        for slot in tables.backends.keys() {
            counters.insert(format!("backend:{slot}"), executor.backend_counters(*slot)?);
        }
        Ok(Self { outcomes: executor.outcomes()?, counters })
    }

    /// Names of outcomes counted since `before`, repeated as often as they were.
    fn outcomes_since(&self, before: &Self) -> Vec<String> {
        let mut names = Vec::new();
        for (number, (now, then)) in self.outcomes.iter().zip(&before.outcomes).enumerate() {
            let name = Outcome::ALL.iter().find(|outcome| **outcome as usize == number);
            for _ in *then..*now {
                names.push(
                    name.map_or_else(|| format!("outcome {number}"), |outcome| outcome.name().to_owned()),
                );
            }
        }
        names.sort();
        names
    }

    /// Counters that moved since `before`.
    fn counters_since(&self, before: &Self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut moved = BTreeMap::new();
        for (name, now) in &self.counters {
            let then = before.counters.get(name).copied().unwrap_or_default();
            let fields: BTreeMap<String, u64> = [
                ("packets", now.packets - then.packets),
                ("bytes", now.bytes - then.bytes),
                ("reply_packets", now.reply_packets - then.reply_packets),
                ("reply_bytes", now.reply_bytes - then.reply_bytes),
                ("bindings", now.bindings - then.bindings),
                ("connections", now.connections - then.connections),
            ]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(field, n)| (field.to_owned(), n))
            .collect();
            if !fields.is_empty() {
                moved.insert(name.clone(), fields);
            }
        }
        moved
    }
}

fn run_packet<E: Executor>(executor: &mut E, tables: &Tables, step: &PacketStep) -> Result<Vec<String>> {
    let before = Totals::of(executor, tables)?;
    let ran = executor.run(&step.frame, step.ifindex)?;
    let after = Totals::of(executor, tables)?;
    let mut found = Vec::new();
    if ran.verdict.name() != step.verdict {
        found.push(format!("verdict {}, expected {}", ran.verdict.name(), step.verdict));
    }
    if let (Verdict::Redirect(Some(to)), Some(expected)) = (ran.verdict, step.to)
        && to != expected
    {
        found.push(format!("redirected to interface {to}, expected {expected}"));
    }
    let outcomes = after.outcomes_since(&before);
    if outcomes != step.outcomes {
        found.push(format!("outcomes {outcomes:?}, expected {:?}", step.outcomes));
    }
    let counters = after.counters_since(&before);
    let expected: BTreeMap<_, _> =
        step.counters.clone().into_iter().filter(|(_, fields)| !fields.is_empty()).collect();
    if counters != expected {
        found.push(format!("counters {counters:?}\n    expected {expected:?}"));
    }
    let out = match (&step.out, step.verdict.as_str()) {
        (Some(out), _) => Some(out),
        (None, "pass") => Some(&step.frame),
        (None, _) => None,
    };
    if let Some(out) = out
        && ran.frame != *out
    {
        found.push(difference(out, &ran.frame));
    }
    if matches!(ran.verdict, Verdict::Tx | Verdict::Redirect(_)) && check(&step.frame).is_empty() {
        found.extend(check(&ran.frame).iter().map(|problem| format!("frame out: {problem}")));
    }
    if !found.is_empty() {
        found.push(format!("frame in: {}", dissect(&step.frame)));
    }
    Ok(found)
}

/// Two frames side by side.
pub(super) fn difference(expected: &[u8], found: &[u8]) -> String {
    let first =
        expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!(
        "frames differ from byte {first} on\n    expected {}\n    found    {}\n    expected {}\n    found    {}",
        hex(expected),
        hex(found),
        dissect(expected),
        dissect(found)
    )
}

/// Bindings that live, as the corpus writes them.
pub fn live_bindings<E: Executor>(executor: &E) -> Result<Vec<BoundData>> {
    let now = executor.now();
    let mut live: Vec<BoundData> = executor
        .bindings()?
        .into_iter()
        .filter(|(_, binding)| binding.expires > now && !BindingWord(binding.word).has(BindingWord::DEAD))
        .map(|(key, binding)| {
            let word = BindingWord(binding.word);
            BoundData {
                service: key.service,
                session: key.session,
                backend: word.backend(),
                generation: word.generation(),
                flags: word.has(BindingWord::PINNED).then(|| "pinned".to_owned()).into_iter().collect(),
            }
        })
        .collect();
    live.sort();
    Ok(live)
}

fn expiry<E: Executor>(executor: &E, expected: &ExpiryData) -> Result<Option<String>> {
    let key = BindingKey::new(expected.service, expected.session);
    let now = executor.now();
    let Some((_, binding)) = executor.bindings()?.into_iter().find(|(found, _)| *found == key) else {
        return Ok(Some(format!("no binding {key:?}")));
    };
    let left = (i128::from(binding.expires) - i128::from(now)) as f64 / 1e9;
    // Coarse clocks are a few milliseconds behind.
    let fits = (expected.from as f64 - 0.05..=expected.to as f64 + 0.05).contains(&left);
    Ok((!fits).then(|| format!("ends in {left} s, expected {}..={} s", expected.from, expected.to)))
}

/// Flows that live, as the corpus writes them, and what is odd about the index.
pub fn live_flows<E: Executor>(executor: &E, settings: &Settings) -> Result<(Vec<FlowData>, Vec<String>)> {
    let now = executor.now();
    let mut clients = BTreeMap::new();
    let mut replies = BTreeMap::new();
    let mut odd = Vec::new();
    for view in executor.flows()?.into_iter().filter(|view| lives(view, settings, now)) {
        let index = view.reference.index();
        let (place, own) = if view.reference.is_reply() {
            (&mut replies, view.record.server)
        } else {
            (&mut clients, view.record.client)
        };
        if own != view.key {
            odd.push(format!("flow index: {:?} leads to the record of {own:?}", view.key));
        }
        if place.insert(index, view).is_some() {
            odd.push(format!("flow record {index} is found by two keys of one direction"));
        }
    }
    let connected = clients.iter().filter(|(_, view)| has_server(view)).map(|(index, _)| index);
    if connected.ne(replies.keys()) {
        let clients: Vec<_> = clients.iter().map(|(index, view)| (index, state_name(state(view)))).collect();
        odd.push(format!("flow records by client {clients:?}, by backend {:?}", replies.keys()));
    }
    let mut live: Vec<FlowData> = clients
        .values()
        .map(|view| FlowData {
            client: tuple(&view.record.client),
            server: has_server(view).then(|| tuple(&view.record.server)),
            state: state_name(state(view)).to_owned(),
            backend: if has_server(view) { view.record.backend } else { 0 },
            offset: offset(view),
        })
        .collect();
    live.sort();
    Ok((live, odd))
}

const fn state(view: &FlowView) -> FlowState {
    FlowWord(view.record.word).state()
}

/// Whether a backend was chosen: not while a head is collected, and never when its client gave up before it was complete.
fn has_server(view: &FlowView) -> bool {
    state(view) != FlowState::Collecting && view.record.server != FlowKey::default()
}

/// What is added to the acknowledgements of a spliced client.
fn offset(view: &FlowView) -> Option<u32> {
    let answered = matches!(state(view), FlowState::Releasing | FlowState::Established | FlowState::Closing);
    let spliced = FlowWord(view.record.word).has(FlowWord::SPLICED);
    (spliced && answered).then(|| view.record.answer.wrapping_sub(view.record.isn))
}

fn lives(view: &FlowView, settings: &Settings, now: u64) -> bool {
    let word = FlowWord(view.record.word);
    let datagram = word.has(FlowWord::DATAGRAM);
    let lifetime = match word.state() {
        FlowState::Free | FlowState::Claimed => return false,
        FlowState::Opening | FlowState::Answered if datagram => settings.udp_new,
        FlowState::Opening | FlowState::Answered => settings.tcp_half_open,
        FlowState::Established if datagram => settings.udp_established,
        FlowState::Established => settings.tcp_established,
        FlowState::Closing => settings.tcp_closing,
        FlowState::Closed => settings.tcp_reset,
        FlowState::Collecting => settings.head_timeout,
        FlowState::Connecting | FlowState::Releasing => settings.connect_timeout,
    };
    word.nonce() == view.reference.nonce() && view.record.last_seen.saturating_add(lifetime) > now
}

fn tuple(key: &FlowKey) -> Tuple {
    (ip(key.source), key.source_port.host(), ip(key.destination), key.destination_port.host(), key.protocol)
}

const fn state_name(state: FlowState) -> &'static str {
    match state {
        FlowState::Free => "free",
        FlowState::Opening => "opening",
        FlowState::Answered => "answered",
        FlowState::Established => "established",
        FlowState::Closing => "closing",
        FlowState::Closed => "closed",
        FlowState::Claimed => "claimed",
        FlowState::Collecting => "collecting",
        FlowState::Connecting => "connecting",
        FlowState::Releasing => "releasing",
    }
}
