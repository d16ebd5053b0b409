//! The data plane in bmv2: cases through a running switch, whose tables `lbd`'s own code writes.
//!
//! A switch does less than XDP, and some of it otherwise. What a case needs that no switch has is found in the case, and said;
//! where both have an answer, frame, port, counters and bindings must be the same.

mod lane;
mod segment;
mod wire;

use super::case::{Area, BoundData, Case, PacketStep, ServiceData, Step};
use super::checksum::check;
use super::dissect::dissect;
use super::netns::OwnNamespace;
use super::replay::difference;
use super::rules::RulesData;
use super::tables::{Change, DEVICES, Tables};
use crate::topology::Bmv2;
use crate::topology::process::{Process, eventually};
use anyhow::{Context, Result, ensure};
use lb_common::abi::{ARENA_CHUNK, ArenaChunk, BindingOp, BindingRecord, BindingWord, Counters, Outcome};
use lb_control::dataplane::p4::{P4, Route, Standing, SwitchSpec};
use lb_control::dataplane::{self, DataPlane as _, Sizes};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::{Wire, Wires};

pub use lane::{Course, Lane, Passage};

/// Where the switch listens for P4Runtime.
const SERVER: &str = "127.0.0.1:9559";
/// Where it puts what it leaves to others.
const CPU: u32 = 14;
/// The clients' router in the corpus.
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
/// Patience with the switch.
const SOON: Duration = Duration::from_secs(20);
/// How long a frame may be under way after the next one has come through.
const LOST: Duration = Duration::from_secs(2);
/// How long one may be that should not be there at all.
const LATE: Duration = Duration::from_millis(5);

/// A running switch and the wires of the corpus.
pub struct Switch {
    wires: Wires,
    log: PathBuf,
    process: Process,
    election: u64,
    plane: Option<P4>,
    /// Its registers have what the case before left there.
    remembers: bool,
}

/// How a case ended.
pub enum Compared {
    /// It was as in XDP, or differed in these things.
    Ran(Vec<String>),
    /// It was not run, because of this.
    LeftOut(String),
}

/// What a packet may move.
struct Totals {
    outcomes: Vec<u64>,
    counters: BTreeMap<String, Counters>,
}

impl Switch {
    /// Enters a namespace and starts the switch there.
    pub fn start(directory: &std::path::Path) -> Result<Self> {
        let namespace = OwnNamespace::enter()?;
        let wires = Wires::of(namespace, CPU)?;
        let log = directory.join("bmv2.log");
        let process = process(&log)?;
        Ok(Self { wires, log, process, election: 0, plane: None, remembers: false })
    }

    /// Runs a case and compares.
    pub fn compare(&mut self, case: &Case, area: &Area) -> Result<Compared> {
        if let Some(why) = unfit(case) {
            return Ok(Compared::LeftOut(why));
        }
        let mut tables = Tables::of(case, &area.defaults)?;
        if tables.settings.prefix_quota != 0 {
            return Ok(Compared::LeftOut("quotas by source prefix".to_owned()));
        }
        let has_trains = case.steps.iter().any(|step| match step {
            Step::Packet(packet) => is_fragment(&packet.frame),
            _ => false,
        });
        if let Err(error) = self.install(&tables, has_trains || tables.has_datagrams(), &[])? {
            return Ok(Compared::LeftOut(format!("refused: {error}")));
        }
        let mut found = Vec::new();
        let mut before = self.totals(&tables)?;
        for (number, step) in case.steps.iter().enumerate() {
            let at = |text: String| format!("  step {number}: {text}");
            match step {
                Step::Packet(packet) if packet.only.is_some() => {}
                Step::Packet(packet) => {
                    let (after, odd) = self.packet(&tables, packet, &before)?;
                    found.extend(odd.into_iter().map(at));
                    before = after;
                }
                Step::Status { backend, status } => {
                    let change = tables.set_status(*backend, status)?;
                    self.change(&tables, &change)?;
                }
                Step::Backend(data) => {
                    let change = tables.replace_backend(data)?;
                    self.change(&tables, &change)?;
                }
                Step::RemoveService(id) => {
                    let change = tables.remove_service(*id);
                    self.change(&tables, &change)?;
                }
                // In `nat` XDP binds with the client's acknowledgement, the switch with the backend's next segment.
                Step::Bindings(_) if tables.has_flows() => {}
                Step::Bindings(expected) => found.extend(self.bindings(expected)?.map(at)),
                // A switch has no flows, no holds, and notes nothing of backends.
                Step::Flows(_) | Step::Holds(_) | Step::Vitals(_) => {}
                Step::Advance(_) | Step::Expiry(_) | Step::SessionSecrets(..) => unreachable!("left out"),
            }
        }
        Ok(Compared::Ran(found))
    }

    fn plane(&mut self) -> Result<&mut P4> {
        self.plane.as_mut().context("no case is installed")
    }

    /// Gives the switch the tables of a case, and ways to the backends of connections that it is to go on with; the inner error is why a
    /// switch cannot have them.
    fn install(
        &mut self,
        tables: &Tables,
        remembers: bool,
        ways: &[Route],
    ) -> Result<Result<(), dataplane::Error>> {
        if let Some(mut plane) = self.plane.take() {
            // What stands there would be taken over.
            plane.detach_all()?;
        }
        if std::mem::replace(&mut self.remembers, remembers) {
            // What it has seen of datagrams and fragments is in registers, which nobody can empty.
            self.process.kill();
            self.process = process(&self.log)?;
        }
        self.election += 1;
        let number = |index: u32| (OwnNamespace::interface(index), index as u16);
        let route = |address: IpAddr| Route {
            address,
            prefix: 0,
            interface: OwnNamespace::interface(DEVICES[0]),
            mac: CLIENT,
        };
        let spec = SwitchSpec {
            address: SERVER.to_owned(),
            device: 0,
            election: self.election,
            ports: DEVICES.into_iter().map(number).collect(),
            cpu_port: Some(CPU as u16),
            routes: [&[route(Ipv4Addr::UNSPECIFIED.into()), route(Ipv6Addr::UNSPECIFIED.into())], ways]
                .concat(),
            offload: !ways.is_empty(),
        };
        let chunks = tables.arena.len().div_ceil(ARENA_CHUNK) as u32;
        let sizes = Sizes { bindings: 1_024, flows: 16, arena: chunks.max(1), holds: 1 };
        let mut plane = P4::open(&spec, sizes)?;
        plane.put_settings(&tables.settings)?;
        for (place, slots) in (0..).zip(tables.arena.chunks(ARENA_CHUNK)) {
            let mut chunk = [0; ARENA_CHUNK];
            chunk[..slots.len()].copy_from_slice(slots);
            plane.put_arena(place, &[ArenaChunk(chunk)])?;
        }
        for (slot, backend) in &tables.backends {
            plane.put_backend(*slot, backend)?;
        }
        for (word, bits) in &tables.status {
            plane.put_status(*word, *bits)?;
        }
        for (slot, rules) in &tables.affinities {
            plane.put_affinity(*slot, rules)?;
        }
        plane.put_servers(0, &tables.servers)?;
        for (place, shape) in &tables.quic {
            if let Err(error) = plane.put_quic(*place, shape) {
                return Ok(Err(error));
            }
        }
        for (key, service) in tables.service_entries() {
            if let Err(error) = plane.put_service(&key, &service) {
                return Ok(Err(error));
            }
        }
        self.plane = Some(plane);
        self.settle()?;
        let records = tables.bindings.iter().filter(|(_, _, left)| *left > 0).map(|(key, word, left)| {
            let op = BindingOp::Copy as u8;
            let lifetime = left.cast_unsigned();
            BindingRecord {
                session: key.session,
                word: word.0,
                lifetime,
                service: key.service,
                op,
                pad: 0,
                home: 0,
            }
        });
        let records: Vec<BindingRecord> = records.collect();
        self.plane()?.apply_bindings(&records)?;
        self.settle()?;
        self.wires.forget()?;
        Ok(Ok(()))
    }

    fn change(&mut self, tables: &Tables, change: &Change) -> Result<()> {
        let plane = self.plane()?;
        match change {
            Change::Status(word, bits) => plane.put_status(*word, *bits)?,
            Change::Backend(slot, backend) => plane.put_backend(*slot, backend)?,
            // Keys on a switch are not hashed.
            Change::SessionSecrets(..) => {}
            Change::Services(_) => {
                let kept = tables.service_entries();
                for (key, _) in plane.services()? {
                    if kept.iter().all(|(other, _)| *other != key) {
                        plane.delete_service(&key)?;
                    }
                }
            }
        }
        self.settle()
    }

    /// Waits until the switch has what it should.
    fn settle(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let plane = self.plane()?;
            plane.events(100)?;
            if plane.standing() == Standing::Settled {
                return Ok(());
            }
            ensure!(begun.elapsed() < SOON, "the switch is {:?}: {}", plane.standing(), self.process.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn totals(&mut self, tables: &Tables) -> Result<Totals> {
        let services = tables.service_slots().to_vec();
        let backends: Vec<u16> = tables.backends.keys().copied().collect();
        let plane = self.plane()?;
        let traffic = plane.counters(&services, &backends)?;
        let services = services.iter().map(|slot| format!("service:{slot}")).zip(traffic.services);
        let backends = backends.iter().map(|slot| format!("backend:{slot}")).zip(traffic.backends);
        Ok(Totals { outcomes: plane.outcomes()?, counters: services.chain(backends).collect() })
    }

    /// Totals in which the frame behind the packet is counted: a switch that is busy may not answer at once.
    fn totals_since(&mut self, tables: &Tables, before: &Totals) -> Result<Totals> {
        let begun = Instant::now();
        loop {
            let after = self.totals(tables)?;
            let marks = |totals: &Totals| totals.outcomes[Outcome::NotIp as usize];
            if marks(&after) > marks(before) {
                return Ok(after);
            }
            ensure!(begun.elapsed() < SOON, "the switch does not tell its counters: {}", self.process.log());
        }
    }

    fn packet(
        &mut self,
        tables: &Tables,
        step: &PacketStep,
        before: &Totals,
    ) -> Result<(Totals, Vec<String>)> {
        // Without flows every SYN is a connection, and every new socket until the session's entry is there.
        let has_flows = tables.has_flows() || tables.has_datagrams();
        let expected = Expected::of(step, has_flows);
        let mut frames = self.wires.send(step.ifindex, &step.frame, SOON)?;
        if frames.is_empty() && expected.frame.is_some() {
            frames = self.wires.wait(LOST)?;
        } else {
            frames.extend(self.wires.wait(LATE)?);
        }
        let after = self.totals_since(tables, before)?;
        let mut found = Vec::new();
        match (&expected.frame, &frames[..]) {
            (None, []) => {}
            (None, frames) => {
                found.extend(frames.iter().map(|(port, frame)| format!("out of {port}: {}", dissect(frame))));
            }
            (Some((port, _)), []) => found.push(format!("lost, expected out of {port}")),
            (Some((port, frame)), [(out, sent), more @ ..]) => {
                if out != port {
                    found.push(format!("out of {out}, expected {port}"));
                }
                if padded(sent) != padded(frame) {
                    found.push(difference(frame, sent));
                }
                if *port != CPU && check(&step.frame).is_empty() {
                    found.extend(check(sent).iter().map(|problem| format!("frame out: {problem}")));
                }
                found.extend(more.iter().map(|(port, frame)| format!("out of {port}: {}", dissect(frame))));
            }
        }
        let outcomes = after.outcomes_since(before);
        if outcomes != expected.outcomes {
            found.push(format!("outcomes {outcomes:?}, expected {:?}", expected.outcomes));
        }
        let mut counters = after.counters_since(before);
        if has_flows {
            counters.values_mut().for_each(|fields| fields.retain(|field, _| field != "connections"));
            counters.retain(|_, fields| !fields.is_empty());
        }
        if counters != expected.counters {
            found.push(format!("counters {counters:?}\n    expected {:?}", expected.counters));
        }
        if !found.is_empty() {
            found.push(format!("frame in: {}", dissect(&step.frame)));
        }
        Ok((after, found))
    }

    fn bindings(&mut self, expected: &[BoundData]) -> Result<Option<String>> {
        let begun = Instant::now();
        loop {
            let plane = self.plane()?;
            plane.events(100)?;
            let mut live: Vec<BoundData> = plane
                .bindings(None, 1_024)?
                .rows
                .into_iter()
                .map(|(key, binding)| {
                    let word = BindingWord(binding.word);
                    let pinned = word.has(BindingWord::PINNED).then(|| "pinned".to_owned());
                    BoundData {
                        service: key.service,
                        session: key.session,
                        backend: word.backend(),
                        generation: word.generation(),
                        flags: pinned.into_iter().collect(),
                    }
                })
                .collect();
            live.sort();
            if live == expected {
                self.settle()?;
                return Ok(None);
            }
            // The switch tells of new ones within 10 ms.
            if begun.elapsed() > Duration::from_secs(2) {
                return Ok(Some(format!("bindings\n    expected {expected:?}\n    found    {live:?}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What a switch does with a packet where XDP does what the corpus says.
struct Expected {
    frame: Option<(u32, Vec<u8>)>,
    outcomes: Vec<String>,
    counters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Expected {
    fn of(step: &PacketStep, has_flows: bool) -> Self {
        let frame = match step.verdict.as_str() {
            "pass" => Some((CPU, step.out.clone().unwrap_or_else(|| step.frame.clone()))),
            "tx" => step.out.clone().map(|out| (step.ifindex, out)),
            "redirect" => step.out.clone().map(|out| (step.to.unwrap_or(step.ifindex), out)),
            _ => None,
        };
        let mut counters = step.counters.clone();
        for fields in counters.values_mut() {
            // `lbd` counts bindings as it hears of them.
            fields.retain(|field, _| field != "bindings" && !(has_flows && field == "connections"));
            // The switch counts frames, with tags and padding.
            for bytes in ["bytes", "reply_bytes"] {
                if let Some(bytes) = fields.get_mut(bytes) {
                    *bytes = step.frame.len() as u64 - 14;
                }
            }
        }
        counters.retain(|_, fields| !fields.is_empty());
        let mut outcomes: Vec<String> =
            step.outcomes.iter().map(|outcome| there(outcome).to_owned()).collect();
        outcomes.sort();
        let frame = frame.filter(|_| outcomes == step.outcomes);
        Self { frame, outcomes, counters }
    }
}

impl Totals {
    fn outcomes_since(&self, before: &Self) -> Vec<String> {
        let mut names = Vec::new();
        for outcome in Outcome::ALL {
            let count = |totals: &Self| totals.outcomes.get(*outcome as usize).copied().unwrap_or_default();
            // One of them is the frame behind it.
            let own = u64::from(*outcome == Outcome::NotIp);
            for _ in count(before) + own..count(self) {
                names.push(outcome.name().to_owned());
            }
        }
        names.sort();
        names
    }

    fn counters_since(&self, before: &Self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut moved = BTreeMap::new();
        for (name, now) in &self.counters {
            let then = before.counters.get(name).copied().unwrap_or_default();
            let fields = [
                ("packets", now.packets - then.packets),
                ("bytes", now.bytes - then.bytes),
                ("reply_packets", now.reply_packets - then.reply_packets),
                ("reply_bytes", now.reply_bytes - then.reply_bytes),
                ("connections", now.connections - then.connections),
            ];
            let fields = fields.into_iter().filter(|(_, n)| *n > 0);
            let fields: BTreeMap<String, u64> = fields.map(|(field, n)| (field.to_owned(), n)).collect();
            if !fields.is_empty() {
                moved.insert(name.clone(), fields);
            }
        }
        moved
    }
}

/// What no switch has, if a case needs it.
fn unfit(case: &Case) -> Option<String> {
    let has = |is: fn(&Step) -> bool| case.steps.iter().any(is);
    if has(|step| matches!(step, Step::Advance(_) | Step::Expiry(_))) {
        return Some("time passes, which bmv2's clock does not do on command".to_owned());
    }
    if case.services.iter().any(|service| service.mss != 0) {
        return Some("MSS clamping".to_owned());
    }
    let hashes = |service: &ServiceData| {
        let fallback = service.rules.as_ref().is_some_and(RulesData::falls_back_to_connections);
        service.affinity == "none" || fallback && case_falls_back(case)
    };
    if case.services.iter().any(hashes) {
        return Some("sessions of one connection, which the switch hashes otherwise".to_owned());
    }
    let packets = case.steps.iter().filter_map(|step| match step {
        Step::Packet(packet) if packet.only.is_none() => Some(packet),
        _ => None,
    });
    let longest = packets.clone().map(|packet| packet.frame.len()).max().unwrap_or_default();
    if longest > Wire::LONGEST {
        return Some("frames longer than the wires take".to_owned());
    }
    let any = |is: fn(&[u8]) -> bool| packets.clone().any(|packet| is(&packet.frame));
    any(|frame| tags(frame) == 1 && frame.len() < 18)
        .then(|| "cut tags, which the kernel below bmv2 keeps to itself".to_owned())
}

/// Whether some packet is not told by what its service's sessions are told by.
fn case_falls_back(case: &Case) -> bool {
    case.steps.iter().any(|step| match step {
        Step::Packet(packet) => {
            packet.outcomes.iter().any(|outcome| outcome == "payload-short" || outcome == "quic-unroutable")
        }
        _ => false,
    })
}

/// The switch's outcome where XDP's is this: what XDP answers the switch drops, and says why.
fn there(outcome: &str) -> &str {
    match outcome {
        "reset-sent" => "no-backend",
        "too-big-sent" => "no-room",
        "time-exceeded-sent" => "hop-limit",
        // A port that the switch does not have is no way.
        "redirect-failed" => "no-hop",
        other => other,
    }
}

/// How many VLAN tags a frame has.
fn tags(frame: &[u8]) -> usize {
    frame
        .get(12..)
        .unwrap_or_default()
        .chunks_exact(4)
        .take_while(|tag| matches!(tag[..2], [0x81, 0] | [0x88, 0xa8]))
        .count()
}

/// Whether a frame is part of a fragmented packet.
fn is_fragment(frame: &[u8]) -> bool {
    let word = |place: usize| frame.get(place..place + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let start = 14 + 4 * tags(frame);
    match word(start - 2) {
        Some(0x0800) => word(start + 6).is_some_and(|fragment| fragment & 0x3fff != 0),
        Some(0x86dd) => frame.get(start + 6) == Some(&44),
        _ => false,
    }
}

/// As it is on a wire: no frame is shorter than 60 bytes there.
fn padded(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn process(log: &std::path::Path) -> Result<Process> {
    let mut command = std::process::Command::new(Bmv2::program()?);
    command.args(["--no-p4", "--device-id", "0", "--log-console", "-L", "warn"]);
    for index in DEVICES.into_iter().chain([CPU]) {
        command.arg("-i").arg(format!("{index}@{}", OwnNamespace::interface(index)));
    }
    command.args(["--", "--grpc-server-addr", SERVER]);
    let mut process = Process::start(&mut command, log)?;
    eventually(SOON, || {
        ensure!(process.ended()?.is_none(), "it ended");
        Ok(TcpStream::connect(SERVER).map(drop)?)
    })
    .with_context(|| format!("bmv2 does not come up: {}", process.log()))?;
    Ok(process)
}
