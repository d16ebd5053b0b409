//! Pinned maps as older versions made them.

use crate::sandbox::{SIZES, Sandbox, bindings};
use lb_common::abi::{BindingWord, FlowState, FlowWord, SCHEMA_VERSION, map};
use lb_control::dataplane::DataPlane as _;
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of the `bpf` system call.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
/// Kinds of maps.
const HASH: u32 = 1;
const ARRAY: u32 = 2;

/// The system call with its arguments as words.
fn bpf<const N: usize>(command: libc::c_long, mut words: [u64; N]) -> i64 {
    // SAFETY: the arguments stand in `words`, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), N * 8) };
    assert!(result >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    result
}

fn create(kind: u32, key: usize, value: usize, entries: u32) -> OwnedFd {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let map = bpf(MAP_CREATE, [pair(kind, key as u32), pair(value as u32, entries)]);
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(map as i32) }
}

fn put(map: &OwnedFd, key: &[u8], value: &[u8]) {
    bpf(MAP_UPDATE, [map.as_raw_fd() as u64, key.as_ptr() as u64, value.as_ptr() as u64, 0]);
}

/// Pins a map in the place of another one.
fn pin(map: &OwnedFd, path: &Path) {
    let _ = fs::remove_file(path);
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    bpf(OBJ_PIN, [path.as_ptr() as u64, map.as_raw_fd() as u64]);
}

/// The only value of a pinned array.
fn value_of(path: &Path, size: usize) -> Vec<u8> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: just opened, and nobody else's.
    let map = unsafe { OwnedFd::from_raw_fd(bpf(OBJ_GET, [path.as_ptr() as u64, 0]) as i32) };
    let mut value = vec![0; size];
    bpf(MAP_LOOKUP, [map.as_raw_fd() as u64, [0_u32].as_ptr() as u64, value.as_mut_ptr() as u64, 0]);
    value
}

/// What tells an older version's maps from others.
struct Older {
    version: u32,
    /// Sizes of values.
    settings: usize,
    flow: usize,
    /// Of the records that waited for backends; `None` = it had none.
    hold: Option<usize>,
    /// Maps that it did not have yet.
    missing: &'static [&'static str],
}

const V1: Older = Older {
    version: 1,
    settings: 144,
    flow: 144,
    hold: None,
    missing: &[
        map::AFFINITIES,
        map::SERVERS,
        map::PATHS,
        map::QUIC,
        map::SECRETS,
        map::HOLDS,
        map::VITALS,
        map::CHOICES,
    ],
};
const V2: Older =
    Older { version: 2, settings: 168, flow: 160, hold: Some(4_224), missing: &[map::VITALS, map::CHOICES] };

/// Turns the maps of an empty sandbox into those of an older version, with such bindings: a key of session, service and
/// zeros, and a value of word, expiry, place in a ring of keys, and tag.
fn make(older: &Older, maps: &Path, sessions: impl Iterator<Item = (u64, BindingWord, u64)>) {
    let table = create(HASH, 16, 24, SIZES.bindings);
    let ring = create(ARRAY, 4, 16, SIZES.bindings + SIZES.bindings / 4);
    for (place, (session, word, expires)) in (0_u32..).zip(sessions) {
        let key = [session.to_ne_bytes(), 9_u64.to_ne_bytes()].concat();
        let value = [word.0.to_ne_bytes(), expires.to_ne_bytes(), u64::from(place).to_ne_bytes()].concat();
        put(&table, &key, &value);
        put(&ring, &place.to_ne_bytes(), &key);
    }
    pin(&table, &maps.join(map::BINDINGS));
    pin(&ring, &maps.join("BINDING_RING"));
    let mut settings = value_of(&maps.join(map::SETTINGS), size_of::<lb_common::abi::Settings>());
    settings[..4].copy_from_slice(&older.version.to_ne_bytes());
    let node = create(ARRAY, 4, older.settings, 1);
    put(&node, &[0; 4], &settings[..older.settings]);
    pin(&node, &maps.join(map::SETTINGS));
    for newer in older.missing {
        fs::remove_file(maps.join(newer)).expect("removed");
    }
    if let Some(hold) = older.hold {
        pin(&create(ARRAY, 4, hold, 64), &maps.join(map::HOLDS));
    }
    // This one is established, and used just now.
    let flows = create(ARRAY, 4, older.flow, SIZES.flow_records());
    let mut flow = vec![0; older.flow];
    flow[..8].copy_from_slice(&FlowWord::new(77, FlowState::Established).0.to_ne_bytes());
    flow[8..16].copy_from_slice(&monotonic().to_ne_bytes());
    flow[96..104].copy_from_slice(&0x5e55_u64.to_ne_bytes());
    put(&flows, &(SIZES.half_open() + 3).to_ne_bytes(), &flow);
    pin(&flows, &maps.join(map::FLOWS));
}

/// Now, by the clock of the programs.
fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000
}

#[test]
fn bindings_of_version_1_are_bound_in_this_one() {
    are_bound_in_this_one(&V1);
}

#[test]
fn bindings_of_version_2_are_bound_in_this_one() {
    are_bound_in_this_one(&V2);
}

fn are_bound_in_this_one(older: &Older) {
    let sandbox = Sandbox::new();
    drop(sandbox.open(SIZES));
    let now = monotonic();
    let flags =
        |session: u64| if session.is_multiple_of(2) { BindingWord::PINNED } else { BindingWord::UNSYNCED };
    let word = |session: u64| BindingWord::new(session as u16, 7, session as u32).with(flags(session));
    let live = (1..=400).map(|session| (session, word(session), now + session * 1_000_000_000_000));
    let over = (401..=450).map(|session| (session, word(session), now - 1));
    make(older, &sandbox.root.join("maps"), live.chain(over));

    let mut plane = sandbox.open(SIZES);
    let settings = plane.settings().expect("read");
    assert_eq!(settings.schema, SCHEMA_VERSION);
    assert_ne!(settings.seed, 0);
    let page = plane.bindings(None, 1 << 20).expect("read");
    assert_eq!((bindings(&mut plane).len(), page.rows.len(), page.next), (400, 400, None));
    for (key, binding) in page.rows {
        assert_eq!(key.service, 9);
        assert_eq!(BindingWord(binding.word), word(key.session));
        assert!(binding.expires.abs_diff(now + key.session * 1_000_000_000_000) < 5_000_000_000);
        assert_eq!(plane.binding(&key).expect("read"), Some(binding));
    }
    assert_eq!(plane.usage().expect("read").bindings, 400);
    let flows = plane.flows(None, 1 << 20).expect("read").rows;
    assert_eq!(flows.iter().map(|flow| flow.session).collect::<Vec<_>>(), [0x5e55]);
    assert!(!sandbox.root.join("maps/BINDING_RING").exists());
}
