//! The fixture corpus through the compiled programs, by `BPF_PROG_TEST_RUN`; needs root.

use anyhow::Result;
use stickleback_tests::corpus::{AREAS, Kernel, run_area};

macro_rules! areas {
    ($($area:ident)*) => {
        $(#[test]
        fn $area() -> Result<()> {
            run_area(&mut Kernel::new()?, stringify!($area))
        })*

        #[test]
        fn every_area_has_a_test() {
            assert_eq!(AREAS, [$(stringify!($area)),*]);
        }
    };
}

areas! {
    parse vlan service affinity choice bindings limits l2 ipip gue nat snat natlife icmp icmpnat fragments answers
    quic quicnat payload greet collect scan reading
    connect splice around learn
}
