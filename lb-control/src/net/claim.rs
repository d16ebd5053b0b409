//! Tells the hosts of a network that addresses are this machine's now: their neighbour entries may say another one's.

use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Hardware type of Ethernet.
const ETHERNET: u16 = 1;
/// Bytes of an ARP packet over Ethernet.
const ARP: usize = 28;
/// Bytes of a neighbour advertisement with our link address.
const ADVERTISEMENT: usize = 32;

/// An Ethernet interface.
struct Link {
    index: i32,
    mac: [u8; 6],
}

/// Says once on an interface whose these addresses are (RFC 5227 section 3, RFC 4861 section 7.2.6); interfaces without
/// link addresses need not be told.
pub fn claim(interface: &str, index: u32, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
    let Some(mac) = mac(interface)? else { return Ok(()) };
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let link = Link { index, mac };
    addresses.iter().try_for_each(|address| match address {
        IpAddr::V4(address) => link.announce(*address),
        IpAddr::V6(address) => link.advertise(*address),
    })
}

impl Link {
    fn announce(&self, address: Ipv4Addr) -> io::Result<()> {
        let protocol = (libc::ETH_P_ARP as u16).to_be();
        let socket = socket(libc::AF_PACKET, i32::from(protocol))?;
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        };
        let packet = announcement(self.mac, address);
        // SAFETY: packet and address live through the call, with the lengths that are told.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn advertise(&self, address: Ipv6Addr) -> io::Result<()> {
        const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let scope = u32::try_from(self.index).map_err(io::Error::other)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_if_v6(scope)?;
        // Others would be dropped as having come through a router.
        socket.set_multicast_hops_v6(255)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, scope);
        socket.send_to(&advertisement(self.mac, address), &to.into()).map(drop)
    }
}

/// An ARP request for the sender's own address.
fn announcement(mac: [u8; 6], address: Ipv4Addr) -> [u8; ARP] {
    let mut packet = [0; ARP];
    // Ethernet, IPv4, their lengths, request.
    packet[..8].copy_from_slice(&[0, ETHERNET as u8, 8, 0, 6, 4, 0, 1]);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&address.octets());
    packet[24..].copy_from_slice(&address.octets());
    packet
}

/// An advertisement that nobody asked for and that overrides what was known; the kernel fills in the checksum.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> [u8; ADVERTISEMENT] {
    const OVERRIDE: u8 = 0x20;
    let mut packet = [0; ADVERTISEMENT];
    (packet[0], packet[4]) = (136, OVERRIDE);
    packet[8..24].copy_from_slice(&address.octets());
    // Target link-layer address, in units of eight bytes.
    packet[24..26].copy_from_slice(&[2, 1]);
    packet[26..].copy_from_slice(&mac);
    packet
}

/// The MAC of an interface of the calling thread's network namespace; `None` = it has none.
fn mac(interface: &str) -> io::Result<Option<[u8; 6]>> {
    let socket = socket(libc::AF_INET, 0)?;
    // SAFETY: zero is a value of all its fields.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface names have at most 15 bytes"));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte.cast_signed();
    }
    // SAFETY: the request lives through the call, and the kernel writes no more than it.
    let hardware = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_hwaddr
    };
    let mut mac = [0; 6];
    for (byte, place) in mac.iter_mut().zip(hardware.sa_data) {
        *byte = place.cast_unsigned();
    }
    Ok((hardware.sa_family == ETHERNET).then_some(mac))
}

fn socket(family: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the descriptor is checked and owned by nobody else.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn packets_say_whose_the_address_is() {
        let arp = announcement(MAC, Ipv4Addr::new(10, 2, 0, 21));
        assert_eq!(arp[..14], [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(arp[14..], [10, 2, 0, 21, 0, 0, 0, 0, 0, 0, 10, 2, 0, 21]);
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let advertised = advertisement(MAC, address);
        assert_eq!(advertised[..8], [136, 0, 0, 0, 0x20, 0, 0, 0]);
        assert_eq!((&advertised[8..24], &advertised[24..26]), (&address.octets()[..], &[2, 1][..]));
        assert_eq!(advertised[26..], MAC);
    }

    #[test]
    fn loopback_has_nobody_to_tell() {
        assert_eq!(mac("lo").expect("is there"), None);
        claim("lo", 1, &BTreeSet::from([Ipv4Addr::LOCALHOST.into()])).expect("nothing to do");
        mac("not-there-0").unwrap_err();
        mac("a-name-that-is-too-long").unwrap_err();
    }
}
