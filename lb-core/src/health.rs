//! Whether backends live, from what probes and packets say.
//!
//! A [`Monitor`] follows one backend: it says when to probe, is told what came of it, and tells when its
//! [`State`] changes. [`judge`] looks at the monitors of a pool together: too few healthy ones, and all are
//! used; too many thrown out because of traffic alone, and the rest stays.
//!
//! Time is a [`Duration`](core::time::Duration) since any moment that the caller likes, as long as it is always the same.

mod failure;
mod judgement;
mod monitor;
mod policy;
mod spec;
mod state;

pub use failure::Failure;
pub use judgement::{Judgement, Standing, judge};
pub use monitor::{Change, Monitor};
pub use policy::{Policy, Thresholds};
pub use spec::{Body, Check, Failback, HealthSpec, HttpCheck, HttpVersion, TlsSpec, Way};
pub use state::{Signal, State, Voice};
