//! The main loop: signals, orders, and what changes by itself.

use super::complaint::Complaint;
use super::configuration::Source;
use super::health::Checks;
use super::inherit::Inheritance;
use super::notify;
use super::vips::Vips;
use crate::admin::error::{ApiError, ErrorBody, chain};
use crate::admin::{self, Facts, Order};
use crate::cluster::membership::Membership;
use crate::config::DaemonSpec;
use crate::dataplane::clock::since_1970;
use crate::reconcile::Handle;
use anyhow::{anyhow, bail};
use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

/// When secrets that could not be used are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// When it is looked again, at the latest, whether it is time for another secret.
const RENEWED: Duration = Duration::from_secs(60);

/// The signals that mean something.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they are noted.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Why the main loop ended.
pub(super) enum End {
    /// A signal.
    Asked,
    /// An administrator detached the data plane.
    Detached,
}

/// The main loop's own things.
pub(super) struct Supervisor {
    pub(super) source: Source,
    pub(super) daemon: DaemonSpec,
    pub(super) facts: watch::Sender<Facts>,
    pub(super) reconciler: Handle,
    pub(super) cluster: Membership,
    pub(super) inheritance: Inheritance,
    pub(super) vips: Mutex<Option<Vips>>,
    /// `None` = nobody is probed.
    pub(super) checks: Option<Checks>,
}

impl Supervisor {
    /// Obeys signals and orders, and follows what changes, until there is a reason to end.
    pub(super) async fn supervise(
        &self,
        signals: &mut Signals,
        orders: &mut mpsc::Receiver<Order>,
    ) -> anyhow::Result<End> {
        let mut reconciling = pin!(ended(&self.reconciler));
        let (mut ready, mut secrets) = (self.cluster.ready(), self.cluster.secrets());
        // They may have come after the configuration was applied.
        if secrets.borrow().is_some() {
            secrets.mark_changed();
        }
        let (mut retry, mut complaint) = (None, Complaint::default());
        let mut is_ready = *ready.borrow_and_update();
        notify::state(is_ready, "forwarding");
        loop {
            tokio::select! {
                Ok(()) = ready.changed() => {
                    let before = std::mem::replace(&mut is_ready, *ready.borrow_and_update());
                    if is_ready && !before {
                        info!("ready");
                        notify::state(is_ready, "forwarding");
                    }
                }
                Ok(()) = secrets.changed() => retry = self.renew_secrets(&mut complaint).await,
                () = until(retry) => retry = self.renew_secrets(&mut complaint).await,
                Some(()) = signals.hangup.recv() => drop(self.reload().await),
                Some(()) = signals.terminate.recv() => return Ok(End::Asked),
                Some(()) = signals.interrupt.recv() => return Ok(End::Asked),
                Some(order) = orders.recv() => {
                    if self.obey(order).await {
                        return Ok(End::Detached);
                    }
                }
                () = &mut reconciling => {
                    bail!("the reconciler ended by itself, see the log; the data plane goes on as it is");
                }
            }
        }
    }

    async fn reload(&self) -> Result<admin::row::ReloadRow, ErrorBody> {
        let is_ready = *self.cluster.ready().borrow();
        let done = self.source.reload(&self.reconciler, &self.daemon, &self.facts, is_ready).await?;
        if let Some(checks) = &self.checks {
            checks.watch().await.map_err(|gone| ApiError::from(gone).body)?;
        }
        Ok(done)
    }

    /// Uses the cluster's newest secrets; when to do so again, because that failed or another one is to be used then.
    async fn renew_secrets(&self, complaint: &mut Complaint) -> Option<Instant> {
        // Before they are applied: what comes due while they are must not be missed.
        let (begun, now) = (Instant::now(), since_1970());
        match self.source.renew_secrets(&self.reconciler, &self.daemon.state_dir).await {
            Ok(()) => {
                info!("the cluster's secrets are in use");
                complaint.settle();
                let secrets = self.cluster.secrets();
                let change = secrets.borrow().as_ref().and_then(|secrets| secrets.change(now));
                // Clocks may be set meanwhile.
                change.map(|left| begun + left.min(RENEWED))
            }
            Err(refused) => {
                if complaint.is_news(refused.to_string()) {
                    error!("the cluster's secrets are not in use, trying again: {refused}");
                }
                Some(Instant::now() + RETRY)
            }
        }
    }

    /// Takes announced addresses back, before nothing is forwarded any more.
    async fn withdraw(&self) {
        if let Some(mut vips) = self.vips.lock().await.take() {
            vips.withdraw().await;
        }
    }

    /// Announces again what was taken back, since forwarding goes on.
    async fn announce_again(&self) {
        let Some(spec) = &self.daemon.cluster.announce else { return };
        let blocks = &self.daemon.cluster.blocks;
        match Vips::start(spec, blocks, &self.reconciler, &self.cluster, &self.inheritance).await {
            Ok(vips) => *self.vips.lock().await = Some(vips),
            Err(error) => {
                error!(%error, "service addresses are not announced any more, although forwarding goes on")
            }
        }
    }

    /// Does what is ordered; true when there is nothing left to do.
    async fn obey(&self, order: Order) -> bool {
        match order {
            Order::Reload(reply) => {
                answer(reply, self.reload().await);
                false
            }
            Order::Detach(reply) => {
                self.withdraw().await;
                let outcome = self.reconciler.detach().await.map_err(|error| ApiError::from(error).body);
                let detached = outcome.is_ok();
                match &outcome {
                    Ok(()) => info!("detached as ordered"),
                    Err(refused) => {
                        error!("cannot detach: {refused}");
                        self.announce_again().await;
                    }
                }
                answer(reply, outcome);
                detached
            }
        }
    }

    /// Does what is left to do at the end.
    pub(super) async fn finish(&self, end: End, detach_on_exit: bool, pin_root: &Path) -> anyhow::Result<()> {
        match end {
            End::Detached => Ok(()),
            End::Asked if detach_on_exit => {
                info!("detaching");
                self.withdraw().await;
                self.reconciler.detach().await.map_err(|error| anyhow!("cannot detach: {}", chain(&error)))
            }
            End::Asked => {
                info!(pins = %pin_root.display(), "stopping; the data plane goes on");
                Ok(())
            }
        }
    }
}

/// Done when the reconciler has ended.
async fn ended(reconciler: &Handle) {
    let mut addresses = reconciler.addresses();
    while addresses.changed().await.is_ok() {}
}

/// Done at that time; `None` = never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Answers an order; whoever gave it may have gone.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
