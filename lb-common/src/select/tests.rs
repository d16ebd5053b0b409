use super::{PROBES, Probes, Table, choose, order};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A table in the open: slots and members as they are.
#[derive(Clone, Debug)]
struct Open {
    slots: Vec<u16>,
    members: Vec<u16>,
}

impl Table for Open {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.slots.get(slot as usize).copied()
    }

    fn member(&self, place: u32) -> Option<u16> {
        self.members.get(place as usize).copied()
    }

    fn mask(&self) -> u32 {
        (self.slots.len() as u32).saturating_sub(1)
    }

    fn member_count(&self) -> u32 {
        self.members.len() as u32
    }
}

/// 256 slots of members 10, 11, ... in turn, and a last member that owns none.
fn open(count: u16) -> Open {
    let members: Vec<u16> = (10..=10 + count).collect();
    Open { slots: (0..256).map(|slot| members[slot % usize::from(count)]).collect(), members }
}

#[test]
fn the_order_is_probes_then_the_walk_from_a_hashed_start() {
    let table = open(5);
    let probes = Probes::new(77);
    let sequence: Vec<u16> = order(&table, 77).collect();
    let (probed, walked) = sequence.split_at(PROBES as usize);
    for (i, &backend) in (0..).zip(probed) {
        assert_eq!(backend, table.slots[(probes.value(i) % 256) as usize]);
    }
    let start = (probes.value(PROBES) % 6) as usize;
    assert_eq!(walked, [&table.members[start..], &table.members[..start]].concat());
}

#[test]
fn a_member_without_slots_is_found_by_the_walk() {
    let table = open(5);
    assert!((0..100).all(|session| choose(&table, session, |backend| backend == 15) == Some(15)));
}

#[test]
fn nobody_takes_it() {
    assert_eq!(choose(&open(3), 1, |_| false), None);
    // Slots without members are another service's.
    assert_eq!(choose(&Open { members: Vec::new(), ..open(3) }, 1, |_| true), None);
}

#[test]
fn a_table_that_cannot_be_read_leaves_the_walk() {
    let table = Open { slots: Vec::new(), ..open(3) };
    let found: BTreeSet<u16> = order(&table, 5).collect();
    assert_eq!(found, (10..=13).collect());
}

#[test]
fn probes_of_one_key_differ_by_the_same_amounts_for_every_key() {
    // CRC-32 is linear: what a switch makes use of, and why tables must not be regular.
    let apart =
        |key: u64| (1..=PROBES).map(|i| Probes::new(key).value(i) ^ Probes::new(key).value(0)).collect();
    let first: Vec<u32> = apart(0);
    assert!([1, 77, u64::MAX].into_iter().all(|key| apart(key) == first));
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), PROBES as usize);
}

#[test]
fn neighbouring_keys_meet_all_slots_alike() {
    // A linear function meets every value equally often, or some never: with 3 bits more in the keys than in
    // the slots, none is left out.
    for bits in 8..=16 {
        let mut met = vec![0; 1 << bits];
        for low in 0..1_u64 << (bits + 3) {
            let slot = Probes::new(0x0a00_0000 + low).value(0) as usize & (met.len() - 1);
            met[slot] += 1;
        }
        assert!(met.iter().all(|&met| met == 8), "{bits} bits");
    }
}

proptest! {
    #[test]
    fn the_order_covers_all_members(session in any::<u64>(), count in 1_u16..300) {
        let table = open(count);
        let found: BTreeSet<u16> = order(&table, session).collect();
        prop_assert_eq!(found, table.members.iter().copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn whoever_is_down_moves_only_its_own_sessions(
        session in any::<u64>(),
        count in 2_u16..50,
        down in proptest::collection::btree_set(10_u16..60, 0..20),
    ) {
        let table = open(count);
        let before = choose(&table, session, |_| true);
        let after = choose(&table, session, |backend| !down.contains(&backend));
        prop_assert!(after.is_none_or(|backend| !down.contains(&backend)));
        if before.is_some_and(|backend| !down.contains(&backend)) {
            prop_assert_eq!(before, after);
        }
        let alive = table.members.iter().any(|backend| !down.contains(backend));
        prop_assert_eq!(after.is_some(), alive);
    }
}
