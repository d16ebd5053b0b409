//! What the kernel says of a network interface: index, MTU, kind, and which XDP program is on it.

use super::netlink;
use crate::dataplane::{AttachMode, InterfaceError};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};
use std::io;

/// A network interface as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// A veth loses what `XDP_TX` sends unless the other end runs XDP too.
    pub(super) veth: bool,
    /// Id of the XDP program on it.
    pub(super) program: Option<u32>,
    /// Where in the receive path that is.
    pub(super) attached: Option<AttachMode>,
}

impl Interface {
    /// Asks the kernel, in the network namespace of this thread.
    pub(super) fn query(name: &str) -> Result<Self, InterfaceError> {
        let link = request(name).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => InterfaceError::Missing,
            _ => InterfaceError::Query(error),
        })?;
        let mut found = Self {
            name: name.to_owned(),
            index: link.header.index,
            mtu: 0,
            veth: false,
            program: None,
            attached: None,
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => found.mtu = mtu,
                LinkAttribute::LinkInfo(infos) => {
                    found.veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
                }
                LinkAttribute::Xdp(xdp) => {
                    for part in xdp {
                        match part {
                            LinkXdp::ProgId(id) if id != 0 => found.program = Some(id),
                            LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) | LinkXdp::SkbProgId(id)
                                if id != 0 =>
                            {
                                found.program.get_or_insert(id);
                            }
                            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => {
                                found.attached = Some(AttachMode::Native);
                            }
                            LinkXdp::Attached(XdpAttached::SocketBuffer) => {
                                found.attached = Some(AttachMode::Generic);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Whether there is an interface of that index in this network namespace.
pub(super) fn exists(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    unsafe { !libc::if_indextoname(ifindex, name.as_mut_ptr()).is_null() }
}

fn request(name: &str) -> io::Result<LinkMessage> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match netlink::ask(RouteNetlinkMessage::GetLink(link), 0)? {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("unexpected answer to a link request: {other:?}"))),
    }
}
