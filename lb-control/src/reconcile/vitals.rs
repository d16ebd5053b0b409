//! What the data plane notes of backends, for those who judge them by it.

use super::node::Node;
use crate::dataplane;
use lb_common::abi::{Mode, Vitals};

/// What is noted of one backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VitalsRow {
    /// Name of its service, or of a path's pool.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Its slot and the slot's generation: with another one, counting began anew.
    pub place: (u16, u16),
    /// What is noted.
    pub vitals: Vitals,
}

impl Node {
    /// What is noted of the backends that answer through this node and are checked.
    pub(super) fn vitals(&mut self) -> dataplane::Result<Vec<VitalsRow>> {
        let mut rows = Vec::new();
        for (pool, place) in self.applied().iter().flat_map(|a| a.pools.iter().zip(&a.places)) {
            let service = &pool.service;
            if service.health.is_none() || service.mode != Mode::Nat {
                continue;
            }
            rows.extend(service.backends.iter().zip(&place.backends).map(|(backend, place)| VitalsRow {
                service: service.name.clone(),
                backend: backend.name.clone(),
                place: (place.slot, place.generation),
                vitals: Vitals::default(),
            }));
        }
        let slots: Vec<u16> = rows.iter().map(|row| row.place.0).collect();
        let vitals = self.plane.vitals(&slots)?;
        for (row, vitals) in rows.iter_mut().zip(vitals) {
            row.vitals = vitals;
        }
        Ok(rows)
    }
}
