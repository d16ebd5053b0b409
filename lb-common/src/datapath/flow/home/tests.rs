use super::super::{Room, allocate, vacate};
use super::*;
use crate::abi::Addr;
use crate::datapath::model::{Dice, Model};
use crate::packet::protocol;
use core::net::Ipv4Addr;

/// A packet of a client to the service.
fn packet(client: u32, port: u16) -> Packet {
    Packet {
        source: Ipv4Addr::from(client).into(),
        destination: Ipv4Addr::new(10, 99, 0, 1).into(),
        source_port: Be16::new(port),
        destination_port: Be16::new(80),
        protocol: protocol::TCP,
        ..Packet::default()
    }
}

/// A packet of the backend to that client.
fn reply(client: &Packet) -> Packet {
    Packet {
        source: Addr::from(Ipv4Addr::new(10, 1, 0, 1)),
        destination: client.source,
        source_port: Be16::new(8_080),
        destination_port: client.source_port,
        ..*client
    }
}

/// The flow of the packet in a record of the kind, or `None` when all are taken. Not in the index.
fn placed(model: &Model<'_>, packet: &Packet, room: Room, state: FlowState) -> Option<Live> {
    let live = allocate(model, room, (&packet.source, packet.source_port), model.now())?;
    let word = live.word.with_state(state);
    let flow = Flow {
        word: word.0,
        last_seen: model.now(),
        client: packet.flow_key(),
        server: reply(packet).flow_key(),
        ..Flow::default()
    };
    unsafe { live.record.write(flow) };
    Some(Live { word, ..live })
}

fn found(model: &Model<'_>, packet: &Packet, reply: bool) -> Option<FlowRef> {
    find(model, packet, reply, model.now()).map(|live| live.reference)
}

#[test]
fn both_directions_find_an_established_flow() {
    let mut dice = Dice(5);
    for flows in [4, 5, 64, 1_000] {
        let mut model = Model::new(8, flows);
        model.settings.seed = dice.roll() << 32 | dice.roll();
        for room in [Room::Established, Room::Datagrams] {
            let packet = packet(dice.roll() as u32, dice.roll() as u16);
            let live = placed(&model, &packet, room, FlowState::Established).unwrap();
            assert_eq!(found(&model, &packet, false), Some(live.reference));
            let back = FlowRef::new(live.reference.index(), live.reference.nonce(), true);
            assert_eq!(found(&model, &reply(&packet), true), Some(back));
            assert_eq!(found(&model, &reply(&packet), false), None, "the other direction's key");
            assert_eq!(found(&model, &self::packet(1, 1), false), None, "somebody else's");
            let datagram = Packet { protocol: protocol::UDP, ..packet };
            assert_eq!(found(&model, &datagram, false), None, "the protocol is part of the key");
        }
    }
}

#[test]
fn a_full_home_leaves_the_flow_to_the_index() {
    let model = Model::new(8, 64);
    let packets: Vec<Packet> = (0..8)
        .map(|service| Packet { destination: Ipv4Addr::new(10, 99, 0, service).into(), ..packet(7, 7) })
        .collect();
    let placed: Vec<Live> = packets
        .iter()
        .map(|p| placed(&model, p, Room::Established, FlowState::Established).unwrap())
        .collect();
    let first = flow_home(&model.settings, &packets[0].source, packets[0].source_port);
    for (n, (packet, live)) in packets.iter().zip(&placed).enumerate() {
        let at_home = (first..first + HOME_LEN).contains(&live.reference.index());
        assert_eq!(at_home, n < HOME_LEN as usize);
        assert_eq!(found(&model, packet, false), at_home.then_some(live.reference));
    }
}

#[test]
fn a_reply_finds_no_flow_whose_backend_may_change() {
    use FlowState::{Claimed, Closed, Closing, Collecting, Connecting, Established, Free, Releasing};
    for (state, from_client, from_backend) in [
        (Free, false, false),
        (Claimed, false, false),
        (Collecting, true, false),
        (Connecting, true, false),
        (Releasing, true, true),
        (Established, true, true),
        (Closing, true, true),
        (Closed, true, true),
    ] {
        let model = Model::new(8, 64);
        let packet = packet(7, 7);
        placed(&model, &packet, Room::Established, state).unwrap();
        assert_eq!(found(&model, &packet, false).is_some(), from_client, "{state:?}");
        assert_eq!(found(&model, &reply(&packet), true).is_some(), from_backend, "{state:?}");
    }
}

#[test]
fn what_is_over_is_not_found_and_gives_way_at_home() {
    let model = Model::new(8, 64);
    let packet = packet(7, 7);
    let old = placed(&model, &packet, Room::Established, FlowState::Established).unwrap();
    model.now.set(model.now() + model.settings.tcp_established);
    assert_eq!(found(&model, &packet, false), None);
    let new = placed(&model, &packet, Room::Established, FlowState::Established).unwrap();
    assert_eq!(new.reference.index(), old.reference.index());
    assert_eq!(found(&model, &packet, false), Some(new.reference));
    vacate(&new);
    assert_eq!(found(&model, &packet, false), None);
}

#[test]
fn homes_are_spread_over_the_table_and_stay_inside() {
    let mut dice = Dice(6);
    let mut model = Model::new(0, 0);
    for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
        let settings = &mut model.settings;
        (settings.half_open, settings.flows, settings.seed) = (100, 4_096, seed);
        let mut hits = [0_u32; 16];
        for n in 0..16_384_u32 {
            // Neighbours' addresses and ports, as they come.
            let (address, port) =
                if n % 2 == 0 { (0x0a40_0000 + n, 40_000) } else { (0x0a40_0001, n as u16) };
            let home = flow_home(settings, &Ipv4Addr::from(address).into(), Be16::new(port));
            assert!((100..=100 + 4_096 - HOME_LEN).contains(&home));
            hits[(home - 100) as usize * 16 / 4_096] += 1;
        }
        assert!(hits.iter().all(|&hits| (700..1_400).contains(&hits)), "{seed:#x}: {hits:?}");
    }
    for flows in 0..HOME_LEN {
        model.settings.flows = flows;
        let home = flow_home(&model.settings, &Ipv4Addr::from(dice.roll() as u32).into(), Be16::new(7));
        assert_eq!(home, model.settings.half_open);
    }
}
