//! Datagrams that name their server or session: the rules, and the frames.

use super::Product;
use super::plan::{BACKENDS, PlannedService};
use crate::bench::frame::{Link, udp_with};
use anyhow::{Context, Result};
use lb_common::abi::{Affinity, AffinityRules, Be16, QuicConfig, Server, ServiceKey, map};
use lb_common::affinity::quic::{Encoder, Layout, ServerId};
use std::net::SocketAddr;

/// Where clients send to.
pub(super) const PORT: u16 = 443;
const KEY: [u8; 16] = *b"a key of 16 byte";
/// Bytes of a server id.
const ID: usize = 8;
/// Bytes of the payload's segment, as long a one as is hashed with one block more than fits a key.
const SEGMENT: u16 = 16;
/// Bytes behind the connection id.
const BODY: usize = 64;

/// Nonce lengths of the rotations, and whether there is a key: plain, single-pass, four-pass (three of them to decrypt).
const ROTATIONS: [(u8, bool); 3] = [(8, false), (8, true), (10, true)];

/// Makes the datagram services of those that were planned.
pub(super) fn arrange(planned: &mut PlannedService) {
    planned.service.affinity = match planned.name {
        "quic" | "quic-nat" => Affinity::QuicCid,
        "payload" => Affinity::Payload,
        _ => return,
    } as u8;
    planned.address.set_port(PORT);
    planned.key = ServiceKey::service(planned.address.ip().into(), Be16::new(PORT), 17);
}

impl Product {
    /// Fills in rules, marks and configurations.
    pub(super) fn fill_rules(&mut self) -> Result<()> {
        let mut first = 0;
        for planned in self.plan.services.clone() {
            let service = planned.service;
            let mut rules = AffinityRules { servers: first, ..AffinityRules::default() };
            if service.affinity == Affinity::Payload as u8 {
                rules.length = SEGMENT;
                rules.mask[..SEGMENT.into()].fill(0xff);
            } else if service.affinity == Affinity::QuicCid as u8 {
                let mut servers = Vec::new();
                for (backend, of) in (0_u16..).zip(&self.plan.backends) {
                    if of.service == service.id {
                        let mark = server_id(servers.len())?.mark();
                        servers.push(Server { mark, backend, generation: of.generation, pad: 0 });
                    }
                }
                servers.sort_by_key(|server| server.mark);
                rules.server_count = u32::try_from(servers.len())?;
                for server in servers {
                    self.array::<Server>(map::SERVERS)?.set(first, server, 0)?;
                    first += 1;
                }
                for (rotation, (nonce, keyed)) in (0..).zip(ROTATIONS) {
                    let place = QuicConfig::place(service.slot, rotation).context("a rotation above 6")?;
                    let config = QuicConfig::new(Layout::new(ID as u8, nonce)?, keyed.then_some(&KEY));
                    self.array::<QuicConfig>(map::QUIC)?.set(place, config, 0)?;
                }
            } else {
                continue;
            }
            self.array::<AffinityRules>(map::AFFINITIES)?.set(service.slot.into(), rules, 0)?;
        }
        Ok(())
    }
}

fn server_id(n: usize) -> Result<ServerId> {
    let n = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ServerId::new(&n.to_be_bytes()).context("a server id of eight bytes")
}

/// A client's datagram: a short header in one of the forms, a client's Initial, or a payload with a segment.
pub(super) fn datagram(link: Link, from: SocketAddr, to: SocketAddr, what: &str) -> Result<Vec<u8>> {
    let rotation: u8 = match what {
        "short-plain" => 0,
        "short-single-pass" => 1,
        "short-four-pass" => 2,
        "initial" => {
            let mut payload = vec![0xc0, 0, 0, 0, 1, 8];
            payload.extend([0xe7; 8 + BODY]);
            return Ok(udp_with(link, from, to, &payload));
        }
        _ => return Ok(udp_with(link, from, to, &[0x5a; BODY])),
    };
    let (nonce, keyed) = ROTATIONS[usize::from(rotation)];
    let server = server_id(usize::from(BACKENDS) / 3)?;
    let layout = Layout::new(ID as u8, nonce)?;
    let encoder = Encoder::new(rotation, layout, server, keyed.then_some(&KEY), &[3; 32]);
    let id = encoder.context("an encoder")?.encode()?;
    let payload = [&[0x43], id.as_bytes(), &[0; BODY]].concat();
    Ok(udp_with(link, from, to, &payload))
}
