//! A flow as another node needs it: names instead of places, nothing of the way to its client.

use crate::pool::Protocol;
use core::net::IpAddr;
use core::time::Duration;
use lb_common::abi::{Addr, Be16, Flow, FlowKey, FlowState, FlowWord, Mac, VlanTags};

/// The only protocol whose flows are mirrored: datagrams begin a flow wherever they come.
const TCP: u8 = Protocol::Tcp.number();
/// Flags that go along.
const FLAGS: [u64; 4] = [FlowWord::FIN_CLIENT, FlowWord::FIN_SERVER, FlowWord::BOUND, FlowWord::SPLICED];

/// A TCP connection that is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What its owner knows it by.
    pub id: u64,
    /// Service id.
    pub service: u32,
    /// Server number of its backend.
    pub server: u64,
    /// Session key.
    pub session: u64,
    /// Whether a FIN was seen.
    pub is_closing: bool,
    /// One bit each, from the lowest: FIN of the client, FIN of the backend, session bound, spliced.
    pub flags: u8,
    /// Whether it is certainly its node's own, and would not have come to another one that was away.
    pub is_own: bool,
    /// Whether the frames of its client have VLAN tags, as those to it must have.
    pub has_tags: bool,
    /// Time since its last packet.
    pub idle: Duration,
    /// The client.
    pub client: (IpAddr, u16),
    /// What the client talks to.
    pub service_address: (IpAddr, u16),
    /// The backend.
    pub backend: (IpAddr, u16),
    /// What the backend talks to: the client, or the source address that it was translated to.
    pub source: (IpAddr, u16),
    /// How numbers are translated; `None` = they are not.
    pub splice: Option<Splice>,
}

/// How sequence numbers and windows of a spliced connection are translated: fields of [`Flow`] with the same names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splice {
    /// [`Flow::answer`].
    pub answer: u32,
    /// [`Flow::isn`].
    pub isn: u32,
    /// [`Flow::start`].
    pub start: u32,
    /// [`Flow::client_scale`].
    pub client_scale: u8,
    /// [`Flow::server_scale`].
    pub server_scale: u8,
    /// [`Flow::splice`].
    pub readers: u16,
}

/// Where a flow's parts are on the node that takes it over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// Slot of the service.
    pub service_slot: u16,
    /// Slot of the backend.
    pub backend: u16,
    /// Its generation.
    pub generation: u16,
    /// Interface of the client's packets.
    pub ifindex: u32,
    /// The client's next hop.
    pub client_mac: Mac,
    /// The node's own MAC there.
    pub local_mac: Mac,
    /// Largest packet on that way; 0 = not known.
    pub mtu: u16,
    /// Tags of the packets.
    pub tags: VlanTags,
    /// Whether it counts as one of its backend's connections here.
    pub is_counted: bool,
}

impl Record {
    /// What is to be told of a flow whose backend has this server number; `None` = such flows are not mirrored.
    pub fn of(flow: &Flow, server: u64, now_ns: u64) -> Option<Self> {
        let word = FlowWord(flow.word);
        let is_closing = match word.state() {
            FlowState::Established => false,
            FlowState::Closing => true,
            // Not proved yet, over, or waiting in a hold that nobody else has.
            FlowState::Free
            | FlowState::Opening
            | FlowState::Answered
            | FlowState::Closed
            | FlowState::Claimed
            | FlowState::Collecting
            | FlowState::Connecting
            | FlowState::Releasing => return None,
        };
        if word.has(FlowWord::DATAGRAM) || flow.client.protocol != TCP {
            return None;
        }
        let flags = FLAGS.iter().enumerate().filter(|(_, flag)| word.has(**flag));
        let splice = Splice {
            answer: flow.answer,
            isn: flow.isn,
            start: flow.start,
            client_scale: flow.client_scale,
            server_scale: flow.server_scale,
            readers: flow.splice,
        };
        let (client, reply) = (&flow.client, &flow.server);
        Some(Self {
            id: id(word.nonce(), client),
            service: flow.service,
            server,
            session: flow.session,
            is_closing,
            flags: flags.fold(0, |bits, (place, _)| bits | 1 << place),
            is_own: false,
            has_tags: flow.tags.count() > 0,
            idle: Duration::from_nanos(now_ns.saturating_sub(flow.last_seen)),
            client: (client.source.into(), client.source_port.host()),
            service_address: (client.destination.into(), client.destination_port.host()),
            backend: (reply.source.into(), reply.source_port.host()),
            source: (reply.destination.into(), reply.destination_port.host()),
            splice: word.has(FlowWord::SPLICED).then_some(splice),
        })
    }

    /// The flow at another place; its `last_seen` is the time since its last packet.
    pub fn flow(&self, place: &Place) -> Flow {
        let state = if self.is_closing { FlowState::Closing } else { FlowState::Established };
        let flags = FLAGS.iter().enumerate().filter(|(bit, _)| self.flags >> bit & 1 != 0);
        let word = flags.fold(FlowWord::new(0, state), |word, (_, flag)| word.with(*flag));
        let word = if place.is_counted { word.with(FlowWord::COUNTED) } else { word };
        let key = |from: (IpAddr, u16), to: (IpAddr, u16)| {
            let (source, destination) = (Addr::from(from.0), Addr::from(to.0));
            FlowKey::new(&source, &destination, Be16::new(from.1), Be16::new(to.1), TCP)
        };
        let flow = Flow {
            word: word.0,
            last_seen: u64::try_from(self.idle.as_nanos()).unwrap_or(u64::MAX),
            client: key(self.client, self.service_address),
            server: key(self.backend, self.source),
            session: self.session,
            service: self.service,
            service_slot: place.service_slot,
            backend: place.backend,
            backend_generation: place.generation,
            client_mac: place.client_mac,
            local_mac: place.local_mac,
            client_mtu: place.mtu,
            ifindex: place.ifindex,
            tags: place.tags,
            ..Flow::default()
        };
        match self.splice {
            None => flow,
            Some(splice) => Flow {
                answer: splice.answer,
                isn: splice.isn,
                start: splice.start,
                client_scale: splice.client_scale,
                server_scale: splice.server_scale,
                splice: splice.readers,
                ..flow
            },
        }
    }

    /// Whether the backend sees another address than the client's.
    pub fn has_source_nat(&self) -> bool {
        self.source.0 != self.client.0
    }

    /// What changes in the life of a flow and has to be told at once.
    pub(super) const fn phase(&self) -> u8 {
        self.flags << 1 | self.is_closing as u8
    }
}

/// A name for a flow that its owner does not give to another one while anybody remembers it: its nonce, which comes again after
/// four thousand million flows, and a mixture of its client's address and port.
fn id(nonce: u32, client: &FlowKey) -> u64 {
    let [a, b, c, d] = client.source.0;
    let mixed = (a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d).wrapping_mul(0x9e37_79b1);
    u64::from(nonce) << 32 | u64::from(mixed ^ u32::from(client.source_port.host()))
}
