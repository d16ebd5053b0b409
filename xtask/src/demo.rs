//! `cargo xtask demo`: real requests to real web servers through the balancer, watched live.

mod clients;
mod load;
mod report;
mod view;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::progress::{Step, say};
use crate::sandbox::{self, Sandbox};
use crate::{build, interrupt, setup};
use clients::Crowd;
use load::Load;
use report::Report;
use view::{Sample, View};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object at the end and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Leave the sandbox up afterwards
    #[arg(long)]
    keep: bool,
    /// How long requests are sent
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=3600))]
    seconds: u64,
}

/// Runs the command.
pub(crate) fn task(arguments: &Arguments) -> Result<()> {
    interrupt::catch()?;
    setup::for_namespaces()?;
    let product = build::product()?;
    interrupt::check()?;
    let step = Step::begin("making the sandbox: a client, a balancer, three web servers");
    let mut sandbox = Sandbox::up(&product, None)?;
    step.done();
    let report = drive(&sandbox, Duration::from_secs(arguments.seconds))?;
    if arguments.keep {
        sandbox.keep();
    } else {
        let step = Step::begin("removing the sandbox");
        sandbox.down()?;
        step.done();
    }
    if arguments.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
        if arguments.keep {
            sandbox::explain();
        }
    }
    report.verdict()
}

/// Sends requests for a while and watches what becomes of them.
fn drive(sandbox: &Sandbox, time: Duration) -> Result<Report> {
    say(&format!("{} clients send requests for {} s", clients::count(), time.as_secs()));
    let before = Sample::take(sandbox)?;
    let begun = Instant::now();
    let crowd = Crowd::start()?;
    let mut view = View::new(time);
    let mut load = None;
    while begun.elapsed() < time {
        thread::sleep(Duration::from_millis(500));
        if interrupt::pending() {
            view.finish();
            crowd.stop();
            bail!("interrupted");
        }
        // A quiet third first, so that the table shows single clients; then all that the machine gives.
        let left = time.saturating_sub(begun.elapsed());
        if load.is_none() && begun.elapsed() > time / 3 && left >= Duration::from_secs(1) {
            load = Some(Load::start(left)?);
        }
        view.show(begun.elapsed(), &Sample::take(sandbox)?, &crowd.tally());
    }
    let load = load.map(Load::finish).transpose()?;
    let tally = crowd.stop();
    let seconds = begun.elapsed().as_secs_f64();
    let after = Sample::take(sandbox)?;
    view.finish();
    Ok(Report::new(seconds, &before, &after, &tally, load))
}
