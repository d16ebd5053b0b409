//! The kernel data plane and the reconciler on real maps, programs and interfaces; needs root.

mod attach;
mod bench;
mod migrate;
mod older;
mod reconcile;
mod sandbox;
