//! What the fuzz targets check; tests replay their corpus through the same functions.

pub mod affinity;
pub mod quic;
pub mod replication;
pub mod segments;
pub mod syncookie;
pub mod translation;
