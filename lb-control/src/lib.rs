//! The control plane.

pub mod net;
