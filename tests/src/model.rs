//! Clients, backends and a bad network around the data plane on the host, in virtual time.
//!
//! The endpoints are a small TCP of their own: retransmission by timer, cumulative and selective acknowledgement,
//! windows, Nagle. Everything is drawn from one seed, so that what failed can be played again.

mod chance;
mod endpoint;
mod network;
mod plan;
mod segment;
mod world;

pub use chance::Chance;
pub use plan::Weather;
pub use world::{Report, play};
