//! The servers of the daemon: the admin API, and the metrics where they have an address of their own.

use super::run::PATIENCE;
use crate::admin::{self, Context, Listener};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

/// The servers of the API and the metrics.
pub(super) struct Servers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Servers {
    /// Starts to answer.
    pub(super) fn start(context: Context, listener: Listener, metrics: Option<TcpListener>) -> Self {
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
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            warn!("requests to the admin API did not end in time");
        }
    }
}
