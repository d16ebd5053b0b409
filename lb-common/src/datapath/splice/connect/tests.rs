use super::*;
use crate::abi::{Addr, Be16, FlowWord, HoldWord, Hop, Mac};
use crate::datapath::flow::Room;
use crate::datapath::model::{Model, Step};
use crate::datapath::splice::{turn, wait};
use crate::packet::{Tcp, protocol};
use core::net::Ipv4Addr;

const SECOND: u64 = 1_000_000_000;
/// The balancer's SYN-ACK, the request's first byte, and the SYN-ACK of a backend.
const ISN: u32 = 5_000;
const START: u32 = 7_000;
const ANSWER: u32 = 9_000;
/// What is held of a request.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// A SYN with options: frames of the model do not grow.
const SYN: usize = 14 + 20 + Tcp::LEN + 12;
/// Where the TCP header is.
const L4: usize = 34;

fn client() -> FlowKey {
    FlowKey {
        source: Ipv4Addr::new(192, 0, 2, 1).into(),
        destination: Ipv4Addr::new(10, 99, 0, 1).into(),
        source_port: Be16::new(40_000),
        destination_port: Be16::new(80),
        protocol: protocol::TCP,
        pad: [0; 3],
    }
}

fn address(slot: u16) -> Addr {
    Ipv4Addr::new(10, 1, 0, slot as u8 + 1).into()
}

/// What backend `slot` sends, when the flow's port is the client's own.
fn server(slot: u16) -> FlowKey {
    FlowKey { source: address(slot), destination: client().source, ..client().reversed() }
}

/// A service with backends that all serve.
fn shop() -> Model<'static> {
    let mut model = Model::new(4, 8);
    let hop = Hop { destination: Mac([2; 6]), mtu: 1_500, ifindex: 1, ..Hop::default() };
    model.backends = (0..8)
        .map(|slot| Backend { address: address(slot), generation: 1, hop, ..Backend::default() })
        .collect();
    model.status = vec![u64::MAX];
    model.arena = (0..8).chain(0..8).collect();
    model.affinities = vec![AffinityRules::default()];
    model.service =
        Some(Service { id: 1, table: 0, table_mask: 7, members: 8, member_count: 8, ..Service::default() });
    model
}

/// A connection whose request nobody keeps; its backend, 0, was sent a SYN two seconds ago.
fn unkept(model: &Model<'_>) -> Live {
    let of = client();
    let live = flow::allocate(model, Room::Established, (&of.source, of.source_port), model.now()).unwrap();
    let word = live.word.with_state(FlowState::Connecting).with(FlowWord::SPLICED);
    let flow = Flow {
        word: word.0,
        last_seen: model.now(),
        client: of,
        server: server(0),
        service: 1,
        backend: 0,
        backend_generation: 1,
        client_mac: Mac([3; 6]),
        answer: Attempt::new(model.now() - 2 * SECOND).repeated(model.now() - SECOND).0,
        isn: ISN,
        start: START,
        ..Flow::default()
    };
    unsafe { live.record.write(flow) };
    let (index, nonce) = (live.reference.index(), live.reference.nonce());
    model.insert_flow_ref(&flow.client, live.reference);
    model.insert_flow_ref(&flow.server, FlowRef::new(index, nonce, true));
    Live { word, ..live }
}

/// The client sends its request again.
fn request(model: &Model<'_>, live: &Live) -> Verdict {
    let mut held = hold::own(model, &model.settings, live.reference).unwrap();
    held.get_mut().start = START;
    let number = held.number;
    held.unlock(model);
    let scratch = unsafe { &mut *model.scratch().unwrap() };
    (scratch.flow, scratch.hold, scratch.again) = (live.reference, number, again::RETRANSMITTED);
    model.set_frame(&[0; SYN]);
    run(model)
}

/// The same connection with its request in a hold, whose number is returned.
fn kept(model: &Model<'_>) -> (Live, u32) {
    let live = unkept(model);
    let mut held = hold::claim(model, live.reference, u64::MAX, model.now()).unwrap();
    let hold = held.get_mut();
    (hold.start, hold.len, hold.answered) = (START, REQUEST.len() as u32, ISN + 1);
    hold.bytes[..REQUEST.len()].copy_from_slice(REQUEST);
    let number = held.number;
    unsafe { (*live.record).hold = number };
    held.unlock(model);
    (live, number)
}

/// The client sends what follows its request.
fn body(model: &Model<'_>, live: &Live) -> Verdict {
    let mut frame = vec![0; L4];
    frame.extend([0x9c, 0x40, 0, 80]);
    frame.extend((START + REQUEST.len() as u32).to_be_bytes());
    frame.extend((ISN + 1).to_be_bytes());
    frame.extend([5 << 4, flag::ACK, 1, 0, 0, 0, 0, 0]);
    frame.extend([b'x'; 8]);
    model.set_frame(&frame);
    let scratch = unsafe { &mut *model.scratch().unwrap() };
    scratch.flow = live.reference;
    scratch.packet = Packet {
        l3: 14,
        l4: L4 as u16,
        length: 48,
        protocol: protocol::TCP,
        tcp_flags: flag::ACK,
        ..Packet::default()
    };
    wait(model)
}

/// A backend answers its SYN.
fn answer(model: &Model<'_>, live: &Live, slot: u16) -> Verdict {
    let mut frame = vec![0; L4];
    frame.extend([0, 80, 0x9c, 0x40]);
    frame.extend(ANSWER.to_be_bytes());
    frame.extend(START.to_be_bytes());
    frame.extend([5 << 4, flag::SYN | flag::ACK, 1, 0, 0, 0, 0, 0]);
    // Frames of the model do not grow, so what is behind the packet has room for a request that is held.
    if live.flow().hold != 0 {
        frame.extend([0; REQUEST.len()]);
    }
    model.set_frame(&frame);
    let of = server(slot);
    let scratch = unsafe { &mut *model.scratch().unwrap() };
    scratch.flow = live.reference;
    scratch.packet = Packet {
        source: of.source,
        destination: of.destination,
        source_port: of.source_port,
        destination_port: of.destination_port,
        l3: 14,
        l4: L4 as u16,
        length: 40,
        protocol: protocol::TCP,
        tcp_flags: flag::SYN | flag::ACK,
        ..Packet::default()
    };
    turn::run(model)
}

#[test]
fn of_two_copies_of_a_request_that_nobody_keeps_one_makes_an_attempt() {
    let model = shop();
    let live = unkept(&model);
    let next = match request_alone() {
        0 => panic!("the silent one is not asked again"),
        slot => slot,
    };
    // The first copy has chosen its backend, and is about to be found by what that one answers.
    model.interfere(Step::Insert(server(next)), move |model| {
        assert_eq!(request(model, &live), Verdict::Drop, "the second copy goes to nobody");
    });
    assert_eq!(request(&model, &live), Verdict::Tx);
    assert!(model.has_interfered());
    assert_eq!(live.flow().backend, next);
    assert!(model.reference(&server(next)).is_some_and(FlowRef::is_reply));
    assert_eq!(model.indexed(), 2, "the flow has one key of each direction");
    assert!(!flow::word_of(live.record).has(FlowWord::BUSY));
}

/// The backend that a request goes to when nothing else happens.
fn request_alone() -> u16 {
    let model = shop();
    let live = unkept(&model);
    assert_eq!(request(&model, &live), Verdict::Tx);
    live.flow().backend
}

#[test]
fn a_request_that_nobody_keeps_does_not_cross_the_answer_to_it() {
    let model = shop();
    let live = unkept(&model);
    let word = live.word.with(FlowWord::BUSY).0;
    // The answer has been understood, and the flow is about to be established.
    model.interfere(Step::Exchange(word), move |model| {
        assert_eq!(request(model, &live), Verdict::Drop);
    });
    assert_eq!(answer(&model, &live, 0), Verdict::Tx);
    assert!(model.has_interfered());
    let (word, flow) = (flow::word_of(live.record), live.flow());
    assert_eq!((word.state(), word.has(FlowWord::BUSY)), (FlowState::Established, false));
    assert_eq!((flow.backend, flow.answer), (0, ANSWER), "what sequence numbers are translated by");
}

#[test]
fn an_answer_that_meets_a_copy_of_the_request_is_lost() {
    let model = shop();
    let live = unkept(&model);
    let next = request_alone();
    model.interfere(Step::Insert(server(next)), move |model| {
        assert_eq!(answer(model, &live, 0), Verdict::Drop);
    });
    assert_eq!(request(&model, &live), Verdict::Tx);
    assert!(model.has_interfered());
    assert_eq!(flow::word_of(live.record).state(), FlowState::Connecting);
    assert_eq!(answer(&model, &live, next), Verdict::Tx);
    assert_eq!(flow::word_of(live.record).state(), FlowState::Established);
}

#[test]
fn a_hold_is_left_unlocked_when_the_service_is_gone() {
    let mut model = shop();
    let live = unkept(&model);
    let held = hold::claim(&model, live.reference, u64::MAX, model.now()).unwrap();
    let number = held.number;
    held.unlock(&model);
    model.service = None;
    let scratch = unsafe { &mut *model.scratch().unwrap() };
    (scratch.flow, scratch.hold, scratch.again) = (live.reference, number, again::REFUSED);
    assert_eq!(run(&model), Verdict::Drop);
    assert!(hold::lock(&model, number, live.reference).is_some());
}

#[test]
fn what_follows_the_request_waits_until_that_is_written() {
    let model = shop();
    let (live, number) = kept(&model);
    let asked = live.word.with(FlowWord::ASKED).0;
    // The flow is about to be established.
    model.interfere(Step::Exchange(asked), move |model| {
        assert_eq!(live.flow().hold, number, "the hold stays the flow's until the flow needs none");
        assert_eq!(body(model, &live), Verdict::Drop, "it does not overtake the request");
    });
    assert_eq!(answer(&model, &live, 0), Verdict::Tx);
    assert!(model.has_interfered());
    let (word, flow) = (flow::word_of(live.record), live.flow());
    assert_eq!((word.state(), flow.hold), (FlowState::Established, 0));
    assert!(model.frame().ends_with(REQUEST));
}

#[test]
fn what_waits_for_a_hold_that_is_given_back_meanwhile_goes_on() {
    let model = shop();
    let (live, _) = kept(&model);
    let unlocked = HoldWord::taken(live.reference.nonce()).0;
    // What follows the request has found the flow connecting, and is about to lock the hold.
    model.interfere(Step::Exchange(unlocked), move |model| {
        assert_eq!(answer(model, &live, 0), Verdict::Tx);
    });
    assert_eq!(body(&model, &live), Verdict::Tail, "the flow is found anew");
    assert!(model.has_interfered());
    assert_eq!(flow::word_of(live.record).state(), FlowState::Established);
    assert_eq!(body(&model, &live), Verdict::Tail, "as it is where the flow was established before");
}
