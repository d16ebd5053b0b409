//! Which service addresses are announced: those that a service can serve at, while the node is ready.

use super::complaint::Complaint;
use super::heirs::Heirs;
use super::inherit::Inheritance;
use crate::admin::error::chain;
use crate::cluster::announce::{self, AnnounceError, Announcer};
use crate::cluster::identity::Role;
use crate::cluster::membership::{Membership, Status as Standing};
use crate::config::{AnnounceSpec, BlockSpec};
use crate::net;
use crate::reconcile::{BackendView, Handle, HopState, QueryError, View};
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
        blocks: &[BlockSpec],
        reconciler: &Handle,
        cluster: &Membership,
        inheritance: &Inheritance,
    ) -> Result<Self, AnnounceError> {
        let announcer = Announcer::open(&spec.interface, spec.lifetime).await?;
        let mut heirs = Heirs::new(blocks.to_vec(), spec.lifetime, inheritance.clone());
        let (told, wanted) = watch::channel(BTreeSet::new());
        let (reconciler, ready, cluster) = (reconciler.clone(), cluster.ready(), cluster.clone());
        let looking = tokio::spawn(async move {
            let mut complaint = Complaint::default();
            loop {
                match reconciler.view().await {
                    Ok(view) => {
                        complaint.settle();
                        let status = cluster.status().await.ok().flatten();
                        let mut wanted = addresses(&view, status.as_ref().is_some_and(has_heirs));
                        if let Some(status) = status.as_ref().filter(|status| !status.is_switch()) {
                            let found = heirs.look(status).await;
                            wanted.extend(found.inherited);
                            claim(&view, &found.claimed);
                        }
                        note(&told, wanted);
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

/// Tells the hosts behind each interface whose the addresses are.
fn claim(view: &View, addresses: &BTreeSet<IpAddr>) {
    for link in view.attachments.iter().filter(|_| !addresses.is_empty()) {
        if let Err(error) = net::claim::claim(&link.interface, link.ifindex, addresses) {
            tracing::debug!(%error, interface = link.interface, "its hosts find out by themselves whose the addresses are");
        }
    }
}

/// Whether another node is connected that can serve what this one cannot.
fn has_heirs(status: &Standing) -> bool {
    status.standing.peers.iter().any(|peer| peer.role == Role::Node && peer.connection.contact.is_some())
}

/// The addresses at which something can be served.
fn addresses(view: &View, has_heirs: bool) -> BTreeSet<IpAddr> {
    let can_serve = |backend: &BackendView| can_serve(backend, has_heirs);
    let services = view.services.iter().filter(|service| service.backends.iter().any(can_serve));
    services.map(|service| service.spec.address).collect()
}

/// Whether a packet for the backend gets anywhere.
///
/// When none is healthy, all are used; that is for want of anything better, so not where another node may reach them.
fn can_serve(backend: &BackendView, has_heirs: bool) -> bool {
    let is_reachable = matches!(backend.hop, HopState::Resolved { .. });
    let is_healthy = backend.health.as_ref().is_none_or(|health| health.state.is_healthy());
    is_reachable && matches!(backend.status, Status::Up | Status::Draining) && (is_healthy || !has_heirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Health;
    use lb_common::abi::{Counters, Hop};
    use lb_core::health::{State, Voice};
    use lb_core::pool::{Admin, BackendSpec, Vlan};
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    fn backend(state: Option<State>) -> BackendView {
        BackendView {
            spec: BackendSpec {
                name: "b".into(),
                number: 1,
                address: Ipv4Addr::LOCALHOST.into(),
                port: 80,
                weight: 100,
                admin: Admin::Enabled,
                vlan: Vlan::Auto,
                route: None,
                limit: 0,
                server_id: None,
            },
            configured_weight: None,
            configured_admin: None,
            slot: 1,
            generation: 1,
            status: Status::Up,
            health: state.map(|state| Health { state, since: UNIX_EPOCH, reason: None }),
            hop: HopState::Resolved { hop: Hop::default(), source: None },
            vitals: lb_common::abi::Vitals::default(),
            ramp: None,
            counters: Counters::default(),
        }
    }

    #[test]
    fn the_dead_are_announced_only_where_nobody_takes_over() {
        let dead = backend(Some(State::Down(Voice::Probe)));
        assert!(can_serve(&dead, false) && !can_serve(&dead, true));
        for state in [None, Some(State::New), Some(State::Up)] {
            assert!(can_serve(&backend(state), false) && can_serve(&backend(state), true));
        }
        let lost = BackendView { hop: HopState::Unresolved, ..backend(None) };
        let out = BackendView { status: Status::Down, ..backend(None) };
        assert!(!can_serve(&lost, false) && !can_serve(&out, false));
    }
}
