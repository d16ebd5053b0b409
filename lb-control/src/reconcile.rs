//! Makes the data plane do what is desired, and is the only writer of its tables.
//!
//! One actor owns the [`DataPlane`](crate::dataplane::DataPlane). Everybody else holds a [`Handle`] and sends
//! requests: a new desired state, an administrator's override, a next hop. The actor computes the plan that
//! the tables should hold, writes only the difference, and takes it back when it fails half way; where even
//! that fails, it drives the tables to the plan again and again until they hold it.

mod actor;
mod error;
mod handle;
mod health;
mod image;
pub(crate) mod mirror;
mod node;
mod overrides;
mod query;
mod ramp;
mod rebind;
mod recovery;
pub(crate) mod replication;
mod ring;
mod session;
mod step;
mod sweep;
mod transaction;
mod view;
mod vitals;

pub use actor::{StartError, spawn};
pub use error::{ApplyError, ChangeError, Gone, QueryError};
pub use handle::{Handle, HopChange, ResolvedHop};
pub use health::{Health, HealthChange, OtherViews};
pub use overrides::{Override, Overrides};
pub use ring::{PeerNode, PeerRing};
pub use session::{FlowFilter, FlowRow, SessionFilter, SessionRow};
pub use view::{ApplyReport, BackendView, ExplainInputs, HopState, OutcomeRow, ServiceView, TableRow, View};
pub use vitals::VitalsRow;
