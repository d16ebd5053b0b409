//! How others talk to the reconciler.

use super::{
    ApplyError, ApplyReport, ChangeError, ExplainInputs, FlowFilter, FlowRow, Gone, HealthChange, OtherViews,
    OutcomeRow, Overrides, PeerRing, QueryError, SessionFilter, SessionRow, TableRow, View, VitalsRow,
    mirror::{self, Heirloom, Mirroring, Taken},
    replication::{Change, Feed},
};
use crate::dataplane::{self, Cursor};
use lb_common::abi::{BindingEvent, FlowState, Hop};
use lb_core::mirror::Express;
use lb_core::pool::{Admin, Desired};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Rows that one request reads, so that a long listing does not keep changes waiting.
const PAGE: usize = 8_192;

/// A way to the reconciler; clones are cheap.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<BindingEvent>,
    addresses: watch::Receiver<BTreeSet<IpAddr>>,
}

/// What is known of the way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HopChange {
    /// The backend's address.
    pub address: IpAddr,
    /// The way; `None` = the neighbour is not reachable.
    pub hop: Option<ResolvedHop>,
}

/// A way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResolvedHop {
    /// The next hop.
    pub hop: Hop,
    /// Our address on the way, of the address's family.
    pub source: Option<IpAddr>,
    /// Tag of the VLAN interface that the route goes through; `hop.ifindex` is the interface below it.
    pub vlan: Option<u16>,
}

type Reply<T> = oneshot::Sender<T>;

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) enum Request {
    Apply(Box<Desired>, Reply<Result<ApplyReport, ApplyError>>),
    SetAdmin {
        service: String,
        backend: String,
        admin: Option<Admin>,
        deadline: Option<u64>,
        reply: Reply<Result<(), ChangeError>>,
    },
    /// Sessions of a service that moved go back to the first of their order.
    FailBack {
        service: String,
        reply: Reply<Result<(), ChangeError>>,
    },
    SetWeight {
        service: String,
        backend: String,
        weight: Option<u32>,
        reply: Reply<Result<(), ChangeError>>,
    },
    Health(Vec<HealthChange>),
    OtherViews(OtherViews),
    Hop(HopChange),
    Ring(PeerRing),
    View(Reply<Result<View, dataplane::Error>>),
    Desired(Reply<Option<Desired>>),
    Overrides(Reply<Overrides>),
    /// What administrators said on other nodes.
    MergeOverrides(Overrides, Reply<Result<bool, ChangeError>>),
    Outcomes(Reply<Result<Vec<OutcomeRow>, dataplane::Error>>),
    Vitals(Reply<Result<Vec<VitalsRow>, dataplane::Error>>),
    Tables(Reply<Result<Vec<TableRow>, dataplane::Error>>),
    Sessions {
        filter: SessionFilter,
        cursor: Option<Cursor>,
        limit: usize,
        reply: Reply<Result<Part<SessionRow>, QueryError>>,
    },
    Session {
        service: String,
        session: u64,
        reply: Reply<Result<SessionRow, ChangeError>>,
    },
    SessionDelete {
        service: String,
        session: u64,
        reply: Reply<Result<(), ChangeError>>,
    },
    SessionPin {
        service: String,
        session: u64,
        backend: String,
        lifetime: Duration,
        reply: Reply<Result<(), ChangeError>>,
    },
    Flows {
        filter: FlowFilter,
        cursor: Option<Cursor>,
        limit: usize,
        reply: Reply<Result<Part<FlowRow>, QueryError>>,
    },
    Mirroring(Reply<Option<Mirroring>>),
    /// Connections that are mirrored, of one page of the table.
    Mirrored {
        cursor: Option<Cursor>,
        reply: Reply<Result<mirror::Page, dataplane::Error>>,
    },
    /// Connections of a node that died.
    Adopt(Vec<Heirloom>, Reply<Result<Taken, dataplane::Error>>),
    /// Connections of other nodes that can be gone on with packet by packet.
    Offload(Vec<Express>, Reply<Result<(), dataplane::Error>>),
    Explain {
        service: String,
        reply: Reply<Result<ExplainInputs, ChangeError>>,
    },
    /// What happens to bindings goes there from now on.
    Replicate(Box<Feed>),
    /// Changes that the cluster asks for; the feed says what became of them.
    Replicated(Vec<Change>),
    /// A part of the table for the cluster, by the feed.
    Replicable {
        cursor: Option<Cursor>,
        since: Option<u64>,
    },
    /// One session for the cluster, by the feed.
    Look {
        number: u64,
        service: String,
        session: u64,
        backend: Option<String>,
    },
    DetachAll(Reply<Result<(), dataplane::Error>>),
}

/// The rows of one page that a filter lets through, and where to go on.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) rows: Vec<T>,
    pub(super) next: Option<Cursor>,
}

impl Handle {
    pub(super) const fn new(
        requests: mpsc::Sender<Request>,
        events: broadcast::Sender<BindingEvent>,
        addresses: watch::Receiver<BTreeSet<IpAddr>>,
    ) -> Self {
        Self { requests, events, addresses }
    }

    /// Makes the data plane do what is desired; it does so when this returns, or it does what it did before.
    pub async fn apply(&self, desired: Desired) -> Result<ApplyReport, ApplyError> {
        self.ask(|reply| Request::Apply(Box::new(desired), reply)).await?
    }

    /// Overrides a backend's admin state; `None` gives it back to the configuration.
    pub async fn set_admin(
        &self,
        service: &str,
        backend: &str,
        admin: Option<Admin>,
    ) -> Result<(), ChangeError> {
        let (service, backend) = (service.to_owned(), backend.to_owned());
        self.ask(|reply| Request::SetAdmin { service, backend, admin, deadline: None, reply }).await?
    }

    /// Gives a backend no new sessions, and moves those that it has left at the deadline, in seconds since 1970 UTC; `None` = never.
    pub async fn drain(
        &self,
        service: &str,
        backend: &str,
        deadline: Option<u64>,
    ) -> Result<(), ChangeError> {
        let (service, backend, admin) = (service.to_owned(), backend.to_owned(), Some(Admin::Draining));
        self.ask(|reply| Request::SetAdmin { service, backend, admin, deadline, reply }).await?
    }

    /// Has sessions that moved go back to the first backend of their order that takes sessions.
    pub async fn fail_back(&self, service: &str) -> Result<(), ChangeError> {
        let service = service.to_owned();
        self.ask(|reply| Request::FailBack { service, reply }).await?
    }

    /// Overrides a backend's weight; `None` gives it back to the configuration.
    pub async fn set_weight(
        &self,
        service: &str,
        backend: &str,
        weight: Option<u32>,
    ) -> Result<(), ChangeError> {
        let (service, backend) = (service.to_owned(), backend.to_owned());
        self.ask(|reply| Request::SetWeight { service, backend, weight, reply }).await?
    }

    /// Says what health checks found; backends that it does not speak of count as healthy.
    pub async fn health(&self, changes: Vec<HealthChange>) -> Result<(), Gone> {
        self.requests.send(Request::Health(changes)).await.map_err(|_| Gone)
    }

    /// Says what other nodes say of backends.
    pub async fn other_views(&self, others: OtherViews) -> Result<(), Gone> {
        self.requests.send(Request::OtherViews(others)).await.map_err(|_| Gone)
    }

    /// Says what is known of the way to an address; those of no backend are kept for later.
    pub async fn hop(&self, change: HopChange) -> Result<(), Gone> {
        self.requests.send(Request::Hop(change)).await.map_err(|_| Gone)
    }

    /// Says who the other nodes are that can be asked about packets; nobody, unless this is called.
    pub async fn ring(&self, ring: PeerRing) -> Result<(), Gone> {
        self.requests.send(Request::Ring(ring)).await.map_err(|_| Gone)
    }

    /// The addresses of backends and nodes whose next hops are wanted; changes with the desired state.
    pub fn addresses(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.addresses.clone()
    }

    /// Bindings as they are made and moved, from now on.
    pub fn events(&self) -> broadcast::Receiver<BindingEvent> {
        self.events.subscribe()
    }

    /// Everything that runs.
    pub async fn view(&self) -> Result<View, QueryError> {
        Ok(self.ask(Request::View).await??)
    }

    /// Takes over what administrators said on other nodes, where it was said later; whether anything was.
    pub async fn merge_overrides(&self, others: Overrides) -> Result<bool, ChangeError> {
        self.ask(|reply| Request::MergeOverrides(others, reply)).await?
    }

    /// The desired state that was applied last, without overrides; `None` before the first one.
    pub async fn desired(&self) -> Result<Option<Desired>, Gone> {
        self.ask(Request::Desired).await
    }

    /// What administrators changed.
    pub async fn overrides(&self) -> Result<Overrides, Gone> {
        self.ask(Request::Overrides).await
    }

    /// What the data plane notes of the backends of services that translate addresses and are checked.
    pub async fn vitals(&self) -> Result<Vec<VitalsRow>, QueryError> {
        Ok(self.ask(Request::Vitals).await??)
    }

    /// How often each outcome was met.
    pub async fn outcomes(&self) -> Result<Vec<OutcomeRow>, QueryError> {
        Ok(self.ask(Request::Outcomes).await??)
    }

    /// Sizes and fill of the tables.
    pub async fn tables(&self) -> Result<Vec<TableRow>, QueryError> {
        Ok(self.ask(Request::Tables).await??)
    }

    /// Sessions that the filter lets through, at most `limit`.
    pub async fn sessions(&self, filter: SessionFilter, limit: usize) -> Result<Vec<SessionRow>, QueryError> {
        let (mut rows, mut cursor) = (Vec::new(), None);
        loop {
            let filter = filter.clone();
            let part = self.ask(|reply| Request::Sessions { filter, cursor, limit: PAGE, reply }).await??;
            rows.extend(part.rows);
            cursor = part.next;
            if cursor.is_none() || rows.len() >= limit {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    /// One session.
    pub async fn session(&self, service: &str, session: u64) -> Result<SessionRow, ChangeError> {
        let service = service.to_owned();
        self.ask(|reply| Request::Session { service, session, reply }).await?
    }

    /// Forgets a session; its next packet is a new one's.
    pub async fn session_delete(&self, service: &str, session: u64) -> Result<(), ChangeError> {
        let service = service.to_owned();
        self.ask(|reply| Request::SessionDelete { service, session, reply }).await?
    }

    /// Binds a session to a backend; it is not moved while that serves.
    pub async fn session_pin(
        &self,
        service: &str,
        session: u64,
        backend: &str,
        lifetime: Duration,
    ) -> Result<(), ChangeError> {
        let (service, backend) = (service.to_owned(), backend.to_owned());
        self.ask(|reply| Request::SessionPin { service, session, backend, lifetime, reply }).await?
    }

    /// Flows that the filter lets through, at most `limit`.
    pub async fn flows(&self, filter: FlowFilter, limit: usize) -> Result<Vec<FlowRow>, QueryError> {
        let (mut rows, mut cursor) = (Vec::new(), None);
        loop {
            let filter = filter.clone();
            let part = self.ask(|reply| Request::Flows { filter, cursor, limit: PAGE, reply }).await??;
            rows.extend(part.rows);
            cursor = part.next;
            if cursor.is_none() || rows.len() >= limit {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    /// How many sessions and connections a backend has.
    pub async fn load(&self, service: &str, backend: &str) -> Result<(u64, u64), QueryError> {
        let (service, backend) = (Some(service.to_owned()), Some(backend.to_owned()));
        let wanted = SessionFilter { service: service.clone(), backend: backend.clone(), session: None };
        let (mut sessions, mut cursor) = (0, None);
        loop {
            let filter = wanted.clone();
            let part = self.ask(|reply| Request::Sessions { filter, cursor, limit: PAGE, reply }).await??;
            sessions += part.rows.len() as u64;
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        let flows =
            self.flows(FlowFilter { service, backend, client: None, state: None }, usize::MAX).await?;
        let open = flows.iter().filter(|flow| flow.state != FlowState::Closed).count();
        Ok((sessions, open as u64))
    }

    /// Says which connections of other nodes can be gone on with packet by packet; with no others it is.
    pub async fn offload(&self, all: Vec<Express>) -> Result<(), QueryError> {
        Ok(self.ask(|reply| Request::Offload(all, reply)).await??)
    }

    /// What is needed to compute which backend a session of this service gets.
    pub async fn explain_inputs(&self, service: &str) -> Result<ExplainInputs, ChangeError> {
        let service = service.to_owned();
        self.ask(|reply| Request::Explain { service, reply }).await?
    }

    /// Leaves every interface and frees every table; the reconciler ends.
    pub async fn detach(&self) -> Result<(), QueryError> {
        Ok(self.ask(Request::DetachAll).await??)
    }

    /// Asks for something that is not answered here.
    pub(super) async fn request(&self, request: Request) -> Result<(), Gone> {
        self.requests.send(request).await.map_err(|_| Gone)
    }

    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
