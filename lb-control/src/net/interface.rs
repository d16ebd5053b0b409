//! What an interface is, and what it needs before an XDP program can be attached.

mod ethtool;
mod redirect;

use std::fmt;
use std::io;

use futures_util::{StreamExt as _, pin_mut};
use lb_common::abi::Mac;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};

use ethtool::Ethtool;
pub use redirect::takes_redirects;

/// Largest MTU that native XDP takes when a frame has to lie in one 4 KiB page: what is left after the
/// headroom, the kernel's trailer and the Ethernet header with tags. Some drivers take less and say so.
pub const MTU_WITHOUT_FRAGS: u32 = 3498;

/// Receive offloads that hide from XDP what was on the wire, by the kernel's names for them.
///
/// The first two merge segments (the balancer would forward packets larger than the link takes), the
/// others move VLAN tags out of the frame.
const HIDING: [&str; 4] = ["rx-lro", "rx-gro-hw", "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// In the network stack the program runs behind the stack's own merging of segments, too.
const HIDING_FROM_SKB: [&str; 5] =
    ["rx-lro", "rx-gro-hw", "rx-gro", "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// Where an XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, on any interface, slower.
    Skb,
    /// In the card.
    Offloaded,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Offloaded => "offloaded",
        })
    }
}

/// An XDP program that is attached to an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Where it runs.
    pub mode: Mode,
    /// Its id; `bpftool prog show id N` tells more.
    pub id: u32,
    /// Its name; `None` when the kernel does not tell (that takes CAP_SYS_ADMIN).
    pub name: Option<String>,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "`{name}` (id {}, {} mode)", self.id, self.mode),
            None => write!(f, "id {} ({} mode)", self.id, self.mode),
        }
    }
}

/// Hardware queues in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    /// Receive queues: as many CPUs can work on packets at once.
    pub receive: u32,
    /// Transmit queues.
    pub transmit: u32,
}

/// The facts about an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// MAC; `None` when it does not carry Ethernet frames.
    pub mac: Option<Mac>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Kind of a virtual device (`veth`, `vlan`, `bond`); `None` for hardware.
    pub kind: Option<String>,
    /// Driver, where the device names one.
    pub driver: Option<String>,
    /// Queues.
    pub queues: Queues,
    /// XDP programs that are there already.
    pub xdp: Vec<Attached>,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface.
    #[error("interface {name} does not exist in this network namespace; there are: {present}")]
    Missing {
        /// The name looked for.
        name: String,
        /// The names found, separated by commas.
        present: String,
    },
    /// Netlink failed.
    #[error("cannot list interfaces while looking for {name}")]
    Netlink {
        /// The name looked for.
        name: String,
        /// What the kernel or the library said.
        #[source]
        source: NetlinkError,
    },
    /// Wrong kind of link.
    #[error("interface {name} does not carry Ethernet frames; choose an Ethernet interface")]
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// MTU too large.
    #[error(
        "interface {name} has MTU {mtu}, and an XDP program without fragment support takes at most {most} in \
         native mode; lower it (`ip link set {name} mtu {most}`) or attach in skb mode"
    )]
    Mtu {
        /// Its name.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// The largest that works.
        most: u32,
    },
    /// An offload stays on.
    #[error(
        "interface {name}: receive offload {offload} hides packets as they were on the wire and cannot be \
         switched off (tried as `ethtool -K {name} {offload} off`); choose another interface or driver setting"
    )]
    Offload {
        /// Its name.
        name: String,
        /// The offload, by the kernel's name.
        offload: String,
        /// What the kernel said, when it said something.
        #[source]
        source: Option<io::Error>,
    },
    /// An ethtool request failed.
    #[error("interface {name}: cannot read its {what} (ethtool ioctl); CAP_NET_ADMIN is needed")]
    Ethtool {
        /// Its name.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A netlink request went wrong.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused, or the answer made no sense.
    #[error(transparent)]
    Request(#[from] rtnetlink::Error),
}

impl Interface {
    /// Looks an interface up in the calling thread's network namespace.
    pub async fn find(name: &str) -> Result<Self, InterfaceError> {
        let netlink = |source| InterfaceError::Netlink { name: name.to_owned(), source };
        let links = links().await.map_err(netlink)?;
        let mut present = Vec::new();
        for link in &links {
            let found = link_name(link).unwrap_or_default();
            if found == name {
                return Self::from_link(name, link);
            }
            present.push(found);
        }
        Err(InterfaceError::Missing { name: name.to_owned(), present: present.join(", ") })
    }

    /// Checks that a program can be attached in `mode`; `frags` = it supports frames in several pages.
    pub fn check(&self, mode: Mode, frags: bool) -> Result<(), InterfaceError> {
        if self.mac.is_none() {
            return Err(InterfaceError::NotEthernet { name: self.name.clone() });
        }
        match mode {
            Mode::Native if !frags && self.mtu > MTU_WITHOUT_FRAGS => {
                let (name, mtu, most) = (self.name.clone(), self.mtu, MTU_WITHOUT_FRAGS);
                Err(InterfaceError::Mtu { name, mtu, most })
            }
            Mode::Native | Mode::Skb | Mode::Offloaded => Ok(()),
        }
    }

    /// Makes the interface ready for a program: [`Self::check`], then switches off receive offloads that
    /// hide packets. Returns the names of those that were on.
    pub fn prepare(&self, mode: Mode, frags: bool) -> Result<Vec<String>, InterfaceError> {
        self.check(mode, frags)?;
        let what = |what| move |source| InterfaceError::Ethtool { name: self.name.clone(), what, source };
        let ethtool = Ethtool::open(&self.name).map_err(what("settings"))?;
        let hiding: &[&str] = match mode {
            Mode::Skb => &HIDING_FROM_SKB,
            Mode::Native | Mode::Offloaded => &HIDING,
        };
        let on = ethtool.active(hiding).map_err(what("offloads"))?;
        let mut changed = Vec::new();
        for offload in on {
            let refused = |source| InterfaceError::Offload {
                name: self.name.clone(),
                offload: offload.name.to_owned(),
                source,
            };
            ethtool.switch_off(&offload).map_err(|error| refused(Some(error)))?;
            if !ethtool.active(&[offload.name]).map_err(what("offloads"))?.is_empty() {
                return Err(refused(None));
            }
            changed.push(offload.name.to_owned());
        }
        Ok(changed)
    }

    fn from_link(name: &str, link: &LinkMessage) -> Result<Self, InterfaceError> {
        let ethtool = Ethtool::open(name).map_err(|source| InterfaceError::Ethtool {
            name: name.to_owned(),
            what: "settings",
            source,
        })?;
        let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        let mut found = Self {
            name: name.to_owned(),
            index: link.header.index,
            mac: None,
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            kind: None,
            // Neither is known to every driver.
            driver: ethtool.driver().ok(),
            queues: Queues { receive: 1, transmit: 1 },
            xdp: Vec::new(),
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if ethernet => {
                    found.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
                }
                LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
                LinkAttribute::NumRxQueues(count) => found.queues.receive = *count,
                LinkAttribute::NumTxQueues(count) => found.queues.transmit = *count,
                LinkAttribute::LinkInfo(infos) => {
                    found.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                LinkAttribute::Xdp(attributes) => found.xdp = attached(attributes),
                _ => {}
            }
        }
        if let Ok(queues) = ethtool.queues() {
            found.queues = queues;
        }
        Ok(found)
    }
}

/// Name of the interface with that index, in the network namespace of this thread.
pub fn name_of(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    if unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: the function ended it with a zero.
    Some(unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

async fn links() -> Result<Vec<LinkMessage>, NetlinkError> {
    let (connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
    let task = tokio::spawn(connection);
    let answers = handle.link().get().execute();
    pin_mut!(answers);
    let mut links = Vec::new();
    let mut result = Ok(());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(link) => links.push(link),
            Err(error) => result = Err(error.into()),
        }
    }
    task.abort();
    result.map(|()| links)
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The programs of an `IFLA_XDP` attribute.
fn attached(attributes: &[LinkXdp]) -> Vec<Attached> {
    // With one program only the plain id is given, with several one id for each mode.
    let only = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(Mode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Skb),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(Mode::Offloaded),
        _ => None,
    });
    let mut found: Vec<Attached> = Vec::new();
    for attribute in attributes {
        let (mode, id) = match (attribute, only) {
            (LinkXdp::ProgId(id), Some(mode)) => (mode, *id),
            (LinkXdp::DrvProgId(id), _) => (Mode::Native, *id),
            (LinkXdp::SkbProgId(id), _) => (Mode::Skb, *id),
            (LinkXdp::HwProgId(id), _) => (Mode::Offloaded, *id),
            _ => continue,
        };
        if id != 0 && !found.iter().any(|known| known.id == id && known.mode == mode) {
            found.push(Attached { mode, id, name: program_name(id) });
        }
    }
    found
}

fn program_name(id: u32) -> Option<String> {
    let program =
        aya::programs::loaded_programs().map_while(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(mtu: u32) -> Interface {
        Interface {
            name: "eth9".into(),
            index: 9,
            mac: Some(Mac([2; 6])),
            mtu,
            up: true,
            kind: None,
            driver: Some("ixgbe".into()),
            queues: Queues { receive: 4, transmit: 4 },
            xdp: Vec::new(),
        }
    }

    #[test]
    fn large_mtu_needs_fragments_or_skb_mode() {
        assert!(interface(MTU_WITHOUT_FRAGS).check(Mode::Native, false).is_ok());
        assert!(interface(9000).check(Mode::Native, true).is_ok());
        assert!(interface(9000).check(Mode::Skb, false).is_ok());
        let text = interface(9000).check(Mode::Native, false).unwrap_err().to_string();
        assert!(text.contains("eth9") && text.contains("ip link set eth9 mtu 3498"), "{text}");
    }

    #[test]
    fn links_without_ethernet_are_refused() {
        let tunnel = Interface { mac: None, ..interface(1500) };
        assert!(matches!(tunnel.check(Mode::Skb, false), Err(InterfaceError::NotEthernet { .. })));
    }

    #[test]
    fn programs_of_one_and_of_several_modes() {
        let modes = |attributes: &[LinkXdp]| -> Vec<(Mode, u32)> {
            attached(attributes).iter().map(|program| (program.mode, program.id)).collect()
        };
        assert_eq!(modes(&[LinkXdp::Attached(XdpAttached::None)]), []);
        // Ids that no program has.
        let (one, two) = (u32::MAX - 1, u32::MAX - 2);
        let single = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(one), LinkXdp::DrvProgId(one)];
        assert_eq!(modes(&single), [(Mode::Native, one)]);
        let several =
            [LinkXdp::Attached(XdpAttached::Multiple), LinkXdp::DrvProgId(one), LinkXdp::SkbProgId(two)];
        assert_eq!(modes(&several), [(Mode::Native, one), (Mode::Skb, two)]);
    }
}
