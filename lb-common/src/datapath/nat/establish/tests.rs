use super::super::super::model::{Model, Step};
use super::*;
use crate::abi::{Be16, Flow};
use core::net::Ipv4Addr;

fn key(client: u8) -> FlowKey {
    FlowKey {
        source: Ipv4Addr::new(192, 0, 2, client).into(),
        destination: Ipv4Addr::new(10, 99, 0, 1).into(),
        source_port: Be16::new(40_000),
        destination_port: Be16::new(80),
        protocol: protocol::TCP,
        pad: [0; 3],
    }
}

/// A half-open flow that both sides can find.
fn half_open(model: &Model<'_>, client: u8, state: FlowState) -> Live {
    let of = key(client);
    let live = flow::allocate(model, Room::HalfOpen, (&of.source, of.source_port), model.now()).unwrap();
    let word = live.word.with_state(state);
    let flow = Flow {
        word: word.0,
        last_seen: model.now(),
        client: key(client),
        server: key(client).reversed(),
        ..Flow::default()
    };
    unsafe { live.record.write(flow) };
    let (index, nonce) = (live.reference.index(), live.reference.nonce());
    model.insert_flow_ref(&flow.client, FlowRef::new(index, nonce, false));
    model.insert_flow_ref(&flow.server, FlowRef::new(index, nonce, true));
    Live { word, ..live }
}

fn established(model: &Model<'_>) -> usize {
    let state = |i| flow::word_of(model.flow(i).unwrap()).state();
    (model.settings.half_open..model.settings.half_open + model.settings.flows)
        .filter(|i| state(*i) != FlowState::Free)
        .count()
}

#[test]
fn both_directions_lead_to_the_established_record() {
    let model = Model::new(4, 4);
    let old = half_open(&model, 1, FlowState::Established);
    let new = promote(&model, &old, true, model.now()).ok().unwrap();
    assert_eq!(model.reference(&key(1)), Some(new.reference));
    assert!(model.reference(&key(1).reversed()).unwrap().is_reply());
    assert_eq!(flow::word_of(old.record).state(), FlowState::Free);
    assert!(flow::word_of(new.record).has(FlowWord::BOUND));
}

#[test]
fn of_two_that_establish_a_flow_at_once_one_does() {
    let model = Model::new(4, 8);
    let old = half_open(&model, 1, FlowState::Established);
    let reply = FlowRef::new(old.reference.index(), old.reference.nonce(), true);
    // Between the two directions of the first one comes the second one.
    model.interfere(Step::Exchange(reply.0), |model| {
        let old = flow::find(model, &key(1).reversed(), model.now()).unwrap();
        assert!(promote(model, &old, true, model.now()).is_err());
    });
    let new = promote(&model, &old, true, model.now()).ok().unwrap();
    for key in [key(1), key(1).reversed()] {
        let found = flow::find(&model, &key, model.now()).unwrap();
        assert_eq!(found.reference.index(), new.reference.index());
    }
    assert_eq!(established(&model), 1);
}

#[test]
fn a_record_evicted_while_it_is_copied_is_not_sent_after() {
    let model = Model::new(1, 4);
    let old = half_open(&model, 1, FlowState::Established);
    // The ring has one place: another client's flow takes it while an established record is claimed.
    model.interfere(Step::Exchange(0), |model| {
        half_open(model, 2, FlowState::Opening);
    });
    assert_eq!(promote(&model, &old, false, model.now()).err(), Some(Outcome::Raced));
    assert!(model.has_interfered());
    assert_eq!(established(&model), 0, "no record is left behind that nobody finds");
    assert_eq!(model.reference(&key(1)), None);
    assert!(model.reference(&key(2)).is_some());
}

#[test]
fn a_flow_is_evicted_or_established_but_never_half_of_each() {
    let model = Model::new(1, 4);
    let old = half_open(&model, 1, FlowState::Established);
    let client = FlowRef::new(old.reference.index(), old.reference.nonce(), false);
    // The eviction has begun on the entry when the flow is established: one of the two has to see the other.
    model.interfere(Step::Delete(key(1)), move |model| {
        assert_eq!(model.reference(&key(1)), Some(FlowRef::default()));
        assert_eq!(promote(model, &old, false, model.now()).err(), Some(Outcome::Raced));
    });
    flow::forget_key(&model, &key(1), client);
    let reply = FlowRef::new(client.index(), client.nonce(), true);
    flow::forget_key(&model, &key(1).reversed(), reply);
    assert!(model.has_interfered());
    assert_eq!(model.reference(&key(1)), None);
    assert_eq!(model.reference(&key(1).reversed()), None);
    assert_eq!(established(&model), 0);
}

#[test]
fn a_packet_that_comes_while_its_flow_is_moved_finds_it() {
    let model = Model::new(4, 4);
    let old = half_open(&model, 1, FlowState::Established);
    // The packet has read the entry, but not the record.
    model.interfere(Step::Record(old.reference.index()), move |model| {
        promote(model, &old, false, model.now()).ok().unwrap();
    });
    let found = flow::find(&model, &key(1), model.now()).expect("the flow lives all the time");
    assert!(model.has_interfered());
    assert_eq!(found.word.state(), FlowState::Established);
    assert_ne!(found.reference, old.reference);
}

#[test]
fn datagrams_take_half_of_the_records_and_connections_the_rest() {
    for flows in [1, 2, 7, 8] {
        let model = Model::new(1, flows);
        let fill = |room| {
            let mut taken = 0;
            let of = key(1);
            while let Some(live) = flow::allocate(&model, room, (&of.source, of.source_port), model.now()) {
                unsafe {
                    (&raw mut (*live.record).word).write(live.word.with_state(FlowState::Established).0)
                };
                unsafe { (&raw mut (*live.record).last_seen).write(model.now()) };
                taken += 1;
            }
            taken
        };
        assert_eq!(fill(Room::Datagrams), flows.div_ceil(2));
        assert_eq!(fill(Room::Established), flows / 2);
        assert_eq!(established(&model), flows as usize);
    }
}

#[test]
fn a_connection_finds_the_last_free_record() {
    let model = Model::new(1, 250);
    for i in 0..250 {
        let record = model.flow(model.settings.half_open + i).unwrap();
        let free = i == 249;
        let state = if free { FlowState::Free } else { FlowState::Established };
        unsafe { (*record).word = FlowWord::new(1000 + i, state).0 };
        unsafe { (*record).last_seen = model.now() };
    }
    let of = key(1);
    assert!(flow::allocate(&model, Room::Established, (&of.source, of.source_port), model.now()).is_some());
}
