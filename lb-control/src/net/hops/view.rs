//! A picture of the kernel's links and neighbours.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_common::abi::Mac;

/// A neighbour: an address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct NextHop {
    /// Interface index.
    pub(super) interface: u32,
    /// Gateway, or the target itself where it is on the link.
    pub(super) address: IpAddr,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    /// `None` on links without Ethernet addresses.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// Administratively up, with carrier.
    pub(super) up: bool,
    pub(super) kind: LinkKind,
}

/// What kind of link it is, as far as frames differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkKind {
    /// Frames leave as they are.
    Plain,
    /// Frames leave through `below` with an 802.1Q tag.
    Vlan { below: u32, id: u16 },
    /// A VLAN device of another tag protocol (802.1ad).
    OtherVlan,
}

/// What the kernel says of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Neighbour {
    /// Not asked for, or forgotten.
    Absent,
    /// Being resolved, no address known.
    Resolving,
    /// Confirmed lately, or being probed with the known address.
    Fresh(Mac),
    /// Known, but not confirmed for a while.
    Stale(Mac),
    /// Set by hand or by a routing daemon; never to be asked for.
    Fixed(Mac),
    /// Does not answer.
    Failed,
}

impl Neighbour {
    /// The address frames may be sent to.
    pub(super) fn mac(self) -> Option<Mac> {
        match self {
            Self::Fresh(mac) | Self::Stale(mac) | Self::Fixed(mac) => Some(mac),
            Self::Absent | Self::Resolving | Self::Failed => None,
        }
    }
}

/// Links and neighbours as last reported.
#[derive(Default, Debug)]
pub(super) struct View {
    links: HashMap<u32, Link>,
    neighbours: HashMap<NextHop, Neighbour>,
}

impl View {
    /// The picture from full dumps.
    pub(super) fn new(
        links: impl IntoIterator<Item = (u32, Link)>,
        neighbours: impl IntoIterator<Item = (NextHop, Neighbour)>,
    ) -> Self {
        Self { links: links.into_iter().collect(), neighbours: neighbours.into_iter().collect() }
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    pub(super) fn neighbour(&self, hop: NextHop) -> Neighbour {
        self.neighbours.get(&hop).copied().unwrap_or(Neighbour::Absent)
    }

    /// Takes a link as it is now (`None` = removed); says whether that is news.
    pub(super) fn link_is(&mut self, index: u32, link: Option<Link>) -> bool {
        match link {
            Some(link) => {
                let news = self.links.get(&index) != Some(&link);
                self.links.insert(index, link);
                news
            }
            None => {
                self.neighbours.retain(|hop, _| hop.interface != index);
                self.links.remove(&index).is_some()
            }
        }
    }

    /// Takes a neighbour as it is now; says whether that is news.
    pub(super) fn neighbour_is(&mut self, hop: NextHop, neighbour: Neighbour) -> bool {
        let before = match neighbour {
            Neighbour::Absent => self.neighbours.remove(&hop),
            Neighbour::Resolving
            | Neighbour::Fresh(_)
            | Neighbour::Stale(_)
            | Neighbour::Fixed(_)
            | Neighbour::Failed => self.neighbours.insert(hop, neighbour),
        };
        before.unwrap_or(Neighbour::Absent) != neighbour
    }
}
