//! Constants of the P4 program, from the one source of names and numbers.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use lb_common::abi::{
    self, Affinity, DEFAULT_BINDINGS, DOORKEEPER_ENTRIES, FRAGMENT_ENTRIES, MAX_BACKENDS, MAX_SERVICES, Mode,
    Outcome, QUIC_ENTRIES, RATE_ENTRIES, SERVER_ENTRIES, VLAN_KEEP, VLAN_NONE, map, switch,
};

use crate::progress::say;
use crate::workspace;

/// Where the constants stand.
fn file() -> PathBuf {
    workspace::root().join("p4/shared/abi.p4")
}

/// Writes them.
pub(super) fn write() -> Result<()> {
    let file = file();
    fs::write(&file, constants()).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("written: {}", file.display()));
    Ok(())
}

/// The text of `p4/shared/abi.p4`.
fn constants() -> String {
    let mut text = String::from(
        "// Made by `cargo xtask p4 codegen` from lb-common::abi; a test fails when it is not what that would write.\n\
         #ifndef STICKLEBACK_ABI\n#define STICKLEBACK_ABI\n",
    );
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(
        "\n// Names of tables, counters and meters. A dot in front: the name stands alone, whatever control it is in.",
    );
    for name in [
        map::SETTINGS,
        map::SERVICES,
        switch::ANY_PORT,
        switch::ALONE,
        switch::VIPS,
        switch::REPLIES,
        switch::RETURNS,
        map::AFFINITIES,
        map::QUIC,
        map::SERVERS,
        map::BINDINGS,
        map::STATUS,
        map::ARENA,
        map::BACKENDS,
        switch::CLOCK,
        switch::STAMPS,
        switch::MARKS,
        switch::ROUTES,
        switch::SERVICE_PACKETS,
        switch::SERVICE_REPLIES,
        switch::SERVICE_CONNECTIONS,
        switch::BACKEND_PACKETS,
        switch::BACKEND_REPLIES,
        switch::BACKEND_CONNECTIONS,
        map::OUTCOMES,
        map::RATES,
        map::DOORKEEPER,
        map::FRAGMENTS,
        switch::WALL,
        switch::OFFLOADED,
        switch::TURNS,
        switch::EXPRESS,
    ] {
        line(&format!("#define NAME_{name} \".{name}\""));
    }
    line("\n// Sizes, unless the target has its own.\n#ifndef STICKLEBACK_SIZES");
    for (name, size) in [
        ("SERVICES", MAX_SERVICES),
        ("ANY_PORT", switch::ANY_PORT_ENTRIES),
        ("ALONE", MAX_SERVICES),
        ("VIPS", MAX_SERVICES),
        ("REPLIES", MAX_BACKENDS),
        ("RETURNS", MAX_SERVICES),
        ("AFFINITIES", MAX_SERVICES),
        ("QUIC", QUIC_ENTRIES),
        ("SERVERS", SERVER_ENTRIES),
        ("BINDINGS", DEFAULT_BINDINGS),
        ("ARENA", switch::ARENA_ENTRIES),
        ("BACKENDS", MAX_BACKENDS),
        ("ROUTES", switch::ROUTE_ENTRIES),
        ("STAMPS", MAX_BACKENDS),
        ("SERVICE_COUNTERS", RATE_ENTRIES),
        ("OUTCOMES", Outcome::COUNT),
        ("DOORKEEPER", DOORKEEPER_ENTRIES),
        ("FRAGMENTS", FRAGMENT_ENTRIES),
        ("OFFLOADED", switch::OFFLOADED_ENTRIES),
        ("TURNS", switch::TURN_ENTRIES),
    ] {
        line(&format!("#define SIZE_{name} {size}"));
    }
    line("#endif");
    line("\n// How packets get to backends; what names a session.");
    for (name, mode) in [("NAT", Mode::Nat), ("L2", Mode::L2), ("IPIP", Mode::Ipip)] {
        line(&format!("#define MODE_{name} {}", mode as u8));
    }
    for (name, affinity) in [
        ("NONE", Affinity::None),
        ("SOURCE_IP", Affinity::SourceIp),
        ("QUIC_CID", Affinity::QuicCid),
        ("PAYLOAD", Affinity::Payload),
    ] {
        line(&format!("#define AFFINITY_{name} {}", affinity as u8));
    }
    line(&format!("\n#define VLAN_KEEP {VLAN_KEEP}\n#define VLAN_NONE {VLAN_NONE}"));
    line(&format!("#define WINDOW {}\n#define NO_CPU_PORT {}", switch::WINDOW, switch::NO_CPU_PORT));
    line(&format!("#define STAMP_AGE {}", switch::STAMP_AGE));
    line(&format!("#define SCHEMA {}", abi::SCHEMA_VERSION));
    line("\n// What becomes of packets that are not forwarded.");
    for outcome in Outcome::ALL {
        let name = outcome.name().replace('-', "_").to_uppercase();
        line(&format!("#define OUTCOME_{name} {}", *outcome as u32));
    }
    let _ = writeln!(text, "#endif");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_abi() {
        let found = fs::read_to_string(file()).expect("p4/shared/abi.p4 can be read");
        assert!(found == constants(), "p4/shared/abi.p4 is stale: run `cargo xtask p4 codegen`");
    }
}
