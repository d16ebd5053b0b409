//! End-to-end tests, their topologies, the fixture corpus, and the benchmarks.

pub mod bench;
pub mod corpus;
pub mod model;
pub mod topology;
