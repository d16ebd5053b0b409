//! End-to-end tests, their topologies, and the benchmarks.

pub mod bench;
pub mod topology;
