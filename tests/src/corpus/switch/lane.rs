//! Connections of XDP nodes by way of the switch, which goes on with them segment by segment.
//!
//! The host's data plane is the node. Once the case's connection is one that it would tell of, the switch is given it as nodes tell it,
//! and each of its segments: what goes by the switch alone must come out as the corpus says of the node, everything else must come to
//! the node as it was sent.

use super::segment::Segment;
use super::{Switch, tags};
use crate::corpus::case::{Area, BackendData, Case, HopData, PacketStep, ServiceData, Step, VlanData};
use crate::corpus::executor::Executor as _;
use crate::corpus::host::Host;
use crate::corpus::netns::OwnNamespace;
use crate::corpus::tables::{DEVICES, Tables, mac};
use anyhow::{Context as _, Result, ensure};
use lb_control::dataplane::DataPlane as _;
use lb_control::dataplane::p4::Route;
use lb_core::mirror::{Express, Record};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The node's MAC, as the switch's backend, and that of the port to it.
const NODE: &str = "02:00:00:00:b0:01";
const PORT: &str = "02:00:00:00:01:12";
/// Slots of it: as backend of its service, and of what backends answer to.
const NODES: [u16; 2] = [1, 2];
/// Outcomes of reading a response, whose head goes by the node unless it takes too long.
const OF_READING: [&str; 3] = ["learnt", "mismatch", "learn-missed"];
/// Slot and id of the service that the node's source address is.
const BACK: (u16, u32) = (9, 9);
/// The response's head goes to the node for so long, from its first byte on; and a little longer, since clocks differ.
const HEAD: Duration = Duration::from_millis(2_200);
/// The node has to see a segment of the client after that long; and a little longer, too.
const ALIVE: Duration = Duration::from_millis(8_200);

/// The switch in front of a node.
pub struct Lane {
    switch: Switch,
    /// What it was set up for.
    of: String,
    tables: Option<Tables>,
}

/// What became of a case's connection.
#[derive(Debug)]
pub enum Course {
    /// No switch would have been told of it in time.
    Untold,
    /// It stayed with its node, from beginning to end.
    Stayed,
    /// The switch went on with it.
    Went(Passage),
}

/// What became of a connection's segments.
#[derive(Debug, Default)]
pub struct Passage {
    /// Segments that went by the switch alone.
    pub alone: usize,
    /// Those that their node saw.
    pub by_node: usize,
    /// What differed.
    pub found: Vec<String>,
}

/// What the switch has noted of a connection.
struct Noted {
    express: Express,
    /// Slot of its service.
    service: u16,
    /// When the node last saw a segment of the client, as far as the switch knows.
    seen: Option<Instant>,
    /// The client has asked something, and the answer has not begun.
    is_asked: bool,
    /// Nothing goes by the switch alone any more.
    has_ended: bool,
}

/// Which way a segment goes.
enum Way {
    Alone,
    ByNode,
    /// By the node, and alone when it comes again after a while.
    Both,
}

impl Lane {
    /// Enters a namespace and starts the switch there.
    pub fn start(directory: &Path) -> Result<Self> {
        Ok(Self { switch: Switch::start(directory)?, of: String::new(), tables: None })
    }

    /// Runs a case.
    pub fn run(&mut self, case: &Case, area: &Area) -> Result<Course> {
        let mut host = Host::default();
        let mut tables = Tables::of(case, &area.defaults)?;
        host.install(&tables)?;
        let mut noted: Option<Noted> = None;
        let (mut passage, mut is_told, mut tagged) = (Passage::default(), false, None);
        for (number, step) in case.steps.iter().enumerate() {
            match step {
                Step::Packet(packet) if packet.only.is_some() => {}
                Step::Packet(packet) => {
                    if let Some(noted) = &mut noted {
                        self.packet(packet, noted, &mut passage).with_context(|| format!("step {number}"))?;
                    }
                    host.run(&packet.frame, packet.ifindex)?;
                    if tags(&packet.frame) > 0 {
                        tagged = Some(packet);
                    }
                }
                // Of the clock of bmv2 nobody can say that.
                Step::Advance(_) if noted.is_some() => break,
                Step::Advance(seconds) => host.advance(Duration::from_secs(*seconds))?,
                Step::Status { backend, status } => host.change(&tables.set_status(*backend, status)?)?,
                Step::Backend(data) => host.change(&tables.replace_backend(data)?)?,
                Step::SessionSecrets(in_use, other) => host.change(&tables.set_secrets(in_use, other)?)?,
                Step::RemoveService(id) => host.change(&tables.remove_service(*id))?,
                Step::Bindings(_) | Step::Expiry(_) | Step::Flows(_) | Step::Holds(_) | Step::Vitals(_) => {}
            }
            let records = told(&host)?;
            is_told |= !records.is_empty();
            let able: Vec<Express> = records.iter().filter_map(without_tags).collect();
            match &mut noted {
                None => {
                    let Some(express) = able.first() else { continue };
                    let mut new = Noted::new(*express, self.install(case, area, express)?);
                    // A node does not tell of one with tags: here they come later, and the switch sees such a frame first.
                    if let Some(tagged) = tagged {
                        self.packet(tagged, &mut new, &mut passage)?;
                    }
                    noted = Some(new);
                }
                Some(noted) if noted.has_ended || able.iter().any(|now| now.id == noted.express.id) => {}
                Some(noted) => {
                    // The node ended it by itself, and has told so.
                    self.offload(&[])?;
                    noted.has_ended = true;
                }
            }
        }
        Ok(match noted {
            Some(_) => Course::Went(passage),
            None if is_told => Course::Stayed,
            None => Course::Untold,
        })
    }

    /// Makes this the one connection that the switch goes on with; answers its service's slot.
    fn install(&mut self, case: &Case, area: &Area, express: &Express) -> Result<u16> {
        let is_its = |service: &&ServiceData| (service.address, service.port) == express.service;
        let service = case.services.iter().find(is_its).context("the connection's service")?;
        let of = format!("{service:?} {:?} {}", case.backends, express.source.0);
        if self.of != of {
            let tables = Tables::of(&in_front(case, service, express.source.0), &area.defaults)?;
            let to = |backend: &BackendData| -> Result<Route> {
                let address = backend.address;
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                let interface = OwnNamespace::interface(backend.hop.ifindex);
                Ok(Route { address, prefix, interface, mac: mac(&backend.hop.destination)?.0 })
            };
            let ways = case.backends.iter().map(to).collect::<Result<Vec<_>>>()?;
            let installed = self.switch.install(&tables, false, &ways)?;
            installed.context("the switch refuses to be in front of a node")?;
            (self.tables, self.of) = (Some(tables), of);
        }
        // The one before would be taken for the same.
        self.offload(&[])?;
        self.offload(&[*express])?;
        let found = self.switch.plane()?.offloaded(service.slot)?.map(|now| now.connections);
        ensure!(found == Some(1), "the switch goes on with {found:?} connections, not with {express:?}");
        self.switch.wires.forget()?;
        Ok(service.slot)
    }

    fn offload(&mut self, connections: &[Express]) -> Result<()> {
        self.switch.plane()?.offload(connections)?;
        self.switch.settle()
    }

    fn packet(&mut self, step: &PacketStep, noted: &mut Noted, passage: &mut Passage) -> Result<()> {
        let Some((segment, is_reply)) = noted.segment(&step.frame) else { return Ok(()) };
        let way = noted.way(&segment, is_reply);
        if matches!(way, Way::ByNode | Way::Both) {
            passage.by_node += 1;
            self.compare(&to_node(step, noted.service, &segment, is_reply), 0, noted.service, passage)?;
        }
        if matches!(way, Way::Both) {
            std::thread::sleep(HEAD);
        }
        if matches!(way, Way::Alone | Way::Both) {
            passage.alone += 1;
            self.compare(&alone(step), 1, noted.service, passage)?;
        }
        Ok(())
    }

    /// Sends a frame, with which so many packets of the service are counted as gone by the switch alone.
    fn compare(&mut self, step: &PacketStep, alone: u64, service: u16, passage: &mut Passage) -> Result<()> {
        let tables = self.tables.as_ref().context("no case is installed")?;
        let before = self.switch.totals(tables)?;
        let went = |switch: &mut Switch| -> Result<u64> {
            Ok(switch.plane()?.offloaded(service)?.map_or(0, |now| now.packets))
        };
        let first = went(&mut self.switch)?;
        let (_, found) = self.switch.packet(tables, step, &before)?;
        let more = went(&mut self.switch)? - first;
        if more != alone {
            passage.found.push(format!("{more} packets went by the switch alone, expected {alone}"));
        }
        passage.found.extend(found);
        Ok(())
    }
}

impl Noted {
    const fn new(express: Express, service: u16) -> Self {
        Self { express, service, seen: None, is_asked: true, has_ended: false }
    }

    /// Reads a frame as a segment of the connection, and whether it is the backend's.
    fn segment(&self, frame: &[u8]) -> Option<(Segment, bool)> {
        let segment = Segment::of(frame)?;
        let ends = (segment.source, segment.destination);
        let Express { client, service, backend, source, .. } = self.express;
        let is_reply = ends == (backend, source);
        (is_reply || ends == (client, service)).then_some((segment, is_reply))
    }

    /// Which way the next segment goes.
    fn way(&mut self, segment: &Segment, is_reply: bool) -> Way {
        self.has_ended |= segment.is_edge() || segment.has_tags();
        self.is_asked |= segment.has_data() && !is_reply;
        let stays = self.has_ended || !segment.is_plain();
        if is_reply {
            return match (stays, segment.has_data() && std::mem::take(&mut self.is_asked)) {
                (true, _) => Way::ByNode,
                (false, true) => Way::Both,
                (false, false) => Way::Alone,
            };
        }
        if stays || segment.has_data() || !self.was_just_seen() {
            self.seen = Some(Instant::now());
            return Way::ByNode;
        }
        Way::Alone
    }

    /// Whether the node need not see the client again; where that may be either way, waits until it need.
    fn was_just_seen(&self) -> bool {
        let Some(ago) = self.seen.map(|seen| seen.elapsed()) else { return false };
        if ago > ALIVE / 2 {
            std::thread::sleep(ALIVE.saturating_sub(ago));
        }
        ago <= ALIVE / 2
    }
}

/// Spliced connections that a node tells of.
fn told(node: &Host) -> Result<Vec<Record>> {
    let flows = node.flows()?;
    let records = flows.iter().filter_map(|view| Record::of(&view.record, 0, node.now()));
    Ok(records.filter(|record| record.splice.is_some() && !record.is_closing).collect())
}

/// What the switch would be told if the client's frames had no tags.
fn without_tags(record: &Record) -> Option<Express> {
    Express::of(1, &Record { has_tags: false, ..*record })
}

/// The tables of a switch that has the node in place of the case's backends, and one service for what these answer to.
fn in_front(case: &Case, service: &ServiceData, source: IpAddr) -> Case {
    let front = |slot: u16, service: &ServiceData| ServiceData {
        mode: "l2".into(),
        affinity: "none".into(),
        source: None,
        mss: 0,
        table: vec![slot; service.table.len()],
        members: vec![slot],
        rules: None,
        quic: Vec::new(),
        method: None,
        ..service.clone()
    };
    let back = ServiceData { id: BACK.1, slot: BACK.0, address: source, port: 0, ..service.clone() };
    let node = |slot: u16, service: &ServiceData| BackendData {
        slot,
        service: service.id,
        number: 1,
        address: if source.is_ipv4() { [10, 1, 1, 1].into() } else { [0xfd01, 0, 0, 0, 0, 0, 1, 1].into() },
        port: 0,
        generation: 1,
        vlan: VlanData::Word("keep".into()),
        status: "up".into(),
        hop: HopData { destination: NODE.into(), source: PORT.into(), ifindex: DEVICES[1], mtu: 1_500 },
        weight: 0,
        limit: 0,
        connections: 0,
        response: 0,
    };
    let [first, second] = NODES;
    Case {
        services: vec![front(first, service), front(second, &back)],
        backends: vec![node(first, service), node(second, &back)],
        bindings: Vec::new(),
        peers: Vec::new(),
        ..case.clone()
    }
}

/// What is expected of a segment that no node sees: what the corpus says of it, but that the node, as a backend, has no part in it, and
/// does not read it.
fn alone(step: &PacketStep) -> PacketStep {
    let mut step = step.clone();
    step.counters.retain(|name, _| name.starts_with("service:"));
    step.outcomes.retain(|outcome| !OF_READING.contains(&outcome.as_str()));
    step
}

/// What is expected of a segment that the node is to see.
fn to_node(step: &PacketStep, service: u16, segment: &Segment, is_reply: bool) -> PacketStep {
    let (service, backend) = if is_reply { (BACK.0, NODES[1]) } else { (service, NODES[0]) };
    let mut counts = BTreeMap::from([("packets".to_owned(), 1), ("bytes".to_owned(), 0)]);
    if segment.is_opening() {
        // Without flows every SYN is a connection.
        counts.insert("connections".to_owned(), 1);
    }
    let names = [format!("service:{service}"), format!("backend:{backend}")];
    PacketStep {
        verdict: "redirect".into(),
        out: Some(led(&step.frame)),
        to: Some(DEVICES[1]),
        outcomes: Vec::new(),
        counters: names.into_iter().map(|name| (name, counts.clone())).collect(),
        ..step.clone()
    }
}

/// The frame on its way to the node: other MACs, one hop less.
fn led(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let [to, from] = [NODE, PORT].map(|text| mac(text).map(|mac| mac.0).unwrap_or_default());
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    let start = 14 + 4 * tags(&frame);
    let packet = &mut frame[start..];
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return frame;
    }
    packet[8] -= 1;
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let words = packet[..header].chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame
}
