//! The fixture corpus through `lb_common` on the host.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use stickleback_tests::corpus::{AREAS, Area, Host, run_area};

macro_rules! areas {
    ($($area:ident)*) => {
        $(#[test]
        fn $area() -> Result<()> {
            run_area(&mut Host::default(), stringify!($area))
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
    connect splice around learn secrets peers method
}

/// On veth interfaces frames cannot grow: what is appended behind XDP makes the same frames.
#[test]
fn frames_that_cannot_grow() -> Result<()> {
    for area in AREAS {
        let mut host = Host::default();
        host.cannot_grow(true);
        run_area(&mut host, area)?;
    }
    Ok(())
}

#[test]
fn the_corpus_is_what_the_encoder_makes() -> Result<()> {
    // Debian installs scapy for its own interpreter.
    let python =
        if std::path::Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let generator = Area::directory().join("generate.py");
    let output = Command::new(python).arg(&generator).arg("--check").output().context("running python3")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.success(),
        "{} --check failed (is python3-scapy installed? `cargo xtask setup` does it):\n{said}",
        generator.display()
    );
    Ok(())
}

#[test]
fn the_corpus_is_large_and_names_are_unique() -> Result<()> {
    let mut names = Vec::new();
    for area in AREAS {
        names.extend(Area::read(area)?.cases.into_iter().map(|case| format!("{area}/{}", case.name)));
    }
    let count = names.len();
    ensure!(count >= 1_700, "only {count} cases");
    names.sort();
    names.dedup();
    ensure!(names.len() == count, "some names are there twice");
    Ok(())
}
