//! Questions to the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, pin_mut};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourHeader, NeighbourMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::task::JoinHandle;

use super::message;
use super::resolve::{NoWay, Path, Route};
use super::view::{NextHop, View};

/// The kernel answers in microseconds; a lost answer must not hold up the follower.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("the netlink connection was lost")]
    Lost,
    #[error("the kernel did not answer a netlink request within {PATIENCE:?}")]
    Silent,
    /// An errno.
    #[error("the kernel refused: {0}")]
    Refused(io::Error),
}

/// A connection for requests, apart from the one for events, so that a flood of events loses no answer.
#[derive(Debug)]
pub(super) struct Kernel {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kernel {
    /// Connects.
    pub(super) fn connect() -> Result<Self, Error> {
        let (connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(Error::Open)?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// All links and neighbours.
    pub(super) async fn view(&self) -> Result<View, Error> {
        let mut links = Vec::new();
        let dump = RouteNetlinkMessage::GetLink(LinkMessage::default());
        for answer in self.ask(dump, NLM_F_DUMP).await? {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                links.extend(message::link(&message));
            }
        }
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = NeighbourMessage::default();
            question.header.family = family;
            for answer in self.ask(RouteNetlinkMessage::GetNeighbour(question), NLM_F_DUMP).await? {
                if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                    neighbours.extend(message::neighbour(&message));
                }
            }
        }
        Ok(View::new(links, neighbours))
    }

    /// The route to `target`.
    pub(super) async fn route(&self, target: IpAddr) -> Result<Route, Error> {
        let single = match self.path(target, None).await? {
            Ok(path) => path,
            Err(reason) => return Ok(Route::Nowhere(reason)),
        };
        // The plain answer is one path that the kernel picked; the matching entry shows whether there are more.
        let mut paths = match self.query(target, None, RouteFlags::FibMatch).await? {
            Ok(entry) => message::multipath(&entry),
            Err(_) => Vec::new(),
        };
        if paths.len() < 2 {
            return Ok(Route::Paths(vec![single]));
        }
        let mut details: BTreeMap<u32, Path> = BTreeMap::new();
        for path in &mut paths {
            if !details.contains_key(&path.interface)
                && let Ok(found) = self.path(target, Some(path.interface)).await?
            {
                details.insert(path.interface, found);
            }
            if let Some(found) = details.get(&path.interface) {
                (path.source, path.mtu) = (found.source, found.mtu);
            }
        }
        Ok(Route::Paths(paths))
    }

    /// Asks for resolution of a neighbour and marks it as one to keep fresh (Linux 5.16; before that the
    /// mark is not understood and only the request counts).
    pub(super) async fn resolve(&self, hop: NextHop) -> Result<(), Error> {
        self.neighbour(hop, NeighbourExtFlags::Managed, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Takes the mark away again, where the neighbour is still there.
    pub(super) async fn release(&self, hop: NextHop) -> Result<(), Error> {
        match self.neighbour(hop, NeighbourExtFlags::empty(), NLM_F_REPLACE).await {
            Err(Error::Refused(error))
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn neighbour(&self, hop: NextHop, mark: NeighbourExtFlags, flags: u16) -> Result<(), Error> {
        let mut request = NeighbourMessage::default();
        request.header = NeighbourHeader {
            family: family(hop.address),
            ifindex: hop.interface,
            flags: NeighbourFlags::Use,
            ..NeighbourHeader::default()
        };
        request.attributes =
            vec![NeighbourAttribute::Destination(hop.address.into()), NeighbourAttribute::ExtFlags(mark)];
        self.ask(RouteNetlinkMessage::NewNeighbour(request), NLM_F_ACK | flags).await.map(drop)
    }

    async fn path(&self, target: IpAddr, interface: Option<u32>) -> Result<Result<Path, NoWay>, Error> {
        let answer = self.query(target, interface, RouteFlags::empty()).await?;
        Ok(answer.and_then(|message| message::path(&message)))
    }

    async fn query(
        &self,
        target: IpAddr,
        interface: Option<u32>,
        flags: RouteFlags,
    ) -> Result<Result<RouteMessage, NoWay>, Error> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(target);
        question.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
        question.header.flags = flags;
        question.attributes.push(RouteAttribute::Destination(RouteAddress::from(target)));
        question.attributes.extend(interface.map(RouteAttribute::Oif));
        let answers = match self.ask(RouteNetlinkMessage::GetRoute(question), 0).await {
            Ok(answers) => answers,
            Err(Error::Refused(error)) => return Ok(Err(reason(&error))),
            Err(error @ (Error::Open(_) | Error::Lost | Error::Silent)) => return Err(error),
        };
        let route = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(route.ok_or_else(|| NoWay::Query("the answer holds no route".to_owned())))
    }

    async fn ask(
        &self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut request = NetlinkMessage::from(question);
        request.header.flags = NLM_F_REQUEST | flags;
        let answers = self.handle.clone().request(request).map_err(|_| Error::Lost)?;
        match tokio::time::timeout(PATIENCE, collect(answers)).await {
            Ok(_) if self.task.is_finished() => Err(Error::Lost),
            Ok(answers) => answers,
            Err(_) => Err(Error::Silent),
        }
    }
}

async fn collect(
    answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<Vec<RouteNetlinkMessage>, Error> {
    pin_mut!(answers);
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => found.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(Error::Refused(error.to_io()));
            }
            NetlinkPayload::Overrun(_) => return Err(Error::Lost),
            _ => {}
        }
    }
    Ok(found)
}

/// What an errno in answer to a route query means (`fib_props` and its IPv6 counterpart in Linux).
fn reason(error: &io::Error) -> NoWay {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH) => NoWay::NoRoute,
        Some(libc::EHOSTUNREACH) => NoWay::Refused("unreachable"),
        Some(libc::EACCES) => NoWay::Refused("prohibit"),
        Some(libc::EINVAL) => NoWay::Refused("blackhole"),
        _ => NoWay::Query(error.to_string()),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
