//! What services and backends had of traffic since they got their slots.

use super::P4;
use lb_common::abi::{Counters, switch};
use std::collections::HashMap;

/// Ethernet's part of a frame, which the switch counts and XDP does not.
const ETHERNET: u64 = 14;

impl P4 {
    /// Counters of these slots since they got their present owners.
    pub(super) fn traffic(&mut self, of_services: bool, slots: &[u16]) -> Vec<Counters> {
        let names: &[&'static str] = if of_services {
            &[switch::SERVICE_PACKETS, switch::SERVICE_REPLIES, switch::SERVICE_CONNECTIONS, switch::EXPRESS]
        } else {
            &[switch::BACKEND_PACKETS, switch::BACKEND_REPLIES, switch::BACKEND_CONNECTIONS]
        };
        if slots.is_empty() {
            return Vec::new();
        }
        let there = |slot: u16| {
            if of_services {
                self.numbers.service(slot)
            } else {
                self.numbers.backend(slot).map(|tag| tag.slot)
            }
        };
        let places: HashMap<u32, u16> =
            slots.iter().filter_map(|slot| Some((u32::from(there(*slot)?), *slot))).collect();
        for &name in names {
            for (place, packets, bytes) in self.link.counters(name, Some(places.keys().copied().collect())) {
                let Some(&slot) = places.get(&place) else { continue };
                self.last.insert((name, slot), (packets, bytes));
                let base = self.bases.entry((name, slot)).or_default();
                // A switch that was restarted counts from 0 again.
                if self.cleared.contains(&(of_services, slot)) {
                    *base = (packets, bytes);
                } else if packets < base.0 {
                    *base = (0, 0);
                }
            }
        }
        for slot in slots {
            self.cleared.remove(&(of_services, *slot));
        }
        let row = |slot: &u16| {
            let ((packets, bytes), (reply_packets, reply_bytes)) =
                (self.number(names[0], *slot), self.number(names[1], *slot));
            let bindings = if of_services { self.made.get(slot).copied().unwrap_or_default() } else { 0 };
            Counters {
                packets,
                bytes,
                reply_packets,
                reply_bytes,
                bindings,
                connections: self.number(names[2], *slot).0,
            }
        };
        slots.iter().map(row).collect()
    }

    /// Packets and bytes of a slot's owner, as a counter was read last.
    pub(super) fn number(&self, name: &'static str, slot: u16) -> (u64, u64) {
        let now = self.last.get(&(name, slot)).copied().unwrap_or_default();
        let base = self.bases.get(&(name, slot)).copied().unwrap_or_default();
        let packets = now.0.saturating_sub(base.0);
        (packets, now.1.saturating_sub(base.1).saturating_sub(packets * ETHERNET))
    }
}
