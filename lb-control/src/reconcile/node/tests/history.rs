//! Any history of configurations, failures and ways.

use super::*;

fn any_affinity() -> impl Strategy<Value = AffinitySpec> {
    prop_oneof![
        3 => Just(AffinitySpec::SourceIp { v4: 32, v6: 64 }),
        2 => Just(cookie(Reading::Bind)),
        2 => Just(cookie(Reading::Route)),
        1 => Just(cookie(Reading::Pair)),
        2 => (1..3_u8).prop_map(quic),
        1 => Just(AffinitySpec::Payload(PayloadSpec {
            offset: 1,
            mask: vec![0xff; 4],
            fallback: Fallback::SourceIp { v4: 24, v6: 48 },
        })),
    ]
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let backends = proptest::collection::btree_map(1..8_u64, 0..4_u32, 0..5);
    let mode = prop_oneof![Just(Mode::Nat), Just(Mode::L2), Just(Mode::Ipip)];
    let paths = proptest::collection::btree_map(1..4_u8, backends.clone(), 0..3);
    let of_one = (mode, backends, 0..3_u16, any_affinity(), paths);
    let services = proptest::collection::btree_map(1..7_u32, of_one, 0..4);
    (services, any::<bool>(), 0..2_u32).prop_map(|(services, two, larger)| {
        let mut state = desired(Vec::new());
        let list = |backends: BTreeMap<u64, u32>| {
            backends.into_iter().map(|(number, weight)| backend(number, weight)).collect::<Vec<_>>()
        };
        for (id, (mode, backends, port, affinity, paths)) in services {
            let mut spec = service(id, mode, list(backends));
            if affinity.cookie().is_some() {
                spec.paths = paths.into_iter().map(|(n, backends)| path(id, n, list(backends))).collect();
            }
            spec.affinity = affinity;
            spec.port = 80 + id as u16 * 4 + port;
            state.services.push(spec);
        }
        if two {
            state.node.interfaces.push("eth1".into());
        }
        state.node.bindings <<= larger;
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_history_of_failures_ends_where_a_clean_application_does(
        states in proptest::collection::vec((any_desired(), 0..60_u32, any::<u64>(), any::<bool>(), 1..8_u8), 1..7),
    ) {
        let plane = Shared::new();
        let mut node = node(&plane);
        let mut ways = BTreeSet::new();
        for (state, per_mille, seed, late, host) in &states {
            plane.lock().set_faults(Faults { per_mille: *per_mille, seed: *seed, late: *late, ..Faults::default() });
            node.hop(HopChange { address: Ipv4Addr::new(10, 1, 0, *host).into(), hop: Some(way(*host)) });
            ways.insert(*host);
            node.follow_world();
            // Refused or not: the last one counts.
            drop(node.apply(state.clone()));
            drop(node.repair());
            drop(node.audit());
        }
        plane.lock().set_faults(Faults::default());
        node.repair().expect("nothing disturbs any more");
        node.audit().expect("nothing disturbs any more");
        let last = node.applied().map(|applied| applied.desired.clone());
        if let Some(last) = last {
            let ways: Vec<u8> = ways.iter().copied().collect();
            let (found, wanted) = (meaning(&plane), clean(&last, &ways));
            prop_assert_eq!(&found.services, &wanted.services);
            prop_assert_eq!(found.attached, wanted.attached);
            prop_assert_eq!((found.owners, found.statuses_set), (wanted.owners, wanted.statuses_set));
            prop_assert_eq!(found.secrets, wanted.secrets);
            prop_assert_eq!((found.affinities, &found.marks), (wanted.affinities, &wanted.marks));
            prop_assert_eq!(found.quic, wanted.quic);
            prop_assert_eq!(plane.lock().inner().mark_count(), found.marks.len());
            let (found, wanted) = (recovery_settings(found.settings), recovery_settings(wanted.settings));
            prop_assert_eq!(found, wanted);
        }
        let (last, ..) = states.last().expect("at least one");
        node.apply(last.clone()).expect("nothing disturbs any more");
        let ways: Vec<u8> = ways.into_iter().collect();
        prop_assert_eq!(&meaning(&plane).services, &clean(last, &ways).services);
    }
}

/// Tunnel sources stay as they were last needed, and sizes follow the last change that was accepted.
fn recovery_settings(settings: Settings) -> Settings {
    Settings { tunnel_v4: Addr::NONE, tunnel_v6: Addr::NONE, ..settings }
}
