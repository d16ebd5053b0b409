//! The admin API: HTTP and JSON over a Unix socket, its client, and the metrics.
//!
//! Handlers only translate: every question and every change goes to the reconciler's
//! [`Handle`](crate::reconcile::Handle), or, where the whole daemon is meant, to its main loop as an [`Order`].

pub mod client;
mod context;
pub mod error;
mod eventlog;
pub mod explain;
mod listener;
pub mod metrics;
mod openapi;
mod route;
pub mod row;
mod seal;
mod sessionkey;

pub use context::{Context, Facts, Order, Orders, Reloads};
pub(crate) use eventlog::now;
pub use eventlog::{EventLog, HealthEvent, Noted};
pub use listener::{ListenError, Listener};
pub use openapi::document as openapi;
pub(crate) use route::{configuration_changes, configuration_refused};
pub use route::{metrics_only, router};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/stickleback/lbd.sock";
