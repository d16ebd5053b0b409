use super::super::super::model::{Model, Step};
use super::*;
use crate::abi::Addr;
use core::net::Ipv4Addr;

const SERVICE_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn service() -> Service {
    Service { id: 1, flags: ServiceFlags::SNAT, source: SERVICE_SOURCE.into(), ..Service::default() }
}

/// A SYN of one of two clients that use the same port.
fn packet(client: u8) -> Packet {
    Packet {
        source: Ipv4Addr::new(192, 0, 2, client).into(),
        destination: Ipv4Addr::new(10, 99, 0, 1).into(),
        source_port: Be16::new(40_000),
        destination_port: Be16::new(80),
        protocol: protocol::TCP,
        ..Packet::default()
    }
}

/// A half-open record for the packet, which nobody can find yet.
fn claimed(model: &Model<'_>, packet: &Packet) -> Live {
    let live =
        flow::allocate(model, Room::HalfOpen, (&packet.source, packet.source_port), model.now()).unwrap();
    let record = unsafe { &mut *live.record };
    record.last_seen = model.now();
    record.client = packet.flow_key();
    record.server = FlowKey {
        source: Addr::from(Ipv4Addr::new(10, 1, 0, 1)),
        destination: SERVICE_SOURCE.into(),
        source_port: Be16::new(8080),
        destination_port: packet.source_port,
        protocol: packet.protocol,
        pad: [0; 3],
    };
    live
}

fn open(model: &Model<'_>, packet: &Packet) -> Result<Live, Outcome> {
    let live = claimed(model, packet);
    publish(model, &model.settings, &service(), packet, &live)
}

fn assert_whole(model: &Model<'_>, live: &Live) {
    assert_eq!(model.reference(&live.flow().client), Some(live.reference));
    let reply = FlowRef::new(live.reference.index(), live.reference.nonce(), true);
    assert_eq!(model.reference(&live.flow().server), Some(reply));
}

#[test]
fn a_reply_key_is_not_stolen_from_a_flow_that_is_being_opened() {
    let model = Model::new(64, 64);
    let (one, two) = (packet(1), packet(2));
    let first = claimed(&model, &one);
    // Client 2 opens its flow after client 1 took its port and before its record says so.
    let other = two;
    model.interfere(Step::Insert(one.flow_key()), move |model| {
        // What the record says between the two: it is being made.
        let made = flow::word_of(first.record);
        unsafe { (&raw mut (*first.record).word).write(made.with_state(FlowState::Claimed).0) };
        let second = open(model, &other).unwrap();
        assert_ne!(second.flow().server.destination_port, Be16::new(40_000));
        assert_whole(model, &second);
        unsafe { (&raw mut (*first.record).word).write(made.0) };
    });
    let first = publish(&model, &model.settings, &service(), &one, &first).unwrap();
    assert!(model.has_interfered());
    assert_eq!(first.flow().server.destination_port, Be16::new(40_000));
    assert_whole(&model, &first);
}

#[test]
fn of_two_flows_that_take_over_a_dead_ones_port_each_has_its_own() {
    let model = Model::new(64, 64);
    let dead = open(&model, &packet(3)).unwrap();
    model.now.set(model.now() + 2 * model.settings.tcp_half_open);
    let reply = FlowRef::new(dead.reference.index(), dead.reference.nonce(), true);
    let two = packet(2);
    model.interfere(Step::Exchange(reply.0), move |model| {
        let second = open(model, &two).unwrap();
        assert_eq!(second.flow().server.destination_port, Be16::new(40_000));
    });
    let first = open(&model, &packet(1)).unwrap();
    assert!(model.has_interfered());
    assert_ne!(first.flow().server.destination_port, Be16::new(40_000));
    assert_whole(&model, &first);
}

#[test]
fn one_syn_on_two_cpus_opens_one_flow() {
    let model = Model::new(64, 64);
    let syn = packet(1);
    model.interfere(Step::Insert(syn.flow_key()), move |model| {
        assert_whole(model, &open(model, &syn).unwrap())
    });
    assert_eq!(open(&model, &syn).err(), Some(Outcome::Raced));
    assert_eq!(model.indexed(), 2, "nothing is left of the flow that came second");
    assert!(model.reference(&syn.flow_key()).is_some());
}

#[test]
fn a_record_lost_while_its_flow_is_opened_leaves_nothing_in_the_index() {
    let model = Model::new(1, 64);
    let (one, two) = (packet(1), packet(2));
    let other = two;
    // The ring has one place, and client 2 takes it.
    model.interfere(Step::Insert(one.flow_key()), move |model| {
        assert_whole(model, &open(model, &other).unwrap())
    });
    assert_eq!(open(&model, &one).err(), Some(Outcome::Raced));
    assert_eq!(model.reference(&one.flow_key()), None);
    assert_eq!(model.indexed(), 2);
    assert!(model.reference(&two.flow_key()).is_some());
}
