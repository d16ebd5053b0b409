//! One run: clients, the balancer and backends, until all is said.

use super::chance::Chance;
use super::endpoint::{Endpoint, Stage};
use super::network::{Network, Place};
use super::plan::{BACKENDS, Connection, Manner, Plan, Weather};
use super::segment::{ACK, RST, SYN, Segment, Wire};
use crate::corpus::{Case, Executor, Host, Tables, Verdict, check, dissect};
use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{FlowWord, HoldWord, Outcome};
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// No run may take longer.
const END: u64 = 900 * SECOND;
/// How long stragglers are waited for after the last connection ended.
const AFTERWARDS: u64 = 20 * SECOND;
/// What answers are made of.
const PATTERN: &[u8; 53] = b"the quick brown fox jumps over the lazy dog, 0123456\n";
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
const CLIENT_SIDE: [u8; 6] = [2, 0, 0, 0, 1, 0x11];
const BACKEND_SIDE: [u8; 6] = [2, 0, 0, 0, 1, 0x12];
const CLIENT_DEVICE: u32 = 11;
const BACKEND_DEVICE: u32 = 12;

/// What a run did, for those who want to know that it did something.
#[derive(Clone, Copy, Default, Debug)]
pub struct Report {
    /// Connections that ran to their end.
    pub connections: usize,
    /// Frames the balancer saw.
    pub frames: usize,
    /// Virtual time in nanoseconds.
    pub took: u64,
}

/// Plays the run of a seed: with delayed binding, or with addresses translated only, which shows that the endpoints are fair.
pub fn play(seed: u64, weather: Weather, spliced: bool) -> Result<Report> {
    let mut chance = Chance::new(seed);
    let plan = Plan::draw(&mut chance, spliced);
    let mut world = World::new(plan, weather, chance)?;
    let trace = std::env::var_os("STICKLEBACK_TRACE").is_some();
    world.run(trace).with_context(|| format!("seed {seed}, {weather:?}\n{}", world.summary()))
}

/// A client's end with what its application does.
struct Talk {
    plan: Connection,
    local: SocketAddr,
    end: Option<Endpoint>,
    /// Requests that were written in full.
    asked: usize,
    /// Writes of the current one that were made.
    wrote: usize,
    wakes: u64,
    /// The backend that answered first.
    backend: Option<u16>,
    /// Answers that came whole, and where the next one begins.
    answered: usize,
    from: usize,
    /// What the next answer has to be.
    whole: Vec<u8>,
    /// All that a backend has to hear, and where each request ends in it.
    stream: Vec<u8>,
    ends: Vec<usize>,
    finished: bool,
}

struct World {
    plan: Plan,
    chance: Chance,
    network: Network,
    host: Host,
    now: u64,
    talks: Vec<Talk>,
    /// Backends' ends by backend slot and the other side as they see it.
    ends: BTreeMap<(u16, SocketAddr), (usize, Endpoint)>,
    frames: usize,
    vip: SocketAddr,
}

impl World {
    fn new(plan: Plan, weather: Weather, mut chance: Chance) -> Result<Self> {
        let case: Case = serde_json::from_value(plan.case()).context("the model's tables")?;
        let tables = Tables::of(&case, &Map::new())?;
        let mut host = Host::default();
        host.cannot_grow(plan.tight);
        host.install(&tables)?;
        let ip: IpAddr = if plan.v6 { "2001:db8:1::10".parse()? } else { "192.0.2.10".parse()? };
        let vip = SocketAddr::new(if plan.v6 { "fd99::1".parse()? } else { "10.99.0.1".parse()? }, 80);
        let talks = (40_000..)
            .zip(&plan.connections)
            .map(|(port, connection)| Talk {
                plan: connection.clone(),
                local: SocketAddr::new(ip, port),
                end: None,
                asked: 0,
                wrote: 0,
                wakes: connection.start,
                backend: None,
                answered: 0,
                from: 0,
                whole: Vec::new(),
                stream: Vec::new(),
                ends: Vec::new(),
                finished: false,
            })
            .map(|mut talk: Talk| {
                if plan.flags.contains(&"proxy") {
                    talk.stream = proxy_header(talk.local, vip);
                }
                for request in &talk.plan.requests {
                    talk.stream.extend(&request.bytes);
                    talk.ends.push(talk.stream.len());
                }
                talk
            })
            .collect();
        let network = Network::new(weather, Chance::new(chance.number()));
        Ok(Self { plan, chance, network, host, now: 0, talks, ends: BTreeMap::new(), frames: 0, vip })
    }

    fn run(&mut self, trace: bool) -> Result<Report> {
        let mut over = None;
        loop {
            while let Some((place, frame)) = self.network.arrived(self.now) {
                let before = if trace { self.host.outcomes()? } else { Vec::new() };
                if trace {
                    println!("{:>12.6} to {place:?}: {}", self.now as f64 / 1e9, dissect(&frame));
                }
                match place {
                    Place::Balancer(device) => self.balance(&frame, device)?,
                    Place::Clients => self.client_hears(&frame)?,
                    Place::Backends => self.backend_hears(&frame)?,
                }
                if trace {
                    self.tell_outcomes(&before)?;
                }
            }
            self.timers();
            self.applications()?;
            self.honest()?;
            if self.talks.iter().all(|talk| talk.finished) {
                over.get_or_insert(self.now + AFTERWARDS);
            }
            let next = self.next().filter(|next| over.is_none_or(|over| *next <= over));
            let Some(next) = next else { break };
            ensure!(next < END, "not all was said after {} s", END / SECOND);
            let step = next.saturating_sub(self.now);
            self.host.advance(Duration::from_nanos(step))?;
            self.now += step;
        }
        self.settled()?;
        Ok(Report { connections: self.talks.len(), frames: self.frames, took: self.now })
    }

    /// Prints what the balancer has counted since.
    fn tell_outcomes(&self, before: &[u64]) -> Result<()> {
        let after = self.host.outcomes()?;
        for outcome in
            Outcome::ALL.iter().filter(|outcome| after[**outcome as usize] > before[**outcome as usize])
        {
            println!("      {}", outcome.name());
        }
        Ok(())
    }

    /// When something happens next.
    fn next(&self) -> Option<u64> {
        let clients = self.talks.iter().filter_map(|talk| talk.end.as_ref()).filter_map(Endpoint::deadline);
        let backends = self.ends.values().filter_map(|(_, end)| end.deadline());
        let wakes = self.talks.iter().filter(|talk| !talk.finished && talk.wakes > self.now);
        clients.chain(backends).chain(wakes.map(|talk| talk.wakes)).chain(self.network.next()).min()
    }

    fn balance(&mut self, frame: &[u8], device: u32) -> Result<()> {
        self.frames += 1;
        let ran = self.host.run(frame, device)?;
        let to = match ran.verdict {
            Verdict::Drop => return Ok(()),
            Verdict::Tx => device,
            Verdict::Redirect(Some(to)) => to,
            // The stack of the balancer makes nothing of a reset.
            Verdict::Pass
                if Segment::of(frame).is_some_and(|(segment, _)| segment.has(RST) || segment.has(SYN)) =>
            {
                return Ok(());
            }
            verdict => bail!("{verdict:?} of {}", dissect(frame)),
        };
        let problems = check(&ran.frame);
        ensure!(problems.is_empty(), "{problems:?} in {}\nmade from {}", dissect(&ran.frame), dissect(frame));
        let place = if to == CLIENT_DEVICE { Place::Clients } else { Place::Backends };
        self.network.send(self.now, place, ran.frame);
        Ok(())
    }

    fn client_hears(&mut self, frame: &[u8]) -> Result<()> {
        let (segment, wire) =
            Segment::of(frame).with_context(|| format!("no segment: {}", dissect(frame)))?;
        let expected = Wire { source: CLIENT_SIDE, destination: CLIENT_MAC, tag: self.plan.tag };
        ensure!(wire == expected, "around a client's frame: {wire:?}, expected {expected:?}");
        ensure!(segment.source == self.vip, "a client hears {}", segment.source);
        let found = self.talks.iter_mut().position(|talk| talk.local == segment.destination);
        let index = found.with_context(|| format!("no client {}", segment.destination))?;
        let mut out = Vec::new();
        if let Some(end) = &mut self.talks[index].end {
            end.take_segment(&segment, self.now, &mut out);
        }
        self.client_sends(&out);
        Ok(())
    }

    fn client_sends(&mut self, segments: &[Segment]) {
        let wire = Wire { source: CLIENT_MAC, destination: CLIENT_SIDE, tag: self.plan.tag };
        for segment in segments {
            self.network.send(self.now, Place::Balancer(CLIENT_DEVICE), segment.frame(&wire));
        }
    }

    fn backend_sends(&mut self, slot: u16, segments: &[Segment]) {
        let wire = Wire { source: backend_mac(slot), destination: BACKEND_SIDE, tag: None };
        for segment in segments {
            self.network.send(self.now, Place::Balancer(BACKEND_DEVICE), segment.frame(&wire));
        }
    }

    fn backend_hears(&mut self, frame: &[u8]) -> Result<()> {
        let (segment, wire) =
            Segment::of(frame).with_context(|| format!("no segment: {}", dissect(frame)))?;
        let slot = (1..=BACKENDS)
            .find(|slot| self.address(*slot) == segment.destination)
            .with_context(|| format!("no backend {}", segment.destination))?;
        let expected = Wire { source: BACKEND_SIDE, destination: backend_mac(slot), tag: None };
        ensure!(wire == expected, "around a backend's frame: {wire:?}, expected {expected:?}");
        let server = self.plan.servers[usize::from(slot - 1)];
        let mut out = Vec::new();
        match server.manner {
            Manner::Silent => return Ok(()),
            Manner::Refuses => {
                if segment.has(SYN) {
                    out.push(refusal(&segment));
                }
            }
            Manner::Answers => self.accept(slot, &segment, &mut out)?,
        }
        self.backend_sends(slot, &out);
        Ok(())
    }

    fn accept(&mut self, slot: u16, segment: &Segment, out: &mut Vec<Segment>) -> Result<()> {
        let key = (slot, segment.source);
        let dead = self.ends.get(&key).is_some_and(|(_, end)| end.stage == Stage::Dead);
        if segment.has(SYN) && !segment.has(ACK) && (dead || !self.ends.contains_key(&key)) {
            let talk = self.speaker(segment)?;
            let can = self.plan.servers[usize::from(slot - 1)].can;
            let first = self.first();
            let end = Endpoint::accept(segment, can, first, self.now, out);
            self.ends.insert(key, (talk, end));
        } else if let Some((_, end)) = self.ends.get_mut(&key) {
            end.take_segment(segment, self.now, out);
        } else if !segment.has(RST) {
            bail!("a segment without a connection for backend {slot}: {segment:?}");
        }
        Ok(())
    }

    /// Whose connection a SYN to a backend is for: its sequence number is the client's, less the PROXY header's bytes.
    fn speaker(&self, syn: &Segment) -> Result<usize> {
        let front = match (self.plan.flags.contains(&"proxy"), self.plan.v6) {
            (false, _) => 0,
            (true, false) => 28,
            (true, true) => 52,
        };
        let found = self
            .talks
            .iter()
            .position(|talk| talk.end.as_ref().is_some_and(|end| end.first() == syn.seq.wrapping_add(front)));
        found.with_context(|| format!("a SYN that no client sent: {syn:?}"))
    }

    /// An initial sequence number, often one that wraps around soon; no client's twice, for it tells whose a SYN is.
    fn first(&mut self) -> u32 {
        loop {
            #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
            let number = self.chance.number() as u32;
            let first = if self.chance.permille(300) { u32::MAX - number % 3_000 } else { number };
            if !self.talks.iter().filter_map(|talk| talk.end.as_ref()).any(|end| end.first() == first) {
                return first;
            }
        }
    }

    fn address(&self, slot: u16) -> SocketAddr {
        let ip = if self.plan.v6 {
            IpAddr::from([0xfd10, 0, 0, 0, 0, 0, 0, slot])
        } else {
            IpAddr::from([10, 1, 0, u8::try_from(slot).unwrap_or(0)])
        };
        SocketAddr::new(ip, 8080)
    }

    fn timers(&mut self) {
        for index in 0..self.talks.len() {
            let mut out = Vec::new();
            if let Some(end) = &mut self.talks[index].end
                && end.deadline().is_some_and(|at| at <= self.now)
            {
                end.expire(self.now, &mut out);
            }
            self.client_sends(&out);
        }
        let due: Vec<_> = self
            .ends
            .iter()
            .filter(|(_, (_, end))| end.deadline().is_some_and(|at| at <= self.now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let mut out = Vec::new();
            if let Some((_, end)) = self.ends.get_mut(&key) {
                end.expire(self.now, &mut out);
            }
            self.backend_sends(key.0, &out);
        }
    }

    fn applications(&mut self) -> Result<()> {
        for index in 0..self.talks.len() {
            self.ask(index)?;
        }
        let keys: Vec<_> = self.ends.keys().copied().collect();
        for key in keys {
            self.serve(key)?;
        }
        Ok(())
    }

    /// What a client's application does now.
    fn ask(&mut self, index: usize) -> Result<()> {
        let mut out = Vec::new();
        let first = self.first();
        let (now, vip) = (self.now, self.vip);
        let learn = self.plan.flags.contains(&"learn");
        let talk = &mut self.talks[index];
        if talk.wakes > now || talk.finished {
            return Ok(());
        }
        let Some(end) = &mut talk.end else {
            talk.end = Some(Endpoint::connect(talk.local, vip, talk.plan.can, first, now, &mut out));
            self.client_sends(&out);
            return Ok(());
        };
        ensure!(!end.reset, "connection {index} was reset");
        if end.stage == Stage::Open {
            if end.has_unread() {
                if talk.plan.lazy > 0 {
                    talk.wakes = now + std::mem::take(&mut talk.plan.lazy);
                    return Ok(());
                }
                end.take(&mut out);
            }
            while talk.answered < talk.asked {
                let got = &end.received[talk.from..];
                if talk.whole.is_empty() {
                    let Some(backend) = backend_in(got) else { break };
                    let before = *talk.backend.get_or_insert(backend);
                    ensure!(before == backend, "connection {index} moved from backend {before} to {backend}");
                    let request = &talk.plan.requests[talk.answered];
                    let cookie = talk.plan.session.filter(|_| learn);
                    talk.whole = answer(index, talk.answered, backend, request.answer, cookie);
                }
                let length = got.len().min(talk.whole.len());
                let same = got[..length] == talk.whole[..length];
                ensure!(same, "connection {index}: answer {} is not what its backend sent", talk.answered);
                if got.len() < talk.whole.len() {
                    break;
                }
                talk.from += talk.whole.len();
                talk.answered += 1;
                talk.whole.clear();
            }
            let answered = talk.answered;
            if talk.plan.closes_early && talk.asked == talk.plan.requests.len() {
                end.close(now, &mut out);
            }
            if answered == talk.plan.requests.len() {
                ensure!(talk.from == end.received.len(), "connection {index}: more than the answers");
                end.close(now, &mut out);
                talk.finished = end.sent_all() && end.fin_received;
            } else if answered == talk.asked {
                let request = &talk.plan.requests[talk.asked];
                let (upto, pause) = request.writes[talk.wrote];
                let before = if talk.wrote == 0 { 0 } else { request.writes[talk.wrote - 1].0 };
                end.write(&request.bytes[before..upto], now, &mut out);
                talk.wakes = now + pause;
                talk.wrote += 1;
                if talk.wrote == request.writes.len() {
                    talk.asked += 1;
                    talk.wrote = 0;
                }
            }
        }
        self.client_sends(&out);
        Ok(())
    }

    /// What a backend's application does now.
    fn serve(&mut self, key: (u16, SocketAddr)) -> Result<()> {
        let mut out = Vec::new();
        let learn = self.plan.flags.contains(&"learn");
        let Some((index, end)) = self.ends.get_mut(&key) else { return Ok(()) };
        let (index, talk) = (*index, &self.talks[*index]);
        if end.stage == Stage::Open && !end.reset && (end.has_unread() || end.fin_received && !end.closing) {
            let new = &end.received[end.read..];
            let right = talk.stream.get(end.read..).is_some_and(|stream| stream.starts_with(new));
            ensure!(right, "backend {} got bytes that connection {index} did not send", key.0);
            end.take(&mut out);
            while talk.ends.get(end.answered).is_some_and(|until| end.received.len() >= *until) {
                let cookie = talk.plan.session.filter(|_| learn);
                let request = &talk.plan.requests[end.answered];
                let answer = answer(index, end.answered, key.0, request.answer, cookie);
                end.answered += 1;
                end.write(&answer, self.now, &mut out);
            }
            if end.fin_received {
                let (got, all) = (end.received.len(), talk.stream.len());
                ensure!(got == all, "backend {} got {got} of {all} bytes before the FIN", key.0);
                end.close(self.now, &mut out);
            }
        }
        self.backend_sends(key.0, &out);
        Ok(())
    }

    /// Nothing that a strict peer complains about, and every connection with one backend only.
    fn honest(&self) -> Result<()> {
        for (index, talk) in self.talks.iter().enumerate() {
            if let Some(end) = &talk.end {
                ensure!(end.wrong.is_empty(), "client of connection {index}: {:?}", end.wrong);
            }
        }
        let mut got: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
        for ((slot, _), (index, end)) in &self.ends {
            ensure!(end.wrong.is_empty(), "backend {slot} of connection {index}: {:?}", end.wrong);
            if !end.received.is_empty() {
                got.entry(*index).or_default().insert(*slot);
                ensure!(!end.reset, "backend {slot} of connection {index} was reset");
            }
        }
        for (index, slots) in got {
            ensure!(slots.len() == 1, "connection {index} went to backends {slots:?}");
        }
        Ok(())
    }

    /// Nothing is left over.
    fn settled(&self) -> Result<()> {
        for (index, talk) in self.talks.iter().enumerate() {
            ensure!(talk.finished, "connection {index} stands still");
        }
        let held = self.host.hold_words()?.into_iter().filter(|word| word.has(HoldWord::TAKEN)).count();
        ensure!(held == 0, "{held} holds are still owned");
        Ok(())
    }

    /// What the run was about.
    fn summary(&self) -> String {
        let mut text = format!(
            "{}, tag {:?}, {:?}, source NAT {}, frames that cannot grow {}\n",
            if self.plan.v6 { "IPv6" } else { "IPv4" },
            self.plan.tag,
            self.plan.flags,
            self.plan.source_nat,
            self.plan.tight
        );
        for (slot, server) in (1..).zip(&self.plan.servers) {
            text += &format!("backend {slot}: {server:?}\n");
        }
        for (index, talk) in self.talks.iter().enumerate() {
            let sizes: Vec<_> =
                talk.plan.requests.iter().map(|r| (r.bytes.len(), &r.writes, r.answer)).collect();
            let stage = talk.end.as_ref().map(|end| end.stage);
            text += &format!(
                "connection {index} from {}: {:?}, session {:?}, requests {sizes:?}, asked {}, {stage:?}\n",
                talk.local, talk.plan.can, talk.plan.session, talk.asked
            );
        }
        for ((slot, remote), (index, end)) in &self.ends {
            text += &format!(
                "backend {slot} with {remote}: connection {index}, {:?}, {} bytes\n",
                end.stage,
                end.received.len()
            );
        }
        for view in self.host.flows().unwrap_or_default().iter().filter(|view| !view.reference.is_reply()) {
            let (word, hold) = (FlowWord(view.record.word), view.record.hold);
            text += &format!("flow from port {}: {word:?}, hold {hold}\n", view.key.source_port.host());
        }
        text + &format!("at {:.6} s\n", self.now as f64 / 1e9)
    }
}

fn backend_mac(slot: u16) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, u8::try_from(slot).unwrap_or(0)]
}

/// What a backend answers, with its slot in front.
fn answer(connection: usize, number: usize, backend: u16, length: usize, cookie: Option<u64>) -> Vec<u8> {
    let cookie =
        cookie.map_or_else(String::new, |session| format!("Set-Cookie: SESS=session-{session}; Path=/\r\n"));
    let head = format!("HTTP/1.1 200 OK\r\nX-Backend: {backend}\r\n{cookie}Content-Length: {length}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(PATTERN.iter().cycle().skip((connection * 7 + number * 13) % PATTERN.len()).take(length));
    bytes
}

/// The slot in front of an answer.
fn backend_in(bytes: &[u8]) -> Option<u16> {
    let text = bytes.strip_prefix(b"HTTP/1.1 200 OK\r\nX-Backend: ")?;
    let end = text.iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// RST that refuses a SYN.
fn refusal(syn: &Segment) -> Segment {
    Segment {
        source: syn.destination,
        destination: syn.source,
        seq: 0,
        ack: syn.seq.wrapping_add(syn.length()),
        flags: RST | ACK,
        window: 0,
        mss: None,
        scale: None,
        sack_permitted: false,
        sacks: Vec::new(),
        data: Vec::new(),
    }
}

/// PROXY protocol, version 2 (section 2.2 of its specification).
fn proxy_header(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let mut header = vec![0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21];
    let (family, addresses): (u8, Vec<u8>) = match (client.ip(), vip.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (0x11, [source.octets(), destination.octets()].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (0x21, [source.octets(), destination.octets()].concat())
        }
        _ => (0, Vec::new()),
    };
    header.push(family);
    header.extend(u16::try_from(addresses.len() + 4).unwrap_or(0).to_be_bytes());
    header.extend(addresses);
    header.extend(client.port().to_be_bytes());
    header.extend(vip.port().to_be_bytes());
    header
}
