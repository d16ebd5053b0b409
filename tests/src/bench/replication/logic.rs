//! What taking in events costs a node's logic alone: two state machines in one thread, no disk, no encryption.

use anyhow::{Result, ensure};
use lb_core::binding::{Key, NodeId, Time};
use lb_core::sync::{Config, Local, Node, Recovery, Write};
use std::time::{Duration, Instant};

/// Bindings told at once.
const BATCH: u64 = 500;
/// Milliseconds between two batches, on the clock that the nodes are told.
const PAUSE: u64 = 5;
/// Lifetime of a binding.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// Makes so many bindings at one node; the time that the other needs to take them in and to say what the data plane must hold.
pub(super) fn run(entries: u64) -> Result<Duration> {
    let mut pair = Pair::new();
    // They find each other and number their events.
    for _ in 0..4_000 {
        pair.step(&[])?;
    }
    ensure!(pair.second.is_ready(), "the second node is not ready in twenty seconds of its clock");
    pair.took = Duration::ZERO;
    let mut made = 0;
    while pair.second.store().len() as u64 != entries {
        let batch = made..(made + BATCH).min(entries);
        made = batch.end;
        ensure!(pair.now < Time(3_600_000), "{} of {entries} bindings came", pair.second.store().len());
        pair.step(&batch.map(bound).collect::<Vec<_>>())?;
    }
    Ok(pair.took)
}

/// Two nodes that hear each other at once.
struct Pair {
    first: Node,
    second: Node,
    now: Time,
    /// Time that the second one has spent.
    took: Duration,
}

impl Pair {
    fn new() -> Self {
        let node = |own: u64, other: u64| {
            let config = Config::new(NodeId(own), vec![NodeId(other)]);
            Recovery::new(config, Time(0), 0, own).finish()
        };
        Self { first: node(1, 2), second: node(2, 1), now: Time(0), took: Duration::ZERO }
    }

    fn step(&mut self, all: &[Local]) -> Result<()> {
        let now = Time(self.now.0 + PAUSE);
        self.now = now;
        for local in all {
            let _ = self.first.handle_local(now, local.clone());
        }
        let to_second = turn(&mut self.first, now);
        let begin = Instant::now();
        for message in &to_second {
            self.second.handle_message(now, NodeId(1), message)?;
        }
        let to_first = turn(&mut self.second, now);
        self.took += begin.elapsed();
        for message in &to_first {
            self.first.handle_message(now, NodeId(2), message)?;
        }
        Ok(())
    }
}

/// All that a node has to do now; what it sends.
fn turn(node: &mut Node, now: Time) -> Vec<Vec<u8>> {
    if node.next_deadline().is_some_and(|due| due <= now) {
        node.handle_timeout(now);
    }
    while let Some(write) = node.poll_journal(now) {
        if let Write::Event { stream, number, .. } = write {
            node.handle_durable(now, stream, number);
        }
    }
    while node.poll_event(now).is_some() {}
    let mut messages = Vec::new();
    let mut buffer = Vec::new();
    while node.poll_transmit(now, &mut buffer).is_some() {
        messages.push(std::mem::take(&mut buffer));
    }
    messages
}

fn bound(session: u64) -> Local {
    Local::Bound {
        key: Key { service: 7, session: session.wrapping_mul(0x9e37_79b9_7f4a_7c15) },
        server: 1 + session % 100,
        generation: 0,
        left: LIFETIME,
    }
}
