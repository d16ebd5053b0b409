//! What the handlers work with.

use super::error::ErrorBody;
use super::eventlog::EventLog;
use super::row::{ReloadRow, ReloadState};
use crate::cluster::membership::Membership;
use crate::reconcile::Handle;
use crate::webhook::Webhook;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it started.
    pub started: Instant,
    /// The configuration file.
    pub config: PathBuf,
    /// Interfaces given on the command line, in place of the file's.
    pub interfaces: Vec<String>,
    /// Where maps and links are pinned.
    pub pin_root: PathBuf,
    /// How the last load of the configuration went.
    pub reload: ReloadState,
    /// Loads of the configuration since the start, by result.
    pub reloads: Reloads,
    /// What is wrong around it, each in a sentence that says what to do.
    pub warnings: Vec<String>,
}

/// Loads of the configuration since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reloads {
    /// Applied.
    pub applied: u64,
    /// Refused.
    pub refused: u64,
}

/// What only the daemon's main loop can do.
#[derive(Debug)]
pub enum Order {
    /// Load the configuration file again.
    Reload(oneshot::Sender<Result<ReloadRow, ErrorBody>>),
    /// Leave every interface, remove what is pinned, and end.
    Detach(oneshot::Sender<Result<(), ErrorBody>>),
}

/// Where orders go.
pub type Orders = mpsc::Sender<Order>;

/// What the handlers work with; clones are cheap.
#[derive(Clone, Debug)]
pub struct Context {
    /// The reconciler.
    pub reconciler: Handle,
    /// The daemon's main loop.
    pub orders: Orders,
    /// What it says of itself.
    pub facts: watch::Receiver<Facts>,
    /// This node's part in a cluster.
    pub cluster: Membership,
    /// The latest events.
    pub events: Arc<EventLog>,
    /// Who is told of some of them.
    pub webhook: Webhook,
}
