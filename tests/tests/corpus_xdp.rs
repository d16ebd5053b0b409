//! The fixture corpus through the compiled programs, by `BPF_PROG_TEST_RUN`; needs root.

use anyhow::{Result, ensure};
use stickleback_tests::corpus::{AREAS, Kernel, run_area};

/// Loading the programs takes longer than running an area: several share them.
fn run(areas: &[&str]) -> Result<()> {
    let mut kernel = Kernel::new()?;
    let mut failed = Vec::new();
    for area in areas {
        if let Err(error) = run_area(&mut kernel, area) {
            failed.push(format!("{error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

macro_rules! areas {
    ($($name:ident: $($area:ident)*;)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            run(&[$(stringify!($area)),*])
        })*

        #[test]
        fn every_area_has_a_test() {
            assert_eq!(AREAS, [$($(stringify!($area)),*),*]);
        }
    };
}

areas! {
    parse_vlan_service_affinity_choice_bindings: parse vlan service affinity choice bindings;
    limits: limits;
    l2_ipip_gue_nat_snat_natlife: l2 ipip gue nat snat natlife;
    icmp_icmpnat_fragments_answers: icmp icmpnat fragments answers;
    quic_quicnat_payload: quic quicnat payload;
    greet_collect_scan_reading: greet collect scan reading;
    connect_splice_around_learn_secrets: connect splice around learn secrets;
    peers: peers;
    method: method;
}
