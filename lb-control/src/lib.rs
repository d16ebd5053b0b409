//! The control plane.

pub mod admin;
pub mod config;
pub mod dataplane;
pub mod net;
pub mod reconcile;
