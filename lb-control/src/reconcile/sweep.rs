//! When to sweep which stretch of which table.

use crate::dataplane::{Capabilities, Sizes};
use lb_common::abi::{SweepReport, SweepRequest, SweepTarget};
use std::time::Duration;

/// Time between two stretches.
pub(super) const STRETCH_EVERY: Duration = Duration::from_millis(50);
/// Stretches in which a whole table is swept: about eight seconds.
const STRETCHES: u32 = 160;
/// Slots of a stretch: enough to be worth a system call, and no more than keep a CPU from its packets for two or three
/// milliseconds; a round of a table above two million entries takes longer than eight seconds for it.
const STRETCH: std::ops::RangeInclusive<u32> = 1_024..=16_384;

/// Walks both tables, over and over.
#[derive(Debug)]
pub(super) struct Sweeper {
    bindings: Round,
    flows: Round,
    has_flows: bool,
    flows_turn: bool,
}

/// One table's sweep.
#[derive(Default, Debug)]
struct Round {
    start: u32,
    live: u64,
    /// Entries that lived in the last whole round.
    last: Option<u64>,
}

impl Sweeper {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        Self {
            bindings: Round::default(),
            flows: Round::default(),
            has_flows: capabilities.flows,
            flows_turn: false,
        }
    }

    /// The next stretch.
    pub(super) fn next(&mut self, sizes: &Sizes) -> SweepRequest {
        self.flows_turn = self.has_flows && !self.flows_turn;
        let (round, length, target) = if self.flows_turn {
            (&mut self.flows, sizes.flow_records(), SweepTarget::Flows)
        } else {
            (&mut self.bindings, sizes.binding_slots(), SweepTarget::Bindings)
        };
        // The tables may have become smaller.
        let start = if round.start < length { round.start } else { 0 };
        let stretch = (length / STRETCHES).clamp(*STRETCH.start(), *STRETCH.end());
        let count = stretch.min(length - start);
        round.start = start;
        SweepRequest { target: target as u32, start, count, pad: 0 }
    }

    /// Takes note of what a stretch held.
    pub(super) fn done(&mut self, request: &SweepRequest, report: &SweepReport, sizes: &Sizes) {
        let is_flows = request.target == SweepTarget::Flows as u32;
        let (round, length) = if is_flows {
            (&mut self.flows, sizes.flow_records())
        } else {
            (&mut self.bindings, sizes.binding_slots())
        };
        round.live += u64::from(report.live);
        round.start = request.start + request.count;
        if round.start >= length {
            *round = Round { start: 0, live: 0, last: Some(round.live) };
        }
    }

    /// Flows that lived in the last whole round.
    pub(super) const fn flows_live(&self) -> Option<u64> {
        self.flows.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_of_both_tables_is_swept_once_a_round() {
        let sizes = Sizes { bindings: 1 << 20, flows: 1 << 18, arena: 256, holds: 64 };
        let capabilities = Capabilities { name: "test", survives: true, bindings: true, flows: true };
        let mut sweeper = Sweeper::new(capabilities);
        let (mut bindings, mut flows) = (0, 0);
        for _ in 0..2 * 161 {
            let request = sweeper.next(&sizes);
            let is_flows = request.target == SweepTarget::Flows as u32;
            let walked = if is_flows { &mut flows } else { &mut bindings };
            if *walked < if is_flows { sizes.flow_records() } else { sizes.binding_slots() } {
                assert_eq!(request.start, *walked, "{request:?}");
                *walked += request.count;
            }
            let report = SweepReport { live: request.count / 2, ..SweepReport::default() };
            sweeper.done(&request, &report, &sizes);
        }
        assert_eq!((bindings, flows), (sizes.binding_slots(), sizes.flow_records()));
        assert!(sweeper.flows_live().is_some_and(|live| live.abs_diff(u64::from(flows) / 2) < 200));
    }

    #[test]
    fn a_table_that_became_smaller_is_started_again() {
        let capabilities = Capabilities { name: "test", survives: true, bindings: true, flows: false };
        let mut sweeper = Sweeper::new(capabilities);
        let large = Sizes { bindings: 1 << 20, flows: 64, arena: 256, holds: 64 };
        for _ in 0..50 {
            let request = sweeper.next(&large);
            sweeper.done(&request, &SweepReport::default(), &large);
        }
        let small = Sizes { bindings: 64, ..large };
        let request = sweeper.next(&small);
        assert_eq!((request.start, request.count), (0, 96));
    }
}
