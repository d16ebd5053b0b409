//! The control plane.

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod dataplane;
#[cfg(test)]
mod loopback;
pub mod net;
pub mod probe;
pub mod reconcile;
mod trust;
pub mod webhook;
