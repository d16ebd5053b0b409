//! The services, backends and selection tables that the benchmark fills in.

use crate::bench::rig::Rig;
use anyhow::Result;
use lb_common::abi::{Addr, Affinity, Backend, Be16, Hop, Mac, Mode, Service, ServiceKey, VLAN_KEEP};
use lb_core::pool::table::{Selection, Share};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Backends of a pool, as in the figures the product is compared with.
pub(super) const BACKENDS: u16 = 100;
/// Lifetime of a binding: nothing expires during a run.
const LIFETIME: u64 = 3_600_000_000_000;

/// Everything that goes into the maps.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Services.
    pub services: Vec<PlannedService>,
    /// Backends by slot.
    pub backends: Vec<Backend>,
    /// Selection tables and member lists.
    pub arena: Vec<u16>,
}

/// A service and its key.
#[derive(Clone, Debug)]
pub struct PlannedService {
    /// Name in the cases.
    pub name: &'static str,
    /// Where clients connect to.
    pub address: SocketAddr,
    /// Its key.
    pub key: ServiceKey,
    /// Its value.
    pub service: Service,
}

/// What differs between the planned services.
struct Outline {
    name: &'static str,
    vip: IpAddr,
    mode: Mode,
    affinity: Affinity,
    backends_v6: bool,
    backends: u16,
}

impl Plan {
    /// One service for each mode and combination of families.
    pub fn new(rig: &Rig) -> Result<Self> {
        let v4 = |n: u8| IpAddr::from(Ipv4Addr::new(10, 99, 0, n));
        let v6 = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, n));
        let outline = |name, vip, mode, backends_v6| Outline {
            name,
            vip,
            mode,
            affinity: Affinity::SourceIp,
            backends_v6,
            backends: BACKENDS,
        };
        let outlines = [
            outline("ipip", v4(1), Mode::Ipip, false),
            outline("ipip-6in6", v6(1), Mode::Ipip, true),
            outline("ipip-6in4", v6(2), Mode::Ipip, false),
            outline("ipip-4in6", v4(2), Mode::Ipip, true),
            outline("gue", v4(3), Mode::Gue, false),
            outline("gue-v6", v6(3), Mode::Gue, true),
            outline("l2", v4(4), Mode::L2, false),
            outline("l2-v6", v6(4), Mode::L2, true),
            outline("nat", v4(5), Mode::Nat, false),
            outline("nat-v6", v6(5), Mode::Nat, true),
            // Its flows are opened from both sides without asking who was chosen.
            Outline { backends: 1, ..outline("nat-crowd", v4(6), Mode::Nat, false) },
            Outline { affinity: Affinity::None, ..outline("ipip-5-tuple", v4(7), Mode::Ipip, false) },
            outline("quic", v4(8), Mode::Ipip, false),
            outline("quic-nat", v4(9), Mode::Nat, false),
            outline("payload", v4(10), Mode::Ipip, false),
            Outline { backends: 1, ..outline("splice", v4(11), Mode::Nat, false) },
        ];
        let mut plan = Self::default();
        for (slot, outline) in outlines.into_iter().enumerate() {
            plan.add(rig, slot as u16, &outline)?;
        }
        Ok(plan)
    }

    /// A planned service by name.
    pub fn service(&self, name: &str) -> Option<&PlannedService> {
        self.services.iter().find(|planned| planned.name == name)
    }

    fn add(&mut self, rig: &Rig, slot: u16, outline: &Outline) -> Result<()> {
        let id = 0x5b00 + u32::from(slot);
        let first = self.backends.len() as u16;
        let link = rig.link();
        for i in 0..outline.backends {
            let address: Addr = if outline.backends_v6 {
                Ipv6Addr::new(0xfd01, 0, 0, slot, 0, 0, 0, i + 1).into()
            } else {
                Ipv4Addr::new(10, 1, slot as u8, i as u8 + 1).into()
            };
            self.backends.push(Backend {
                address,
                hop: Hop {
                    destination: Mac(link.source),
                    mtu: 1_800,
                    source: Mac(link.destination),
                    pad: 0,
                    ifindex: rig.ifindex(),
                    pad2: 0,
                },
                number: number(i),
                service: id,
                port: Be16::new(if outline.mode == Mode::Nat { 8_080 } else { 0 }),
                generation: 1,
                vlan: VLAN_KEEP,
                weight: 1,
                limit: 0,
            });
        }
        let selection =
            Selection::new((0..outline.backends).map(|i| Share { number: number(i), weight: 1 }))?;
        // The table names members by their place by number; slots were given in that order.
        let table = self.arena.len() as u32;
        self.arena.extend(selection.slots().iter().map(|place| first + place));
        let members = self.arena.len() as u32;
        self.arena.extend((0..outline.backends).map(|place| first + place));
        let address = SocketAddr::from((outline.vip, 80));
        self.services.push(PlannedService {
            name: outline.name,
            address,
            key: ServiceKey::service(outline.vip.into(), Be16::new(80), 6),
            service: Service {
                id,
                slot,
                mode: outline.mode as u8,
                affinity: outline.affinity as u8,
                table,
                table_mask: selection.slots().len() as u32 - 1,
                members,
                member_count: u32::from(outline.backends),
                prefix_v4: 32,
                prefix_v6: 64,
                flags: 0,
                binding_rate: u32::MAX,
                lifetime: LIFETIME,
                ..Service::default()
            },
        });
        self.services.iter_mut().for_each(super::quic::arrange);
        self.services.iter_mut().for_each(super::splice::arrange);
        Ok(())
    }
}

/// Server numbers that rise with the place.
fn number(place: u16) -> u64 {
    (u64::from(place) + 1) * 0x0123_4567_89ab
}
