//! The fuzz targets' committed corpus goes through what they check, without a fuzzer.

#[path = "../../fuzz/src/affinity.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod affinity;
#[path = "../../fuzz/src/quic.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call the same functions")]
mod quic;

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Replays the inputs of a target, each cut and changed a little as well.
fn replay(target: &str, check: fn(&[u8])) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in directory.read_dir().with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let input = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        println!("{}", path.display());
        check(&input);
        for place in 0..input.len() {
            check(&input[..place]);
            for byte in [0, b'\n', b';', b'=', b'"', 0xff] {
                let mut other = input.clone();
                other[place] = byte;
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
    replay("request", affinity::request)
}

#[test]
fn responses() -> Result<()> {
    replay("response", affinity::response)
}

#[test]
fn segments() -> Result<()> {
    replay("segment", affinity::segment)
}

#[test]
fn quic_packets() -> Result<()> {
    replay("quic", quic::quic)
}

#[test]
fn pairs() -> Result<()> {
    replay("pair", affinity::pair)
}
