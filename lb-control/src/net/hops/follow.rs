//! The task that follows: a session on netlink sockets, made anew when it breaks.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};

use super::HopChange;
use super::events::{Event, Events};
use super::kernel::{self, Kernel};
use super::tracker::Tracker;
use super::view::NextHop;

/// Reports come in bursts; the first of one is acted on after this long.
const SETTLE: Duration = Duration::from_millis(10);
/// Routes are asked for anew this often in any case: learned path MTUs change without a report.
const REFRESH: Duration = Duration::from_secs(30);
/// Wait before a broken session is made anew.
const RECONNECT: Duration = Duration::from_millis(500);
/// Route queries or neighbour requests made before events are looked at again.
const BATCH: usize = 256;
/// Questions under way at once.
const PARALLEL: usize = 16;

/// Follows until one end of the channels is gone.
pub(super) async fn run(mut targets: watch::Receiver<BTreeSet<IpAddr>>, changes: mpsc::Sender<HopChange>) {
    let mut tracker = Tracker::default();
    loop {
        match session(&mut tracker, &mut targets, &changes).await {
            Ok(Ended) => return,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot follow routes and neighbours; trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            () = changes.closed() => return,
        }
    }
}

/// The owner has dropped its side.
struct Ended;

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("cannot subscribe to netlink events")]
    Subscribe(#[source] io::Error),
    #[error("cannot read netlink events")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

async fn session(
    tracker: &mut Tracker,
    targets: &mut watch::Receiver<BTreeSet<IpAddr>>,
    changes: &mpsc::Sender<HopChange>,
) -> Result<Ended, Broken> {
    // Subscribed before the first dump, so that nothing falls between them.
    let mut events = Events::subscribe().map_err(Broken::Subscribe)?;
    let kernel = Kernel::connect()?;
    tracker.resync(kernel.view().await?, Instant::now());
    tracker.targets_are(&targets.borrow_and_update());

    let mut settle_at = tracker.is_unsettled().then(Instant::now);
    let mut refresh_at = Instant::now() + REFRESH;
    loop {
        let wake = match settle_at {
            Some(settle) => settle,
            None => tracker.next_ask().map_or(refresh_at, |ask| ask.min(refresh_at)),
        };
        tokio::select! {
            batch = events.next() => {
                let now = Instant::now();
                for event in batch.map_err(Broken::Read)? {
                    if event == Event::Overrun {
                        tracing::debug!("netlink events were lost; reading everything anew");
                    }
                    tracker.event(event, now);
                }
            }
            changed = targets.changed() => {
                if changed.is_err() {
                    return Ok(Ended);
                }
                tracker.targets_are(&targets.borrow_and_update());
            }
            permit = changes.reserve(), if tracker.has_change() => {
                let Ok(permit) = permit else { return Ok(Ended) };
                if let Some(change) = tracker.poll_change() {
                    tracing::debug!(?change, "way changed");
                    permit.send(change);
                }
            }
            () = changes.closed() => return Ok(Ended),
            () = tokio::time::sleep_until(wake.into()) => {
                let now = Instant::now();
                if settle_at.take().is_some() {
                    settle(tracker, &kernel).await?;
                    settle_at = tracker.is_unsettled().then(Instant::now);
                }
                ask(tracker, &kernel).await?;
                if now >= refresh_at {
                    tracker.reroute_all();
                    refresh_at = now + REFRESH;
                }
            }
        }
        if settle_at.is_none() && tracker.is_unsettled() {
            settle_at = Some(Instant::now() + SETTLE);
        }
    }
}

/// Asks for routes and works out what was touched.
async fn settle(tracker: &mut Tracker, kernel: &Kernel) -> Result<(), Broken> {
    if tracker.needs_resync() {
        tracker.resync(kernel.view().await?, Instant::now());
    }
    let mut answers = stream::iter(tracker.unrouted(BATCH))
        .map(|target| async move { (target, kernel.route(target).await) })
        .buffer_unordered(PARALLEL);
    while let Some((target, route)) = answers.next().await {
        tracker.route_is(target, route?);
    }
    tracker.settle(Instant::now());
    Ok(())
}

/// Makes the neighbour requests that are due.
async fn ask(tracker: &mut Tracker, kernel: &Kernel) -> Result<(), Broken> {
    for _ in 0..BATCH {
        let Some(hop) = tracker.poll_ask(Instant::now()) else { break };
        refused(hop, kernel.resolve(hop).await)?;
    }
    while let Some(hop) = tracker.poll_release() {
        refused(hop, kernel.release(hop).await)?;
    }
    Ok(())
}

/// A request that the kernel refuses is said and repeated when it is due; a broken connection ends the session.
fn refused(hop: NextHop, answer: Result<(), kernel::Error>) -> Result<(), Broken> {
    let NextHop { interface, address } = hop;
    match answer {
        Ok(()) => Ok(()),
        Err(kernel::Error::Refused(error)) => {
            let advice = match error.raw_os_error() {
                Some(libc::EPERM) => "CAP_NET_ADMIN is needed",
                Some(libc::ENOBUFS) => "raise net.ipv4.neigh.default.gc_thresh3 and its IPv6 counterpart",
                _ => "it will be asked again",
            };
            tracing::warn!(%address, interface, %error, advice, "the kernel does not resolve a neighbour");
            Ok(())
        }
        Err(error @ (kernel::Error::Open(_) | kernel::Error::Lost | kernel::Error::Silent)) => {
            Err(error.into())
        }
    }
}
