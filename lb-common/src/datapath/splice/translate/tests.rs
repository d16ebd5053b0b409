use super::*;
use crate::abi::{FlowRef, FlowState, FlowWord};
use crate::datapath::model::{Dice, Model, ones_sum};

const L4: usize = 34;

/// A segment with these options, padded to a whole number of words by what stands behind an end of options.
fn segment(dice: &mut Dice, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), END);
    let mut segment = dice.bytes(Tcp::LEN);
    segment[12] = ((Tcp::LEN + options.len()) as u8 / 4) << 4;
    segment[13] = flags;
    segment.extend(options);
    segment.extend(dice.bytes(9));
    segment
}

fn record(dice: &mut Dice, client_scale: u8, server_scale: u8, splice: u16) -> Flow {
    Flow {
        answer: dice.roll() as u32,
        isn: dice.roll() as u32,
        client_scale,
        server_scale,
        splice,
        ..Flow::default()
    }
}

/// Runs one direction over a segment; the checksum has to follow whatever changes.
fn translated(flow: &Flow, segment: &[u8], to_backend: bool) -> Vec<u8> {
    let model = Model::new(0, 0);
    model.set_frame(&[vec![0; L4], segment.to_vec()].concat());
    let mut flow = *flow;
    let live = Live {
        record: &raw mut flow,
        reference: FlowRef::default(),
        word: FlowWord::new(1, FlowState::Established).with(FlowWord::SPLICED),
    };
    let packet = Packet { l4: L4 as u16, tcp_flags: segment[13], ..Packet::default() };
    let change = if to_backend { outbound(&model, &packet, &live) } else { inbound(&model, &packet, &live) };
    let tcp = frame::at(&model, L4, Tcp::LEN).unwrap();
    // SAFETY: checked for the fixed header.
    unsafe { Tcp::new(tcp) }.changed(change.unwrap());
    let out = model.frame().split_off(L4);
    assert_eq!(ones_sum(&out), ones_sum(segment), "the checksum follows: {segment:x?} to {out:x?}");
    out
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What is not expected to change is the same.
fn same_but(out: &[u8], segment: &[u8], changed: &[(usize, usize)]) {
    for at in 0..segment.len() {
        let may = (Tcp::CHECKSUM..Tcp::CHECKSUM + 2).contains(&at)
            || changed.iter().any(|(from, to)| (*from..*to).contains(&at));
        assert!(may || out[at] == segment[at], "byte {at} of {segment:x?} became {out:x?}");
    }
}

#[test]
fn there_and_back_numbers_are_what_they_were() {
    let mut dice = Dice(5);
    for _ in 0..20_000 {
        let flow = record(&mut dice, Flow::NO_SCALE, Flow::NO_SCALE, 0);
        let offset = flow.answer.wrapping_sub(flow.isn);
        let sent = segment(&mut dice, flag::ACK, &[]);
        let to_client = translated(&flow, &sent, false);
        assert_eq!(word(&to_client, 4), word(&sent, 4).wrapping_sub(offset));
        same_but(&to_client, &sent, &[(4, 8)]);
        // The client acknowledges what it was told.
        let mut back = segment(&mut dice, flag::ACK, &[]);
        back[8..12].copy_from_slice(&to_client[4..8]);
        let to_backend = translated(&flow, &back, true);
        assert_eq!(word(&to_backend, 8), word(&sent, 4));
        same_but(&to_backend, &back, &[(8, 12)]);
    }
}

#[test]
fn without_ack_the_field_stays() {
    let mut dice = Dice(6);
    let flow = record(&mut dice, 7, 7, 0);
    let reset = segment(&mut dice, flag::RST, &[]);
    let out = translated(&flow, &reset, true);
    same_but(&out, &reset, &[]);
    assert_eq!(out, reset);
}

#[test]
fn windows_are_scaled_as_each_side_reads_them() {
    let mut dice = Dice(7);
    for client in 0..=15 {
        for server in 0..=15 {
            let server = if client == Flow::NO_SCALE { client } else { server };
            let flow = record(&mut dice, client, server, 0);
            let sent = segment(&mut dice, flag::ACK, &[]);
            let window = |bytes: &[u8]| u16::from_be_bytes([bytes[14], bytes[15]]);
            let there = translated(&flow, &sent, true);
            assert_eq!(window(&there), window_to_backend(window(&sent), client, server), "{client} {server}");
            let here = translated(&flow, &sent, false);
            assert_eq!(window(&here), window_to_client(window(&sent), client, server), "{client} {server}");
        }
    }
}

/// Blocks at every place of the header, with options in front and behind.
#[test]
fn blocks_are_moved_wherever_they_stand() {
    let mut dice = Dice(8);
    let mut odd = 0;
    for _ in 0..50_000 {
        let mut options = Vec::new();
        for _ in 0..dice.below(4) {
            options.extend([&[PADDING][..], &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8], &[30, 3, 9]][dice.below(3)]);
        }
        let at = Tcp::LEN + options.len();
        let blocks = 1 + dice.below(4);
        if options.len() + 2 + 8 * blocks > 40 {
            continue;
        }
        options.extend([SACK, 2 + 8 * blocks as u8]);
        options.extend(dice.bytes(8 * blocks));
        let end = Tcp::LEN + options.len();
        let flow = record(&mut dice, 7, 7, SpliceFlags::SACK);
        let sent = segment(&mut dice, flag::ACK, &options);
        let out = translated(&flow, &sent, true);
        for edge in (at + 2..end).step_by(4) {
            assert_eq!(word(&out, edge), word(&sent, edge).wrapping_add(offset(&flow)), "edge at {edge}");
        }
        odd += at & 1;
        same_but(&out, &sent, &[(8, 12), (at + 2, end)]);

        // A backend that permitted none gets none.
        let flow = record(&mut dice, 7, 7, 0);
        let out = translated(&flow, &sent, true);
        assert!(out[at..end].iter().all(|byte| *byte == PADDING), "{out:x?}");
        same_but(&out, &sent, &[(8, 12), (at, end)]);
    }
    assert!(odd > 1_000, "only {odd} at odd places");
}

#[test]
fn what_is_no_option_stays() {
    let mut dice = Dice(9);
    for options in [&[SACK, 1, 9, 9][..], &[SACK, 60, 1, 2], &[END, SACK, 10, 1], &[8, 0, SACK, 10], &[SACK]]
    {
        let flow = record(&mut dice, 7, 7, SpliceFlags::SACK);
        let sent = segment(&mut dice, flag::ACK, options);
        same_but(&translated(&flow, &sent, true), &sent, &[(8, 12)]);
    }
}

#[test]
fn any_header_keeps_its_checksum() {
    let mut dice = Dice(10);
    for _ in 0..50_000 {
        let options = dice.bytes(40)[..dice.below(11) * 4].to_vec();
        let splice = [0, SpliceFlags::SACK][dice.below(2)];
        let (client, server) = (dice.below(16) as u8, dice.below(16) as u8);
        let flow = record(&mut dice, client, server, splice);
        let flags = dice.roll() as u8;
        let sent = segment(&mut dice, flags, &options);
        translated(&flow, &sent, true);
        translated(&flow, &sent, false);
    }
}
