//! Interleaved rounds: every case beside its own floor, again and again, so that a slow moment of the
//! machine hits all of them alike.

use super::case::{Case, Subject};
use super::product::Product;
use super::rig::{Rig, Sample};
use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use std::io::{IsTerminal as _, Write as _};

/// Rounds of a full run; the medians are taken over them.
const ROUNDS: usize = 9;
/// Frames of a case in a round.
const FRAMES: u32 = 200_000;
/// Runs of the plain-mode cross-check.
const PLAIN_RUNS: u32 = 200_000;

/// What the rounds found about one case, in nanoseconds a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// Median time in wrapper and program.
    pub program: f64,
    /// Median of the floor's.
    pub floor: f64,
    /// Median over the rounds of program - floor of the same round.
    pub net: f64,
    /// Smallest program - smallest floor.
    pub net_min: f64,
    /// Median time from end to end, sending included.
    pub whole: f64,
    /// Plain repeat mode: program - floor.
    pub net_plain: f64,
}

/// Measures all cases.
pub fn run(rig: &mut Rig, product: Option<&Product>, cases: &[Case], quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames) = if quick { (3, FRAMES / 10) } else { (ROUNDS, FRAMES) };
    let floor = rig.testbed_program("floor_tx")?;
    let subjects =
        cases.iter().map(|case| subject(rig, product, case.subject)).collect::<Result<Vec<_>>>()?;
    let mut samples: Vec<Vec<(Sample, Sample)>> = vec![Vec::with_capacity(rounds); cases.len()];
    let progress = std::io::stderr().is_terminal();
    for round in 0..=rounds {
        for ((case, program), samples) in cases.iter().zip(&subjects).zip(&mut samples) {
            if progress {
                eprint!("\r\x1b[Kround {round}/{rounds}  {}", case.name);
                std::io::stderr().flush()?;
            }
            let measured = (
                rig.measure(&floor, case.template, frames)
                    .with_context(|| format!("floor of {}", case.name))?,
                rig.measure(program, case.template, frames).with_context(|| case.name.clone())?,
            );
            // Round 0 warms up.
            if round > 0 {
                samples.push(measured);
            }
        }
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    let mut outcomes = Vec::with_capacity(cases.len());
    for ((case, program), samples) in cases.iter().zip(&subjects).zip(samples) {
        let plain = |rig: &mut Rig, program: &ProgramFd| -> Result<f64> {
            let mut times = Vec::with_capacity(3);
            for _ in 0..3 {
                times.push(rig.measure_plain(program, case.template, PLAIN_RUNS / 4)?);
            }
            Ok(median(times))
        };
        let net_plain = plain(rig, program)? - plain(rig, &floor)?;
        let of = |f: fn(&(Sample, Sample)) -> f64| samples.iter().map(f).collect::<Vec<_>>();
        outcomes.push(Outcome {
            case: case.clone(),
            program: median(of(|s| s.1.program)),
            floor: median(of(|s| s.0.program)),
            net: median(of(|s| s.1.program - s.0.program)),
            net_min: least(&of(|s| s.1.program)) - least(&of(|s| s.0.program)),
            whole: median(of(|s| s.1.whole)),
            net_plain,
        });
    }
    Ok(outcomes)
}

fn subject(rig: &mut Rig, product: Option<&Product>, subject: Subject) -> Result<ProgramFd> {
    match subject {
        Subject::Drop => rig.testbed_program("floor_drop"),
        Subject::ReferenceOne => rig.testbed_program("reference_ipip"),
        Subject::ReferenceFull => rig.testbed_program("reference_full"),
        Subject::Product => product.context("the product is not loaded")?.entry(),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
