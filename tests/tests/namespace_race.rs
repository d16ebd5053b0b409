//! Both directions of the same flows, the sweep and `apply` on all CPUs at once.

use anyhow::{Context, Result, ensure};
use lb_common::abi::{
    BindingOp, BindingRecord, BindingWord, FlowKey, FlowRef, FlowState, FlowWord, SweepTarget, map,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};
use stickleback_tests::bench::frame::{flag, tcp};
use stickleback_tests::bench::product::Product;
use stickleback_tests::bench::rig::{Rig, Verdict};

/// The service that everybody uses; its session key is the client's address.
const SERVICE: &str = "nat";
/// How long they race.
const TIME: Duration = Duration::from_secs(5);
/// `XDP_PASS`.
const PASS: u32 = 2;
/// `XDP_TX`.
const TX: u32 = 3;

/// Everything that a race needs; shared by its threads.
struct Race {
    rig: Rig,
    product: Product,
    vip: SocketAddr,
    clients: Vec<SocketAddr>,
    backends: Vec<SocketAddr>,
    translated: AtomicU64,
    replies: AtomicU64,
}

impl Race {
    /// Tables for `flows` flows, raced for by `clients` clients.
    fn new(flows: u32, clients: u16) -> Result<Self> {
        let rig = Rig::new()?;
        let product = Product::with_sizes(&rig, 1_024, flows)?;
        let planned = product.plan().service(SERVICE).context("no such service")?.clone();
        let own = product.plan().backends.iter().filter(|b| b.service == planned.service.id);
        let backends = own.map(|b| SocketAddr::new(b.address.into(), b.port.host())).collect();
        // Each with an address of its own, so that no two of them can ever stand behind the same reply key.
        let clients = (0..clients).map(|n| SocketAddr::from(([10, 64, (n >> 8) as u8, n as u8], 30_000)));
        Ok(Self {
            vip: planned.address,
            clients: clients.collect(),
            backends,
            rig,
            product,
            translated: AtomicU64::new(0),
            replies: AtomicU64::new(0),
        })
    }

    /// One random packet, checked for what may become of it.
    fn packet(&self, random: &mut Random) -> Result<()> {
        let link = self.rig.link();
        let client = self.clients[random.below(self.clients.len())];
        let flags = [flag::SYN, flag::DATA, flag::DATA, flag::DATA, flag::FIN, flag::RST][random.below(6)];
        let syn = tcp(link, client, self.vip, flags, 32);
        let verdict = self.product.send(&self.rig, &syn)?;
        let Some((seen_as, backend)) = self.towards_backend(client, &verdict)? else { return Ok(()) };
        let flags = [flag::SYN | flag::ACK, flag::SYN | flag::ACK, flag::DATA, flag::FIN][random.below(4)];
        let reply = tcp(link, backend, seen_as, flags, 32);
        let verdict = self.product.send(&self.rig, &reply)?;
        self.towards_client(client, &reply, &verdict)
    }

    /// A client's packet is translated to a backend of the service, answered with a reset, or dropped.
    ///
    /// Its port may change: where a flow that is going still has it, another one is taken.
    fn towards_backend(
        &self,
        client: SocketAddr,
        verdict: &Verdict,
    ) -> Result<Option<(SocketAddr, SocketAddr)>> {
        if verdict.action != TX {
            ensure!(verdict.action != PASS, "a client's packet was passed: {verdict:02x?}");
            return Ok(None);
        }
        let (from, to) = ends(&verdict.frame)?;
        if to == client {
            ensure!(from == self.vip, "an answer to {client} comes from {from}");
            return Ok(None);
        }
        ensure!(from.ip() == client.ip(), "a packet of {client} became one of {from}");
        ensure!(self.backends.contains(&to), "a packet of {client} went to {to}, which is no backend");
        self.translated.fetch_add(1, Ordering::Relaxed);
        Ok(Some((from, to)))
    }

    /// A backend's packet is translated to its own client, passed untouched, or dropped.
    fn towards_client(&self, client: SocketAddr, reply: &[u8], verdict: &Verdict) -> Result<()> {
        match verdict.action {
            TX => {
                let (from, to) = ends(&verdict.frame)?;
                ensure!(from == self.vip, "a reply to {client} comes from {from}");
                ensure!(to == client, "a reply to {client} went to {to}");
                self.replies.fetch_add(1, Ordering::Relaxed);
            }
            PASS => ensure!(verdict.frame == reply, "a reply was passed, but changed"),
            _ => {}
        }
        Ok(())
    }

    /// Sweeps and applies until told to stop.
    fn maintain(&self, random: &mut Random) -> Result<()> {
        self.product.sweep(SweepTarget::Flows)?;
        self.product.sweep(SweepTarget::Bindings)?;
        let service = self.product.plan().service(SERVICE).context("no such service")?.service.id;
        let IpAddr::V4(client) = self.clients[random.below(self.clients.len())].ip() else { return Ok(()) };
        let record = |op: BindingOp, generation: u32| BindingRecord {
            session: u64::from(u32::from(client)),
            // The first backend of the service: slots follow the plan's order.
            word: BindingWord::new(self.first_slot(service), 1, generation).0,
            lifetime: 60_000_000_000,
            service,
            op: op as u8,
            pad: 0,
            home: 0,
        };
        let generation = random.below(1 << 20) as u32;
        self.product.apply([record(BindingOp::Put, generation), record(BindingOp::Delete, generation)])
    }

    fn first_slot(&self, service: u32) -> u16 {
        let slot = self.product.plan().backends.iter().position(|b| b.service == service);
        slot.map_or(0, |slot| slot as u16)
    }

    /// Lets every CPU send packets while one more thread maintains.
    fn run(&self) -> Result<()> {
        let cpus = std::thread::available_parallelism()?.get();
        let stop = AtomicBool::new(false);
        let end = Instant::now() + TIME;
        scope(|threads| {
            let mut running = Vec::new();
            for cpu in 0..cpus * 2 {
                let stop = &stop;
                running.push(threads.spawn(move || -> Result<()> {
                    pin(cpu % cpus);
                    let mut random = Random(0x9e37_79b9 + cpu as u64);
                    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
                        let done = (0..64).try_for_each(|_| self.packet(&mut random));
                        if done.is_err() {
                            stop.store(true, Ordering::Relaxed);
                            return done;
                        }
                    }
                    Ok(())
                }));
            }
            let mut random = Random(7);
            while Instant::now() < end && !stop.load(Ordering::Relaxed) {
                self.maintain(&mut random)?;
            }
            running
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let (translated, replies) =
            (self.translated.load(Ordering::Relaxed), self.replies.load(Ordering::Relaxed));
        ensure!(translated > 10_000 && replies > 1_000, "only {translated} packets and {replies} replies");
        Ok(())
    }

    /// With everything at rest, the index names each record by its own keys, and new connections work.
    fn settle(&self) -> Result<()> {
        self.product.sweep(SweepTarget::Flows)?;
        let flows = self.product.flows()?;
        let index = self.product.hash::<FlowKey, u64>(map::FLOW_INDEX)?;
        let (mut entries, mut stray) = (0_u64, Vec::new());
        for entry in index.iter() {
            let (key, reference) = entry?;
            let reference = FlowRef(reference);
            let flow = flows.get(&reference.index(), 0)?;
            let word = FlowWord(flow.word);
            let own = if reference.is_reply() { flow.server } else { flow.client };
            entries += 1;
            if word.nonce() != reference.nonce() || own != key || word.state() == FlowState::Free {
                stray.push(format!("{key:?} -> {reference:?}, record {word:?}"));
            }
        }
        ensure!(
            stray.is_empty(),
            "{} of {entries} index entries name records that are not theirs: {:#?}",
            stray.len(),
            &stray[..stray.len().min(5)]
        );
        let link = self.rig.link();
        for &client in &self.clients {
            self.product.send(&self.rig, &tcp(link, client, self.vip, flag::RST, 0))?;
            let step = |frame: &[u8], what: &str| -> Result<(SocketAddr, SocketAddr)> {
                let verdict = self.product.send(&self.rig, frame)?;
                ensure!(verdict.action == TX, "{what} of {client}: {}", self.product.outcomes()?);
                ends(&verdict.frame)
            };
            let (seen_as, backend) = step(&tcp(link, client, self.vip, flag::SYN, 0), "SYN")?;
            let answer = step(&tcp(link, backend, seen_as, flag::SYN | flag::ACK, 0), "SYN-ACK")?;
            ensure!(answer == (self.vip, client), "the SYN-ACK became {answer:?}");
        }
        Ok(())
    }
}

/// Few flows, raced for by everybody.
#[test]
fn namespace_race_on_few_flows() -> Result<()> {
    let race = Race::new(1_024, 3)?;
    race.run()?;
    race.settle()
}

/// More flows than there are half-open records: they are recycled under everybody's hands.
#[test]
fn namespace_race_for_records() -> Result<()> {
    let race = Race::new(512, 200)?;
    race.run()?;
    race.settle()
}

/// Source and destination of a TCP packet over IPv4 without options.
fn ends(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    ensure!(frame.len() >= 54 && frame[12..15] == [8, 0, 0x45], "not such a packet: {frame:02x?}");
    let address = |at: usize| IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Ok((SocketAddr::new(address(26), port(34)), SocketAddr::new(address(30), port(36))))
}

fn pin(cpu: usize) {
    // SAFETY: a zeroed set is an empty set, and the numbers are those of this machine's CPUs.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// A sequence that differs from thread to thread and is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
