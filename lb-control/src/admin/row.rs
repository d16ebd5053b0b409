//! What the admin API answers: the JSON shapes, one file per noun.
//!
//! Server numbers and session keys are 64 bits wide and stand as hexadecimal strings, because many JSON
//! readers keep only 53 bits of a number. Durations are seconds.

mod backend;
mod change;
mod cluster;
mod config;
mod event;
mod explanation;
mod flow;
mod seal;
mod service;
mod session;
mod status;
mod traffic;

pub(super) use backend::mac;
pub use backend::{
    AdminState, BackendLoad, BackendRow, HealthRow, HealthState, HopRow, LoadRow, NodeViewRow, ServingState,
    WeightBody,
};
pub use change::{ChangeRow, DiffBody, DiffRow, ReloadRow};
pub use cluster::{
    ClusterCounts, ClusterNodeRow, ClusterRow, ClusterState, ConnectionRow, ConvergenceBucket,
    ConvergenceRow, InitBody, JoinBody, JoinedRow, MirrorRow, PeerRow, StreamRow, TokenBody, TokenRow,
};
pub use config::{ConfigRow, ConfiguredBackend, ConfiguredService, NodeRow, TimeoutsRow};
pub use event::{EventRow, HealthEventRow};
pub use explanation::{ExplainBody, Explanation, Step, StepKind, Verdict};
pub use flow::{FlowPage, FlowRow};
pub use seal::SealedRow;
pub use service::ServiceRow;
pub use session::{PinBody, SessionPage, SessionRow};
pub use status::{
    EventsRow, HopCounts, InterfaceRow, OutcomeRow, ReconcilerRow, ReloadState, StatusRow, TableRow,
};
pub use traffic::Traffic;
