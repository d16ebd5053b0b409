//! The composition root: which part is made when, who is told what, and how it ends.

use super::args::Lbd;
use super::configuration::{Loaded, Source, note_loaded};
use super::health::Checks;
use super::{notify, privilege, target, way};
use crate::admin::error::{ApiError, ErrorBody, chain};
use crate::admin::row::ReloadState;
use crate::admin::{self, Context, EventLog, Facts, Listener, Order, now};
use crate::config::DaemonSpec;
use crate::dataplane::Sizes;
use crate::dataplane::xdp::{Options, Xdp};
use crate::reconcile::{self, Handle};
use anyhow::{Context as _, anyhow, bail};
use lb_core::pool::layout::arena_chunks;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// Orders that wait for the main loop.
const ORDERS: usize = 16;
/// How long the last answers and the reconciler may take when the daemon ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to end.
pub(super) async fn run(args: Lbd) -> anyhow::Result<()> {
    privilege::check()?;
    // From now on, so that a signal that comes early waits for its turn.
    let mut signals = Signals::listen().context("signals cannot be listened for")?;
    let source = Source {
        file: args.config.clone(),
        interfaces: args.iface.clone(),
        state_dir: args.state_dir.clone(),
        preparation: Some(args.mode),
    };
    let Loaded { desired, mut daemon } = source.load().map_err(described)?;
    let configured = daemon.clone();
    if let Some(socket) = &args.socket {
        daemon.admin_socket.clone_from(socket);
    }
    daemon.metrics = args.metrics.or(daemon.metrics);
    let listener = Listener::bind(&daemon.admin_socket, daemon.admin_group.as_deref())?;
    let metrics = match daemon.metrics {
        None => None,
        Some(address) => {
            let hint = "expected a free address of this host; --metrics chooses another";
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("metrics address {address}: cannot be listened on; {hint}"))?)
        }
    };
    Checks::examine(&desired).map_err(described)?;
    source.prepare(&desired).await.map_err(described)?;
    Source::hint(&desired);

    let options = Options { root: args.pin_root.clone(), attach: args.mode.into(), ..Options::default() };
    let sizes = Sizes {
        bindings: desired.node.bindings,
        flows: desired.node.flows,
        arena: arena_chunks(&desired)?,
        holds: desired.node.held,
    };
    let adopted = Xdp::is_left(&options);
    let (plane, migration) = tokio::task::spawn_blocking(move || Xdp::open(options, sizes))
        .await
        .context("opening the data plane ended early")?
        .map_err(|error| anyhow!("data plane: {}", chain(&error)))?;
    info!(adopted, "data plane open");
    if let Some(moved) = migration {
        info!(?moved, "tables migrated");
    }
    let state = daemon.state_dir.join("overrides.json");
    let (reconciler, thread) = tokio::task::spawn_blocking(|| reconcile::spawn(Box::new(plane), Some(state)))
        .await
        .context("taking over the data plane ended early")??;

    let mut tasks = JoinSet::new();
    way::start(&reconciler, &mut tasks);
    let events = Arc::new(EventLog::default());
    let (log, made) = (Arc::clone(&events), reconciler.events());
    tasks.spawn(async move { log.follow(made).await });

    reconciler
        .apply(desired)
        .await
        .map_err(|error| anyhow!("{}: cannot be applied: {}", args.config.display(), chain(&error)))?;
    let (facts, told) = watch::channel(facts(&args));
    note_loaded(&facts);
    let checks = Checks::start(&reconciler, &mut tasks)?;
    checks.watch().await?;
    target::start(&reconciler, facts.clone(), &mut tasks);
    let (orders, mut ordered) = mpsc::channel(ORDERS);
    let context = Context { reconciler: reconciler.clone(), orders, facts: told, events };
    let servers = Servers::start(context, listener, metrics);
    info!(socket = %daemon.admin_socket.display(), "ready");
    notify::ready("forwarding");

    let supervisor = Supervisor { source, daemon: configured, facts, reconciler, checks: Some(checks) };
    let end = supervisor.supervise(&mut signals, &mut ordered).await?;
    notify::stopping();
    let outcome = supervisor.finish(end, args.detach_on_exit, &args.pin_root).await;
    servers.stop().await;
    tasks.shutdown().await;
    // With the last handle the reconciler ends, between two writes and not within one.
    drop(supervisor);
    let ended = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        warn!("the reconciler did not end in time");
    }
    outcome
}

fn facts(args: &Lbd) -> Facts {
    Facts {
        started: Instant::now(),
        config: args.config.clone(),
        interfaces: args.iface.clone(),
        pin_root: args.pin_root.clone(),
        reload: ReloadState::Current { unix_seconds: now() },
        reloads: admin::Reloads::default(),
        warnings: Vec::new(),
    }
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Why the main loop ended.
enum End {
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
    /// `None` = nobody is probed.
    pub(super) checks: Option<Checks>,
}

impl Supervisor {
    async fn supervise(
        &self,
        signals: &mut Signals,
        orders: &mut mpsc::Receiver<Order>,
    ) -> anyhow::Result<End> {
        let mut reconciling = pin!(ended(&self.reconciler));
        loop {
            tokio::select! {
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
        let done = self.source.reload(&self.reconciler, &self.daemon, &self.facts).await?;
        if let Some(checks) = &self.checks {
            checks.watch().await.map_err(|gone| ApiError::from(gone).body)?;
        }
        Ok(done)
    }

    /// Does what is ordered; true when there is nothing left to do.
    pub(super) async fn obey(&self, order: Order) -> bool {
        match order {
            Order::Reload(reply) => {
                answer(reply, self.reload().await);
                false
            }
            Order::Detach(reply) => {
                let outcome = self.reconciler.detach().await.map_err(|error| ApiError::from(error).body);
                let detached = outcome.is_ok();
                match &outcome {
                    Ok(()) => info!("detached as ordered"),
                    Err(refused) => error!("cannot detach: {refused}"),
                }
                answer(reply, outcome);
                detached
            }
        }
    }

    async fn finish(&self, end: End, detach_on_exit: bool, pin_root: &Path) -> anyhow::Result<()> {
        match end {
            End::Detached => Ok(()),
            End::Asked if detach_on_exit => {
                info!("detaching");
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

/// Answers an order; whoever gave it may have gone.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}

fn described(error: ErrorBody) -> anyhow::Error {
    anyhow!("{error}")
}

/// The servers of the API and the metrics.
struct Servers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Servers {
    fn start(context: Context, listener: Listener, metrics: Option<TcpListener>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let mut tasks = JoinSet::new();
        let (router, done) = (admin::router(context.clone()), stopped(stopping.clone()));
        tasks.spawn(async move {
            if let Err(error) = listener.serve(router, done).await {
                error!(%error, "the admin API ended");
            }
        });
        if let Some(metrics) = metrics {
            let (router, done) = (admin::metrics_only(context), stopped(stopping));
            tasks.spawn(async move {
                if let Err(error) = axum::serve(metrics, router).with_graceful_shutdown(done).await {
                    error!(%error, "the metrics server ended");
                }
            });
        }
        Self { stop, tasks }
    }

    /// Lets open requests finish, for a while.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            warn!("requests to the admin API did not end in time");
        }
    }
}
