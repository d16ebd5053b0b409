//! What takes session keys from application bytes passes the verifier, and answers in the kernel as on the host.
//!
//! Needs root.

#[path = "../../lb-ebpf/src/testbed/question.rs"]
#[expect(unreachable_pub, reason = "the programs read the same file")]
mod question;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{AffinityRules, PathRule, SegmentKey};
use lb_common::affinity::head::{Head, Progress};
use lb_common::affinity::ticket::{self, Check, Kind, Ticket};
use lb_common::affinity::{Slice, Span, pair, path, payload, request, response, route, segment, text};
use question::{Answer, Question};
use std::path::PathBuf;

/// Verified instructions each program may take.
const BUDGET: [(&str, u32); 6] = [
    ("read_nothing", 100),
    ("read_request", 80_000),
    ("read_response", 40_000),
    ("read_route", 10_000),
    ("read_pair", 10_000),
    ("read_payload", 10_000),
];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Asked(Question);

// SAFETY: `#[repr(C)]` of integers and arrays of them.
unsafe impl aya::Pod for Asked {}

/// The loaded programs, and a question that asks nothing.
struct Kernel {
    object: Ebpf,
    map: Array<MapData, Asked>,
    asked: Box<Asked>,
}

impl Kernel {
    fn load() -> Result<Self> {
        // SAFETY: a call without arguments.
        ensure!(unsafe { libc::geteuid() } == 0, "loading programs needs root: run the tests as root");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/testbed.bpf.o");
        ensure!(path.exists(), "{} is missing: run `cargo xtask build-ebpf` first", path.display());
        let mut object = EbpfLoader::new().load_file(path)?;
        for (name, budget) in BUDGET {
            let xdp = program(&mut object, name)?;
            xdp.load().with_context(|| format!("program `{name}`"))?;
            let took = xdp.info()?.verified_instruction_count().context("this kernel does not tell")?;
            println!("{name}: {took} verified instructions of {budget}");
            ensure!(
                took <= budget,
                "program `{name}` takes {took} verified instructions, more than {budget}"
            );
        }
        let map = Array::try_from(object.take_map("QUESTION").context("no map QUESTION")?)?;
        // SAFETY: integers and arrays of them.
        let asked = unsafe { Box::<Asked>::new_zeroed().assume_init() };
        Ok(Self { object, map, asked })
    }

    fn question(&mut self) -> &mut Question {
        &mut self.asked.0
    }

    /// Asks about these bytes, with whatever else the question holds; answer and nanoseconds a run.
    fn ask(&mut self, name: &str, bytes: &[u8], runs: u32) -> Result<(Answer, u128)> {
        self.asked.0.bytes[..bytes.len()].copy_from_slice(bytes);
        self.asked.0.len = bytes.len() as u32;
        self.asked.0.answer = Answer::default();
        self.map.set(0, *self.asked, 0)?;
        let options = TestRunOptions { data_in: Some(&[0; 64]), repeat: runs, ..TestRunOptions::new() };
        let result = program(&mut self.object, name)?.test_run(options)?;
        ensure!(result.return_value == 1, "`{name}` answered {}", result.return_value);
        *self.asked = self.map.get(&0, 0)?;
        Ok((self.asked.0.answer, result.duration.as_nanos()))
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program `{name}`"))?.try_into()?)
}

fn rules(name: &[u8], limit: u16) -> AffinityRules {
    let mut rules =
        AffinityRules { name_len: name.len() as u8, head_limit: limit, ..AffinityRules::default() };
    rules.name[..name.len()].copy_from_slice(name);
    rules
}

const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

/// A browser's request whose cookie's value begins at `at`.
fn browser(at: usize) -> Vec<u8> {
    let mut head = b"GET /shop/basket?item=17 HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
          AppleWebKit/537.36\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nConnection: keep-alive\r\n"
        .to_vec();
    let cookie = b"Cookie: theme=dark; SESS=";
    let mut i = 0;
    while head.len() + cookie.len() < at {
        let left = at - head.len() - cookie.len();
        let fill = if left < 140 { left } else { 70 };
        let name = format!("X-Field-{i}: ");
        let value = "v".repeat(fill.saturating_sub(name.len() + 2));
        head.extend(format!("{name}{value}\r\n").bytes());
        i += 1;
    }
    head.extend_from_slice(cookie);
    head.extend_from_slice(b"0123456789abcdef0123456789abcdef\r\n\r\n");
    head
}

/// What the host makes of a head read at once.
fn on_host(question: &Question, bytes: &[u8], from_server: bool) -> Answer {
    let (bytes, len) = (Slice(bytes), bytes.len() as u32);
    let mut progress = Progress::default();
    let head = if from_server {
        response::scan(&bytes, len, &mut progress, &question.rules)
    } else {
        request::scan(&bytes, len, &mut progress, &question.rules)
    };
    let part = segment::part(&bytes, progress.value(), question.rules.delimiter, question.rules.index);
    let key = if part.len == 0 { 0 } else { text::key(&bytes, part, &question.secret) };
    let rule = |i: u32| question.paths.get(i as usize);
    let place =
        path::longest(&bytes, progress.path(), question.path_count, rule).map_or(0, |place| place + 1);
    Answer {
        state: head as u32,
        start: part.start,
        len: part.len,
        end: progress.end(),
        key,
        places: [place, 0],
    }
}

#[test]
fn heads_are_read_as_on_the_host() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.question().secret = SECRET;
    kernel.question().rules = rules(b"SESS", 8_192);
    kernel.question().path_count = 2;
    for (i, prefix) in [b"/shop/".as_slice(), b"/"].iter().enumerate() {
        let mut rule = PathRule { len: prefix.len() as u8, ..PathRule::default() };
        rule.prefix[..prefix.len()].copy_from_slice(prefix);
        kernel.question().paths[i] = rule;
    }
    let (_, floor) = kernel.ask("read_nothing", b"", 200_000)?;
    for at in [400, 1_300] {
        let head = browser(at);
        let (answer, took) = kernel.ask("read_request", &head, 200_000)?;
        println!("request, cookie at {at}, {} bytes: {} ns", head.len(), took.saturating_sub(floor));
        assert_eq!(answer, on_host(kernel.question(), &head, false));
        assert_eq!((answer.state, answer.start, answer.len), (Head::Complete as u32, at as u32, 32));
        assert_eq!(answer.places, [1, 0]);
    }
    // Whatever one byte is changed to, both read the same.
    let head = browser(400);
    for (name, from_server) in [("read_request", false), ("read_response", true)] {
        let mut head = head.clone();
        if from_server {
            let answer = "HTTP/1.1 200 OK\r\nServer: nginx\r\nSet-Cookie: SESS=\"0123456789abcdef\"; Path=/\r\n\
                          Content-Type: text/html\r\nContent-Length: 0\r\n\r\n";
            head = answer.into();
            let (_, took) = kernel.ask(name, &head, 200_000)?;
            println!("response, {} bytes: {} ns", head.len(), took.saturating_sub(floor));
        }
        for place in 0..head.len() {
            for byte in [b'\n', b';', b' ', b'"', b'\r', 0, 0xff] {
                let mut other = head.clone();
                other[place] = byte;
                let (answer, _) = kernel.ask(name, &other, 1)?;
                assert_eq!(
                    answer,
                    on_host(kernel.question(), &other, from_server),
                    "{name}: byte {place} is {byte:#x}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn heads_are_read_over_segments_as_at_once() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.question().secret = SECRET;
    kernel.question().rules = rules(b"SESS", 8_192);
    let head = browser(400);
    let whole = kernel.ask("read_request", &head, 1)?.0;
    for split in 1..head.len() {
        kernel.question().resume = 0;
        kernel.ask("read_request", &head[..split], 1)?;
        kernel.question().resume = 1;
        assert_eq!(kernel.ask("read_request", &head, 1)?.0, whole, "split at {split}");
    }
    Ok(())
}

#[test]
fn segments_and_payloads_are_read_as_on_the_host() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.question().secret = SECRET;
    // Values of every length, up to past the bound, and each of their parts.
    for len in (1..40).chain([63, 64, 65, 1_000, 1_023, 1_024, 1_025, 1_032, 4_000]) {
        for (delimiter, index) in [(0, 0), (b'!', 0), (b'!', 2)] {
            let value: Vec<u8> =
                (0..len).map(|i| if i % 7 == 6 { b'!' } else { b'a' + (i % 26) as u8 }).collect();
            let head = [b"GET / HTTP/1.1\r\nCookie: SESS=", value.as_slice(), b"\r\n\r\n"].concat();
            kernel.question().rules = AffinityRules { delimiter, index, ..rules(b"SESS", 8_192) };
            let (answer, _) = kernel.ask("read_request", &head, 1)?;
            assert_eq!(answer, on_host(kernel.question(), &head, false), "{len} bytes, part {index}");
        }
    }
    for length in 1..=64 {
        let bytes: Vec<u8> = (0..length + 3).map(|i| (i * 37) as u8).collect();
        let rules = AffinityRules { offset: 3, length, mask: [0xf7; 64], ..AffinityRules::default() };
        kernel.question().rules = rules;
        let (answer, _) = kernel.ask("read_payload", &bytes, 1)?;
        let expected = payload::key(&Slice(&bytes), bytes.len() as u32, &rules, &SECRET);
        assert_eq!((answer.state, Some(answer.key)), (1, expected), "{length} bytes");
        assert_eq!(kernel.ask("read_payload", &bytes[..bytes.len() - 1], 1)?.0.state, 0);
    }
    Ok(())
}

#[test]
fn routes_and_pairs_are_found_as_on_the_host() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.question().secret = SECRET;
    let (_, floor) = kernel.ask("read_nothing", b"", 200_000)?;
    let names: Vec<String> = (0..4_096).map(|i| format!("app{i}")).collect();
    let mark = |name: &str| route::mark(&Slice(name.as_bytes()), Span::new(0, name.len() as u32), &SECRET);
    for count in [1, 2, 100, 4_096] {
        let mut marks: Vec<u64> = names[..count].iter().map(|name| mark(name)).collect();
        marks.sort_unstable();
        kernel.question().marks[..count].copy_from_slice(&marks);
        kernel.question().mark_count = count as u32;
        for name in names[..count].iter().step_by(count / 50 + 1) {
            let (answer, _) = kernel.ask("read_route", name.as_bytes(), 1)?;
            let place = marks.binary_search(&mark(name)).ok().context("a mark is missing")?;
            assert_eq!((answer.key, answer.places[0]), (mark(name), place as u32 + 1));
        }
        assert_eq!(kernel.ask("read_route", b"elsewhere", 1)?.0.places[0], 0);
        let (_, took) = kernel.ask("read_route", b"app0", 100_000)?;
        println!("route among {count}: {} ns", took.saturating_sub(floor));

        let key = SegmentKey { key: [7, 9], id: 5, valid: 1 };
        kernel.question().keys = [SegmentKey::default(), key];
        kernel.question().service = 42;
        for (a, b) in [(0, count / 2), (count - 1, 0), (count / 3, count / 2)] {
            let Ok(ticket) = pair::issue(&marks, [marks[a], marks[b]], 42, 5, &key.key) else {
                assert_eq!(a, b, "servers {a} and {b} of {count} make no pair");
                continue;
            };
            let (answer, took) = kernel.ask("read_pair", &ticket, 1_000)?;
            println!("pair among {count}: {} ns", took.saturating_sub(floor));
            assert_eq!(answer.state, Check::Genuine as u32);
            assert_eq!(answer.places, [a as u32 + 1, b as u32 + 1], "{count} servers");
            let mut forged = ticket;
            for place in 0..ticket.len() {
                forged[place] = if ticket[place] == b'x' { b'y' } else { b'x' };
                let (answer, _) = kernel.ask("read_pair", &forged, 1)?;
                let mut seen = Ticket::default();
                let whole = Span::new(0, forged.len() as u32);
                let keys = kernel.question().keys;
                let expected = ticket::check(&Slice(&forged), whole, Kind::Pair, 42, &keys, &mut seen);
                assert_eq!(answer.state, expected as u32, "character {place}");
                assert_ne!(answer.state, Check::Genuine as u32, "character {place}");
                forged[place] = ticket[place];
            }
        }
    }
    Ok(())
}
