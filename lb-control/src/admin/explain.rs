//! Which backend a packet gets and why: the data plane's decision, made again on the host and told.
//!
//! The steps are those of `docs/datapath.md` for a packet that opens a connection. The order comes from
//! [`lb_common::select`], the function that the programs use, over the tables that they read.

mod load;
mod reading;

pub use load::Load;
pub use reading::{Content, Marks, Read, read as read_content};

use super::row::{Explanation, Step, StepKind, Verdict};
use lb_common::abi::{BindingWord, Mode, Outcome, Status};
use lb_common::select::{PROBES, Probes, Table};
use lb_core::pool::{Fallback, Protocol, ServiceSpec};
use load::Picked;
use std::net::{IpAddr, SocketAddr};

/// The packet to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A backend as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: IpAddr,
    /// What it may receive.
    pub status: Status,
    /// Generation of its slot.
    pub generation: u16,
    /// Interface and MAC of the next hop; `None` while unresolved.
    pub hop: Option<String>,
    /// What it has to do.
    pub load: Load,
}

/// A binding as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Backend slot, generations, flags.
    pub word: BindingWord,
    /// Nanoseconds until it ends; 0 = it has ended.
    pub remaining: u64,
}

/// Everything that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a, T, B> {
    /// The service found.
    pub service: &'a ServiceSpec,
    /// The session key.
    pub session: u64,
    /// What the packet's content says, for affinities that read it.
    pub read: Option<&'a Read>,
    /// Name of the backend of the open connection with that 5-tuple and its state (`nat` only).
    pub flow: Option<(&'a str, &'a str)>,
    /// The session's binding.
    pub binding: Option<Bound>,
    /// The service's table and members.
    pub table: &'a T,
    /// Backend by slot.
    pub backend: B,
}

/// The service that serves a destination: the one with that port, else the one for any port.
pub fn service_of<'a>(packet: &Packet, services: &'a [ServiceSpec]) -> Option<&'a ServiceSpec> {
    let of_address = |s: &&ServiceSpec| {
        s.address == packet.destination.ip().to_canonical() && s.protocol == packet.protocol
    };
    let mut candidates = services.iter().filter(of_address);
    let any = candidates.clone().find(|s| s.port == 0);
    candidates.find(|s| s.port != 0 && s.port == packet.destination.port()).or(any)
}

/// The explanation for a packet that meets no service.
pub fn not_ours(packet: &Packet) -> Explanation {
    let found = format!("no service at {} {}", packet.destination, protocol_name(packet.protocol));
    Explanation {
        steps: vec![step(StepKind::Service, found, "passed to the host's own stack")],
        verdict: Verdict::Pass { outcome: Outcome::NotOurs.name().to_owned() },
    }
}

/// The explanation for a packet of a service.
pub fn explain<T, B>(packet: &Packet, scene: &Scene<'_, T, B>) -> Explanation
where
    T: Table,
    B: Fn(u16) -> Option<Candidate>,
{
    let mut steps = vec![service_step(packet, scene.service)];
    steps.extend(scene.read.into_iter().flat_map(|read| read.steps.iter().cloned()));
    steps.push(key_step(packet, scene));
    if let Some((backend, state)) = scene.flow {
        steps.push(step(
            StepKind::Flow,
            format!("{state} connection to {backend}"),
            "packets of an open connection follow it; a new connection would go as said below",
        ));
    }
    let chosen = named(scene, &mut steps).or_else(|| match bound(scene, &mut steps) {
        Standing::Holds(slot) => Some(slot),
        Standing::Moves => ordered(scene, &mut steps),
        Standing::Absent => match load::pick(scene, &mut steps) {
            Picked::Order => ordered(scene, &mut steps),
            Picked::Backend(slot) => Some(slot),
            Picked::Full => None,
        },
    });
    let verdict = match chosen.and_then(&scene.backend) {
        Some(backend) => forward(scene.service, &backend, &mut steps),
        None => nobody(packet.protocol, &mut steps),
    };
    Explanation { steps, verdict }
}

fn service_step(packet: &Packet, service: &ServiceSpec) -> Step {
    let because = if service.port == 0 && packet.destination.port() != 0 {
        format!("no service for port {} itself, this one takes any port", packet.destination.port())
    } else {
        format!("it is at {} {}", packet.destination, protocol_name(packet.protocol))
    };
    step(StepKind::Service, format!("service {}", service.name), because)
}

fn key_step<T, B>(packet: &Packet, scene: &Scene<'_, T, B>) -> Step {
    let because = match scene.read {
        Some(read) => read.because.clone(),
        None => fallback_words(packet, scene.service),
    };
    step(StepKind::SessionKey, format!("{:#018x}", scene.session), because)
}

/// How the key of a packet comes about that does not say itself whose it is.
fn fallback_words(packet: &Packet, service: &ServiceSpec) -> String {
    match service.affinity.fallback() {
        Fallback::None => "affinity none: the hash of addresses, ports and protocol".to_owned(),
        Fallback::SourceIp { v4, v6 } => {
            let source = packet.source.ip().to_canonical();
            match source {
                IpAddr::V4(_) => format!("affinity source-ip: {source} cut to /{v4}"),
                IpAddr::V6(_) if v6 <= 64 => format!("affinity source-ip: {source} cut to /{v6}"),
                IpAddr::V6(_) => format!("affinity source-ip: the hash of {source} cut to /{v6}"),
            }
        }
    }
}

/// The first server that the packet names and that serves.
fn named<T, B>(scene: &Scene<'_, T, B>, steps: &mut Vec<Step>) -> Option<u16>
where
    B: Fn(u16) -> Option<Candidate>,
{
    for &(slot, generation) in scene.read.into_iter().flat_map(|read| &read.named) {
        let backend = (scene.backend)(slot).filter(|backend| backend.generation == generation);
        let name = backend.as_ref().map_or_else(|| format!("slot {slot}"), |backend| backend.name.clone());
        match backend.map(|backend| backend.status) {
            Some(Status::Up | Status::Draining) => {
                steps.push(step(StepKind::Server, name, "the packet names it, and it serves"));
                return Some(slot);
            }
            Some(Status::Down) | None => {
                let because =
                    format!("the packet names it, but it is down; counted {}", Outcome::ServerDown.name());
                steps.push(step(StepKind::Server, name, because));
            }
        }
    }
    None
}

/// What a session's binding says.
enum Standing {
    /// To this backend.
    Holds(u16),
    /// Its backend serves it no more: the order decides, whatever the method.
    Moves,
    /// There is none.
    Absent,
}

/// The bound backend, when the binding holds.
fn bound<T, B>(scene: &Scene<'_, T, B>, steps: &mut Vec<Step>) -> Standing
where
    B: Fn(u16) -> Option<Candidate>,
{
    let mut tell = |found: String, because: String| steps.push(step(StepKind::Binding, found, because));
    let Some(binding) = scene.binding else {
        tell("none".into(), "a new session".into());
        return Standing::Absent;
    };
    let slot = binding.word.backend();
    let backend = (scene.backend)(slot);
    let name = backend.as_ref().map_or_else(|| format!("slot {slot}"), |b| b.name.clone());
    let found = format!("to {name}, generation {}", binding.word.generation());
    if binding.word.has(BindingWord::DEAD) || binding.remaining == 0 {
        tell(found, "it has expired, which means absent: a new session".into());
        return Standing::Absent;
    }
    match backend {
        Some(b) if b.generation == binding.word.slot_generation() => match b.status {
            Status::Up | Status::Draining => {
                let seconds = binding.remaining.div_ceil(1_000_000_000);
                tell(found, format!("it holds for {seconds} s more and {name} serves bound sessions"));
                Standing::Holds(slot)
            }
            Status::Down => {
                tell(found, format!("{name} is down; the order decides and the binding moves"));
                Standing::Moves
            }
        },
        Some(_) | None => {
            tell(found, "that backend is gone from its slot; the order decides and the binding moves".into());
            Standing::Moves
        }
    }
}

/// The first backend of the order that accepts new sessions, else the first that serves at all.
fn ordered<T, B>(scene: &Scene<'_, T, B>, steps: &mut Vec<Step>) -> Option<u16>
where
    T: Table,
    B: Fn(u16) -> Option<Candidate>,
{
    let accepts = |slot| (scene.backend)(slot).is_some_and(|b| b.status == Status::Up);
    let serves = |slot| (scene.backend)(slot).is_some_and(|b| b.status != Status::Down);
    if let Some(slot) = read(scene, steps, accepts, "accepts new sessions") {
        return Some(slot);
    }
    steps.push(step(
        StepKind::SecondReading,
        "nobody accepts new sessions".into(),
        "the order is read again for a draining backend, better than none",
    ));
    read(scene, steps, serves, "is draining but serves")
}

/// One reading of the order, told probe by probe.
fn read<T, B>(
    scene: &Scene<'_, T, B>,
    steps: &mut Vec<Step>,
    takes: impl Fn(u16) -> bool,
    reason: &str,
) -> Option<u16>
where
    T: Table,
    B: Fn(u16) -> Option<Candidate>,
{
    let name = |slot: u16| (scene.backend)(slot).map_or_else(|| format!("slot {slot}"), |b| b.name);
    let state = |slot: u16| match (scene.backend)(slot).map(|b| b.status) {
        Some(Status::Up) => "up",
        Some(Status::Draining) => "draining",
        Some(Status::Down) => "down",
        None => "gone",
    };
    let probes = Probes::new(scene.session);
    let count = scene.table.member_count();
    // Without members there is no table either.
    for i in 0..if count == 0 { 0 } else { PROBES } {
        let place = probes.value(i) & scene.table.mask();
        let Some(owner) = scene.table.owner(place) else { continue };
        let found = format!("probe {i}: table slot {place} belongs to {}", name(owner));
        if takes(owner) {
            steps.push(step(StepKind::Probe, found, format!("{} {reason}", name(owner))));
            return Some(owner);
        }
        steps.push(step(StepKind::Probe, found, format!("{} is {}, next probe", name(owner), state(owner))));
    }
    let start = if count == 0 { 0 } else { probes.value(PROBES) % count };
    let taker = (0..count)
        .filter_map(|i| scene.table.member((start + i) % count).map(|slot| (i, slot)))
        .find(|(_, slot)| takes(*slot));
    match taker {
        Some((skipped, slot)) => steps.push(step(
            StepKind::Walk,
            format!("from member {start} of {count}, {skipped} skipped: {}", name(slot)),
            format!("{} {reason}", name(slot)),
        )),
        None => steps.push(step(
            StepKind::Walk,
            format!("from member {start} of {count}: none found"),
            "no backend of the service qualifies",
        )),
    }
    taker.map(|(_, slot)| slot)
}

fn forward(service: &ServiceSpec, backend: &Candidate, steps: &mut Vec<Step>) -> Verdict {
    let mode = mode_name(service.mode);
    match &backend.hop {
        Some(hop) => {
            steps.push(step(
                StepKind::Forward,
                format!("{mode} to {}", backend.address),
                format!("by {hop}"),
            ));
            Verdict::Forward {
                service: service.name.clone(),
                backend: backend.name.clone(),
                address: backend.address.to_string(),
                mode: mode.to_owned(),
            }
        }
        None => {
            let because =
                "its next hop is not resolved: is the backend reachable? (`ip neigh`, `ip route get`)";
            steps.push(step(StepKind::Forward, format!("{mode} to {}", backend.address), because));
            Verdict::Drop { outcome: Outcome::NoHop.name().to_owned() }
        }
    }
}

fn nobody(protocol: Protocol, steps: &mut Vec<Step>) -> Verdict {
    let (because, verdict) = match protocol {
        Protocol::Tcp => (
            "TCP is answered with a reset, so that the client need not wait",
            Verdict::Answer { outcome: Outcome::ResetSent.name().to_owned() },
        ),
        Protocol::Udp => {
            ("nothing can be answered", Verdict::Drop { outcome: Outcome::NoBackend.name().to_owned() })
        }
    };
    steps.push(step(StepKind::Forward, "no backend may take it".into(), because));
    verdict
}

fn step(kind: StepKind, found: String, because: impl Into<String>) -> Step {
    Step { kind, found, because: because.into() }
}

/// A protocol's name in the API.
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A mode's name in the API.
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat => "nat",
        Mode::L2 => "l2",
        Mode::Ipip => "ipip",
        Mode::Gue => "gue",
    }
}

#[cfg(test)]
mod tests;
