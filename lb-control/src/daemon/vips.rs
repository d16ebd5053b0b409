//! Which service addresses are announced: those that a service can serve at, while the node is ready.

use super::complaint::Complaint;
use crate::admin::error::chain;
use crate::cluster::announce::{self, AnnounceError, Announcer};
use crate::config::AnnounceSpec;
use crate::reconcile::{Handle, HopState, QueryError, ServiceView, View};
use lb_common::abi::Status;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often it is looked which services can serve.
const LOOK: Duration = Duration::from_secs(1);

/// The announcing of service addresses; ends when this is dropped, and what is announced stays for its lifetime.
pub(super) struct Vips {
    looking: JoinHandle<()>,
    announcing: JoinHandle<()>,
}

impl Vips {
    /// Starts to announce on an interface that exists.
    pub(super) async fn start(
        spec: &AnnounceSpec,
        reconciler: &Handle,
        ready: watch::Receiver<bool>,
    ) -> Result<Self, AnnounceError> {
        let announcer = Announcer::open(&spec.interface, spec.lifetime).await?;
        let (told, wanted) = watch::channel(BTreeSet::new());
        let reconciler = reconciler.clone();
        let looking = tokio::spawn(async move {
            let mut complaint = Complaint::default();
            loop {
                match reconciler.view().await {
                    Ok(view) => {
                        complaint.settle();
                        note(&told, addresses(&view));
                    }
                    Err(QueryError::Gone(_)) => return,
                    Err(error) => {
                        if complaint.is_news(chain(&error)) {
                            tracing::warn!(
                                error = chain(&error),
                                "which services can serve is not known; what is announced stays"
                            );
                        }
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        let announcing = tokio::spawn(announce::follow(announcer, ready, wanted));
        Ok(Self { looking, announcing })
    }

    /// Takes everything back.
    pub(super) async fn withdraw(&mut self) {
        self.looking.abort();
        if let Err(error) = (&mut self.announcing).await {
            tracing::warn!(%error, "the announcing of service addresses ended badly");
        }
    }
}

impl Drop for Vips {
    fn drop(&mut self) {
        self.looking.abort();
        self.announcing.abort();
    }
}

/// Publishes the addresses, and logs what is new.
fn note(told: &watch::Sender<BTreeSet<IpAddr>>, now: BTreeSet<IpAddr>) {
    told.send_if_modified(|before| {
        now.difference(before).for_each(|address| tracing::info!(%address, "can be served"));
        before.difference(&now).for_each(|address| tracing::warn!(%address, "cannot be served any more"));
        let is_new = *before != now;
        *before = now;
        is_new
    });
}

/// The addresses at which something can be served.
fn addresses(view: &View) -> BTreeSet<IpAddr> {
    let services = view.services.iter().filter(|service| can_serve(service));
    services.map(|service| service.spec.address).collect()
}

/// Whether a packet for the service gets anywhere.
fn can_serve(service: &ServiceView) -> bool {
    service.backends.iter().any(|backend| {
        let is_reachable = matches!(backend.hop, HopState::Resolved { .. });
        is_reachable && matches!(backend.status, Status::Up | Status::Draining)
    })
}
