//! Asks backends how they are, and tells when one dies or comes back.
//!
//! One thread probes everybody: a heap says who is due, a set of tasks holds the probes that are on their way. Services that ask the same
//! of the same address share its probes. What results mean is decided by [`lb_core::health`]; what follows from it, by others.

mod check;
mod clock;
mod command;
mod connection;
mod grpc;
mod http;
mod icmp;
mod path;
mod prober;
mod schedule;
mod tls;
mod udp;

pub(crate) use icmp::ping;

pub use check::{Checker, Unusable};
pub use clock::Clocks;
pub(crate) use http::{Answer, Secured, exchange};
pub use path::{PathError, PathSpec};
pub use prober::{Prober, StartError};
pub use schedule::{Backend, Report, Sighting, Wish};
pub(crate) use tls::config_of as tls_config;
