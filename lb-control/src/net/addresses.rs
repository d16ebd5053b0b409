//! Addresses that this machine has.

use super::interface::NetlinkError;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// An address, and the interface that has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owned {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
}

/// All addresses that mean this machine from everywhere, and that will stay, in the kernel's order.
pub async fn global() -> Result<Vec<Owned>, NetlinkError> {
    let (connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
    let task = tokio::spawn(connection);
    let listed: Result<Vec<AddressMessage>, _> = handle.address().get().execute().try_collect().await;
    task.abort();
    let owned =
        |message: &AddressMessage| Some(Owned { ifindex: message.header.index, address: lasting(message)? });
    Ok(listed?.iter().filter_map(owned).collect())
}

/// The address that this machine has on its way to another one; nothing is sent.
pub fn toward(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Any port: the kernel looks for the way alone.
    socket.connect((target, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn lasting(message: &AddressMessage) -> Option<IpAddr> {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let passing = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
    let header = AddressHeaderFlags::Tentative | AddressHeaderFlags::Deprecated;
    if message.header.scope != AddressScope::Universe
        || message.header.flags.intersects(header)
        || flags.is_some_and(|flags| flags.intersects(passing))
    {
        return None;
    }
    local(message)
}

/// The machine's own address in a message of the kernel; the other end's may stand there, too.
pub(crate) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wants_local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if wants_local => Some(*address),
            AddressAttribute::Address(address) if !wants_local => Some(*address),
            _ => None,
        })
    };
    match message.header.family {
        AddressFamily::Inet => find(true),
        AddressFamily::Inet6 => find(true).or_else(|| find(false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_end_of_a_link_is_told_from_the_other() {
        let message = |family, attributes: &[AddressAttribute]| {
            let mut message = AddressMessage::default();
            message.header.family = family;
            message.attributes = attributes.to_vec();
            local(&message).map(|address| address.to_string())
        };
        let own = |text: &str| AddressAttribute::Local(text.parse().expect("an address"));
        let other = |text: &str| AddressAttribute::Address(text.parse().expect("an address"));
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        assert_eq!(message(v4, &[other("10.0.0.2"), own("10.0.0.1")]).as_deref(), Some("10.0.0.1"));
        assert_eq!(message(v4, &[other("10.0.0.2")]), None, "that is somebody else's");
        assert_eq!(message(v6, &[other("fd00::2"), own("fd00::1")]).as_deref(), Some("fd00::1"));
        // Without another end the kernel names one address only.
        assert_eq!(message(v6, &[other("fd00::1")]).as_deref(), Some("fd00::1"));
        assert_eq!(message(AddressFamily::Bridge, &[own("10.0.0.1")]), None);
    }

    #[tokio::test]
    async fn loopback_is_not_global_and_the_way_to_it_begins_there() {
        let found = global().await.expect("the kernel answers");
        assert!(found.iter().all(|owned| !owned.address.is_loopback() && owned.ifindex != 0), "{found:?}");
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(toward(loopback), Some(loopback));
    }
}
