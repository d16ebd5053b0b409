//! `lbctl drain --wait`: how much is left, and about how long it will take.

use super::CliError;
use super::args::BackendName;
use super::table::span;
use crate::admin::client::{Client, encode};
use crate::admin::row::LoadRow;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long sessions that are moved may not get fewer: those that are left have nowhere to go.
const STUCK: Duration = Duration::from_secs(5);
/// How far back the estimate looks.
const MEMORY: usize = 60;

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Nothing is left.
    Drained,
    /// The deadline came first.
    Late,
}

/// Waits until a backend that drains has nothing left to do, or its deadline has come: by the clock of `lbd`, which moves the sessions
/// then.
pub(super) async fn wait(client: &Client, name: &BackendName) -> Result<End, CliError> {
    let path = format!("/v1/backends/{}/{}/load", encode(&name.service), encode(&name.backend));
    let begun = Instant::now();
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let (mut most, mut pace) = (0, Pace::default());
    let (mut least, mut fewer, mut was_moving) = (u64::MAX, begun, false);
    loop {
        let left: LoadRow = client.get(&path).await?;
        if !left.draining {
            bar.abandon_with_message("it was told something else");
            let (service, backend) = (name.service.clone(), name.backend.clone());
            return Err(CliError::Overruled { service, backend });
        }
        let sum = left.sessions + left.flows;
        most = most.max(sum);
        if left.moving_per_second.is_some() != was_moving {
            // From here on it goes at another pace.
            (pace, was_moving) = (Pace::default(), left.moving_per_second.is_some());
        }
        pace.note(begun.elapsed(), sum);
        bar.set_length(most);
        bar.set_position(most - sum);
        // A part of a second says nothing of the pace.
        let is_young = left.moving_per_second.is_some() && pace.0.len() < 4;
        let estimate = if is_young { at_most(left) } else { pace.estimate() };
        bar.set_message(message(left, estimate));
        let is_late = left.moving_per_second.is_some();
        if sum == 0 && !is_late {
            bar.finish_with_message("nothing is left");
            return Ok(End::Drained);
        }
        if left.sessions < least || left.moving_per_second.is_none() {
            (least, fewer) = (left.sessions, Instant::now());
        }
        // Connections end by themselves or not; sessions that are being moved are waited for.
        let is_moving = left.moving_per_second.is_some() && left.sessions > 0 && fewer.elapsed() < STUCK;
        if is_late && !is_moving {
            bar.abandon_with_message(match sum {
                0 => "the deadline has come, and nothing is left",
                _ => "the deadline has come: what is left is cut off",
            });
            return Ok(End::Late);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn message(left: LoadRow, estimate: Option<Duration>) -> String {
    let rest = match estimate {
        Some(rest) => format!("about {}", span(rest.as_secs().max(1))),
        None => "no end in sight yet".to_owned(),
    };
    let moving = match left.moving_per_second {
        Some(rate) => format!("; the deadline has come, at most {rate} sessions a second are moved"),
        None => String::new(),
    };
    format!("{} sessions and {} connections left, {rest}{moving}", left.sessions, left.flows)
}

/// How long sessions take that are moved as fast as they may.
fn at_most(left: LoadRow) -> Option<Duration> {
    let rate = left.moving_per_second.filter(|rate| *rate > 0)?;
    Duration::try_from_secs_f64(left.sessions as f64 / f64::from(rate)).ok()
}

/// What was left when, for the latest looks.
#[derive(Default)]
struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    fn note(&mut self, at: Duration, left: u64) {
        if self.0.len() == MEMORY {
            self.0.pop_front();
        }
        self.0.push_back((at, left));
    }

    /// How long it takes if it goes on like this; `None` while nothing goes away.
    fn estimate(&self) -> Option<Duration> {
        let ((from, before), (to, left)) = (self.0.front()?, self.0.back()?);
        let gone = before.checked_sub(*left).filter(|&gone| gone > 0)?;
        let seconds = (*to - *from).as_secs_f64() * *left as f64 / gone as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_what_the_latest_looks_say() {
        let mut pace = Pace::default();
        assert_eq!(pace.estimate(), None);
        pace.note(Duration::ZERO, 1_000);
        pace.note(Duration::from_secs(1), 1_000);
        assert_eq!(pace.estimate(), None);
        pace.note(Duration::from_secs(10), 900);
        assert_eq!(pace.estimate(), Some(Duration::from_secs(90)));
        // Faster from now on: the slow looks are forgotten.
        (0..60).for_each(|second| pace.note(Duration::from_secs(11 + second), 800 - 10 * second));
        assert_eq!(pace.estimate(), Some(Duration::from_secs(21)));
    }
}
