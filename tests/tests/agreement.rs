//! Any bytes at all: the host code never panics, and kernel and host do the same with them.
//!
//! `STICKLEBACK_LONG=1` runs many more frames. The comparison with the kernel needs root.

use anyhow::{Context, Result, anyhow};
use lb_common::abi::{PEER_PORT, Visit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::fmt::Write;
use stickleback_tests::corpus::{
    AREAS, Area, Case, Executor, Host, Kernel, Step, Tables, check, dissect, live_bindings, live_flows,
    mutate,
};

/// Frames in one world, one after the other.
const TRAIN: usize = 24;
/// Longest frame.
const LONGEST: usize = 1600;
/// Bytes in front of a packet with two VLAN tags.
const ETHERNET_WITH_TAGS: usize = 22;

/// Frames to run, by how long the run may take.
fn budget(normal: usize, long: usize) -> usize {
    if std::env::var_os("STICKLEBACK_LONG").is_some_and(|value| value == "1") { long } else { normal }
}

/// Where one frame comes from.
#[derive(Clone, Debug)]
enum Source {
    /// Nowhere.
    Random(Vec<u8>),
    /// A frame of the world's case, as it is.
    Whole(Index),
    /// A frame of the corpus, spoiled.
    Spoiled { frame: Index, own: bool, other: Index, seed: u64, rounds: usize },
    /// The start of a frame of the case, then anything.
    Headed { frame: Index, keep: Index, rest: Vec<u8> },
}

fn source() -> impl Strategy<Value = Source> {
    let bytes = |most| vec(any::<u8>(), 0..=most);
    prop_oneof![
        1 => bytes(LONGEST).prop_map(Source::Random),
        3 => any::<Index>().prop_map(Source::Whole),
        8 => (any::<Index>(), prop::bool::weighted(0.8), any::<Index>(), any::<u64>(), 1_usize..5)
            .prop_map(|(frame, own, other, seed, rounds)| Source::Spoiled { frame, own, other, seed, rounds }),
        2 => (any::<Index>(), any::<Index>(), bytes(200))
            .prop_map(|(frame, keep, rest)| Source::Headed { frame, keep, rest }),
    ]
}

/// The corpus as worlds to play in.
struct Corpus {
    worlds: Vec<(Case, Tables)>,
    frames: Vec<Vec<u8>>,
}

impl Corpus {
    fn read() -> Result<Self> {
        let (mut worlds, mut frames) = (Vec::new(), Vec::new());
        // Limits count in windows of real time, which differ between kernel and host.
        for name in AREAS.into_iter().filter(|name| *name != "limits") {
            let area = Area::read(name)?;
            for case in area.cases {
                frames.extend(packets(&case).map(<[u8]>::to_vec));
                let tables = Tables::of(&case, &area.defaults)?;
                worlds.push((case, tables));
            }
        }
        Ok(Self { worlds, frames })
    }

    fn frame(&self, case: &Case, source: &Source) -> Vec<u8> {
        let own: Vec<&[u8]> = packets(case).collect();
        let pick = |index: &Index| own.get(index.index(own.len().max(1))).copied().unwrap_or(&[]);
        match source {
            Source::Random(bytes) => bytes.clone(),
            Source::Whole(frame) => pick(frame).to_vec(),
            Source::Spoiled { frame, own, other, seed, rounds } => {
                let any = |index: &Index| index.get(&self.frames).as_slice();
                let start = if *own { pick(frame) } else { any(frame) };
                mutate(start, any(other), *seed, *rounds)
            }
            Source::Headed { frame, keep, rest } => {
                let start = pick(frame);
                let keep = keep.index(start.len() + 1);
                [&start[..keep], rest].concat()
            }
        }
    }
}

fn packets(case: &Case) -> impl Iterator<Item = &[u8]> {
    case.steps.iter().filter_map(|step| match step {
        Step::Packet(packet) => Some(packet.frame.as_slice()),
        _ => None,
    })
}

/// A world, and what is sent into it.
fn plays() -> impl Strategy<Value = (Index, Vec<(Source, usize)>)> {
    (any::<Index>(), vec((source(), 0_usize..3), 1..=TRAIN))
}

fn run(
    cases: usize,
    test: impl Fn((Index, Vec<(Source, usize)>)) -> Result<(), TestCaseError>,
) -> Result<()> {
    let config = Config {
        cases: u32::try_from(cases)?,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    TestRunner::new(config).run(&plays(), test).map_err(|error| match error {
        TestError::Fail(reason, _) => anyhow!("{reason}"),
        TestError::Abort(reason) => anyhow!("gave up: {reason}"),
    })
}

fn broken(error: &anyhow::Error) -> TestCaseError {
    TestCaseError::fail(format!("the executor failed: {error:#}"))
}

#[test]
fn host_never_panics_and_right_checksums_stay_right() -> Result<()> {
    let corpus = Corpus::read()?;
    run(budget(6_000, 400_000) / TRAIN, |(world, sources)| {
        let (case, tables) = world.get(&corpus.worlds);
        let mut host = Host::default();
        host.install(tables).map_err(|error| broken(&error))?;
        for (source, device) in sources {
            let frame = corpus.frame(case, &source);
            let ran =
                host.run(&frame, 11 + u32::try_from(device).unwrap_or(0)).map_err(|error| broken(&error))?;
            let sent = matches!(ran.verdict.name(), "tx" | "redirect");
            if sent && check(&frame).is_empty() && !is_spoiled_visit(&frame) {
                let problems = check(&ran.frame);
                prop_assert!(
                    problems.is_empty(),
                    "{}: {problems:?}\nin:  {}\nout: {}",
                    case.name,
                    dissect(&frame),
                    dissect(&ran.frame)
                );
            }
            if ran.verdict.name() == "pass" && ran.frame != frame {
                // What another node has sent back, for a service that is not here any more: without its tunnel.
                let packet = ran.frame.get(ETHERNET_WITH_TAGS..).unwrap_or_default();
                let inner = ran.frame.len() < frame.len() && frame.ends_with(packet);
                prop_assert!(
                    inner,
                    "passed frames are untouched: {}\nin:  {}",
                    dissect(&ran.frame),
                    dissect(&frame)
                );
            }
        }
        Ok(())
    })
}

/// Whether a frame brings a packet out of a tunnel between nodes whose sums are wrong, which those of the tunnel do not tell.
fn is_spoiled_visit(frame: &[u8]) -> bool {
    let type_at = |at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let mut l3 = 14;
    while matches!(type_at(l3 - 2), Some(0x8100 | 0x88a8)) {
        l3 += 4;
    }
    let outer = if type_at(l3 - 2) == Some(0x0800) { 20 } else { 40 };
    let (port, inner) = (type_at(l3 + outer + 2), l3 + outer + 8 + size_of::<Visit>());
    if port != Some(PEER_PORT) || inner >= frame.len() {
        return false;
    }
    let kind: [u8; 2] = if frame[inner] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    !check(&[&frame[..12], &kind, &frame[inner..]].concat()).is_empty()
}

#[test]
fn kernel_and_host_agree() -> Result<()> {
    let corpus = Corpus::read()?;
    let kernel = std::cell::RefCell::new(Kernel::new()?);
    run(budget(3_000, 200_000) / TRAIN, |(world, sources)| {
        let (case, tables) = world.get(&corpus.worlds);
        let (kernel, mut host) = (&mut *kernel.borrow_mut(), Host::default());
        host.install(tables).and_then(|()| kernel.install(tables)).map_err(|error| broken(&error))?;
        let mut before = (totals(&host, tables), totals(kernel, tables));
        for (source, device) in sources {
            let frame = corpus.frame(case, &source);
            // The kernel's test run takes no frame shorter than an Ethernet header.
            if frame.len() < 14 {
                continue;
            }
            let ifindex = 11 + u32::try_from(device).unwrap_or(0);
            let ran = host
                .run(&frame, ifindex)
                .and_then(|host| Ok((host, kernel.run(&frame, ifindex)?)))
                .map_err(|error| broken(&error))?;
            let after = (totals(&host, tables), totals(kernel, tables));
            let moved = (difference(&before.0, &after.0), difference(&before.1, &after.1));
            before = after;
            let same =
                ran.0.verdict.agrees(ran.1.verdict) && ran.0.frame == ran.1.frame && moved.0 == moved.1;
            prop_assert!(
                same,
                "case {}, frame {}\nin:     {}\nhost:   {:?}, moved {:?}\n{}\nkernel: {:?}, moved {:?}\n{}",
                case.name,
                hex(&frame),
                dissect(&frame),
                ran.0.verdict,
                moved.0,
                dissect(&ran.0.frame),
                ran.1.verdict,
                moved.1,
                dissect(&ran.1.frame)
            );
        }
        let state = |problem: anyhow::Error| broken(&problem);
        let bindings = (live_bindings(&host).map_err(state)?, live_bindings(kernel).map_err(state)?);
        prop_assert_eq!(bindings.0, bindings.1, "bindings after {}", case.name);
        let settings = &tables.settings;
        let flows =
            (live_flows(&host, settings).map_err(state)?, live_flows(kernel, settings).map_err(state)?);
        prop_assert_eq!(&flows.0, &flows.1, "flows after {}", case.name);
        prop_assert!(flows.0.1.is_empty(), "{}: {:?}", case.name, flows.0.1);
        Ok(())
    })
    .context("kernel and host disagree")
}

/// Everything that counts, by name.
fn totals<E: Executor>(executor: &E, tables: &Tables) -> Vec<(String, u64)> {
    let mut totals = Vec::new();
    for (number, n) in executor.outcomes().unwrap_or_default().into_iter().enumerate() {
        totals.push((format!("outcome {number}"), n));
    }
    let mut add = |name: String, result: Result<lb_common::abi::Counters>| {
        let counters = result.unwrap_or_default();
        for (field, n) in [
            ("packets", counters.packets),
            ("bytes", counters.bytes),
            ("reply packets", counters.reply_packets),
            ("reply bytes", counters.reply_bytes),
            ("bindings", counters.bindings),
            ("connections", counters.connections),
        ] {
            totals.push((format!("{name} {field}"), n));
        }
    };
    for slot in tables.service_slots() {
        add(format!("service {slot}"), executor.service_counters(*slot));
    }
    for slot in tables.backends.keys() {
        add(format!("backend {slot}"), executor.backend_counters(*slot));
    }
    totals
}

fn difference(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<(String, u64)> {
    let moved = before.iter().zip(after).map(|((name, then), (_, now))| (name.clone(), now - then));
    moved.filter(|(_, n)| *n > 0).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
