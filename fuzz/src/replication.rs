//! Messages of other nodes, and what a journal holds.

use lb_control::cluster::journal::{Journal, Write};
use lb_control::cluster::{journal, replica};
use lb_core::binding::{NodeId, Time};
use lb_core::mirror::{self, Copies, Lifetimes};
use lb_core::sync::{Config, Node, Recovery, wire};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The node that hears, and the one that speaks.
const NODES: (u64, u64) = (1, 2);
/// Connections that it holds at most.
const ROOM: usize = 3;
/// Messages that a node may send before it waits for time or another message.
const MOST: usize = 1_000;

/// A message of a member: read, and taken in by a node that has begun and by one that begins.
pub fn message(data: &[u8]) {
    wire::examine(data);
    for starts in [0, 10_000] {
        let config = Config::new(NodeId(NODES.0), vec![NodeId(NODES.1)]);
        let mut node = Recovery::new(config, Time(0), 1 << 40, 5).finish();
        node.handle_timeout(Time(starts));
        for time in [starts, starts + 3_000, starts + 90_000] {
            // What is refused has changed nothing.
            let _ = node.handle_message(Time(time), NodeId(NODES.1), data);
            node.handle_timeout(Time(time));
            quiesce(&mut node, Time(time));
        }
    }
}

/// Takes out of a node what it has to give; it must come to an end.
fn quiesce(node: &mut Node, now: Time) {
    let mut buffer = Vec::new();
    let mut sent = 0;
    while node.poll_journal(now).is_some() {}
    while node.poll_event(now).is_some() {}
    while node.poll_transmit(now, &mut buffer).is_some() {
        wire::examine(&buffer);
        sent += 1;
        assert!(sent < MOST, "a node never stops sending");
    }
}

/// What a member tells of its connections: read, and taken in by a node that holds some of them.
pub fn connections(data: &[u8]) {
    mirror::wire::examine(data);
    let lifetimes = Lifetimes { established: Duration::from_secs(3_600), closing: Duration::from_secs(60) };
    let mut copies = Copies::new(lifetimes, ROOM);
    for time in [0, 1_000, 3_600_000] {
        // What is refused has changed nothing.
        let _ = copies.hear(Time(time), NodeId(NODES.1), data);
        assert!(copies.len() <= ROOM, "more is held than there is room for");
        copies.expire(Time(time));
    }
    copies.take(NodeId(NODES.1), Time(0), |_| true);
    assert!(copies.is_empty(), "what is taken is not held any more");
}

/// Values of a journal: a node begins with whatever can be read of them.
pub fn journal_values(data: &[u8]) {
    replica::examine(data);
}

/// A journal's file with some bytes changed, four bytes a change (place, three bytes; then the byte), and cut at the last place.
pub fn journal_file(data: &[u8]) {
    let sample = sample();
    let (changes, end) = data.as_chunks::<4>();
    let place =
        |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize % sample.len();
    let directory = Directory::new();
    let path = directory.0.join("journal.redb");
    let mut content = sample.to_vec();
    for [a, b, c, byte] in changes {
        content[place([*a, *b, *c])] = *byte;
    }
    if let [a, b, c] = end {
        content.truncate(place([*a, *b, *c]));
    }
    std::fs::write(&path, &content).expect("written");
    let (opened, recovered, opening) = Journal::open(&path, NODES.0, 99).expect("the disk works");
    if let journal::Opening::SetAside { path, .. } = opening {
        assert_eq!(recovered.epoch, 99, "a new epoch");
        assert!(recovered.blocks.is_empty() && path.exists());
    }
    opened.close().expect("nothing was queued");
}

/// A directory that goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("stickleback-fuzz-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left says its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A journal with some blocks.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let directory = Directory::new();
        let path = directory.0.join("sample.redb");
        let (mut journal, _, _) = Journal::open(&path, NODES.0, 7).expect("a journal");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for first in (1..=100).step_by(10) {
                let block = journal::Block {
                    origin: NODES.0,
                    epoch: 7,
                    first,
                    last: first + 9,
                    bytes: vec![first as u8; 300],
                };
                journal.write(vec![Write::Events(block)]).await.expect("queued");
            }
        });
        journal.close().expect("written");
        std::fs::read(&path).expect("it is there")
    })
}
