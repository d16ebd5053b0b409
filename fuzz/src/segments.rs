//! Worlds of the corpus to play in, and segments for them.

use lb_common::abi::{Flow, FlowState, FlowWord};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use stickleback_tests::bench::frame::checksum;
use stickleback_tests::corpus::{Area, Executor as _, FlowView, Host, PacketStep, Step, Tables, dissect};

/// What a case begins with, and what happens in it.
type Played = (Tables, Vec<PacketStep>);

/// Reading them takes long.
static CASES: Mutex<BTreeMap<String, &'static Played>> = Mutex::new(BTreeMap::new());

/// A case of the corpus.
fn case(area: &str, name: &str) -> &'static Played {
    let mut cases = CASES.lock().expect("nobody panics in here");
    cases.entry(format!("{area}/{name}")).or_insert_with(|| {
        let area = Area::read(area).expect("an area of the corpus");
        let case = area.cases.iter().find(|case| case.name == name).expect("a case of that name");
        let tables = Tables::of(case, &area.defaults).expect("tables");
        let packet = |step: &Step| match step {
            Step::Packet(packet) => Some(packet.clone()),
            _ => None,
        };
        Box::leak(Box::new((tables, case.steps.iter().filter_map(packet).collect())))
    })
}

thread_local! {
    /// Worlds that were played in, by area and name: their tables take a thousand times as long to make as a packet takes.
    static WORLDS: RefCell<BTreeMap<(String, String), World>> = const { RefCell::new(BTreeMap::new()) };
}

/// A data plane with the tables of a case.
pub struct World {
    host: Host,
    /// A frame of the case's client.
    pub client: PacketStep,
    /// One of its backend.
    pub backend: Option<PacketStep>,
    steps: &'static [PacketStep],
    /// The connection, once it was established.
    flow: Option<FlowView>,
}

impl World {
    /// Plays in a world that nothing is left in.
    pub fn untouched(area: &str, name: &str, play: impl FnOnce(&mut Self)) {
        WORLDS.with_borrow_mut(|worlds| {
            let key = (area.to_owned(), name.to_owned());
            play(worlds.entry(key).or_insert_with(|| Self::new(area, name)));
        });
    }

    /// Plays in a world whose connection is established, with segments that change nothing but its record.
    pub fn established(area: &str, name: &str, play: impl FnOnce(&mut Self, &Flow)) {
        Self::untouched(area, name, |world| {
            let view = world.flow.take().unwrap_or_else(|| world.establish());
            play(world, &view.record);
            world.host.put_back(&view);
            world.flow = Some(view);
        });
    }

    /// Before the first packet of a case.
    fn new(area: &str, name: &str) -> Self {
        let (tables, steps) = case(area, name);
        let client = steps.first().expect("a packet").clone();
        let backend = steps.iter().find(|step| step.ifindex != client.ifindex).cloned();
        let mut host = Host::default();
        host.install(tables).expect("installed");
        Self { host, client, backend, steps, flow: None }
    }

    /// Plays the case until its connection is established.
    fn establish(&mut self) -> FlowView {
        for step in self.steps {
            self.host.run(&step.frame, step.ifindex).expect("run");
            let flows = self.host.flows().expect("flows");
            let established = |flow: &Flow| FlowWord(flow.word).state() == FlowState::Established;
            if let Some(view) = flows.into_iter().find(|view| established(&view.record)) {
                return view;
            }
        }
        panic!("no connection is established");
    }

    /// Runs a frame that is to be sent on; the frame as it leaves.
    pub fn sent(&mut self, frame: &[u8], from_client: bool) -> Vec<u8> {
        let backend = self.backend.as_ref().unwrap_or(&self.client);
        let ifindex = if from_client { self.client.ifindex } else { backend.ifindex };
        let ran = self.host.run(frame, ifindex).expect("run");
        let name = ran.verdict.name();
        assert!(matches!(name, "tx" | "redirect"), "{name}: {}", dissect(frame));
        ran.frame
    }
}

/// A segment between those between whom `like` went.
pub fn frame(
    like: &PacketStep,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let v4 = like.frame[12..14] == [8, 0];
    let l4 = if v4 { 34 } else { 54 };
    let mut tcp = like.frame[l4..l4 + 4].to_vec();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgement.to_be_bytes());
    tcp.extend([((20 + options.len()) as u8 / 4) << 4, flags]);
    tcp.extend(window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    tcp.extend(payload);
    let mut frame = like.frame[..l4].to_vec();
    let addresses = if v4 { 26..34 } else { 22..54 };
    let words = like.frame[addresses].chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])));
    let sum = checksum(&tcp, words.sum::<u32>() + 6 + tcp.len() as u32);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    if v4 {
        frame[16..18].copy_from_slice(&(20 + tcp.len() as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
    }
    frame.extend(tcp);
    frame
}
