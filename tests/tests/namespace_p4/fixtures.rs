//! The fixture corpus through bmv2: what XDP does with a packet, the switch does, too.

mod long_connections;

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use stickleback_tests::corpus::{AREAS, Area, Case, Compared, Switch};
use stickleback_tests::topology::Topology;

/// Areas that are about what the switch leaves to XDP nodes.
const OTHER_AREAS: [(&str, &[&str]); 3] = [
    ("delayed binding, and every case ends as soon as its connection is one", &["scan", "reading"]),
    ("GUE and source NAT", &["gue", "snat"]),
    ("time, limits and load", &["natlife", "limits", "method"]),
];

/// Cases that end otherwise on a switch, as p4/README.md says: area, beginning of the name, why.
const OTHERWISE: [(&str, &str, &str); 24] = [
    ("nat", "mid-flow-", "a switch has no flows, so no packet is without one"),
    ("nat", "not-a-reply-", "replies are told by the port that they come from"),
    ("nat", "reply-too-big-", "replies go by the switch's routes"),
    ("nat", "back-where-it-came-from", "replies go by the switch's routes"),
    ("nat", "two-services-one-backend-port", "backends of two services are told and not written"),
    ("vlan", "nat-tags", "replies go by the switch's routes"),
    ("service", "removed-nat", "a switch has no flows that could outlive their service"),
    ("choice", "status-at-start", "all sixteen probes fail: the member list begins elsewhere"),
    ("choice", "members-walk", "all sixteen probes fail: the member list begins elsewhere"),
    ("bindings", "moved-stays", "lbd moves sessions, not the packet"),
    ("bindings", "moves-", "lbd moves sessions, not the packet"),
    ("bindings", "pinned-moves-when-down", "lbd moves sessions, not the packet"),
    ("bindings", "slot-reused", "lbd moves sessions, not the packet"),
    ("bindings", "generation-wraps", "lbd moves sessions, not the packet"),
    ("bindings", "dead-is-absent", "an entry of the switch is there or not"),
    ("quic", "slot-of-another", "lbd moves sessions, not the packet"),
    ("quicnat", "slot-of-another", "lbd moves sessions, not the packet"),
    ("quicnat", "fallback-by-source", "replies find no session: what is bound differs"),
    ("payload", "nat-one-socket-", "a switch has no flows"),
    (
        "icmpnat",
        "unknown-no-flow",
        "a switch has no flows, so an error about any port of a service is about one",
    ),
    ("icmpnat", "unknown-other-client", "a switch has no flows, so an error about any client is about one"),
    (
        "icmpnat",
        "not-about-ours",
        "a switch has no flows, so an error about any packet to a backend is about one",
    ),
    ("icmpnat", "dnat-v4-frame", "replies go by the switch's routes"),
    ("icmpnat", "dnat-v6-frame", "replies go by the switch's routes"),
];

fn left_out(area: &str, case: &Case) -> Option<&'static str> {
    let found = OTHERWISE.iter().find(|(of, begins, _)| *of == area && case.name.starts_with(begins));
    found.map(|(.., why)| *why)
}

fn run(areas: &[&str]) -> Result<()> {
    let topology = Topology::new()?;
    let mut switch = Switch::start(topology.directory())?;
    let mut failed = Vec::new();
    for area in areas {
        let area = Area::read(area)?;
        let (mut same, mut others) = (0, BTreeMap::<String, usize>::new());
        for case in &area.cases {
            if let Some(why) = left_out(&area.area, case) {
                *others.entry(why.to_owned()).or_default() += 1;
                continue;
            }
            match switch.compare(case, &area) {
                Ok(Compared::Ran(found)) if found.is_empty() => same += 1,
                Ok(Compared::Ran(found)) => failed.push(format!(
                    "{} {}: {}\n{}",
                    area.area,
                    case.name,
                    case.description,
                    found.join("\n")
                )),
                Ok(Compared::LeftOut(why)) => *others.entry(why).or_default() += 1,
                Err(error) => failed.push(format!("{} {}: {error:#}", area.area, case.name)),
            }
        }
        eprintln!("{}: {same} of {} cases as in XDP; left out: {others:?}", area.area, area.cases.len());
    }
    ensure!(failed.is_empty(), "{} cases failed\n{}", failed.len(), failed.join("\n\n"));
    Ok(())
}

macro_rules! areas {
    ($($name:ident: $($area:ident)*;)*) => {
        $(#[test]
        #[ignore = "needs bmv2: `cargo xtask test --p4`"]
        fn $name() -> Result<()> {
            run(&[$(stringify!($area)),*])
        })*

        #[test]
        fn every_area_has_a_test_or_a_reason() {
            let mut all = vec![$($(stringify!($area)),*),*];
            all.extend(long_connections::AREAS);
            all.extend(OTHER_AREAS.iter().flat_map(|(_, areas)| *areas));
            all.sort_unstable();
            let mut known = AREAS.to_vec();
            known.sort_unstable();
            assert_eq!(all, known);
        }
    };
}

areas! {
    namespace_p4_fixtures_of_reading: parse vlan service;
    namespace_p4_fixtures_of_fragments: fragments;
    namespace_p4_fixtures_of_sessions: affinity choice bindings;
    namespace_p4_fixtures_of_forwarding: l2 ipip nat answers;
    namespace_p4_fixtures_of_errors: icmp icmpnat;
    namespace_p4_fixtures_of_datagrams: quic quicnat payload;
}
