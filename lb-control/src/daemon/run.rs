//! The composition root: which part is made when, and how it ends.

use super::args::{Lbd, Mode};
use super::configuration::{Applied, Loaded, Source, note_loaded};
use super::health::{Checks, Herald};
use super::inherit::Inheritance;
use super::servers::Servers;
use super::supervisor::{Signals, Supervisor};
use super::vips::Vips;
use super::{member, notify, offload, orders, peers, privilege, quorum, target, way};
use crate::admin::error::{ErrorBody, chain};
use crate::admin::row::ReloadState;
use crate::admin::{self, Context, EventLog, Facts, Listener, now};
use crate::config::PlaneSpec;
use crate::dataplane::p4::P4;
use crate::dataplane::xdp::{Options, Xdp};
use crate::dataplane::{self, DataPlane, Sizes};
use crate::probe::Clocks;
use crate::reconcile;
use crate::webhook::Webhook;
use anyhow::{Context as _, anyhow};
use lb_core::pool::layout::arena_chunks;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Orders that wait for the main loop.
const ORDERS: usize = 16;
/// How long the last answers and the reconciler may take when the daemon ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to end.
pub(super) async fn run(args: Lbd) -> anyhow::Result<()> {
    privilege::check()?;
    // From now on, so that a signal that comes early waits for its turn.
    let mut signals = Signals::listen().context("signals cannot be listened for")?;
    let mut source = Source {
        file: args.config.clone(),
        interfaces: args.iface.clone(),
        state_dir: args.state_dir.clone(),
        preparation: Some(args.mode),
        applied: Applied::default(),
    };
    let Loaded { desired, mut daemon, read } = source.load().map_err(described)?;
    if matches!(daemon.plane, PlaneSpec::P4(_)) {
        // A switch in software reads packets where the stack has them.
        source.preparation = Some(Mode::Skb);
    }
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
    let (plane, clocks) = (daemon.plane.clone(), Clocks::default());
    let seen = clocks.clone();
    let plane = tokio::task::spawn_blocking(move || open(&plane, options, sizes, seen))
        .await
        .context("opening the data plane ended early")?
        .map_err(|error| anyhow!("data plane: {}", chain(&error)))?;
    let state = daemon.state_dir.join("overrides.json");
    let (reconciler, thread) = tokio::task::spawn_blocking(|| reconcile::spawn(plane, Some(state)))
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
    source.applied.set(read);
    let webhook = match &daemon.webhook {
        None => Webhook::none(),
        Some(spec) => {
            let opened = Webhook::open(spec, member::name(&daemon));
            let (webhook, courier) = opened.context("[events.webhook]")?;
            tasks.spawn(courier.run());
            webhook
        }
    };
    let herald = Herald::new(Arc::clone(&events), webhook.clone());
    let checks = Checks::start(&reconciler, herald, clocks, &mut tasks)?;
    checks.watch().await?;
    let cluster = member::open(&daemon, &reconciler).await?;
    quorum::start(&reconciler, &cluster, &mut tasks);
    orders::start(&reconciler, &cluster, &mut tasks);
    let inheritance = Inheritance::start(&reconciler, &cluster, &mut tasks);
    let vips = match &daemon.cluster.announce {
        None => None,
        Some(spec) => {
            let blocks = &daemon.cluster.blocks;
            Some(Vips::start(spec, blocks, &reconciler, &cluster, &inheritance).await?)
        }
    };
    peers::start(&reconciler, &cluster, &inheritance, &mut tasks);
    if matches!(&daemon.plane, PlaneSpec::P4(switch) if switch.offload) {
        offload::start(&reconciler, &cluster, &mut tasks);
    }
    let (facts, told) = watch::channel(facts(&args));
    note_loaded(&facts);
    target::start(&reconciler, facts.clone(), &mut tasks);
    let (orders, mut ordered) = mpsc::channel(ORDERS);
    let (reconciling, member) = (reconciler.clone(), cluster.clone());
    let context = Context { reconciler: reconciling, orders, facts: told, cluster: member, events, webhook };
    let servers = Servers::start(context, listener, metrics);
    info!(socket = %daemon.admin_socket.display(), "listening");

    let supervisor = Supervisor {
        source,
        daemon: configured,
        facts,
        reconciler,
        cluster,
        inheritance,
        vips: Mutex::new(vips),
        checks: Some(checks),
    };
    let end = supervisor.supervise(&mut signals, &mut ordered).await?;
    notify::stopping();
    let outcome = supervisor.finish(end, args.detach_on_exit, &args.pin_root).await;
    servers.stop().await;
    tasks.shutdown().await;
    supervisor.cluster.stop().await;
    // With the last handle the reconciler ends, between two writes and not within one.
    drop(supervisor);
    let ended = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        warn!("the reconciler did not end in time");
    }
    outcome
}

/// Opens what forwards packets.
fn open(
    spec: &PlaneSpec,
    options: Options,
    sizes: Sizes,
    clocks: Clocks,
) -> dataplane::Result<Box<dyn DataPlane>> {
    match spec {
        PlaneSpec::Xdp => {
            let adopted = Xdp::is_left(&options);
            let (plane, migration) = Xdp::open(options, sizes)?;
            info!(adopted, "data plane open");
            if let Some(moved) = migration {
                info!(?moved, "tables migrated");
            }
            Ok(Box::new(plane))
        }
        PlaneSpec::P4(switch) => {
            let plane = P4::open(switch, sizes)?.telling_time(move |address| clocks.ahead(address));
            info!(switch = %switch.address, "data plane open");
            Ok(Box::new(plane))
        }
    }
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

fn described(error: ErrorBody) -> anyhow::Error {
    anyhow!("{error}")
}
