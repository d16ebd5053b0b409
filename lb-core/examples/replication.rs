//! Times the logic of replication and weighs its memory: `cargo run --release -p lb-core --example replication -- 1000000`.
//!
//! Two nodes in one process, without network and journal: one makes bindings, the other applies its batches. Resident
//! memory is that of the receiving node alone: the sender's is measured before and taken off.
#![expect(clippy::disallowed_methods, reason = "a program that measures reads the clock and its own size")]

use lb_core::binding::{Key, NodeId, Time};
use lb_core::sync::{Config, Local, Node, Recovery, Write};
use std::time::{Duration, Instant};

/// Bytes of memory that are in use by this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn node(id: u64, other: u64) -> Node {
    Recovery::new(Config::new(NodeId(id), vec![NodeId(other)]), Time(0), 1_700_000_000_000, id).finish()
}

/// Hands everything that one node has to say to the other; the time that taking it in took, and the bytes.
fn carry(now: Time, from: &mut Node, to: &mut Node, messages: &mut Vec<Vec<u8>>) -> (Duration, u64) {
    messages.clear();
    let mut buffer = Vec::new();
    while from.poll_transmit(now, &mut buffer).is_some() {
        messages.push(core::mem::take(&mut buffer));
    }
    let (mut spent, mut bytes) = (Duration::ZERO, 0);
    for message in messages.iter() {
        bytes += message.len() as u64;
        let begin = Instant::now();
        to.handle_message(now, from.id(), message).expect("both speak the same version");
        spent += begin.elapsed();
    }
    (spent, bytes)
}

fn journal(now: Time, node: &mut Node) {
    let mut last = None;
    while let Some(write) = node.poll_journal(now) {
        if let Write::Event { stream, number, .. } = write {
            last = Some((stream, number));
        }
    }
    if let Some((stream, number)) = last {
        node.handle_durable(now, stream, number);
    }
}

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap_or(1_000_000);
    let (mut a, mut b) = (node(1, 2), node(2, 1));
    let mut messages = Vec::new();
    let mut clock = 0;
    while !a.is_ready() || !b.is_ready() {
        clock += 20;
        let now = Time(clock);
        carry(now, &mut a, &mut b, &mut messages);
        carry(now, &mut b, &mut a, &mut messages);
        a.handle_timeout(now);
        b.handle_timeout(now);
    }
    let lifetime = Duration::from_secs(3600);
    let before = resident();
    let mut made = Duration::ZERO;
    let mut applied = Duration::ZERO;
    let mut bytes = 0;
    let mut of_a = 0;
    for round in 0..2 {
        let (before_made, before_applied) = (made, applied);
        let mut at = 0;
        while at < count {
            clock += 10;
            let now = Time(clock);
            let size = resident();
            let begin = Instant::now();
            for session in at..(at + 10_000).min(count) {
                let key = Key { service: 7, session: session.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
                let generation = round;
                a.handle_local(
                    now,
                    Local::Bound { key, server: session % 100 + round as u64, generation, left: lifetime },
                );
            }
            made += begin.elapsed();
            of_a += resident().saturating_sub(size);
            at += 10_000;
            journal(now, &mut a);
            for _ in 0..4 {
                let (spent, len) = carry(Time(clock), &mut a, &mut b, &mut messages);
                applied += spent;
                bytes += len;
                clock += 20;
                carry(Time(clock), &mut b, &mut a, &mut messages);
            }
            while b.poll_event(Time(clock)).is_some() {}
        }
        let per = |spent: Duration| spent.as_nanos() as u64 / count;
        let what = if round == 0 { "new bindings" } else { "bindings moved" };
        println!(
            "{count} {what}: made {} ns, applied {} ns each",
            per(made - before_made),
            per(applied - before_applied)
        );
    }
    println!("{} bytes an event on the wire", bytes / (2 * count));
    let all = resident() - before;
    println!(
        "memory of one node: {} bytes a binding resident (both: {}), {} counted",
        all.saturating_sub(of_a) / count,
        all / count,
        b.bytes() as u64 / count
    );
    println!("stores hold {} and {}; applied {}", a.store().len(), b.store().len(), b.counts().applied);
}
