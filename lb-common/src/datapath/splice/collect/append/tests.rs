use super::super::Place;
use super::*;
use crate::abi::FlowRef;
use crate::datapath::model::{Dice, Model, ones_sum};
use crate::packet::{flag, protocol};
use core::net::Ipv4Addr;

/// Where the TCP header is.
const L4: usize = 34;
/// Sequence number of the stream's first byte: it wraps on the way.
const START: u32 = u32::MAX - 1_000;

/// A client's segment, with its frame.
fn segment(stream: &[u8], from: usize, to: usize, damaged: bool) -> (Vec<u8>, Packet, Arrived) {
    let (source, destination) = (Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 99, 0, 1));
    let mut frame = vec![0; L4];
    let sequence = START.wrapping_add(from as u32);
    frame.extend([4, 0, 0, 80]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 1, 5 << 4, flag::ACK, 1, 0, 0, 0, 0, 0]);
    frame.extend(&stream[from..to]);
    let length = (frame.len() - L4) as u16;
    let mut covered = [source.octets(), destination.octets()].concat();
    covered.extend([0, protocol::TCP]);
    covered.extend(length.to_be_bytes());
    covered.extend(&frame[L4..]);
    frame[L4 + 16..L4 + 18].copy_from_slice(&(!ones_sum(&covered)).to_be_bytes());
    if damaged {
        let last = frame.len() - 1;
        frame[last] ^= 0x10;
    }
    let packet = Packet {
        source: source.into(),
        destination: destination.into(),
        l3: 14,
        l4: L4 as u16,
        length: length + 20,
        protocol: protocol::TCP,
        ..Packet::default()
    };
    let arrived = Arrived {
        sequence,
        acknowledgement: 1,
        window: 256,
        flags: flag::ACK,
        at: L4 as u32 + 20,
        len: (to - from) as u32,
    };
    (frame, packet, arrived)
}

/// However a stream is cut, repeated, put out of order and overlapped with other bytes: what is held are its first bytes,
/// and what was there once stays.
#[test]
fn what_is_held_is_the_beginning_of_the_stream() {
    let mut dice = Dice(5);
    let model = Model::new(4, 4);
    let (mut complete, mut refused) = (0, 0);
    for round in 0..400 {
        let len = 1 + dice.below(HOLD_LEN + 500);
        let stream = dice.bytes(len);
        let mut other = dice.bytes(len);
        model.now.set(model.now.get() + 1_000);
        let flow = FlowRef::new(round, round + 1, false);
        let until = model.now.get() + 500;
        let mut held = hold::claim(&model, flow, until, model.now.get()).unwrap();
        held.get_mut().start = START;
        for _ in 0..60 {
            let have = held.get().len as usize;
            // Near the end of what is there, before it or behind it.
            let from = (have + dice.below(40)).saturating_sub(dice.below(60)).min(len - 1);
            let to = (from + 1 + dice.below(1_460)).min(len);
            // What was sent before may come with other bytes.
            other[have..].copy_from_slice(&stream[have..]);
            let sent = if dice.below(3) == 0 { &other } else { &stream };
            let damaged = dice.below(8) == 0;
            let (frame, packet, arrived) = segment(sent, from, to, damaged);
            model.set_frame(&frame);
            let place = Place::of(held.get(), &arrived);
            let expected = match (from > have, to > have) {
                (true, _) => Place::Ahead,
                (false, true) => Place::Next,
                (false, false) => Place::Before,
            };
            assert_eq!(place, expected);
            if place == Place::Next {
                let settings = model.settings;
                let taken = run(&model, &settings, &packet, &arrived, &mut held);
                let room = have < HOLD_LEN;
                assert_eq!(taken, room && !damaged, "{from}..{to} behind {have}");
                let end = if taken { to.min(HOLD_LEN) } else { have };
                assert_eq!(held.get().len as usize, end);
                refused += u32::from(!taken);
            }
            let have = held.get().len as usize;
            assert!(held.get().bytes[..have] == stream[..have]);
            let mut even = stream[..have].to_vec();
            even.extend(vec![0; have & 1]);
            assert_eq!((held.get().sum as u16).to_be() % 0xffff, ones_sum(&even) % 0xffff);
        }
        complete += u32::from(held.get().len as usize == len.min(HOLD_LEN));
        held.free(&model);
    }
    assert!(complete > 50 && refused > 50, "{complete} came whole, {refused} were refused");
}
