//! How a replica begins: with what its journal holds, or with nothing when that cannot be read.

use super::record;
use super::{ReplicaError, wall};
use crate::cluster::identity::random;
use crate::cluster::journal::{Journal, Opening, Recovered};
use lb_core::binding::Time;
use lb_core::sync::{Config, Node, Recovery};
use std::path::Path;
use tokio::time::Instant;

/// A node, and the journal that it goes on with.
pub(super) struct Beginning {
    pub(super) journal: Journal,
    pub(super) opening: Opening,
    pub(super) node: Node,
    /// The node's moment 0.
    pub(super) start: Instant,
    /// Number of the latest checkpoint.
    pub(super) checkpoint: u64,
}

impl Beginning {
    /// From a journal as it was opened. Blocks.
    pub(super) fn of(
        (journal, recovered, opening): (Journal, Recovered, Opening),
        path: &Path,
        config: &Config,
    ) -> Result<Self, ReplicaError> {
        let start = Instant::now();
        let seed = u64::from_be_bytes(random()?);
        let new = || Recovery::new(config.clone(), Time(0), wall(), seed);
        let mut recovery = new();
        match record::feed(&mut recovery, &recovered) {
            Ok(()) => {
                let checkpoint = recovered.snapshot.map_or(0, |snapshot| snapshot.number);
                Ok(Self { journal, opening, node: recovery.finish(), start, checkpoint })
            }
            Err(unreadable) => {
                let (journal, opening) =
                    journal.set_aside(path, config.id.0, wall(), unreadable.to_string())?;
                Ok(Self { journal, opening, node: new().finish(), start, checkpoint: 0 })
            }
        }
    }
}
