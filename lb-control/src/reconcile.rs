//! Makes the data plane do what is desired, and is the only writer of its tables.
//!
//! One actor owns the [`DataPlane`](crate::dataplane::DataPlane). Everybody else holds a [`Handle`] and sends
//! requests: a new desired state, an administrator's override, a next hop. The actor computes the plan that
//! the tables should hold, writes only the difference, and takes it back when it fails half way; where even
//! that fails, it drives the tables to the plan again and again until they hold it.

mod error;
mod handle;
mod session;
mod view;

pub use error::{ApplyError, ChangeError, Gone, QueryError};
pub use handle::{Handle, HopChange, ResolvedHop};
pub use session::{FlowFilter, FlowRow, SessionFilter, SessionRow};
pub use view::{
    ApplyReport, BackendView, ExplainInputs, HopState, OutcomeRow, Override, Overrides, ServiceView,
    TableRow, View,
};
