//! What the reconciler answers when it cannot do something.

use crate::dataplane;
use lb_core::pool::layout::LayoutError;

/// The reconciler has ended: the process is stopping, or it has left the data plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the reconciler has stopped")]
pub struct Gone;

/// A desired state was not applied; the one before it runs on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The desired state cannot be laid out in tables.
    #[error("the configuration does not fit: {0}")]
    Layout(#[source] LayoutError),
    /// The tables do not hold what they should and could not be repaired, so nothing was tried.
    #[error(
        "the data plane is still being repaired: {0}; nothing of this configuration was applied, try again"
    )]
    Unsettled(#[source] dataplane::Error),
    /// The data plane refused; everything was taken back.
    #[error("{source}; every change of this configuration was taken back")]
    RolledBack {
        /// What failed.
        source: dataplane::Error,
    },
    /// The data plane refused, and refused to take the changes back too.
    #[error(
        "{source}; taking the changes back failed too ({rollback}), the previous state is being restored in the background"
    )]
    Repairing {
        /// What failed first.
        source: dataplane::Error,
        /// What failed then.
        rollback: Box<dataplane::Error>,
    },
    /// The reconciler has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// A change at run time was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No service of that name.
    #[error("there is no service \"{name}\"{}", did_you_mean(suggestion.as_deref()))]
    UnknownService {
        /// The name.
        name: String,
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// No backend of that name.
    #[error("service \"{service}\" has no backend \"{name}\"{}", did_you_mean(suggestion.as_deref()))]
    UnknownBackend {
        /// The service.
        service: String,
        /// The name.
        name: String,
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// Weights have a largest value.
    #[error("weight {weight} is too large: weights go from 0 to 1000")]
    Weight {
        /// The weight.
        weight: u32,
    },
    /// No such session.
    #[error("service \"{service}\" has no session {session:#x}")]
    UnknownSession {
        /// The service.
        service: String,
        /// The session key.
        session: u64,
    },
    /// The session was moved while it was being deleted or pinned.
    #[error("session {session:#x} of service \"{service}\" was moved at the same moment; try again")]
    SessionMoved {
        /// The service.
        service: String,
        /// The session key.
        session: u64,
    },
    /// There is no room for a session more.
    #[error("the table of bindings is full; raise `bindings` in the configuration")]
    SessionsFull,
    /// The change was not applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The data plane refused.
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    /// The override could not be written down, so it was not made.
    #[error("cannot write {path}: {source}")]
    State {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The other nodes cannot be told.
    #[error("bindings are not replicated any more, see the log of lbd; restart it")]
    NotReplicated,
    /// The reconciler has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// A question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Something it names does not exist.
    #[error(transparent)]
    Unknown(ChangeError),
    /// The data plane refused.
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    /// The reconciler has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default()
}
