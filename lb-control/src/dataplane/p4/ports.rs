//! The switch's ports, and the ways to clients behind them.

use super::wanted::{mac, number};
use crate::dataplane::{Error, InterfaceError, Result};
use lb_common::abi::{VLAN_KEEP, switch};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::{io, mem};

/// Where a switch is, which ports it has, and who is behind them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwitchSpec {
    /// Where its P4Runtime server listens: `host:port`.
    pub address: String,
    /// Its device id.
    pub device: u64,
    /// Our election id; of several `lbd`s the one with the highest is master.
    pub election: u64,
    /// Ports by the name of the interface that stands for each on this host.
    pub ports: BTreeMap<String, u16>,
    /// Port that what the switch does not forward itself goes to; none = it is dropped.
    pub cpu_port: Option<u16>,
    /// Ways to clients, and to backends of connections that the switch goes on with by itself.
    pub routes: Vec<Route>,
    /// Whether it goes on by itself with connections that XDP nodes behind it tell of.
    pub offload: bool,
}

/// A way to clients: replies go this way that come through the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The clients' addresses.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// The interface.
    pub interface: String,
    /// MAC of the router, or of the client.
    pub mac: [u8; 6],
}

/// The ports, as this host's interfaces stand for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    /// Port that what the switch does not forward itself goes to.
    pub(super) cpu: u16,
    by_name: BTreeMap<String, Port>,
}

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    number: u16,
    /// Index of the interface.
    pub(super) ifindex: u32,
    /// MTU of the interface.
    pub(super) mtu: u32,
    mac: [u8; 6],
}

impl Ports {
    /// Looks at the interfaces.
    pub(super) fn open(spec: &SwitchSpec) -> Result<Self> {
        let by_name = spec.ports.iter().map(|(name, number)| Ok((name.clone(), Port::open(name, *number)?)));
        let cpu = spec.cpu_port.map_or(switch::NO_CPU_PORT as u16, |port| port);
        Ok(Self { cpu, by_name: by_name.collect::<Result<_>>()? })
    }

    /// The port that an interface stands for, by its index.
    pub(super) fn number(&self, ifindex: u32) -> Option<u16> {
        self.by_name.values().find(|port| port.ifindex == ifindex).map(|port| port.number)
    }

    /// The port that an interface stands for.
    pub(super) fn port(&self, interface: &str) -> Result<&Port> {
        self.by_name.get(interface).ok_or_else(|| Error::NoPort { interface: interface.to_owned() })
    }
}

impl Port {
    fn open(name: &str, number: u16) -> Result<Self> {
        let failed = |source| Error::Interface { interface: name.to_owned(), source };
        let c_name = CString::new(name).map_err(|_| failed(InterfaceError::Missing))?;
        // SAFETY: a string that ends with a zero byte, which is only read.
        let ifindex = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if ifindex == 0 {
            return Err(failed(InterfaceError::Missing));
        }
        let query = |error| failed(InterfaceError::Query(error));
        let mtu = ask(name, libc::SIOCGIFMTU).map_err(query)?;
        let address = ask(name, libc::SIOCGIFHWADDR).map_err(query)?;
        // SAFETY: the kernel has filled the part of the union that belongs to the request.
        let (mtu, address) = unsafe { (mtu.ifr_ifru.ifru_mtu, address.ifr_ifru.ifru_hwaddr.sa_data) };
        let mac = std::array::from_fn(|place| address[place].cast_unsigned());
        Ok(Self { number, ifindex, mtu: u32::try_from(mtu).unwrap_or(1_500), mac })
    }
}

/// What the kernel says of an interface of this network namespace, which is not always that of `/sys`.
fn ask(name: &str, request: libc::Ioctl) -> io::Result<libc::ifreq> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // SAFETY: integers and arrays of them, for which zero is a value.
    let mut question: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in question.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *place = byte.cast_signed();
    }
    // SAFETY: the socket is open, and `question` is what these requests take and fill.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut question) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(question) }
}

impl Route {
    /// Its address as the program has it.
    pub(super) fn address(&self) -> u128 {
        number(self.address.into())
    }

    /// Whether it is a way to this address.
    pub(super) fn leads_to(&self, address: IpAddr) -> bool {
        let apart = self.address() ^ number(address.into());
        address.is_ipv4() == self.address.is_ipv4() && apart.leading_zeros() >= u32::from(self.prefix())
    }

    /// Bits of that.
    pub(super) const fn prefix(&self) -> u8 {
        if self.address.is_ipv4() { 96 + self.prefix } else { self.prefix }
    }

    /// What its entry says.
    pub(super) fn values(&self, ports: &Ports) -> Result<[u128; 5]> {
        let port = ports.port(&self.interface)?;
        Ok([
            mac(self.mac),
            mac(port.mac),
            u128::from(VLAN_KEEP),
            u128::from(port.mtu.min(u32::from(u16::MAX))),
            u128::from(port.number),
        ])
    }
}

/// Six bytes as `ip link` prints them.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn route(address: impl Into<IpAddr>, prefix: u8) -> Route {
        Route { address: address.into(), prefix, interface: "p1".into(), mac: [2; 6] }
    }

    #[test]
    fn routes_lead_to_what_begins_like_them() {
        let v4 = |last| IpAddr::from([10, 2, 0, last]);
        assert!(route([10, 2, 0, 0], 24).leads_to(v4(9)) && route([0, 0, 0, 0], 0).leads_to(v4(9)));
        assert!(route([10, 2, 0, 9], 32).leads_to(v4(9)) && !route([10, 2, 0, 9], 32).leads_to(v4(8)));
        let everywhere = route(Ipv6Addr::UNSPECIFIED, 0);
        assert!(everywhere.leads_to(Ipv6Addr::LOCALHOST.into()) && !everywhere.leads_to(v4(9)));
    }
}
