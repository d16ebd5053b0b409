//! Segments of an established connection, beside a plain reading of what has to change on their way.

use crate::segments::{World, frame};
use lb_common::abi::{Flow, SpliceFlags};
use stickleback_tests::corpus::{check, dissect};

/// Cases whose connections differ in numbers, scales and what was permitted.
const CASES: [&str; 8] = [
    "numbers-up",
    "numbers-down",
    "numbers-both-wrap",
    "windows-7-14",
    "windows-14-no",
    "windows-no-no",
    "blocks-refused",
    "windows-0-7",
];

/// The first byte says which connection; then segments, each with a byte for the length of its options and one for its data's.
pub fn translation(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let v4 = choice & 8 == 0;
    let family = if v4 { "v4" } else { "v6" };
    let name = format!("{}-{family}", CASES[usize::from(choice & 7)]);
    World::established("splice", &name, |world, flow| segments(world, flow, v4, data));
}

/// Sends them through a connection.
fn segments(world: &mut World, flow: &Flow, v4: bool, mut data: &[u8]) {
    for _ in 0..8 {
        let Some(([kind, head @ ..], rest)) = data.split_first_chunk::<13>() else { return };
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let window = u16::from_be_bytes([head[8], head[9]]);
        let (options, rest) = rest.split_at(rest.len().min(usize::from(head[10] % 41)));
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(head[11])));
        data = rest;
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 1);
        // ACK, PSH and URG; the others change more than numbers.
        let (from_client, flags) = (kind & 1 != 0, *kind & 0x38);
        let like = if from_client { Some(&world.client) } else { world.backend.as_ref() };
        let like = like.expect("a backend that answers").clone();
        let segment = frame(&like, number(0), number(4), flags, window, &options, payload);
        let went = world.sent(&segment, from_client);
        let problems = check(&went);
        assert!(problems.is_empty(), "{problems:?}: {}", dissect(&went));
        let l4 = if v4 { 34 } else { 54 };
        let expected =
            if from_client { to_backend(flow, &segment[l4..]) } else { to_client(flow, &segment[l4..]) };
        // Checksums were looked at.
        let without_sum = |tcp: &[u8]| [&tcp[..16], &tcp[18..]].concat();
        assert_eq!(
            without_sum(&went[l4..]),
            without_sum(&expected),
            "in:  {}\nout: {}",
            dissect(&segment),
            dissect(&went)
        );
    }
}

fn to_backend(flow: &Flow, segment: &[u8]) -> Vec<u8> {
    let mut tcp = segment.to_vec();
    let offset = flow.answer.wrapping_sub(flow.isn);
    // A backend answers from its own port, to the client's.
    tcp[2..4].copy_from_slice(&flow.server.source_port.host().to_be_bytes());
    if tcp[13] & 0x10 != 0 {
        add(&mut tcp[8..12], offset);
    }
    if flow.server_scale == Flow::NO_SCALE && flow.client_scale != Flow::NO_SCALE {
        let window = u64::from(u16::from_be_bytes([tcp[14], tcp[15]])) << flow.client_scale;
        tcp[14..16].copy_from_slice(&u16::try_from(window).unwrap_or(u16::MAX).to_be_bytes());
    }
    let header = usize::from(tcp[12] >> 4) * 4;
    if let Some(blocks) = blocks(&tcp[20..header]) {
        let option = &mut tcp[20 + blocks.start..20 + blocks.end];
        if flow.splice & SpliceFlags::SACK == 0 {
            option.fill(1);
        } else {
            option[2..].chunks_exact_mut(4).for_each(|edge| add(edge, offset));
        }
    }
    tcp
}

fn to_client(flow: &Flow, segment: &[u8]) -> Vec<u8> {
    let mut tcp = segment.to_vec();
    tcp[..2].copy_from_slice(&flow.client.destination_port.host().to_be_bytes());
    add(&mut tcp[4..8], flow.isn.wrapping_sub(flow.answer));
    if flow.client_scale != Flow::NO_SCALE {
        let scale = if flow.server_scale == Flow::NO_SCALE { 0 } else { flow.server_scale };
        let window = u16::from_be_bytes([tcp[14], tcp[15]]);
        // The client was promised a scale of 7.
        let told = (u64::from(window) << scale) / 128;
        let told = u16::try_from(told).unwrap_or(u16::MAX).max(window.min(1));
        tcp[14..16].copy_from_slice(&told.to_be_bytes());
    }
    tcp
}

fn add(number: &mut [u8], offset: u32) {
    let old = u32::from_be_bytes(number.try_into().expect("four bytes"));
    number.copy_from_slice(&old.wrapping_add(offset).to_be_bytes());
}

/// Where the first option with selective acknowledgements stands, when all in front of it are well-formed.
fn blocks(options: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    loop {
        let (kind, len) = (*options.get(at)?, options.get(at + 1).copied().map(usize::from));
        let len = match kind {
            0 => return None,
            1 => 1,
            _ => len.filter(|len| *len >= 2 && at + len <= options.len())?,
        };
        if kind == 5 {
            return Some(at..at + len);
        }
        at += len;
    }
}
