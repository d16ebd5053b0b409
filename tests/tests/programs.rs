//! Every program passes the verifier, and stays far from its limit of a million instructions.
//!
//! Needs root.

use anyhow::{Context, Result, ensure};
use aya::{
    EbpfLoader,
    programs::{SchedClassifier, Xdp},
};
use lb_common::abi::{binding_buckets, program};
use std::path::PathBuf;

/// Verified instructions each program may take: about twice the most it took so far; the compiler's whims move it.
const BUDGET: [(&str, u32); 27] = [
    (program::ENTRY, 60_000),
    ("bind", 80_000),
    ("nat", 110_000),
    ("open", 30_000),
    ("establish", 200_000),
    ("icmp", 60_000),
    ("fragment", 140_000),
    ("answer", 10_000),
    ("greet", 200_000),
    ("collect", 350_000),
    ("read", 200_000),
    ("wait", 200_000),
    ("connect", 400_000),
    ("turn", 150_000),
    ("learn", 300_000),
    ("inspect", 300_000),
    ("quic", 180_000),
    ("ask", 10_000),
    ("visit", 100_000),
    ("pick", 80_000),
    ("inquire", 10_000),
    ("reply", 15_000),
    (program::SWEEP, 15_000),
    (program::APPLY, 12_000),
    (program::REBIND, 270_000),
    (program::ADOPT, 15_000),
    (program::FILL, 5_000),
];

fn object() -> Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/stickleback.bpf.o");
    ensure!(path.exists(), "{} is missing: run `cargo xtask build-ebpf` first", path.display());
    Ok(path)
}

#[test]
fn programs_verify_within_their_budget() -> Result<()> {
    // SAFETY: a call without arguments.
    ensure!(unsafe { libc::geteuid() } == 0, "loading programs needs root: run the tests as root");
    let mut object = EbpfLoader::new()
        .map_max_entries("BINDINGS", binding_buckets(1_024))
        .map_max_entries("FLOWS", 1_024)
        .map_max_entries("FLOW_INDEX", 2_048)
        .map_max_entries("HOLDS", 64)
        .load_file(object()?)?;
    let named: Vec<&str> = program::TAIL_CALLS.iter().map(|(_, name)| *name).collect();
    let others = [program::ENTRY, program::SWEEP, program::APPLY, program::REBIND, program::ADOPT];
    for name in named.iter().copied().chain(others) {
        let budget = BUDGET.iter().find(|(n, _)| *n == name).context("a program without a budget")?.1;
        let xdp: &mut Xdp =
            object.program_mut(name).with_context(|| format!("no program `{name}`"))?.try_into()?;
        xdp.load().with_context(|| format!("program `{name}`"))?;
        let took = xdp.info()?.verified_instruction_count().context("this kernel does not tell")?;
        println!("{name}: {took} verified instructions of {budget}");
        ensure!(took <= budget, "program `{name}` takes {took} verified instructions, more than {budget}");
    }
    let budget = BUDGET.iter().find(|(n, _)| *n == program::FILL).context("`fill` has no budget")?.1;
    let fill: &mut SchedClassifier = object.program_mut(program::FILL).context("no `fill`")?.try_into()?;
    fill.load().context("program `fill`")?;
    let took = fill.info()?.verified_instruction_count().context("this kernel does not tell")?;
    println!("{}: {took} verified instructions of {budget}", program::FILL);
    ensure!(took <= budget, "program `fill` takes {took} verified instructions, more than {budget}");
    Ok(())
}
