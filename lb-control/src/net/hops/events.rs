//! What the kernel reports by itself.
//!
//! The events are read from a socket of their own and decoded here: one that cannot be decoded must
//! count as lost and not be skipped.

use std::io;
use std::net::IpAddr;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkBuffer, ParseableParametrized as _};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::message;
use super::view::{Link, Neighbour, NextHop};

/// What is followed.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Asked for as receive buffer; the kernel grants at most `net.core.rmem_max`.
const BUFFER: usize = 4 << 20;
/// Larger than any event.
const DATAGRAM: usize = 64 << 10;

/// RTM_NEWNEXTHOP and the two after it, which have no type yet.
const NEXTHOP_MESSAGES: std::ops::RangeInclusive<u16> = 104..=106;

/// One report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A link is as given, or gone.
    Link(u32, Option<Link>),
    /// A neighbour is as given.
    Neighbour(NextHop, Neighbour),
    /// Routes to the addresses of a prefix may have changed.
    Routes(IpAddr, u8),
    /// Any route may have changed: addresses, policy rules, nexthop objects.
    AllRoutes,
    /// Reports were lost; everything has to be read anew.
    Overrun,
}

/// The subscription.
pub(super) struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Events {
    /// Subscribes; what happens from now on will be reported.
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.socket_ref().add_membership(group as u32)?;
        }
        socket.socket_ref().set_rx_buf_sz(BUFFER as libc::c_int)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// The next reports; may be empty. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Event>> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer).await {
            Ok(_) => Ok(decode(&self.buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Event::Overrun]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The events of one datagram.
fn decode(mut datagram: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            events.push(Event::Overrun);
            break;
        };
        let kind = message.message_type();
        if NEXTHOP_MESSAGES.contains(&kind) {
            events.push(Event::AllRoutes);
        } else {
            match RouteNetlinkMessage::parse_with_param(message.payload(), kind) {
                Ok(message) => events.extend(event(&message)),
                Err(error) => {
                    tracing::debug!(kind, %error, "a netlink event could not be decoded");
                    events.push(Event::Overrun);
                }
            }
        }
        // Messages are padded to four bytes.
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    events
}

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            message::link(link).map(|(index, link)| Event::Link(index, Some(link)))
        }
        RouteNetlinkMessage::DelLink(link) => message::link(link).map(|(index, _)| Event::Link(index, None)),
        RouteNetlinkMessage::NewNeighbour(entry) => {
            message::neighbour(entry).map(|(hop, neighbour)| Event::Neighbour(hop, neighbour))
        }
        RouteNetlinkMessage::DelNeighbour(entry) => {
            message::neighbour(entry).map(|(hop, _)| Event::Neighbour(hop, Neighbour::Absent))
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            message::prefix(route).map(|(address, length)| Event::Routes(address, length))
        }
        RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => Some(Event::AllRoutes),
        _ => None,
    }
}
