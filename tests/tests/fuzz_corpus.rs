//! The fuzz targets' committed corpus goes through what they check, without a fuzzer.

#[path = "../../fuzz/src/affinity.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod affinity;
#[path = "../../fuzz/src/quic.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod quic;
#[path = "../../fuzz/src/replication.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod replication;
#[path = "../../fuzz/src/segments.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod segments;
#[path = "../../fuzz/src/syncookie.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod syncookie;
#[path = "../../fuzz/src/translation.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod translation;

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// What bytes become that mean something in heads.
const HEADS: [u8; 6] = [0, b'\n', b';', b'=', b'"', 0xff];

/// Replays the inputs of a target, each cut and with other bytes as well.
fn replay(target: &str, bytes: &[u8], check: fn(&[u8])) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in directory.read_dir().with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let input = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        println!("{}", path.display());
        check(&input);
        for place in 0..input.len() {
            check(&input[..place]);
            for byte in bytes {
                let mut other = input.clone();
                other[place] = *byte;
                check(&other);
            }
        }
        inputs += 1;
    }
    ensure!(inputs > 0, "{} is empty", directory.display());
    Ok(())
}

#[test]
fn requests() -> Result<()> {
    replay("request", &HEADS, affinity::request)
}

#[test]
fn responses() -> Result<()> {
    replay("response", &HEADS, affinity::response)
}

#[test]
fn segments() -> Result<()> {
    replay("segment", &HEADS, affinity::segment)
}

#[test]
fn quic_packets() -> Result<()> {
    replay("quic", &HEADS, quic::quic)
}

#[test]
fn messages_of_nodes() -> Result<()> {
    replay("message", &[0, 1, 0xff], replication::message)
}

#[test]
fn connections_of_nodes() -> Result<()> {
    replay("connections", &[0, 1, 0xff], replication::connections)
}

#[test]
fn values_of_journals() -> Result<()> {
    replay("journal_values", &[0, 1, 0xff], replication::journal_values)
}

#[test]
fn damaged_journals() -> Result<()> {
    replay("journal_file", &[0xff], replication::journal_file)
}

#[test]
fn pairs() -> Result<()> {
    replay("pair", &HEADS, affinity::pair)
}

#[test]
fn syn_cookies() -> Result<()> {
    replay("syn_cookie", &[0, 0xff], syncookie::syn_cookie)
}

#[test]
fn translations() -> Result<()> {
    replay("translation", &[0, 0xff], translation::translation)
}
