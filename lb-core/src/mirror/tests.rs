//! Both sides over a link that loses messages.

use super::*;
use crate::binding::{NodeId, Time};
use core::net::Ipv4Addr;
use core::time::Duration;
use lb_common::abi::{Addr, Be16, Flow, FlowKey, FlowState, FlowWord, Mac, SpliceFlags, VlanTags};
use std::collections::{BTreeMap, BTreeSet};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const AGE: Duration = Duration::from_secs(2);
const LIFETIMES: Lifetimes =
    Lifetimes { established: Duration::from_secs(400), closing: Duration::from_secs(40) };

/// A connection that is no spliced one.
pub(super) fn record(id: u64) -> Record {
    let at = |last, port| (Ipv4Addr::new(10, 0, 0, last).into(), port);
    Record {
        id,
        service: 7,
        server: 8,
        session: 9,
        is_closing: false,
        flags: 0,
        is_own: false,
        has_tags: false,
        idle: Duration::ZERO,
        client: at(1, 4_000 + id as u16),
        service_address: at(2, 80),
        backend: at(3, 8_080),
        source: at(4, id as u16),
        splice: None,
    }
}

/// Random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// An owner, a holder, and what lies between them.
struct Link {
    now: Time,
    mirror: Mirror,
    copies: Copies,
    flows: BTreeMap<u64, Record>,
    /// Of a thousand messages so many are lost.
    loss: u64,
    dice: Dice,
}

impl Link {
    fn new(room: usize) -> Self {
        let mut mirror = Mirror::new(LIFETIMES, 77);
        mirror.set_peers(&[B]);
        Self {
            now: Time(1_000_000),
            mirror,
            copies: Copies::new(LIFETIMES, room),
            flows: BTreeMap::new(),
            loss: 0,
            dice: Dice(1),
        }
    }

    fn round(&mut self) {
        self.mirror.begin();
        for record in self.flows.values() {
            self.mirror.see(self.now, &Seen { record: *record, age: AGE });
        }
        self.mirror.end();
        while let Some((to, bytes)) = self.mirror.poll_transmit() {
            assert_eq!(to, B);
            wire::examine(&bytes);
            if self.dice.below(1_000) < self.loss {
                continue;
            }
            let (answer, _) = self.copies.hear(self.now, A, &bytes).unwrap();
            if let Some(answer) = answer
                && self.dice.below(1_000) >= self.loss
            {
                let (_, is_again) = Copies::new(LIFETIMES, 0).hear(self.now, B, &answer).unwrap();
                assert!(is_again);
                self.mirror.restart(B, false);
            }
        }
        self.pass(500);
        self.copies.expire(self.now);
    }

    fn pass(&mut self, ms: u64) {
        self.now = Time(self.now.0 + ms);
    }

    fn held(&self) -> BTreeSet<u64> {
        self.copies.of(A, self.now, |_| true).iter().map(|record| record.id).collect()
    }
}

#[test]
fn a_flow_is_told_when_it_has_the_age_and_forgotten_with_its_end() {
    let mut link = Link::new(10);
    link.flows.insert(1, record(1));
    for _ in 0..4 {
        link.round();
        assert!(link.held().is_empty(), "it is too young");
    }
    link.round();
    assert_eq!(link.held(), BTreeSet::from([1]));
    assert!(link.copies.holding(A).is_whole && link.mirror.has_told_all(B));
    let sent = link.mirror.standing().sent;
    link.round();
    assert_eq!(link.mirror.standing().sent, sent, "nothing has changed");
    link.flows.clear();
    link.round();
    assert!(link.held().is_empty() && link.copies.is_empty());
}

#[test]
fn a_fin_is_told_at_once_and_uses_from_time_to_time() {
    let mut link = Link::new(10);
    link.flows.insert(1, record(1));
    (0..5).for_each(|_| link.round());
    let sent = |link: &Link| link.mirror.standing().sent;
    assert_eq!(sent(&link), 1);
    // Used all the time: it is told once in a quarter of its life.
    for _ in 0..(4 * 100 * 2) {
        link.round();
    }
    assert!((4..=5).contains(&sent(&link)), "{}", sent(&link));
    let before = sent(&link);
    let closing = Record { is_closing: true, flags: 1, ..record(1) };
    link.flows.insert(1, closing);
    link.round();
    assert_eq!(sent(&link), before + 1);
    assert!(link.copies.of(A, link.now, |record| record.is_closing).len() == 1);
}

#[test]
fn what_is_idle_dies_without_being_told() {
    let mut link = Link::new(10);
    link.flows.insert(1, record(1));
    (0..5).for_each(|_| link.round());
    link.pass(399_000 - 500);
    link.copies.expire(link.now);
    let idle = link.copies.of(A, link.now, |_| true)[0].idle;
    assert!(idle >= Duration::from_secs(398), "it is as idle as it is: {idle:?}");
    link.pass(2_000);
    assert!(link.copies.take(A, link.now, |_| true).is_empty());
    assert!(link.copies.is_empty());
}

#[test]
fn room_is_bounded_and_said_to_be_short() {
    let mut link = Link::new(10);
    link.flows.extend((0..15).map(|id| (id, record(id))));
    (0..5).for_each(|_| link.round());
    assert_eq!((link.held().len(), link.copies.counts().refused), (10, 5));
    // What another one holds leaves less room for this one.
    let walk = wire::Walk { is_first: true, ..wire::Walk::default() };
    assert_eq!(link.copies.handle(link.now, NodeId(3), &walk, &[record(1)], &[]), None);
    assert_eq!((link.copies.len(), link.copies.counts().refused), (10, 6));
    assert_eq!(link.copies.take(A, link.now, |record| record.id < 4).len(), 4);
    assert_eq!((link.copies.len(), link.copies.take(A, link.now, |_| true).len()), (6, 6));
    assert!(link.copies.is_empty());
}

#[test]
fn while_everything_is_told_anew_nothing_is_forgotten() {
    let mut link = Link::new(100);
    link.flows.extend((0..20).map(|id| (id, record(id))));
    (0..5).for_each(|_| link.round());
    // The connection is made anew in the middle of a round, and one flow ended meanwhile.
    link.flows.remove(&3);
    link.mirror.begin();
    for (n, record) in link.flows.values().enumerate() {
        if n == 10 {
            link.mirror.restart(B, true);
        }
        link.mirror.see(link.now, &Seen { record: *record, age: AGE });
    }
    link.mirror.end();
    while let Some((_, bytes)) = link.mirror.poll_transmit() {
        link.copies.hear(link.now, A, &bytes).unwrap();
    }
    assert_eq!(link.held().len(), 20, "half of a walk ends nothing");
    assert!(!link.copies.holding(A).is_whole && !link.mirror.has_told_all(B));
    link.round();
    assert_eq!(link.held(), link.flows.keys().copied().collect());
    assert!(link.copies.holding(A).is_whole);
    assert_eq!(link.mirror.standing().dropped, 1);
}

#[test]
fn whatever_is_lost_both_sides_agree_in_the_end() {
    for seed in 0..200 {
        let mut link = Link::new(10_000);
        (link.dice, link.loss) = (Dice(seed), 20 + seed * 3);
        let mut next = 0;
        for _ in 0..60 {
            for _ in 0..link.dice.below(8) {
                link.flows.insert(next, record(next));
                next += 1;
            }
            for _ in 0..link.dice.below(4) {
                let ended = link.dice.below(next + 1);
                link.flows.remove(&ended);
            }
            if link.dice.below(20) == 0 {
                link.mirror.set_peers(&[]);
                link.mirror.set_peers(&[B]);
            }
            link.round();
        }
        // Nothing happens any more; what was lost last is noticed all the same.
        link.loss = 0;
        (0..14).for_each(|_| link.round());
        let (held, wanted) = (link.held(), link.flows.keys().copied().collect());
        assert_eq!(held, wanted, "seed {seed}");
    }
}

/// A record whose backend answers to this address.
fn answered_to(id: u64, source: Ipv4Addr) -> Record {
    let record = record(id);
    Record { source: (source.into(), record.source.1), ..record }
}

#[test]
fn who_is_back_gets_what_backends_send_it_now() {
    let (own, client) = (Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 1));
    let flows = [answered_to(1, own), record(2), answered_to(3, client)];
    // What comes home, where the one that tells was its heir and where it was not.
    for (is_heir, expected) in [(true, vec![1, 3]), (false, vec![1])] {
        let mut link = Link::new(10);
        link.copies.configure(LIFETIMES, 10, &BTreeSet::from([own.into()]));
        link.flows.extend(flows.iter().map(|record| (record.id, *record)));
        // It is away, and they are of the age when it comes back.
        link.mirror.set_peers(&[]);
        if is_heir {
            link.mirror.inherit(B);
        }
        (0..5).for_each(|_| link.round());
        link.mirror.set_peers(&[B]);
        assert!(!link.copies.has_all(&[A]), "nothing has been told");
        link.round();
        assert_eq!(link.held(), BTreeSet::from([1, 2, 3]), "all of it is held");
        assert!(!link.copies.has_all(&[A]), "it has yet to be taken home");
        assert_eq!(taken_home(&mut link), expected);
        assert!(link.copies.has_all(&[A]) && !link.copies.has_all(&[A, NodeId(3)]));
        // Later it only inherits, as others do.
        link.round();
        assert!(link.mirror.inherited().is_empty() && link.copies.take_home(link.now).is_empty());
    }
}

#[test]
fn what_comes_home_comes_once_however_often_it_is_told() {
    let own = Ipv4Addr::new(10, 0, 0, 9);
    let mut link = Link::new(10);
    link.copies.configure(LIFETIMES, 10, &BTreeSet::from([own.into()]));
    link.flows.extend((1..=3).map(|id| (id, answered_to(id, own))));
    (0..5).for_each(|_| link.round());
    for _ in 0..5 {
        link.mirror.restart(B, false);
        link.round();
    }
    link.flows.remove(&2);
    link.round();
    assert_eq!(taken_home(&mut link), [1, 3], "once each, and not what is over");
    assert!(taken_home(&mut link).is_empty());
}

#[test]
fn an_heir_gets_a_third_nodes_flows_from_who_has_gone_on_with_them() {
    let gone = Ipv4Addr::new(10, 0, 0, 9);
    let of = |id| BTreeMap::from([(gone.into(), id)]);
    let mut link = Link::new(10);
    link.flows.extend([(1, answered_to(1, gone)), (2, record(2))]);
    (0..5).for_each(|_| link.round());
    assert!(taken_home(&mut link).is_empty());
    link.copies.expect(of(A));
    assert!(taken_home(&mut link).is_empty(), "nobody touches what a node has of its own");
    link.copies.expect(BTreeMap::new());
    // As soon as it is known who is gone, and also if that is known before it is told.
    for is_told_anew in [false, true] {
        link.copies.expect(of(NodeId(3)));
        if is_told_anew {
            link.mirror.restart(B, false);
            link.round();
        }
        assert!(!link.copies.has_all(&[A]), "it has yet to be taken home");
        assert_eq!(taken_home(&mut link), [1]);
        link.copies.expect(of(NodeId(3)));
        assert!(link.copies.has_all(&[A]), "nothing new is expected");
    }
    link.copies.expect(BTreeMap::new());
    link.mirror.restart(B, false);
    link.round();
    assert!(taken_home(&mut link).is_empty(), "another node is its heir now");
}

#[test]
fn what_began_while_all_were_there_stays_with_its_node() {
    let client = Ipv4Addr::new(10, 0, 0, 1);
    let mut link = Link::new(10);
    let begin = |link: &mut Link, id| {
        link.flows.insert(id, answered_to(id, client));
        link.round();
    };
    // From before the daemon was there, and while a node was away.
    begin(&mut link, 1);
    link.mirror.set_complete(link.now, true);
    begin(&mut link, 2);
    begin(&mut link, 3);
    link.pass(10_000);
    begin(&mut link, 4);
    // It was missed late: who began last may have gone to it, had it been there.
    link.pass(6_000);
    link.mirror.set_complete(link.now, false);
    link.mirror.inherit(B);
    begin(&mut link, 5);
    link.pass(2_000);
    link.mirror.set_complete(link.now, true);
    begin(&mut link, 6);
    link.mirror.set_peers(&[B]);
    link.round();
    assert_eq!(link.held(), (1..=5).collect(), "all of the age are held");
    assert_eq!(taken_home(&mut link), [1, 2, 4, 5], "all but what is another's without doubt");
}

/// What comes home, by its ids.
fn taken_home(link: &mut Link) -> Vec<u64> {
    let mut home: Vec<u64> = link.copies.take_home(link.now).iter().map(|record| record.id).collect();
    home.sort_unstable();
    home
}

#[test]
fn a_dead_node_is_owed_until_it_is_back_and_has_been_told_all() {
    let mut mirror = Mirror::new(LIFETIMES, 1);
    mirror.set_peers(&[A, B]);
    mirror.begin();
    mirror.end();
    // As long as it is thought to be there, it has been told all; dead, it has not.
    mirror.inherit(B);
    for _ in 0..3 {
        mirror.begin();
        mirror.end();
        assert!(mirror.inherited().contains(&B) && !mirror.has_told_all(B));
    }
    mirror.set_peers(&[A, B]);
    mirror.begin();
    assert!(mirror.inherited().contains(&B));
    mirror.end();
    mirror.begin();
    assert!(mirror.inherited().is_empty() && mirror.has_told_all(B));
    // Or nobody waits any longer.
    mirror.inherit(A);
    mirror.give_back(A);
    assert!(mirror.inherited().is_empty());
}

#[test]
fn a_flow_is_the_same_at_another_place() {
    let key = |a: u8, b: u8, from: u16, to: u16| {
        let address = |last| Addr::from(Ipv4Addr::new(10, 0, 0, last));
        FlowKey::new(&address(a), &address(b), Be16::new(from), Be16::new(to), 6)
    };
    let word = FlowWord::new(5, FlowState::Closing).with(FlowWord::SPLICED | FlowWord::FIN_SERVER);
    let flow = Flow {
        word: word.with(FlowWord::BOUND | FlowWord::ASKED | FlowWord::COUNTED).0,
        last_seen: 1_000_000_000,
        client: key(1, 2, 4_000, 80),
        server: key(3, 4, 8_080, 31_000),
        session: 11,
        service: 12,
        service_slot: 1,
        backend: 2,
        backend_generation: 3,
        client_mac: Mac([1; 6]),
        local_mac: Mac([2; 6]),
        client_mtu: 1_400,
        ifindex: 6,
        tags: VlanTags { outer: [Be16::new(0x8100), Be16::new(7)], ..VlanTags::default() },
        answer: 99,
        isn: 98,
        start: 97,
        hold: 0,
        client_scale: 7,
        server_scale: 15,
        splice: SpliceFlags::SACK | SpliceFlags::INSPECT,
        window: 50,
        guessed: 51,
        syn: 52,
    };
    let told = Record::of(&flow, 88, 3_000_000_000).unwrap();
    assert!(told.has_source_nat() && told.has_tags);
    let mut bytes = Vec::new();
    let told = Record { is_own: true, ..told };
    wire::put_record(&told, &mut bytes);
    let walk = wire::Walk { number: 1, sequence: 2, is_first: false, is_last: true, is_heir: true };
    let read = wire::parse(&wire::flows(&walk, &bytes, &[4, 5])).unwrap();
    assert_eq!(read, wire::Message::Flows { walk, records: vec![told], ends: vec![4, 5] });
    let place = Place {
        service_slot: 21,
        backend: 22,
        generation: 23,
        ifindex: 24,
        client_mac: Mac([3; 6]),
        local_mac: Mac([4; 6]),
        mtu: 1_300,
        tags: VlanTags::default(),
        is_counted: true,
    };
    let kept = FlowWord(flow.word).without(FlowWord::ASKED).0 & 0xffff_ffff;
    let expected = Flow {
        word: kept,
        last_seen: 2_000_000_000,
        service_slot: 21,
        backend: 22,
        backend_generation: 23,
        client_mac: Mac([3; 6]),
        local_mac: Mac([4; 6]),
        client_mtu: 1_300,
        ifindex: 24,
        tags: VlanTags::default(),
        window: 0,
        guessed: 0,
        syn: 0,
        ..flow
    };
    assert_eq!(told.flow(&place), expected);
}

#[test]
fn what_cannot_go_on_elsewhere_is_not_told() {
    let flow = |word: FlowWord, protocol| Flow {
        word: word.0,
        client: FlowKey { protocol, ..FlowKey::default() },
        ..Flow::default()
    };
    let told = |word, protocol| Record::of(&flow(word, protocol), 1, 0).is_some();
    assert!(told(FlowWord::new(1, FlowState::Established), 6));
    assert!(!told(FlowWord::new(1, FlowState::Established).with(FlowWord::DATAGRAM), 17));
    for state in [FlowState::Opening, FlowState::Collecting, FlowState::Releasing, FlowState::Closed] {
        assert!(!told(FlowWord::new(1, state), 6), "{state:?}");
    }
}

#[test]
fn what_is_cut_short_is_refused() {
    let spliced =
        record::Splice { answer: 1, isn: 2, start: 3, client_scale: 4, server_scale: 15, readers: 6 };
    let mut bytes = Vec::new();
    wire::put_record(&Record { flags: 8, splice: Some(spliced), ..record(1) }, &mut bytes);
    let walk = wire::Walk { is_first: true, ..wire::Walk::default() };
    let message = wire::flows(&walk, &bytes, &[1]);
    assert!(wire::parse(&message).is_ok() && wire::is_about(&message));
    for end in 0..message.len() {
        // Fields that are missing altogether are no fault but for the walk's.
        if let Ok(wire::Message::Flows { records, ends, .. }) = wire::parse(&message[..end]) {
            assert!(records.is_empty() || ends.is_empty());
        }
    }
    for len in 0..bytes.len() - 1 {
        let mut cut = bytes[..=len].to_vec();
        cut[0] = len as u8;
        assert!(wire::parse(&wire::flows(&walk, &cut, &[])).is_err(), "{len}");
    }
    for at in 0..message.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut other = message.clone();
            other[at] = byte;
            wire::examine(&other);
        }
    }
}
