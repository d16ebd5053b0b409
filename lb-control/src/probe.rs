//! Asks backends how they are, and tells when one dies or comes back.
//!
//! One thread probes everybody: a heap says who is due, a set of tasks holds the probes that are on their way. Services that ask the same
//! of the same address share its probes. What results mean is decided by [`lb_core::health`]; what follows from it, by others.

mod check;
mod command;
mod connection;
mod grpc;
mod http;
mod icmp;
mod prober;
mod schedule;
mod tls;
mod udp;

pub(crate) use icmp::ask as ping;

pub use check::{Checker, Unusable};
pub use prober::{Prober, StartError};
pub use schedule::{Backend, Report, Sighting, Wish};
