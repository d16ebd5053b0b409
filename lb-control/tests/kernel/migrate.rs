//! Changes of table sizes and schemas: what was bound and open stays so.

use crate::sandbox::{SIZES, Sandbox, Wire, bindings, mac};
use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::abi::{
    Addr, ArenaChunk, Backend, Be16, BindingKey, BindingOp, BindingRecord, BindingWord, Flow, FlowKey,
    FlowRef, FlowState, FlowWord, Hand, Outcome, RECORDS_PER_RUN, RecordResult, SCHEMA_VERSION, Service,
    ServiceKey, Settings, SettingsFlags, SweepRequest, Vitals, hand, map,
};
use lb_control::dataplane::{
    DataPlane, Sizes,
    xdp::{Options, Schema, Xdp},
};
use std::{
    collections::HashSet,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// One hour, in nanoseconds.
const LONG: u64 = 3_600_000_000_000;

pub(crate) fn record(session: u64, op: BindingOp) -> BindingRecord {
    let word = BindingWord::new(session as u16, 1, 3).0;
    BindingRecord { session, word, lifetime: LONG, service: 9, op: op as u8, pad: 0, home: 0 }
}

pub(crate) fn bind(plane: &mut dyn DataPlane, sessions: impl Iterator<Item = u64>) {
    let records: Vec<BindingRecord> = sessions.map(|session| record(session, BindingOp::Put)).collect();
    let results = plane.apply_bindings(&records).expect("the program runs");
    assert!(
        results.iter().all(|result| *result == RecordResult::Applied),
        "{:?}",
        HashSet::from([results.len()])
    );
}

fn pinned_array<V: aya::Pod>(directory: &Path, name: &str) -> Array<MapData, V> {
    let data = MapData::from_pin(directory.join(name)).expect("pinned");
    Map::from_map_data(data).and_then(Array::try_from).expect("an array")
}

fn pinned_hash<K: aya::Pod, V: aya::Pod>(directory: &Path, name: &str) -> HashMap<MapData, K, V> {
    let data = MapData::from_pin(directory.join(name)).expect("pinned");
    Map::from_map_data(data).and_then(HashMap::try_from).expect("a hash map")
}

fn flow(number: u16, state: FlowState) -> Flow {
    let client = Addr::from(Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8));
    let (vip, backend) = (Addr::from(Ipv4Addr::new(10, 99, 0, 1)), Addr::from(Ipv4Addr::new(10, 2, 0, 1)));
    let key = |source, destination, source_port, destination_port| FlowKey {
        source,
        destination,
        source_port: Be16::new(source_port),
        destination_port: Be16::new(destination_port),
        protocol: 6,
        pad: [0; 3],
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Flow {
        word: FlowWord::new(u32::from(number) + 1, state).0,
        last_seen: now.tv_sec as u64 * 1_000_000_000 + u64::from(number),
        client: key(client, vip, 40_000, 80),
        server: key(backend, client, 8_080, 40_000),
        session: number.into(),
        service: 9,
        ..Flow::default()
    }
}

fn put_flow(maps: &Path, index: u32, flow: &Flow) {
    pinned_array::<Flow>(maps, map::FLOWS).set(index, flow, 0).expect("written");
    let mut keys = pinned_hash::<FlowKey, u64>(maps, map::FLOW_INDEX);
    let nonce = FlowWord(flow.word).nonce();
    keys.insert(flow.client, FlowRef::new(index, nonce, false).0, 0).expect("written");
    keys.insert(flow.server, FlowRef::new(index, nonce, true).0, 0).expect("written");
}

/// The record that a key leads to.
fn find_flow(maps: &Path, key: &FlowKey) -> Option<(u32, Flow)> {
    let reference = FlowRef(pinned_hash::<FlowKey, u64>(maps, map::FLOW_INDEX).get(key, 0).ok()?);
    let record: Flow = pinned_array(maps, map::FLOWS).get(&reference.index(), 0).expect("inside");
    (FlowWord(record.word).nonce() == reference.nonce()).then_some((reference.index(), record))
}

#[test]
fn bindings_and_flows_move_into_larger_tables() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    bind(&mut plane, 1..=3_000);
    let before = bindings(&mut plane);
    let key = ServiceKey::service(Addr::from(Ipv4Addr::new(10, 99, 0, 1)), Be16::new(80), 6);
    plane.put_service(&key, &Service { id: 9, ..Service::default() }).expect("written");
    plane.put_arena(3, &[ArenaChunk([5; 256])]).expect("written");
    let half_open = flow(1, FlowState::Answered);
    let open: Vec<Flow> = (2..500).map(|number| flow(number, FlowState::Established)).collect();
    put_flow(&maps, 7, &half_open);
    for (place, flow) in open.iter().enumerate() {
        put_flow(&maps, SIZES.half_open() + 2 * place as u32, flow);
    }

    let larger = Sizes { bindings: 8_192, flows: 4_096, arena: 512, holds: 128 };
    let migration = plane.resize(&larger).expect("resized");
    assert_eq!((migration.bindings, migration.bindings_left_out), (3_000, 0));
    assert_eq!((migration.flows, migration.flows_left_out), (499, 0));
    assert_eq!(plane.sizes(), larger);
    assert_eq!(bindings(&mut plane), before);
    assert_eq!(plane.services().expect("read").len(), 1);
    assert_eq!(plane.arena(3, 1).expect("read"), [ArenaChunk([5; 256])]);
    assert_eq!(plane.arena(511, 1).expect("read"), [ArenaChunk([0; 256])]);
    let settings = plane.settings().expect("read");
    assert_eq!(settings.flags & SettingsFlags::MIGRATING, 0);
    assert_eq!((settings.binding_capacity, settings.flows), (8_192, 4_096));
    for old in open.iter().chain([&half_open]) {
        for key in [old.client, old.server] {
            let (index, found) = find_flow(&maps, &key).expect("the flow is still found");
            assert_eq!(found, *old);
            assert_eq!(index < larger.half_open(), FlowWord(old.word).state() == FlowState::Answered);
        }
    }
    assert_eq!(plane.flows(None, 100_000).expect("read").rows.len(), 499, "reserved records were given back");
    // The new table works as any: what was copied is found by generation.
    let again = plane.apply_bindings(&[record(17, BindingOp::Delete)]).expect("runs");
    assert_eq!(again, [RecordResult::Applied]);
    assert!(!sandbox.root.join("next").exists());
}

#[test]
fn connections_whose_requests_waited_leave_a_trace() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    let states = [FlowState::Collecting, FlowState::Connecting, FlowState::Releasing];
    let waiting: Vec<Flow> = (1..)
        .zip(states)
        .map(|(number, state)| {
            let flow = flow(number, state);
            let word = FlowWord(flow.word).with(FlowWord::SPLICED).0;
            Flow { word, hold: 40, backend: 3, isn: 77, ..flow }
        })
        .collect();
    for (place, flow) in waiting.iter().enumerate() {
        put_flow(&maps, SIZES.half_open() + 2 * place as u32, flow);
    }
    let migration = plane.resize(&Sizes { flows: 4_096, ..SIZES }).expect("resized");
    assert_eq!(migration.flows, 0, "what waits in holds is not copied");
    for old in &waiting {
        let (_, trace) = find_flow(&maps, &old.client).expect("the client's key leads to the trace");
        let word = FlowWord(trace.word);
        assert_eq!((word.state(), trace.isn, trace.hold), (FlowState::Collecting, 77, 0));
        assert!(word.has(FlowWord::SPLICED));
        // Only a connection that cannot begin anew is alive, so that its client's next segment is answered.
        assert_eq!(trace.last_seen != 0, FlowWord(old.word).state() == FlowState::Collecting);
        assert_eq!(find_flow(&maps, &old.server), None, "the backend's side is over");
    }
}

#[test]
fn tables_that_go_on_keep_their_hands() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    bind(&mut plane, 1..=700);
    let hand = |place| pinned_array::<Hand>(&maps, map::HANDS).get(&place, 0).expect("inside").value;
    let live = hand(hand::BINDINGS_LIVE);
    pinned_array::<Hand>(&maps, map::HANDS)
        .set(hand::FLOW, Hand { value: 345, ..Hand::default() }, 0)
        .expect("written");
    plane.resize(&Sizes { flows: 4_096, ..SIZES }).expect("resized");
    assert_eq!((hand(hand::BINDINGS_LIVE), live), (700, 700));
    assert_eq!(plane.usage().expect("read").bindings, 700);
    plane.resize(&Sizes { bindings: 8_192, flows: 4_096, ..SIZES }).expect("resized");
    assert_eq!(plane.usage().expect("read").bindings, 700);
    assert_eq!(hand(hand::FLOW), 345, "the flow table went on");
}

#[test]
fn a_change_of_sizes_leaves_no_marks() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let address = Addr::from(Ipv4Addr::new(10, 2, 0, 1));
    let backend = Backend { address, port: Be16::new(8_080), service: 9, ..Backend::default() };
    plane.put_backend(5, &backend).expect("written");
    let late = flow(3, FlowState::Established);
    put_flow(&sandbox.root.join("maps"), SIZES.half_open() + 1, &late);
    plane.resize(&Sizes { flows: 4_096, ..SIZES }).expect("resized");
    let index = pinned_hash::<FlowKey, u64>(&sandbox.root.join("maps"), map::FLOW_INDEX);
    let keys: HashSet<FlowKey> = index.keys().map(|key| key.expect("read")).collect();
    assert_eq!(keys, HashSet::from([late.client, late.server]));
}

/// A SYN-ACK from 10.2.0.1, port 8080, to 10.1.0.9, port 40000.
fn untranslated(to: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::from(to);
    frame.extend([2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    // No program looks at the checksums of what it does not change.
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 2, 0, 1, 10, 1, 0, 9]);
    frame.extend([0x1f, 0x90, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[test]
fn replies_without_a_flow_wait_while_tables_are_replaced() {
    let sandbox = Sandbox::new();
    sandbox.veth("t-mark0", "t-mark1");
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    plane.put_settings(&Settings { flags: SettingsFlags::NAT, ..Settings::default() }).expect("written");
    plane.attach("t-mark0").expect("attached");
    let wire = Wire::new("t-mark1");
    let mut met = |outcome: Outcome| {
        let before = plane.outcomes().expect("read")[outcome as usize];
        wire.send(&untranslated(mac("t-mark0")));
        let deadline = Instant::now() + Duration::from_secs(3);
        while plane.outcomes().expect("read")[outcome as usize] == before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        plane.outcomes().expect("read")[outcome as usize] - before
    };
    let mark = FlowKey::mark(Addr::from(Ipv4Addr::new(10, 2, 0, 1)), Be16::new(8_080));
    pinned_hash::<FlowKey, u64>(&maps, map::FLOW_INDEX).insert(mark, 0, 0).expect("written");
    assert_eq!(met(Outcome::NotOurs), 1, "a mark alone means nothing");
    let mut settings = pinned_array::<Settings>(&maps, map::SETTINGS);
    let now = settings.get(&0, 0).expect("read");
    let migrating = Settings { flags: now.flags | SettingsFlags::MIGRATING, ..now };
    settings.set(0, migrating, 0).expect("written");
    assert_eq!(met(Outcome::Migrating), 1);
    pinned_hash::<FlowKey, u64>(&maps, map::FLOW_INDEX).remove(&mark).expect("removed");
    assert_eq!(met(Outcome::NotOurs), 1, "not a backend's");
}

#[test]
fn programs_keep_no_services_at_hand_while_services_change() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let key = |last| ServiceKey::service(Addr::from(Ipv4Addr::new(10, 99, 0, last)), Be16::new(80), 6);
    let before = plane.settings().expect("read").version;
    assert_ne!(before, 0);
    for last in 1..=3 {
        plane.put_service(&key(last), &Service { id: 9, ..Service::default() }).expect("written");
        assert_eq!(plane.settings().expect("read").version, 0);
    }
    plane.delete_service(&key(2)).expect("removed");
    plane.sweep(&SweepRequest::default()).expect("runs");
    let after = plane.settings().expect("read").version;
    assert!(after > before, "{before} -> {after}");
    plane.sweep(&SweepRequest::default()).expect("runs");
    assert_eq!(plane.settings().expect("read").version, after);
}

#[test]
fn an_open_that_fails_leaves_no_directories() {
    let sandbox = Sandbox::new();
    let error = Xdp::open(sandbox.options(), Sizes { bindings: 1, ..SIZES }).err();
    assert!(error.is_some());
    assert!(!sandbox.root.exists());
}

#[test]
fn what_does_not_fit_a_smaller_table_is_counted() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    bind(&mut plane, 1..=1_000);
    for number in 0..200 {
        put_flow(&maps, SIZES.half_open() + u32::from(number), &flow(number, FlowState::Established));
    }
    let smaller = Sizes { bindings: 256, flows: 64, ..SIZES };
    let migration = plane.resize(&smaller).expect("resized");
    assert_eq!(migration.bindings + migration.bindings_left_out, 1_000);
    assert!(migration.bindings >= 200 && migration.bindings <= 256, "{migration:?}");
    assert_eq!(migration.flows + migration.flows_left_out, 200);
    assert!(migration.flows >= 56, "{migration:?}");
    assert!(find_flow(&maps, &flow(199, FlowState::Established).client).is_some(), "the one used last stays");
    assert!(find_flow(&maps, &flow(0, FlowState::Established).client).is_none());
}

#[test]
fn connections_that_are_not_carried_over_are_not_their_backends_any_more() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let maps = sandbox.root.join("maps");
    for slot in [5, 6] {
        plane
            .put_backend(slot, &Backend { service: 9, generation: 2, ..Backend::default() })
            .expect("written");
    }
    let counted = |number: u16, state, backend: u16| {
        let flow = flow(number, state);
        let word = FlowWord(flow.word).with(FlowWord::COUNTED).0;
        Flow { word, backend, backend_generation: 2, ..flow }
    };
    // Connections of one backend, more than there will be room for; requests of the other that wait for it; and one of a
    // former owner of its slot.
    for number in 0..200 {
        let flow = counted(number, FlowState::Established, 5);
        put_flow(&maps, SIZES.half_open() + u32::from(number), &flow);
    }
    for number in 200..203 {
        let flow = counted(number, FlowState::Connecting, 6);
        put_flow(&maps, SIZES.half_open() + u32::from(number), &flow);
    }
    let former = Flow { backend_generation: 1, ..counted(203, FlowState::Connecting, 6) };
    put_flow(&maps, SIZES.half_open() + 203, &former);
    let mut vitals = pinned_array::<Vitals>(&maps, map::VITALS);
    for (slot, connections) in [(5, 200), (6, 10)] {
        vitals.set(slot, Vitals { connections, accepted: 77, ..Vitals::default() }, 0).expect("written");
    }
    let migration = plane.resize(&Sizes { flows: 64, ..SIZES }).expect("resized");
    assert!(migration.flows < 200, "{migration:?}");
    let now = plane.vitals(&[5, 6]).expect("read");
    assert_eq!((now[0].connections, now[1].connections), (migration.flows, 7));
    assert_eq!(now[0].accepted, 77, "nothing else has changed");
    // A larger table loses none.
    let again = plane.resize(&SIZES).expect("resized");
    assert_eq!(again.flows, migration.flows);
    assert_eq!(plane.vitals(&[5]).expect("read")[0].connections, migration.flows);
}

#[test]
fn pinned_tables_of_other_sizes_are_migrated_at_the_start() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    bind(&mut plane, 1..=500);
    drop(plane);
    let (mut plane, migration) =
        Xdp::open(sandbox.options(), Sizes { bindings: 2_048, arena: 64, ..SIZES }).expect("opens");
    assert_eq!(migration.map(|migration| migration.bindings), Some(500));
    assert_eq!(plane.sizes(), Sizes { bindings: 2_048, ..SIZES }, "an arena with room enough stays");
    assert_eq!(bindings(&mut plane).len(), 500);
    drop(plane);
    assert_eq!(Xdp::open(sandbox.options(), Sizes { bindings: 2_048, ..SIZES }).expect("opens").1, None);
}

fn set_schema(maps: &Path, version: u32) {
    let mut settings = pinned_array::<Settings>(maps, map::SETTINGS);
    let old = settings.get(&0, 0).expect("read");
    settings.set(0, Settings { schema: version, ..old }, 0).expect("written");
}

#[test]
fn an_unknown_schema_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    bind(&mut plane, 1..=10);
    drop(plane);
    set_schema(&sandbox.root.join("maps"), 99);
    let error = Xdp::open(sandbox.options(), SIZES).err().expect("refused").to_string();
    assert!(error.contains("schema version 99") && error.contains("lbctl detach"), "{error}");
    set_schema(&sandbox.root.join("maps"), SCHEMA_VERSION);
    assert_eq!(bindings(&mut sandbox.open(SIZES)).len(), 10);
}

/// A schema like today's in which services had other ids.
static OLDER: [Schema; 2] = [
    Schema::CURRENT,
    Schema {
        version: 0,
        bindings: |key, value| {
            let bindings = (Schema::CURRENT.bindings)(key, value).into_iter();
            bindings.map(|(key, value)| (BindingKey::new(key.service + 100, key.session), value)).collect()
        },
        ..Schema::CURRENT
    },
];

#[test]
fn an_older_schema_is_read_by_its_own_decoders() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    bind(&mut plane, 1..=300);
    let old = flow(5, FlowState::Established);
    put_flow(&sandbox.root.join("maps"), SIZES.half_open() + 9, &old);
    drop(plane);
    set_schema(&sandbox.root.join("maps"), 0);
    let options = Options { schemas: &OLDER, ..sandbox.options() };
    let (mut plane, migration) = Xdp::open(options, SIZES).expect("opens");
    let migration = migration.expect("everything moved");
    assert_eq!((migration.bindings, migration.flows), (300, 1));
    assert!(bindings(&mut plane).iter().all(|(service, ..)| *service == 109));
    assert_eq!(plane.settings().expect("read").schema, SCHEMA_VERSION);
    assert!(find_flow(&sandbox.root.join("maps"), &old.server).is_some());
}

#[test]
fn a_migration_that_was_killed_is_completed_by_the_next_start() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let (maps, next) = (sandbox.root.join("maps"), sandbox.root.join("next"));
    bind(&mut plane, 1..=100);
    drop(plane);
    // What a kill between swap and last copy leaves: the old tables as `next`, with entries that came late.
    std::fs::rename(&maps, sandbox.root.join("old")).expect("renamed");
    let mut plane = sandbox.open(Sizes { bindings: 8_192, ..SIZES });
    bind(&mut plane, 1..=60);
    drop(plane);
    std::fs::rename(sandbox.root.join("old"), &next).expect("renamed");
    let late = flow(3, FlowState::Established);
    put_flow(&next, SIZES.half_open() + 1, &late);
    // The new programs opened this one themselves; the old tables have what it was before.
    let (ours, before) = (flow(4, FlowState::Established), flow(4, FlowState::Opening));
    put_flow(&maps, SIZES.half_open() + 2, &ours);
    put_flow(&next, 5, &Flow { word: FlowWord::new(900, FlowState::Opening).0, ..before });
    let reserved = Flow { word: FlowWord::new(u32::MAX, FlowState::Claimed).0, ..Flow::default() };
    pinned_array::<Flow>(&maps, map::FLOWS).set(SIZES.half_open() + 8, reserved, 0).expect("written");
    let mut settings = pinned_array::<Settings>(&maps, map::SETTINGS);
    let now = settings.get(&0, 0).expect("read");
    let flags = now.flags | SettingsFlags::MIGRATING;
    settings.set(0, Settings { flags, ..now }, 0).expect("written");

    let mut plane = sandbox.open(Sizes { bindings: 8_192, ..SIZES });
    assert_eq!(bindings(&mut plane).len(), 100);
    assert_eq!(find_flow(&maps, &late.client).map(|(_, flow)| flow), Some(late));
    for key in [ours.client, ours.server] {
        assert_eq!(find_flow(&maps, &key).map(|(_, flow)| flow), Some(ours));
    }
    assert_eq!(plane.settings().expect("read").flags & SettingsFlags::MIGRATING, 0);
    assert!(!next.exists());
}

#[test]
fn records_are_applied_by_generation_and_expired_bindings_are_swept() {
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(SIZES);
    let mut short = record(1, BindingOp::Put);
    short.lifetime = 1_000_000;
    let mut newer = record(2, BindingOp::Put);
    newer.word = BindingWord::new(8, 1, 4).0;
    let records =
        [short, record(2, BindingOp::Put), newer, record(2, BindingOp::Put), record(3, BindingOp::Delete)];
    let results = plane.apply_bindings(&records).expect("runs");
    assert_eq!(
        results,
        [
            RecordResult::Applied,
            RecordResult::Applied,
            RecordResult::Applied,
            RecordResult::Superseded,
            RecordResult::Absent
        ]
    );
    let many: Vec<BindingRecord> =
        (10..10 + 3 * RECORDS_PER_RUN as u64).map(|session| record(session, BindingOp::Put)).collect();
    assert_eq!(plane.apply_bindings(&many).expect("runs").len(), many.len());
    // Entries are reclaimed a second after their end.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let request = lb_common::abi::SweepRequest {
        target: lb_common::abi::SweepTarget::Bindings as u32,
        start: 0,
        count: SIZES.binding_slots(),
        pad: 0,
    };
    let report = plane.sweep(&request).expect("runs");
    assert_eq!((report.reclaimed, report.live), (1, 1 + many.len() as u32));
    assert_eq!(plane.binding(&BindingKey::new(9, 1)).expect("read"), None);
}
