//! The data plane's bindings and the cluster's are the same: what packets bind here goes to the replica, what holds there
//! goes into the kernel.
//!
//! One task stands between the reconciler and the [`Replica`]. Both report to it in order, and it decides what may be
//! written over what:
//! - A binding that the data plane made or moved is *in flight* from the report until it is acknowledged in the kernel,
//!   which happens when the journal holds it. The kernel refuses to overwrite what was not acknowledged.
//! - An update for a key in flight that the replica had not heard of when it made the update is void: the replica will
//!   reconcile the two, and say again what holds if it is not what the kernel has.
//! - An update for a key in flight that the replica had heard of takes account of it: it is acknowledged and overwritten at
//!   once. Should the data plane have changed it yet again, both are refused, and that change comes as an event.
//! - What the kernel could not do is asked for again, so that what is written is always what holds by then.
//!
//! A walk through the table at the start tells what was acknowledged and is not in the journal (it was lost, or there was
//! no cluster before); walks at an eighth of the shortest lifetime tell which bindings were used.

mod flight;
mod task;
mod walk;

use super::replica::{Ended, Replica, Update};
use crate::reconcile::{ChangeError, Gone, Handle};
use std::time::Duration;
use task::Task;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Changes by administrators that wait.
const ORDERS: usize = 16;

/// A way to change sessions in the whole cluster; clones are cheap.
#[derive(Clone, Debug)]
pub struct Bindings {
    orders: mpsc::Sender<Order>,
    complete: watch::Receiver<bool>,
}

/// A change of a session by an administrator.
#[derive(Debug)]
struct Order {
    service: String,
    session: u64,
    what: What,
    reply: oneshot::Sender<Result<(), ChangeError>>,
}

/// What an administrator wants of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Delete,
    Pin { backend: String, lifetime: Duration },
}

/// Connects a data plane with the replica whose updates these are, in a task of its own.
///
/// When the task is aborted nothing is lost: what was not acknowledged is told to the next one.
pub fn start(
    reconciler: &Handle,
    replica: &Replica,
    updates: mpsc::Receiver<Vec<Update>>,
    tasks: &mut JoinSet<()>,
) -> Bindings {
    let (orders, ordered) = mpsc::channel(ORDERS);
    let (told, complete) = watch::channel(false);
    let (reconciler, teller, ready) = (reconciler.clone(), replica.teller(), replica.ready());
    tasks.spawn(async move {
        let end = match Task::new(&reconciler, teller, told).await {
            Ok(task) => task.run(updates, ordered, ready).await,
            Err(Gone) => End::Reconciler,
        };
        match end {
            End::Reconciler => tracing::debug!("the reconciler ended before the replication of bindings"),
            End::Replica => tracing::warn!("bindings are not replicated any more; packets go on"),
        }
    });
    Bindings { orders, complete }
}

impl Bindings {
    /// Whether the data plane has what the cluster had when the replica became ready; once true, it stays so.
    pub fn complete(&self) -> watch::Receiver<bool> {
        self.complete.clone()
    }

    /// Deletes a session on all nodes; no machine that fails after this returned brings it back.
    pub async fn delete(&self, service: &str, session: u64) -> Result<(), ChangeError> {
        self.order(service, session, What::Delete).await
    }

    /// Binds a session to a backend on all nodes; it is not moved while that serves.
    pub async fn pin(
        &self,
        service: &str,
        session: u64,
        backend: &str,
        lifetime: Duration,
    ) -> Result<(), ChangeError> {
        self.order(service, session, What::Pin { backend: backend.to_owned(), lifetime }).await
    }

    async fn order(&self, service: &str, session: u64, what: What) -> Result<(), ChangeError> {
        let (reply, answer) = oneshot::channel();
        let order = Order { service: service.to_owned(), session, what, reply };
        self.orders.send(order).await.map_err(|_| ChangeError::NotReplicated)?;
        answer.await.map_err(|_| ChangeError::NotReplicated)?
    }
}

/// Who ended first.
enum End {
    Reconciler,
    Replica,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Reconciler
    }
}

impl From<Ended> for End {
    fn from(_: Ended) -> Self {
        Self::Replica
    }
}
