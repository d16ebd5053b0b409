//! Numbers of backends in timestamps: what the switch is told of them, and what it keeps.

use super::switch::{Switch, until};
use super::{Standing, link, settled, want};
use crate::dataplane::p4::row::{Content, Key, Table};
use crate::dataplane::p4::{P4, SwitchSpec};
use crate::dataplane::{DataPlane as _, Sizes};
use lb_common::abi::{
    ARENA_CHUNK, ArenaChunk, Backend, Be16, Mode, Service, ServiceFlags, ServiceKey, Status,
};
use lb_core::stamp;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SIZES: Sizes = Sizes { bindings: 64, flows: 64, arena: 2, holds: 0 };
const HOUR: u32 = 3_600_000;

/// What clocks say.
type Clocks = Arc<Mutex<HashMap<SocketAddr, u32>>>;

/// A service with two backends, the way the reconciler writes it.
struct Rig {
    plane: P4,
    clocks: Clocks,
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, n], 8_080))
}

impl Rig {
    fn start(switch: &Switch) -> Self {
        let spec = SwitchSpec {
            address: switch.address.to_string(),
            device: 0,
            election: 1,
            ports: BTreeMap::new(),
            cpu_port: None,
            routes: Vec::new(),
            offload: false,
        };
        let clocks = Clocks::default();
        let seen = Arc::clone(&clocks);
        let plane = P4::open(&spec, SIZES).expect("a thread");
        let mut plane = plane.telling_time(move |address| seen.lock().expect("whole").get(&address).copied());
        let vip = IpAddr::from([10, 99, 0, 1]);
        let service = Service {
            id: 77,
            mode: Mode::Nat as u8,
            flags: ServiceFlags::STAMPED,
            table_mask: 255,
            members: 256,
            member_count: 2,
            prefix_v4: 32,
            prefix_v6: 64,
            ..Service::default()
        };
        for n in 0..2_u8 {
            let backend = Backend {
                address: address(n).ip().into(),
                number: u64::from(n) + 1,
                service: 77,
                port: Be16::new(8_080),
                ..Backend::default()
            };
            plane.put_backend(n.into(), &backend).expect("room");
        }
        let mut slots = [0; ARENA_CHUNK];
        slots.iter_mut().zip(0..).for_each(|(slot, place)| *slot = place % 2);
        plane.put_arena(0, &[ArenaChunk(slots), ArenaChunk(slots)]).expect("room");
        let mut rig = Self { plane, clocks };
        rig.say([Status::Up, Status::Up]);
        let key = ServiceKey::service(vip.into(), Be16::new(80), 6);
        rig.plane.put_service(&key, &service).expect("a switch can do this");
        rig
    }

    fn say(&mut self, status: [Status; 2]) {
        let word = status[1].set(status[0].set(0, 0), 1);
        self.plane.put_status(0, word).expect("there is that word");
    }

    fn set(&self, n: u8, ahead: u32) {
        self.clocks.lock().expect("whole").insert(address(n), ahead);
    }

    fn settle(&mut self) {
        // What it was told has to have come to it first.
        self.plane.events(100).expect("no trouble");
        let plane = std::sync::Mutex::new(&mut self.plane);
        until("the switch has what it should", || {
            let mut plane = plane.lock().expect("whole");
            plane.events(100).expect("no trouble");
            plane.standing() == Standing::Settled
        });
    }
}

/// Number, stamp and whether it serves, of each backend on the switch.
fn marks(switch: &Switch) -> HashMap<[u128; 2], (u128, u128, u128)> {
    let mark = |(key, row): (Key, Content)| {
        ([row.values[1], row.values[2]], (key.fields[1], row.values[0], row.values[3]))
    };
    switch.rows(Table::Marks).into_iter().map(mark).collect()
}

fn owners(switch: &Switch) -> usize {
    let rows = switch.rows(Table::Arena);
    rows.values().map(|row| row.values.clone()).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn p4_a_backend_gets_traffic_when_its_clock_is_known() {
    let switch = Switch::start();
    let mut rig = Rig::start(&switch);
    rig.settle();
    let count = |table| switch.rows(table).len();
    assert_eq!(
        [count(Table::Services), count(Table::Replies), count(Table::Status), count(Table::Arena)],
        [1, 0, 0, 0]
    );
    rig.set(1, 0u32.wrapping_sub(HOUR));
    rig.settle();
    assert_eq!(
        [count(Table::Marks), count(Table::Stamps), count(Table::Status), owners(&switch)],
        [1, 1, 1, 1]
    );
    rig.set(0, 5);
    rig.settle();
    assert_eq!(
        [count(Table::Marks), count(Table::Stamps), count(Table::Status), owners(&switch)],
        [2, 2, 2, 2]
    );

    // What they say is what a timestamp of that backend needs.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_millis() as u32;
    let all = marks(&switch);
    let numbers: Vec<u128> = all.values().map(|(number, ..)| *number).collect();
    for (number, stamp, serves) in all.values() {
        let others = |ahead: u32| {
            let sent = now.wrapping_add(ahead).wrapping_add(u32::try_from(*stamp).expect("32 bits"));
            u128::from(stamp::number(sent, now))
        };
        assert!(others(5) == *number || others(0u32.wrapping_sub(HOUR)) == *number, "{numbers:?}");
        assert_eq!(*serves, 1);
    }
    for (tag, (_, stamp, _)) in &all {
        assert_eq!(switch.rows(Table::Stamps)[&Key::exact(Table::Stamps, *tag)], Content::of([*stamp]));
    }
    let time = switch.rows(Table::Clock)[&Key::exact(Table::Clock, [])].values[0];
    let behind = now.wrapping_sub(u32::try_from(time).expect("32 bits"));
    assert!(behind < 2 << 16, "the switch is told a time {behind} ms ago");

    // One that serves nobody is not led to, and what comes back is given back as it was.
    rig.say([Status::Up, Status::Down]);
    rig.settle();
    assert_eq!(count(Table::Status), 1);
    let serving: u128 = marks(&switch).values().map(|(.., serves)| serves).sum();
    assert_eq!((serving, count(Table::Stamps)), (1, 2));
}

#[test]
fn p4_who_comes_after_keeps_the_marks_that_connections_have() {
    let switch = Switch::start();
    let mut first = Rig::start(&switch);
    (0..2).for_each(|n| first.set(n, 7 * HOUR));
    first.settle();
    let before = marks(&switch);
    assert_eq!(before.len(), 2);
    drop(first);

    // It knows no clock yet: nothing is written but what cannot be read back.
    switch.state().updates = 0;
    let mut second = Rig::start(&switch);
    second.settle();
    assert_eq!(marks(&switch), before);
    assert!(switch.state().updates <= 3, "{} updates", switch.state().updates);
    // A clock a little off, as if each had seen it on another side of a step.
    second.set(0, 7 * HOUR + 600_000);
    second.settle();
    assert_eq!(marks(&switch), before);
    // A host that has started again.
    second.set(1, 9 * HOUR);
    second.settle();
    let after = marks(&switch);
    let changed = before.iter().filter(|(tag, mark)| after[*tag] != **mark).count();
    assert_eq!(changed, 1);
    let numbers = |marks: &HashMap<[u128; 2], (u128, u128, u128)>| {
        marks.iter().map(|(tag, mark)| (*tag, mark.0)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(numbers(&after), numbers(&before));
}

#[test]
fn p4_nothing_is_written_before_marks_that_were_found_are_taken() {
    let switch = Switch::start();
    {
        let link = link(&switch, 1);
        want(&link, super::rows());
        settled(&link);
    }
    switch.put(&Key::exact(Table::Marks, [4, 9]), &Content::of([0x0900_0001, 2, 3, 1]));
    switch.state().updates = 0;
    let link = link(&switch, 1);
    want(&link, super::rows());
    let taken = std::cell::OnceCell::new();
    until("they are read", || link.marks().is_some_and(|marks| taken.set(marks).is_ok()));
    let found = taken.into_inner().expect("they are there");
    assert!(
        matches!(found[..], [mark] if (mark.number, mark.stamp, mark.backend.slot) == (9, 0x0900_0001, 2))
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(link.marks().is_none());
    assert_eq!((switch.state().updates, link.standing()), (0, Standing::Behind));
    want(&link, super::rows());
    settled(&link);
    assert!(switch.rows(Table::Marks).is_empty());
}
